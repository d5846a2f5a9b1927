"""What is done once for all containers of a spec: finding the image's Python, and an image with the trees in it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from attrs import frozen

from slipway.dsl.errors import InvalidError
from slipway.executor.config import DockerSettings
from slipway.executor.ports import ContainerSpec, Prepared
from slipway.executor.tasks import Flights

from .docker import LABEL_HOME, LABEL_LAYER, LABEL_NAME, LABEL_TREES, Absent, Connection, Refused
from .docker_bases import said
from .docker_commit import idle, keep, passing
from .docker_content import FOLDER
from .docker_store import FOR_IMAGES, LABEL_BELOW, LABEL_OF, LABEL_OUTPUT, LABEL_PYTHON, TREES, Image, Store, labelled
from .docker_tar import merged, packed

OLDEST = (3, 10)
NAMES = ("python", "python3")
PATIENCE = 60  # seconds that an image's ENTRYPOINT and its Python may take together
MARK = "slipway-python"
ASK = f"import sys; v = sys.version_info; print('{MARK} %d.%d.%d' % (v[0], v[1], v[2]))"
# One start for both names; an image without a shell takes one for each.
ASK_BOTH = ("/bin/sh", "-c", f'for name in {" ".join(NAMES)}; do echo "{MARK}-name $name"; "$name" -c "$0"; done', ASK)
_ANSWER = re.compile(rf"{MARK}-name (\S+)|{MARK} (\d+)\.(\d+)\.(\d+)")
WAY_OUT = (
    'Give it one: add_python="3.12" in Image.from_registry or Image.from_dockerfile; or install one in the image, '
    "and see that python or python3 is on its PATH."
)
UNDIVIDED = "Docker Engine limits whole containers only"
HOME = "root"  # where the user's code lies: to be entered by an image's USER


@frozen(kw_only=True)
class _Said:
    """How a program in a container of an image ended; `started` is false where the engine found no such program."""

    started: bool
    output: str = ""


class Preparing:
    def __init__(
        self, connection: Connection, store: Store, settings: Callable[[ContainerSpec], DockerSettings]
    ) -> None:
        self._connection = connection
        self._store = store
        self._settings = settings
        self._pythons: dict[str, str] = {}
        self._homes: dict[str, bool] = {}
        self._asking: Flights[str, str] = Flights()
        self._making: Flights[str, Image] = Flights()

    async def prepare(self, spec: ContainerSpec) -> Prepared:
        """See `Runtime.prepare`."""
        image = await self._store.top(spec)
        how = _how(image, spec, self._settings(spec).user)
        python = self._pythons.get(how) or await self._remembered(spec, image, how)
        if not python:
            python = await self._asking.join(how, lambda: self._ask(image, spec))
        self._pythons[how] = python
        if spec.trees:
            await self.with_trees(spec, image, f"{python} {how}")
        return Prepared(python=python, undivided=UNDIVIDED)

    async def image(self, spec: ContainerSpec) -> Image:
        """What containers of a spec are made of, its trees in it."""
        image = await self._store.top(spec)
        return await self.with_trees(spec, image) if spec.trees else image

    async def with_trees(self, spec: ContainerSpec, image: Image, python: str = "") -> Image:
        tag = _tag(image, spec.trees)
        there = await self._store.find(f"{self._store.repository}:{tag}")
        if there is not None:
            return there
        return await self._making.join(tag, lambda: self._make(tag, spec, image, python))

    # --- trees ----------------------------------------------------------------------------------------

    async def _make(self, tag: str, spec: ContainerSpec, image: Image, python: str) -> Image:
        files = await asyncio.to_thread(merged, spec.trees)
        own = {
            LABEL_HOME: self._store.home,
            LABEL_LAYER: "",
            LABEL_OUTPUT: "",
            LABEL_BELOW: image.id,
            LABEL_OF: spec.layers[-1] if spec.layers else "",
            LABEL_TREES: json.dumps(spec.trees),
            LABEL_PYTHON: python,
        }
        async with idle(self._connection, self._store, image) as container:
            folders = (HOME,) if await self._has_home(image, container) else ()

            def put(client: Any) -> None:
                url = client._url("/containers/{0}/archive", container)
                data = packed(files, folders=folders, timed=True)
                # docker-py's own `put_archive` keeps to itself why an engine refuses.
                client._raise_for_status(client._put(url, params={"path": "/"}, data=data))

            await self._connection.run(put, long=True)
            await keep(self._connection, self._store, container, tag, labelled(image, {LABEL_NAME: ""}, own))
        return await self._store.get(f"{self._store.repository}:{tag}")

    async def _has_home(self, image: Image, container: str) -> bool:
        """Whether /root is a folder, or nothing yet: a link to another place must stay one."""
        if image.id not in self._homes:

            def look(client: Any) -> bool:
                pieces, status = client.get_archive(container, f"/{HOME}")
                pieces.close()
                return bool(status["mode"] & FOLDER)

            try:
                self._homes[image.id] = await self._connection.run(look)
            except Absent:
                self._homes[image.id] = True
        return self._homes[image.id]

    # --- its Python -----------------------------------------------------------------------------------

    async def _remembered(self, spec: ContainerSpec, image: Image, how: str) -> str:
        """What the image with the trees says, from an earlier time."""
        if not spec.trees:
            return ""
        there = await self._store.find(f"{self._store.repository}:{_tag(image, spec.trees)}")
        python, _, its = (there.labels.get(LABEL_PYTHON) or "" if there is not None else "").partition(" ")
        return python if its == how else ""

    async def _ask(self, image: Image, spec: ContainerSpec) -> str:
        entrypoint = _entrypoint(image, spec)
        found = await self._versions(image, spec, entrypoint)
        if not found and entrypoint:
            behind = await self._versions(image, spec, ())
            if behind:
                raise InvalidError(
                    f"{_titled(spec)} has a Python, but its ENTRYPOINT {json.dumps(entrypoint)} does not run it",
                    hint='An ENTRYPOINT gets the worker\'s command line and must end with: exec "$@". '
                    "Or take it away: .entrypoint([]).",
                )
        fitting = [name for name, version in found if version >= OLDEST]
        if fitting:
            return fitting[0]
        if found:
            versions = ", ".join(".".join(map(str, version)) for _, version in found)
            raise InvalidError(
                f"the Python of {_titled(spec)} is {versions}: too old for a worker, which takes 3.10 or later",
                hint=WAY_OUT,
            )
        raise InvalidError(f"{_titled(spec)} has no Python (looked for {' and '.join(NAMES)})", hint=WAY_OUT)

    async def _versions(
        self, image: Image, spec: ContainerSpec, entrypoint: tuple[str, ...]
    ) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and versions of the Pythons that answer."""
        both = await self._run(image, spec, (*entrypoint, *ASK_BOTH))
        if both.started:
            return _answers(both.output)
        found: list[tuple[str, tuple[int, ...]]] = []
        for name in NAMES:
            alone = await self._run(image, spec, (*entrypoint, name, "-c", ASK))
            found += _answers(f"{MARK}-name {name}\n{alone.output}")
        return tuple(found)

    async def _run(self, image: Image, spec: ContainerSpec, argv: tuple[str, ...]) -> _Said:
        """Run a program to its end, as workers of this image run."""
        async with passing(self._connection, lambda client: self._create(client, image, spec, argv)) as container:
            try:
                await self._connection.run(lambda client: client.start(container))
            except (Absent, Refused) as error:
                if "exec" in said(error) or "no such file" in said(error):
                    return _Said(started=False)
                raise
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._connection.run(lambda client: client.wait(container), long=True)
            except TimeoutError:
                return _Said(started=True)
            output = await self._connection.run(lambda client: client.logs(container, stdout=True, stderr=False))
            return _Said(started=True, output=output.decode(errors="replace"))

    def _create(self, client: Any, image: Image, spec: ContainerSpec, argv: tuple[str, ...]) -> Any:
        # Nothing private is said, and what is said must be read here, whatever the engine does with logs.
        host = client.create_host_config(network_mode="none", log_config={"type": "json-file"})
        return client.create_container(
            image.id,
            command=[],
            entrypoint=list(argv),
            user=self._settings(spec).user,
            environment=dict(spec.env),
            healthcheck={"test": ["NONE"]},
            host_config=host,
            labels={LABEL_HOME: self._store.home, LABEL_NAME: FOR_IMAGES},
        )


