"""Layers as images of the engine: each with a tag of its own, which is what says that it is there and finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import evolve, field, frozen

from slipway.dsl.errors import InternalError, InvalidError, NotFoundError
from slipway.executor.ports import ContainerSpec, Stored

from .docker import LABEL_HOME, LABEL_LAYER, LABEL_NAME, LABEL_TREES, OURS, Absent, Conflict, Connection
from .docker_bases import reference

LABEL_BELOW = "slipway.below"  # the id of the image that this one was made from
LABEL_OUTPUT = "slipway.output"  # the digest of a layer's content
LABEL_OF = "slipway.of"  # the layer that an image with trees was made from
LABEL_PYTHON = "slipway.python"
TREES = "trees"
FOR_IMAGES = "/images"  # in place of a name, of containers that are only for a look into an image or for making one


@frozen(kw_only=True)
class Image:
    """An image of the engine. `output` is the digest of its content; of one that we didn't make, its own."""

    id: str
    output: str
    config: Mapping[str, Any] = field(repr=False)

    @property
    def labels(self) -> Mapping[str, str]:
        return self.config.get("Labels") or {}


@frozen(kw_only=True)
class Listed:
    """A line of the engine's list of images."""

    id: str
    below: str
    parent: str  # what the engine made it from: of a Dockerfile's image that is what the line before gave
    size: int
    tags: tuple[str, ...]
    stays: bool  # it has a name, or is not ours: so it stays whatever is made from it goes
    labels: Mapping[str, str] = field(repr=False)


class Store:
    """The images of one home, which `home` names."""

    def __init__(self, connection: Connection, home: str) -> None:
        self._connection = connection
        self.home = home
        self.repository = f"slipway-{home}"

    def reference(self, layer: str) -> str:
        """What the engine knows a layer by, there or not."""
        return f"{self.repository}:{self.tag(layer)}"

    def tag(self, layer: str) -> str:
        """
        >>> Store(None, "0123456789ab").tag("sha256:" + "ab" * 32)[:8]
        'abababab'
        """
        kind, _, hexadecimal = layer.partition(":")
        if kind != "sha256" or len(hexadecimal) != 64:
            raise InternalError(f"{layer!r} is not a layer's digest")
        return hexadecimal

    # --- one image ------------------------------------------------------------------------------------

    async def find(self, image: str) -> Image | None:
        """An image by a name or an id, or None."""
        try:
            found = await self._connection.run(lambda client: client.inspect_image(image))
        except Absent:
            return None
        return self._image(found)

    async def get(self, image: str) -> Image:
        found = await self.find(image)
        if found is None:
            raise NotFoundError(f"the image {image} is not here any more", hint="slipway apply makes it again.")
        return found

    async def layer(self, layer: str) -> Image | None:
        return await self.find(self.reference(layer))

    async def top(self, spec: ContainerSpec) -> Image:
        """The image that containers of a spec are made of, but for its trees. Raises `NotFoundError`."""
        if spec.layers:
            found = await self.layer(spec.layers[-1])
            if found is None:
                raise NotFoundError(
                    f"layer {spec.layers[-1]} is not among the engine's images", hint="slipway apply builds it again."
                )
            return found
        found = await self.find(reference(spec.base))
        if found is None:
            raise NotFoundError(
                f"the image {dict(spec.base.paths).get('name') or reference(spec.base)} is not here",
                hint="slipway apply gets it.",
            )
        return found

    def _image(self, found: Mapping[str, Any]) -> Image:
        config = found.get("Config") or {}
        labels = config.get("Labels") or {}
        output = str(found["Id"])
        if any(tag.startswith(f"{self.repository}:") for tag in found.get("RepoTags") or ()):
            output = labels.get(LABEL_OUTPUT) or _output(found)
        return Image(id=str(found["Id"]), output=output, config=config)

    # --- all images -----------------------------------------------------------------------------------

    async def layers(self) -> AsyncIterator[str]:
        for image in await self._all(only_ours=True):
            for tag in image.tags:
                if not tag.startswith(TREES):
                    yield f"sha256:{tag}"

    async def stored(self) -> tuple[Stored, ...]:
        images = {image.id: image for image in await self._all()}
        return tuple(stored for image in images.values() for stored in self._stored(image, images))

    def _stored(self, image: Listed, images: Mapping[str, Listed]) -> Iterator[Stored]:
        size = image.size - _kept_below(image, images)
        for tag in sorted(image.tags):
            if tag.startswith(TREES):
                trees = json.loads(image.labels.get(LABEL_TREES) or "[]")
                layer = image.labels.get(LABEL_OF, "")
            else:
                trees, layer = (), _ident(tag)
            yield Stored(ident=_ident(tag), layer=layer, trees=tuple(trees), size=size, content=image.id)
            size = 0  # a second name takes nothing

    async def alias(self, layer: str, existing: str) -> None:
        """Let `layer` name the content of `existing` too."""
        found = await self.layer(existing)
        if found is None:
            raise NotFoundError(f"layer {existing} is not among the engine's images")
        if await self.layer(layer) is None:
            await self.name(found.id, self.tag(layer))

    async def name(self, image: str, tag: str) -> None:
        await self._connection.run(lambda client: client.tag(image, self.repository, tag))

    async def remove(self, ident: str) -> None:
        """Forget a layer, or an image with trees. What of it nothing else stands on goes from the disk."""
        tag = _tag(ident) if ident.startswith(TREES) else self.tag(ident)
        images = {image.id: image for image in await self._all()}
        found = next((image for image in images.values() if tag in image.tags), None)
        if found is None:
            return
        await self._refuse_in_use(ident, found, images)
        if found.tags == (tag,):
            for image in images.values():
                if image.below == found.id and image.labels.get(LABEL_TREES):
                    for name in image.tags:
                        await self._untag(name, image, images)
        await self._untag(tag, found, images)

    async def _untag(self, tag: str, image: Listed, images: Mapping[str, Listed]) -> None:
        with suppress(Absent):
            await self._drop(f"{self.repository}:{tag}", image, images)

    async def _drop(self, name: str, image: Listed, images: Mapping[str, Listed]) -> None:
        """Take away one name of an image, or the image by its id, then what only it stood on.

        The engine would do the second by itself, and take an image that is not ours as well where that has no name.
        """
        await self._connection.run(partial(_remove, image=name), long=True)
        with suppress(Absent, Conflict):  # the first that something else needs is the last to be looked at
            for below in _made_for(image, images):
                await self._connection.run(partial(_remove, image=below), long=True)

    async def _refuse_in_use(self, ident: str, image: Listed, images: Mapping[str, Listed]) -> None:
        ours = {"label": [f"{LABEL_HOME}={self.home}"]}
        for container in await self._connection.run(lambda client: client.containers(all=True, filters=ours)):
            if image.id in _chain(str(container["ImageID"]), images):
                name = (container.get("Labels") or {}).get(LABEL_NAME) or str(container["Id"])[:12]
                raise InvalidError(f"layer {ident} is in use by container {name}", hint="Stop that first.")

    async def sweep(self) -> None:
        """Remove images that were being made or removed when an engine of this home ended: they have no name."""
        halves = {"label": [f"{LABEL_HOME}={self.home}"], "dangling": ["true"]}
        found = await self._connection.run(lambda client: client.images(filters=halves))
        images = {image.id: image for image in await self._all()} if found else {}
        for half in found:
            # One may have gone with another; and somebody may use it, who is not us.
            with suppress(Absent, Conflict):
                await self._drop(half["Id"], self._listed(half), images)

    async def _all(self, *, only_ours: bool = False) -> tuple[Listed, ...]:
        filters = {"label": [f"{LABEL_HOME}={self.home}"]} if only_ours else None
        found = await self._connection.run(lambda client: client.images(all=not only_ours, filters=filters))
        listed = tuple(self._listed(image) for image in found)
        ours = {image.id for image in listed if image.labels.get(LABEL_HOME) == self.home}
        bases = {image.labels.get(LABEL_BELOW) for image in listed if image.id in ours} - ours
        return tuple(evolve(image, stays=image.stays or image.id in bases) for image in listed)

    def _listed(self, image: Mapping[str, Any]) -> Listed:
        names = [str(name) for name in image.get("RepoTags") or () if name != "<none>:<none>"]
        labels = image.get("Labels") or {}
        prefix = f"{self.repository}:"
        ours = tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix))
        digests = [name for name in image.get("RepoDigests") or () if not str(name).startswith("<none>")]
        return Listed(
            id=str(image["Id"]),
            below=(labels.get(LABEL_BELOW) if ours else "") or str(image.get("ParentId") or ""),
            parent=str(image.get("ParentId") or ""),
            size=int(image["Size"]),
            tags=ours,
            stays=bool(names or digests),
            labels=labels,
        )


