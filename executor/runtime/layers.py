"""Finished layers on disk: `<home>/layers/<short>/fs` laid out like a root, and `layer.json` beside it.

A layer appears by one rename, after everything in it has been written out; until then its folder has another name.
Blocking: call in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from slipway.dsl.errors import InternalError, NotFoundError
from slipway.executor.disk import sync, sync_all_beside
from slipway.executor.points import point

from . import kernel

FORMAT = 1
OPAQUE = "user.overlay.opaque"
Info = dict[str, Any]  # of a layer.json: "layers" that its content is known as, "output": the content's digest
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{16,128}")
# What a step leaves behind that says when it ran and not what it did. It stays in the layer, it is not in the digest.
NOISE = re.compile(r"(.*/)?__pycache__(/.*)?|var/log/.*|var/cache/.*|var/lib/apt/lists/.*|venv/\.lock")


def short(layer: str) -> str:
    """The folder's name for a layer: as short as it can be, because all of them must fit into one page of options."""
    if not _DIGEST.fullmatch(layer):
        raise InternalError(f"{layer!r} is not a layer's digest")
    return layer.partition(":")[2][:16]


@frozen(kw_only=True)
class Taken:
    """What a container wrote below one of its overlays; `target` is "" for the root."""

    target: str
    upper: Path


@frozen
class Made:
    """Something that was put into a container for a mount, or a folder above it, as it was then."""

    path: str
    mode: int
    user: int
    group: int