def _tag(image: Image, trees: tuple[str, ...]) -> str:
    """Trees never change under their path, images never under their id."""
    return f"{TREES}-{hashlib.sha256(json.dumps([image.id, *trees]).encode()).hexdigest()}"


def _entrypoint(image: Image, spec: ContainerSpec) -> tuple[str, ...]:
    return tuple(image.config.get("Entrypoint") or ()) if spec.entrypoint is None else spec.entrypoint


def _how(image: Image, spec: ContainerSpec, user: str | None) -> str:
    """All that decides which Python answers."""
    what = [image.id, *_entrypoint(image, spec), dict(spec.env).get("PATH", ""), user or ""]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _answers(output: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """
    >>> _answers("hello\\nslipway-python-name python\\nslipway-python-name python3\\nslipway-python 3.11.2\\n")
    (('python3', (3, 11, 2)),)
    """
    found: list[tuple[str, tuple[int, ...]]] = []
    name = ""
    for match in _ANSWER.finditer(output):
        if match[1]:
            name = match[1]
        else:
            found.append((name, (int(match[2]), int(match[3]), int(match[4]))))
    return tuple(found)


def _titled(spec: ContainerSpec) -> str:
    return f"the image of {spec.name} ({spec.base.says})" if spec.base.says else f"the image of {spec.name}"
