"""A machine whose home makes containers with Docker Engine, and what that engine has of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docker_engine import DockerTestEngine
from machine import Machine

from slipway.executor.runtime.docker import LABEL_HOME, LABEL_LAYER, home_id


class DockerMachine(Machine):
    """`url`: another way to the same engine; `base`: another image for debian_slim."""

    def __init__(
        self, root: Path, engine: DockerTestEngine, *, url: str | None = None, base: str | None = None
    ) -> None:
        super().__init__(root)
        self.engine = engine
        self.env["SLIPWAY_RUNTIME"] = "docker"
        self.label = f"{LABEL_HOME}={home_id(self.home)}"
        DockerTestEngine(url or engine.url, engine.base_image).write_config(self.home, base=base)

    def layers(self) -> set[str]:
        """The layers in the engine's own list of images."""
        with self.engine.client() as client:
            found = [image.labels for image in client.images.list(filters={"label": self.label})]
        return {labels[LABEL_LAYER] for labels in found if labels.get(LABEL_LAYER)}

    def containers(self) -> list[str]:
        with self.engine.client() as client:
            found = client.containers.list(all=True, filters={"label": self.label}, ignore_removed=True)
            return sorted(container.name or "" for container in found)

    def close(self) -> None:
        """End the engine; see that no container is left, and take the images away."""
        try:
            super().close()
            left = self.containers()
            assert not left, f"containers left behind: {left}"
        finally:
            self._clean()

    def _clean(self) -> None:
        with self.engine.client() as client:
            for container in client.containers.list(all=True, filters={"label": self.label}, ignore_removed=True):
                container.remove(force=True, v=True)
        self.remove_images()

    def remove_images(self) -> None:
        """All of this home's."""
        with self.engine.client() as client:
            images = client.images.list(filters={"label": self.label})
            for image in sorted(images, key=lambda image: str(image.attrs["Created"]), reverse=True):
                client.images.remove(str(image.id), force=True)

    @contextmanager
    def watch(self) -> Iterator[list[str]]:
        """What the engine did of this home's meanwhile: "container create", "image tag", ... in order."""
        seen: list[str] = []
        with self.engine.client() as client:
            image = client.images.get(self.engine.base_image)
            stream = client.events(decode=True)
            marks = [f"slipway-test-mark:{os.getpid()}-{edge}" for edge in ("start", "end")]
            image.tag(marks[0])
            yield seen
            image.tag(marks[1])
            begun = False
            for event in stream:
                about = event["Actor"]["Attributes"]
                if about.get("name") == marks[1]:
                    break
                if begun and about.get(LABEL_HOME) == self.label.partition("=")[2]:
                    seen.append(f"{event['Type']} {event['Action'].partition(':')[0]}")
                begun = begun or about.get("name") == marks[0]
            stream.close()
            assert begun
            for mark in marks:
                client.images.remove(mark)
