"""What lies in a home and in its runtimes that can be made again: what it is, its size, and when it was last used."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen

from slipway.dsl.errors import Error

from .home import Home
from .images import short
from .keep import Thing, blob_key, bundle_key, image_key, layer_key, log_key
from .ports import Runtime, Stored
from .runtime.layers import remove_tree
from .store.blobs import FileBlobs
from .store.state import Use

GONE = ".gone-"  # how a folder is called while it is being removed
Used = Mapping[tuple[str, str], Use]


@frozen(kw_only=True)
class Inventory:
    """`skipped` are the runtimes that can't be looked into, each with why."""

    things: tuple[Thing, ...] = field(default=(), repr=False)
    skipped: tuple[tuple[str, str], ...] = ()


def remove_halves(home: Home) -> None:
    """Remove what an engine that was killed was removing. Only while nobody else removes; blocks."""
    for folder in (home.bundles, home.codes, home.caches):
        for path in tuple(folder.glob(f"{GONE}*")):
            with suppress(OSError):  # of another user: `slipway gc --caches` tells of it
                remove_tree(path)


async def take(
    home: Home, runtimes: Mapping[str, Runtime], uses: tuple[Use, ...], *, code: Path, caches: bool
) -> Inventory:
    """Everything that there is, measured; `code` is the copy of our own code that is in use."""
    used = {(use.kind, use.ident): use for use in uses}
    things: list[Thing] = []
    skipped: list[tuple[str, str]] = []
    for name, runtime in runtimes.items():
        trouble = await runtime.trouble()
        try:
            stored = () if trouble else await runtime.stored()
        except Error as error:
            trouble = error.message
        if trouble:
            skipped.append((name, trouble))
        else:
            things += await asyncio.to_thread(_stored_things, name, stored, used, home)
    things += await asyncio.to_thread(_home_things, home, code, used, caches=caches)
    return Inventory(things=tuple(things), skipped=tuple(skipped))


# --- of the runtimes ----------------------------------------------------------------------------------


def _stored_things(runtime: str, stored: tuple[Stored, ...], used: Used, home: Home) -> list[Thing]:
    return [_image(runtime, one, used) if one.trees else _layer(runtime, one, used, home) for one in stored]


def _layer(runtime: str, stored: Stored, used: Used, home: Home) -> Thing:
    use = used.get(("layer", stored.layer))
    return Thing(
        kind="layer",
        key=layer_key(runtime, stored.layer),
        ident=stored.ident,
        runtime=runtime,
        title=_title(home.layer_logs / f"{short(stored.layer)}.log"),
        size=stored.size,
        used_ms=use.used_ms if use is not None else None,
        on=(layer_key(runtime, use.below),) if use is not None and use.below else (),
        content=f"{runtime} {stored.content}" if stored.content else "",
    )


def _image(runtime: str, stored: Stored, used: Used) -> Thing:
    bundles = (("bundle", Path(tree).name) for tree in stored.trees)
    times = [used[name].used_ms for name in (("layer", stored.layer), *bundles) if name in used]
    return Thing(
        kind="image",
        key=image_key(runtime, stored.layer, stored.trees),
        ident=stored.ident,
        runtime=runtime,
        size=stored.size,
        used_ms=min(times, default=None),  # they were used together at most as late as the one that was used first
        on=(layer_key(runtime, stored.layer),) if stored.layer else (),
        content=f"{runtime} {stored.content}" if stored.content else "",
    )


def _title(log: Path) -> str:
    """What the log of a build says that it is of."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            first = file.readline(200)
    except OSError:
        return ""
    return first[2:].strip() if first.startswith("# ") else ""


# --- of the home --------------------------------------------------------------------------------------


def _home_things(home: Home, code: Path, used: Used, *, caches: bool) -> list[Thing]:
    blobs = dict(_blobs(FileBlobs(home.blobs)))
    things = [*blobs.values(), *_bundles(home.bundles, blobs, used)]
    logs = (path for path in _entries(home.layer_logs) if path.suffix == ".log")
    things += [_thing("log", path, key=log_key(path.stem)) for path in logs]
    things += [_thing("code", path) for path in _entries(home.codes) if path.name != code.name]
    if caches:
        things += [_thing("cache", path) for path in _entries(home.caches)]
    return things


def _thing(kind: str, path: Path, *, key: str = "") -> Thing:
    with suppress(FileNotFoundError):
        return Thing(
            kind=kind,
            key=key or f"{kind} {path.name}",
            ident=path.name,
            title="" if kind == "log" else path.name,
            size=sum(_sizes(path).values()),
            used_ms=path.lstat().st_mtime_ns // 1_000_000,
        )
    return Thing(kind=kind, key=key or f"{kind} {path.name}", ident=path.name)


def _blobs(blobs: FileBlobs) -> Iterator[tuple[int, Thing]]:
    """Every blob by its inode, which it shares with the files of bundles."""
    for digest in blobs.iterate():
        with suppress(OSError, Error):  # it went meanwhile
            status = Path(blobs.path(digest)).stat()
            yield (
                status.st_ino,
                Thing(
                    kind="blob",
                    key=blob_key(digest),
                    ident=digest,
                    size=status.st_blocks * 512,
                    used_ms=status.st_mtime_ns // 1_000_000,
                ),
            )


def _bundles(folder: Path, blobs: Mapping[int, Thing], used: Used) -> Iterator[Thing]:
    """A bundle is mostly links to blobs: it stands on those, and has the size of the rest."""
    for path in _entries(folder):
        if path.name.startswith("."):
            continue
        with suppress(FileNotFoundError):
            changed = path.stat().st_mtime_ns // 1_000_000
            sizes = _sizes(path)
            linked = sizes.keys() & blobs.keys()
            use = used.get(("bundle", path.name))
            yield Thing(
                kind="bundle",
                key=bundle_key(path.name),
                ident=path.name,
                size=sum(size for inode, size in sizes.items() if inode not in linked),
                used_ms=use.used_ms if use is not None else changed,
                on=tuple(sorted(blobs[inode].key for inode in linked)),
            )


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _sizes(path: Path) -> dict[int, int]:
    """What each inode at and below a path takes on disk: what has two names is there once."""
    status = path.lstat()
    sizes = {status.st_ino: status.st_blocks * 512}
    if path.is_dir() and not path.is_symlink():
        for folder, names, files in os.walk(path):
            for name in (*names, *files):
                with suppress(FileNotFoundError):
                    status = os.lstat(f"{folder}/{name}")
                    sizes[status.st_ino] = status.st_blocks * 512
    return sizes