class Layers:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()  # of the names: giving a layer one more and taking one away exclude each other
        self._folders: dict[str, frozenset[str]] = {}  # short: those of the asked folders that are in it

    def clean(self) -> None:
        """Remove half layers and those that were being removed, and finish handing over what was being handed over."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in tuple(self.folder.iterdir()):
            if "." in path.name:
                remove_tree(path)
        for path in tuple(self.folder.iterdir()):
            info = None if path.is_symlink() else _whole(path)
            if info is not None and path.name not in map(short, info["layers"]):
                self._give(path, info["layers"])

    def has(self, layer: str) -> bool:
        return self._info(layer) is not None

    def place(self, layer: str) -> str:
        """The name of the folder that holds it, links followed. Raises `NotFoundError`."""
        if self._info(layer) is None:
            raise NotFoundError(f"layer {layer} is not in {self.folder}", hint="Build it again with `slipway apply`.")
        path = self.folder / short(layer)
        return path.readlink().name if path.is_symlink() else path.name

    def holds(self, name: str, folders: tuple[str, ...]) -> frozenset[str]:
        """Those of `folders` that the layer has something in. A layer never changes, so it is looked at once."""
        if name not in self._folders:
            top = self.folder / name / "fs"
            self._folders[name] = frozenset(folder for folder in folders if (top / folder).is_dir())
        return self._folders[name]

    def output(self, layer: str) -> str:
        info = self._info(layer)
        if info is None:
            raise NotFoundError(f"layer {layer} is not in {self.folder}")
        return str(info["output"])

    def size(self, layer: str) -> int:
        """Bytes on disk of a layer's files; 0 for a second name of one."""
        path = self.folder / short(layer)
        if path.is_symlink():
            return 0
        sizes: dict[int, int] = {}  # by inode: a file with two names is there once
        with contextlib.suppress(FileNotFoundError):  # it is being removed
            for name in (str(path), *_walk(str(path))):
                status = os.lstat(name)
                sizes[status.st_ino] = status.st_blocks * 512
        return sum(sizes.values())

    def places(self) -> Iterator[tuple[str, str]]:
        """Every layer with the folder that holds it; one that goes meanwhile is left out."""
        for layer in self.all():
            with contextlib.suppress(NotFoundError):
                yield layer, self.place(layer)

    def all(self) -> Iterator[str]:
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            info = None if "." in path.name else _whole(path)
            for layer in info["layers"] if info is not None else ():
                if short(layer) == path.name:
                    yield layer

    def commit(self, layer: str, taken: tuple[Taken, ...], made: tuple[Made, ...]) -> str:
        """Keep what was taken as this layer; return the digest of its content. What was `made` for
        mounts is left out where it is as it was. A layer that is there already is left as it is."""
        before = self._info(layer)
        if before is not None:
            return str(before["output"])
        begun = self.folder / f"{short(layer)}.tmp-{uuid.uuid4().hex[:8]}"
        make_folder(begun / "fs")
        try:
            self._gather(begun / "fs", taken, made)
            output = content_digest(begun / "fs")
            text = json.dumps({"format": FORMAT, "layers": [layer], "output": output})
            (begun / "layer.json").write_text(text)
            sync_all_beside(begun)
            self._clear(layer)
            with contextlib.suppress(FileExistsError):
                begun.rename(self.folder / short(layer))
                sync(self.folder)
        except OSError as error:
            if error.errno not in {39, 17}:  # not empty, exists: someone else finished this very layer
                raise
        finally:
            remove_tree(begun)
        return self.output(layer)

    def alias(self, layer: str, existing: str) -> None:
        """Let `layer` name the content of `existing` too. Raises `NotFoundError`."""
        with self._lock:
            self._alias(layer, existing)

    def _alias(self, layer: str, existing: str) -> None:
        name = self.place(existing)
        if self.has(layer) or short(layer) == name:
            return
        info = _read(self.folder / name / "layer.json")
        _replace(self.folder / name / "layer.json", json.dumps({**info, "layers": [*info["layers"], layer]}))
        self._clear(layer)
        (self.folder / short(layer)).symlink_to(name)
        sync(self.folder)

    def remove(self, layer: str) -> None:
        """Forget this digest; the content goes with the last one that names it.

        Each step leaves layers that are whole, or that `clean` finds: a crash loses no layer that another name has.
        """
        with self._lock:
            gone = self._forget(layer)
        if gone is not None:
            remove_tree(gone)

    def _forget(self, layer: str) -> Path | None:
        """What is left to be removed, under a name that is no layer's."""
        info = self._info(layer)
        if info is None:
            return None
        path, name = self.folder / short(layer), self.place(layer)
        others = [other for other in info["layers"] if other != layer]
        if others:
            _replace(self.folder / name / "layer.json", json.dumps({**info, "layers": others}))
        if path.is_symlink():
            path.unlink()
            return None
        self._folders.pop(name, None)
        point("layer-forgotten")
        if others:
            self._give(path, others)
            return None
        gone = self.folder / f"{name}.gone-{uuid.uuid4().hex[:8]}"
        path.rename(gone)
        point("layer-gone")
        return gone

    def _give(self, path: Path, others: list[str]) -> None:
        """Let the first of the other names have the folder, and the rest name that one.

        Where the file system can exchange two names none is without content meanwhile; where not, the first is for a
        moment, and after a crash `clean` mends it.
        """
        heir = self.folder / short(others[0])
        try:
            kernel.exchange(str(path), str(heir))
            path.unlink()  # it names itself now
        except OSError:
            heir.unlink(missing_ok=True)
            point("layer-without-heir")
            path.rename(heir)
        for other in others[1:]:
            made = self.folder / f"{short(other)}.tmp-{uuid.uuid4().hex[:8]}"
            made.symlink_to(heir.name)
            made.rename(self.folder / short(other))

    def _info(self, layer: str) -> Info | None:
        info = _whole(self.folder / short(layer))
        return info if info is not None and layer in info["layers"] else None

    def _clear(self, layer: str) -> None:
        """Take away what lies in a layer's place and is none: somebody's hand, or a disk, has damaged it."""
        path = self.folder / short(layer)
        if path.is_symlink():
            path.unlink()
        elif path.exists() and _whole(path) is None:
            gone = self.folder / f"{path.name}.gone-{uuid.uuid4().hex[:8]}"
            path.rename(gone)
            remove_tree(gone)

    def _gather(self, top: Path, taken: tuple[Taken, ...], made: tuple[Made, ...]) -> None:
        for entry in sorted(made, key=lambda entry: len(entry.path), reverse=True):
            _remove_if_as_it_was(_in_uppers(entry.path, taken), entry)
        for part in sorted(taken, key=lambda part: len(part.target)):
            if part.target == "":
                top.rmdir()
                part.upper.rename(top)
            elif any(part.upper.iterdir()):
                make_folder((top / part.target).parent)
                part.upper.rename(top / part.target)


