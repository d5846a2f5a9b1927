"""Keeping what a step wrote: the digest of what changed in its container, then the image."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from functools import partial
from typing import Any

from slipway.dsl.errors import Error

from .docker import LABEL_HOME, LABEL_NAME, Absent, Conflict, Connection, exec_output
from .docker_content import (
    CHANGED,
    FOLDER,
    SOCKET,
    TAR,
    Changes,
    Described,
    changes,
    command_lines,
    digest,
    members,
    settle,
)
from .docker_store import FOR_IMAGES, Image, Store, labelled, labels_of_layer

NOTHING = "/.slipway"  # a program that is never started: the engine wants every container to have one


async def commit(connection: Connection, store: Store, container: str, layer: str, mounts: Iterable[str]) -> str:
    """See `Container.commit`. The container runs; `mounts` are where something is mounted in it."""
    there = await store.layer(layer)
    if there is not None:
        return there.output
    made: dict[str, Any] = await connection.run(lambda client: client.inspect_container(container))
    below = await store.get(str(made["Image"]))
    found = await connection.run(lambda client: client.diff(container), long=True)
    what = changes(found, mounts)
    described = await _read(connection, container, what)
    doubted = await _read_below(connection, store, below, what)
    output = digest(below.output, settle(what, described, doubted))
    own = labels_of_layer(store.home, layer, below=below.id, output=output)
    config = labelled(below, made["Config"].get("Labels") or {}, own)
    await keep(connection, store, container, store.tag(layer), config)
    return output


async def keep(connection: Connection, store: Store, container: str, tag: str, config: dict[str, Any]) -> None:
    """Make an image of a container. It gets its name at once or, where a crash comes between, never."""
    await connection.run(
        lambda client: client.commit(container, repository=store.repository, tag=tag, conf=config), long=True
    )


async def _read(connection: Connection, container: str, what: Changes) -> dict[str, Described]:
    """What each changed path is now. What can't be read at all makes the digest one that no other layer has."""
    wanted = what.present()
    described: dict[str, Described] = {path: ("gone",) for path in what.kinds if path not in set(wanted)}
    for words in command_lines(wanted):
        described |= await connection.run(partial(_packed, container=container, words=words), long=True)
    for path in wanted:  # those above come before those below
        if path not in described:
            described |= await _fetched(connection, container, path, what)
        if path not in described:
            described[path] = ("unread", container)
    return {path: described[path] for path in what.kinds}


def _packed(client: Any, container: str, words: tuple[str, ...]) -> dict[str, Described]:
    """What the container's own tar says; nothing where it has none."""
    begun = client.exec_create(container, [*TAR, *words], stderr=False, user="0", workdir="/")
    with closing(exec_output(client, begun["Id"])) as output:
        return dict(members(output))


async def _fetched(connection: Connection, container: str, path: str, what: Changes) -> dict[str, Described]:
    """What the engine itself says, which takes it longer; of a folder that is new, with all that is in it."""

    def fetch(client: Any) -> dict[str, Described]:
        pieces, status = client.get_archive(container, path)
        if status["mode"] & SOCKET:
            return {path: ("socket",)}  # no layer keeps one
        with closing(pieces):
            found = members(pieces, path.rpartition("/")[0])
            if status["mode"] & FOLDER and what.whole(path):
                return dict(found)
            first = next(found, None)
            return {} if first is None else {path: first[1]}

    try:
        return await connection.run(fetch, long=True)
    except Absent:
        return {}


async def _read_below(connection: Connection, store: Store, below: Image, what: Changes) -> dict[str, Described]:
    """What those doubtful folders were that the step found there."""
    paths = [path for path in what.doubtful if what.kinds[path] == CHANGED]
    if not paths:
        return {}
    described: dict[str, Described] = {}
    async with idle(connection, store, below) as container:
        for path in paths:
            described |= await _fetched(connection, container, path, what)
    return described


def idle(connection: Connection, store: Store, image: Image) -> AbstractAsyncContextManager[str]:
    """A container that is not started: a place to look into an image, or to put something in."""
    labels = {LABEL_HOME: store.home, LABEL_NAME: FOR_IMAGES}
    return passing(
        connection,
        lambda client: client.create_container(image.id, command=[], entrypoint=[NOTHING], labels=labels),
    )


@asynccontextmanager
async def passing(connection: Connection, create: Callable[[Any], Any]) -> AsyncIterator[str]:
    """A container that is gone after the block, also where that is given up before the engine has made it."""
    making = asyncio.ensure_future(connection.run(create))
    try:
        yield str((await asyncio.shield(making))["Id"])
    finally:
        await asyncio.shield(_unmake(connection, making))


async def _unmake(connection: Connection, making: asyncio.Future[Any]) -> None:
    with suppress(Error):  # it could not be made, or the engine died: then nothing of the block's is lost with it
        await remove_container(connection, str((await making)["Id"]))


async def remove_container(connection: Connection, container: str) -> None:
    with suppress(Absent, Conflict):  # it is gone, or going
        await connection.run(lambda client: client.remove_container(container, v=True, force=True))
