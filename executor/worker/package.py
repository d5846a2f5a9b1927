"""Our own code as a worker needs it: `<home>/runtime/<code digest>/lib` and `fallback`, made once.

An image may have attrs and cloudpickle of its own, of any version, or none: what user code imports is what the image
has. So ours are not on a worker's path; our modules know them as `slipway.dsl.own.attr` and `….cloudpickle`, the
former by a change of the line that imports them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from pathlib import Path

FLOORS = ("dsl", "compiler", "executor", "schedules", "endpoints", "cli")
FALLBACK = ("attr", "cloudpickle")
OWN = (b"\nfrom attrs import ", b"\nfrom slipway.dsl.own.attr import ")
IN_CONTAINER = "/.slipway"  # where a worker finds `lib` and `fallback`
STAMP = "code.digest"  # in a copy: what it is a copy of


def _roots() -> dict[str, Path]:
    """Where each part of our package lies: the top-level modules under "", the floors under their names.

    Installed, they lie in one folder; in a checkout each floor is a folder of its own beside `client`.
    """
    top = Path(str(sys.modules["slipway"].__file__)).parent
    beside = Path(__file__).resolve().parents[2]
    return {"": top, **{name: beside / name for name in FLOORS}}


def _sources(folder: str, *, deep: bool) -> list[tuple[str, os.stat_result]]:
    found: list[tuple[str, os.stat_result]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((".py", ".typed")):
                found.append((entry.path, entry.stat()))
            elif deep and not entry.name.startswith(("_", ".")) and entry.is_dir():
                found += _sources(entry.path, deep=True)
    return found


@cache
def code_digest() -> str:
    """Tells this code from any other: two programs with the same digest run the same sources.

    It goes by the size and the time of each file, which takes a millisecond; a copy made by `prepare` says what it
    is a copy of.
    """
    roots = _roots()
    stamp = roots[""] / STAMP
    if stamp.exists():
        return stamp.read_text()
    listing = hashlib.sha256()
    for name, root in sorted(roots.items()):
        for path, stat in sorted(_sources(str(root), deep=bool(name))):
            listing.update(f"{name}/{path[len(str(root)) :]} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return listing.hexdigest()[:32]


def prepare(home: Path) -> Path:
    """The folder with `lib` and `fallback` for this code, made where it is not there yet. Blocks, long only once."""
    target = home / "runtime" / code_digest()
    if target.exists():
        return target
    import importlib
    import shutil
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        for name, root in _roots().items():
            copy = making / "lib" / "slipway" / name
            for path, _ in _sources(str(root), deep=bool(name)):
                to = copy / Path(path).relative_to(root)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(Path(path).read_bytes().replace(*OWN))
        (making / "lib" / "slipway" / STAMP).write_text(code_digest())
        for name in FALLBACK:
            folder = Path(str(importlib.import_module(name).__file__)).parent
            shutil.copytree(folder, making / "fallback" / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
        _compile(making)
        making.chmod(0o755)
        try:
            making.rename(target)
        except OSError:
            if not target.exists():  # else another engine was faster, with the same files
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return target


def _compile(folder: Path) -> None:
    """Byte code for what a worker imports. The files never change under their digest, so it needs no look at them.

    It is for the Python of the engine. Another one compiles the sources at each start, which takes it 20 ms: that byte
    code only a program of the image could make, and what one image makes no other may run.
    """
    import compileall
    import py_compile

    package = folder / "lib" / "slipway"
    for path, levels in (
        (package, 0),
        (package / "dsl", 5),
        (package / "executor", 0),
        (package / "executor" / "worker", 5),
        (folder / "fallback", 5),
    ):
        compileall.compile_dir(
            path,
            maxlevels=levels,
            quiet=2,
            stripdir=folder,
            prependdir=IN_CONTAINER,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