def _whole(folder: Path) -> Info | None:
    """What is said of the layer in this folder; None where there is none, or what is left of one."""
    try:
        info = _read(folder / "layer.json")
        whole = all(short(layer) for layer in info["layers"]) and isinstance(info["output"], str)
    except (OSError, ValueError, TypeError, KeyError, InternalError):
        return None
    return info if whole and (folder / "fs").is_dir() else None


def _read(path: Path) -> Info:
    value: Info = json.loads(path.read_text())
    return value


def _in_uppers(path: str, taken: tuple[Taken, ...]) -> Path:
    """Where something at `path` in the container was written."""
    inside = path.lstrip("/")
    fitting = [part for part in taken if part.target == "" or inside.startswith(part.target + "/")]
    part = max(fitting, key=lambda part: len(part.target))
    return part.upper / inside[len(part.target) :].lstrip("/")


def _remove_if_as_it_was(path: Path, entry: Made) -> None:
    """A folder that is not empty stays. (One of the build's own in the same place would be opaque.)"""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if [status.st_mode, *_owner(status)] != [entry.mode, entry.user, entry.group]:
            return
        if stat.S_ISDIR(status.st_mode):
            path.rmdir()
        elif status.st_size == 0:
            path.unlink()


# --- content ------------------------------------------------------------------------------------------


def content_digest(top: Path) -> str:
    """Over paths, types, modes, owners, contents, link targets, whiteouts and file capabilities; never over times."""
    digest = hashlib.sha256(b"slipway.layer.v1\0")
    for path in _walk(str(top)):
        name = path[len(str(top)) + 1 :]
        if not NOISE.fullmatch(name):
            digest.update(json.dumps([name, *_described(path)]).encode() + b"\n")
    return "sha256:" + digest.hexdigest()


def _walk(folder: str) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _described(path: str) -> list[object]:
    status = os.lstat(path)
    mode = status.st_mode
    owner = _owner(status)
    about: list[object] = [stat.S_IMODE(mode), *owner]
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:  # noqa: PTH123
            return ["file", *about, hashlib.file_digest(file, "sha256").hexdigest(), _capability(path)]
    if stat.S_ISDIR(mode):
        return ["folder", *about, _attribute(path, OPAQUE) == b"y"]
    if stat.S_ISLNK(mode):
        return ["link", *owner, os.readlink(path)]  # noqa: PTH115
    if stat.S_ISCHR(mode) and status.st_rdev == 0:
        return ["gone"]
    return ["special", *about, stat.S_IFMT(mode), status.st_rdev]


def _owner(status: os.stat_result) -> list[int]:
    """As the container sees it: without root every file is ours here and root's there."""
    return [0, 0] if os.geteuid() != 0 else [status.st_uid, status.st_gid]


def _attribute(path: str, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None


def _capability(path: str) -> str:
    return (_attribute(path, "security.capability") or b"").hex()


# --- files --------------------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, that everyone in a container may enter, whatever our umask is."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir()
        path.chmod(0o755)


def remove_tree(path: Path) -> None:
    """Remove a folder whatever modes it has: a rootless overlay leaves folders that not even their owner may enter."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if os.geteuid() != 0:
        _open_up(str(path))
    shutil.rmtree(path)


def _open_up(folder: str) -> None:
    os.chmod(folder, 0o700)  # noqa: PTH101
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            _open_up(entry.path)


def _replace(path: Path, text: str) -> None:
    begun = path.with_suffix(".tmp")
    begun.write_text(text)
    with begun.open("rb") as file:
        os.fsync(file.fileno())
    begun.rename(path)
    sync(path.parent)
