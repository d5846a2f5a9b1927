"""The Python interpreters of this host: which there are, and the one that stands for `debian_slim(version)`."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from slipway.dsl.errors import InvalidError, NotFoundError

ASK_SECONDS = 10
USUAL = ("/usr/bin", "/usr/local/bin")
OLDEST = (3, 10)  # what the worker program runs on
_ASK = (
    "import json, platform, sys; print(json.dumps("
    "[platform.python_version(), sys.base_prefix, platform.machine(), sys.implementation.name]))"
)
_REF = re.compile(r"3\.\d{1,2}(\.\d{1,2})?")


@frozen(kw_only=True)
class Interpreter:
    """One installed Python. `executable` is its real path."""

    executable: str
    version: str
    prefix: str
    machine: str

    @property
    def minor(self) -> str:
        """
        >>> Interpreter(executable="/usr/bin/python3.11", version="3.11.2", prefix="/usr", machine="x86_64").minor
        '3.11'
        """
        return ".".join(self.version.split(".")[:2])


class Pythons:
    """Finds interpreters, and asks each one once for as long as its file stays the same.

    The order is fixed, so that one host gives one answer: the Python that runs the engine, then PATH, then the usual
    folders, then pyenv's and uv's, newest patch release first.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, running: Interpreter | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._running = running or _running()
        self._known: dict[tuple[str, int, int], Interpreter | None] = {}

    def find(self, ref: str) -> Interpreter:
        """The interpreter for "3.11" or "3.11.7" ("": the version that runs the engine). It runs programs: call it in a
        thread. Raises `NotFoundError` with the versions that there are."""
        if ref and not _REF.fullmatch(ref):
            raise InvalidError(f"python_version {ref!r} is no Python version", hint='Say it like "3.11" or "3.11.7".')
        wanted = ref or self._running.minor
        for found in self.all(wanted):
            if wanted in (found.version, found.minor):
                return found
        raise self._missing(wanted)

    def all(self, version: str = "") -> Iterator[Interpreter]:
        """Every interpreter (or those whose names fit the version), each real path once."""
        seen = set()
        yield self._running
        seen.add(self._running.executable)
        for path in self._candidates(".".join(version.split(".")[:2])):
            real = os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            found = self._ask(real)
            if found is not None:
                yield found

    def _missing(self, wanted: str) -> NotFoundError:
        versions = {found.version for found in self.all()}
        there = ", ".join(sorted(versions, key=_numbers))
        return NotFoundError(
            f"this host has no Python {wanted}; it has {there}",
            hint=f"Install it with `uv python install {wanted}` or `pyenv install {wanted}`, "
            "ask for a version that is there, or use `--runtime docker`.",
        )

    def _candidates(self, minor: str) -> Iterator[Path]:
        name = f"python{minor}" if minor else "python3.[0-9]*"
        roots = []
        for entry in self._environment.get("PATH", os.defpath).split(os.pathsep):
            folder = Path(entry)
            if folder.name == "shims":  # pyenv's shims are scripts that choose by the working folder; go past them
                roots.append(folder.parent)
            elif entry:
                yield from _programs(folder, name)
        for entry in USUAL:
            yield from _programs(Path(entry), name)
        home = Path(self._environment.get("HOME", "/nonexistent"))
        roots += [Path(self._environment.get("PYENV_ROOT", home / ".pyenv"))]
        data = Path(self._environment.get("XDG_DATA_HOME", home / ".local/share"))
        managed = Path(self._environment.get("UV_PYTHON_INSTALL_DIR", data / "uv/python"))
        for root in roots:
            yield from _versions(root / "versions", f"{minor or '3'}.*", name)
        yield from _versions(managed, f"cpython-{minor or '3'}.*", name)

    def _ask(self, executable: str) -> Interpreter | None:
        try:
            status = Path(executable).stat()
        except OSError:
            return None
        key = (executable, status.st_mtime_ns, status.st_size)
        if key not in self._known:
            self._known[key] = _asked(executable)
        return self._known[key]


def _programs(folder: Path, name: str) -> Iterator[Path]:
    try:
        found = sorted(folder.glob(name), key=lambda path: _numbers(path.name), reverse=True)
    except OSError:
        return
    for path in found:
        if re.fullmatch(r"python3\.\d+", path.name) and os.access(path, os.X_OK):
            yield path


def _versions(folder: Path, pattern: str, name: str) -> Iterator[Path]:
    try:
        found = sorted(folder.glob(pattern), key=lambda path: _numbers(path.name), reverse=True)
    except OSError:
        return
    for path in found:
        yield from _programs(path / "bin", name)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _running() -> Interpreter:
    """The Python of this process; of a virtual environment, the one below it."""
    base = Path(getattr(sys, "_base_executable", None) or sys.executable)
    return Interpreter(
        executable=os.path.realpath(base),
        version=platform.python_version(),
        prefix=sys.base_prefix,
        machine=platform.machine(),
    )


def _asked(executable: str) -> Interpreter | None:
    """None where it does not run, takes too long, is no CPython, or is too old for the worker program."""
    try:
        done = subprocess.run(
            [executable, "-I", "-S", "-c", _ASK], capture_output=True, timeout=ASK_SECONDS, check=True, env={}
        )
        version, prefix, machine, implementation = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if implementation != "cpython" or _numbers(version)[:2] < OLDEST:
        return None
    return Interpreter(executable=executable, version=version, prefix=prefix, machine=machine)


# --- the host -----------------------------------------------------------------------------------------


@frozen(kw_only=True)
class System:
    """What the host says it is: ("debian", "12") and how it is called in a sentence."""

    id: str
    version: str
    title: str


def system(files: tuple[str, ...] = ("/etc/os-release", "/usr/lib/os-release")) -> System:
    """Read os-release.

    >>> system(files=()).title
    'Linux'
    """
    values: dict[str, str] = {}
    for name in files:
        try:
            text = Path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            key, _, value = line.partition("=")
            values[key.strip()] = value.strip().strip("\"'")
        break
    name = values.get("NAME", "Linux").removesuffix(" GNU/Linux").removesuffix(" Linux")
    version = values.get("VERSION_ID", "")
    return System(id=values.get("ID", "linux"), version=version, title=f"{name} {version}".strip())