def _remove(client: Any, image: str) -> None:
    client.remove_image(image, noprune=True)


def labelled(image: Image, container: Mapping[str, str], own: Mapping[str, str]) -> dict[str, Any]:
    """The config of an image made from a container of `image`: as that has it, with labels of our `own`.

    What the config doesn't say, the engine takes from the container: so whatever is ours there gets an empty label.
    """
    blank = dict.fromkeys((name for name in (*image.labels, *container) if name.startswith(OURS)), "")
    entrypoint = image.config.get("Entrypoint") or []  # an empty list is not replaced by the container's
    return {**image.config, "Entrypoint": entrypoint, "Labels": {**image.labels, **blank, **own}}


def labels_of_layer(home: str, layer: str, *, below: str = "", output: str = "") -> dict[str, str]:
    empty = dict.fromkeys((LABEL_TREES, LABEL_OF, LABEL_PYTHON), "")
    return {**empty, LABEL_HOME: home, LABEL_LAYER: layer, LABEL_BELOW: below, LABEL_OUTPUT: output}


def _ident(tag: str) -> str:
    """What `stored` calls it: an image with trees has a name that no layer can have."""
    return tag.replace("-", ":", 1) if tag.startswith(TREES) else f"sha256:{tag}"


def _tag(ident: str) -> str:
    return ident.replace(":", "-", 1)


def _output(found: Mapping[str, Any]) -> str:
    """Of an image that a Dockerfile gave: all its layers as the engine digests them, and how its processes start."""
    config = {name: value for name, value in (found.get("Config") or {}).items() if value}
    labels = config.pop("Labels", {})
    own = {name: value for name, value in labels.items() if not name.startswith(OURS)}
    for name in ("Image", "Hostname"):
        config.pop(name, None)
    what = [(found.get("RootFS") or {}).get("Layers"), config, own]
    return "sha256:" + hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _chain(image: str, images: Mapping[str, Listed]) -> Iterable[str]:
    """An image and what it stands on."""
    seen: set[str] = set()
    while image and image not in seen:
        seen.add(image)
        yield image
        image = images[image].below if image in images else ""


def _made_for(image: Listed, images: Mapping[str, Listed]) -> Iterator[str]:
    """What is below an image down to the first that stays."""
    below = images.get(image.parent)
    while below is not None and not below.stays:
        yield below.id
        below = images.get(below.parent)


def _kept_below(image: Listed, images: Mapping[str, Listed]) -> int:
    """The size of what stays when an image goes: of the first below it that has a name."""
    for below in _chain(image.below, images):
        if below in images and images[below].stays:
            return images[below].size
    return 0
