"""Dockerfiles, by the engine's own builder."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from slipway.compiler.dockerfile import FROM, parse
from slipway.dsl.errors import ImageBuildError
from slipway.executor.ports import DockerfileBuild, Output

from .docker import Absent, Conflict, Connection, Refused
from .docker_bases import said
from .docker_store import Store, labels_of_layer
from .docker_tar import merged, packed

DOCKERFILE = ".slipway.dockerfile"
IGNORED = ".dockerignore"  # the engine takes what this names out of the context, and itself too
TAIL = 40  # lines of the log that a failure shows
_STEP = re.compile(r"Step (\d+/\d+) : (.*)")


async def build_dockerfile(
    connection: Connection, store: Store, build: DockerfileBuild, layer: str, output: Output
) -> str:
    """See `Runtime.build_dockerfile`."""
    there = await store.layer(layer)
    if there is not None:
        return there.output
    onto = await store.top(build.onto) if build.onto is not None else None
    text = f"FROM {onto.id}\n{build.text}" if onto is not None else build.text
    labels = labels_of_layer(store.home, layer, below=onto.id if onto is not None else _stands_on(build.text))
    # The builder's own way to set labels makes a step of each.
    text += "\n\nLABEL " + " ".join(f'{name}="{value}"' for name, value in labels.items()) + "\n"
    files = await asyncio.to_thread(merged, (build.context,))
    files.pop(IGNORED, None)
    texts = ((DOCKERFILE, text), (IGNORED, f"{DOCKERFILE}\n{IGNORED}\n"))
    telling = _Telling(output)

    def begin(client: Any) -> Iterator[dict[str, Any]]:
        found: Iterator[dict[str, Any]] = client.build(
            fileobj=packed(files, texts=texts),
            custom_context=True,
            dockerfile=DOCKERFILE,
            buildargs=dict(build.args),
            network_mode="host",
            nocache=build.fresh,
            rm=True,
            forcerm=True,
            decode=True,
        )
        return found

    try:
        await connection.stream(begin, telling.hear)
    except (Absent, Conflict, Refused) as error:
        telling.error = said(error)
    if telling.error or not telling.image:
        raise telling.failure()
    await store.name(telling.image, store.tag(layer))
    return (await store.get(telling.image)).output


def _stands_on(text: str) -> str:
    """The id of the image that the last stage stands on; "" where that is known by a name.

    >>> _stands_on("FROM sha256:12 AS a\\nRUN x\\nFROM y@sha256:34\\nFROM A"), _stands_on("FROM y@sha256:34")
    ('sha256:12', '')
    """
    below = ""
    stages: dict[str, str] = {}
    for instruction in parse(text).instructions:
        if instruction.name == "FROM" and (found := FROM.fullmatch(instruction.rest)):
            below = stages.get(found[1].lower(), found[1])
            if found[2]:
                stages[found[2].lower()] = below
    return below if below.startswith("sha256:") else ""


class _Telling:
    """Passes on what a builder says, and remembers where it was."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._step = ""
        self._tail: deque[str] = deque(maxlen=TAIL)
        self.error = ""
        self.image = ""

    def hear(self, item: dict[str, Any]) -> None:
        if "stream" in item:
            self._say(str(item["stream"]))
        elif "aux" in item:
            self.image = str((item["aux"] or {}).get("ID") or self.image)
        elif "error" in item:
            self.error = str(item["error"]).strip()
        elif item.get("status") and not item.get("id"):
            self._say(f"{item['status']}\n")

    def _say(self, text: str) -> None:
        match = _STEP.match(text)
        if match is not None:
            self._step = f"step {match[1]} of the Dockerfile, {match[2].strip()}: "
        self._tail.append(text)
        self._output(1, text.encode())

    def failure(self) -> ImageBuildError:
        reason = self.error or "the engine's builder ended without an image"
        return ImageBuildError(f"{self._step}{reason}", log="".join(self._tail))
