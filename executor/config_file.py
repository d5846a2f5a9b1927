"""Reads `config.toml`: every fault of it at once, each with its line; anew wherever the file has changed."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomllib

from slipway.compiler.faults import did_you_mean
from slipway.dsl.declaration import Fault, Origin
from slipway.dsl.errors import DeclarationError

from .config import (
    KEEP_RESULTS_DAYS,
    AppSettings,
    Config,
    DockerSettings,
    Keys,
    LogSettings,
    Reading,
    bytes_of,
    line_of,
)

RUNTIMES = ("native", "docker")
BASES = ("debian_slim", "micromamba")
LARGEST = 1 << 20
MOST_DAYS = 30  # that is how long anything is known about a call

_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_HEADER = re.compile(rf"\s*\[\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")
_BASE = re.compile(rf"({'|'.join(BASES)})( \d+\.\d+)?")


class _Refused(Exception):
    """A value that can't be: why, and what to write."""

    def __init__(self, summary: str, hint: str) -> None:
        self.summary, self.hint = summary, hint


class ConfigFile:
    """One home's settings. `read` is quick where the file is as it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Of which file, what it said when it last made sense, and what is wrong with it. One value: threads read, too.
        self._known: tuple[tuple[int, ...] | None, Reading, tuple[Fault, ...]] = (None, Reading(file=str(path)), ())

    def read(self) -> Reading:
        """The settings as they are now; the defaults where there is no file. Raises `DeclarationError` with all that
        is wrong with it."""
        reading, faults = self._look()
        if faults:
            raise DeclarationError(faults)
        return reading

    def current(self) -> Config:
        """The settings as they were when they last made sense: for what goes on while the file is being mended."""
        return self._look()[0].config

    def _look(self) -> tuple[Reading, tuple[Fault, ...]]:
        """Read the file where it is another than the last time."""
        now: tuple[int, ...] = ()
        seen, reading, faults = self._known
        try:
            found = self.path.stat()
            now = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_ctime_ns)
            if now == seen:
                return reading, faults
            text = _text(self.path, found)
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"{error.strerror}"
            hint = "Make it a text file that the engine may read, or take it away: there need not be one."
            faults = (_fault(str(self.path), 1, "", f"the settings can't be read: {why}", "", hint),)
            self._known = (None, reading, faults)
            return reading, faults
        fresh, faults = parse(text, str(self.path))
        reading = reading if faults else fresh
        self._known = (now, reading, faults)
        return reading, faults


def _text(path: Path, found: os.stat_result) -> str:
    """What a plain file holds. Anything else might never end."""
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
        raise OSError(errno.EINVAL, "it is not a file of settings")
    return path.read_text(encoding="utf-8")


def parse(text: str, file: str = "config.toml") -> tuple[Reading, tuple[Fault, ...]]:
    """The settings that a text says, and what is wrong with it. Without faults the settings are whole.

    >>> reading, faults = parse('runtime = "docker"\\n[docker]\\nshm_size = "2GiB"\\n')
    >>> reading.config.runtime, reading.config.docker.shm_mib, reading.place("docker", "shm_size"), faults
    ('docker', 2048, 'config.toml:3', ())
    >>> for fault in parse('[docker]\\nhots = "unix:///run/docker.sock"\\n')[1]:
    ...     print(f"{fault.origin}: {fault.address}: {fault.summary}. {fault.hint}")
    config.toml:2: docker.hots: there is no such setting. Did you mean "host"?
    """
    try:
        said = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is the first; so is a number that is too long
        message, _, place = str(error).partition(" (at ")
        line = int(number[0]) if (number := re.findall(r"line (\d+)", place)) else max(text.count("\n"), 1)
        hint = 'It is written in TOML: name = "value", below a [table] where it belongs to one.'
        return Reading(file=file), (_fault(file, line, "", f"this is not TOML: {message}", _text_of(text, line), hint),)
    checking = _Checking(file, _places(text))
    config = checking.config(said)
    faults = tuple(sorted(checking.faults, key=lambda fault: fault.origin.line))
    return Reading(config=config, lines=checking.lines, file=file), faults


# --- where things stand -------------------------------------------------------------------------------


def _places(text: str) -> dict[Keys, int]:
    """The line of every key. What is said within one line's braces has that line."""
    here: Keys = ()
    places: dict[Keys, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            here = _parts(header[1])
            places.setdefault(here, number)
        elif key := _KEY.match(line):
            path = (*here, *_parts(key[1]))
            for end in range(len(here) + 1, len(path) + 1):
                places.setdefault(path[:end], number)
    return places


def _parts(key: str) -> Keys:
    """The parts of a key that may be dotted and quoted."""
    return tuple(part if part[0] not in "\"'" else part[1:-1] for part in re.findall(_PART, key))


def _text_of(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1].strip()[:120] if line <= len(lines) else ""


def _fault(file: str, line: int, address: str, summary: str, found: str, hint: str) -> Fault:
    origin = Origin(file=file, line=line)
    return Fault(severity="error", address=address, summary=summary, found=found, hint=hint, origin=origin)


# --- values -------------------------------------------------------------------------------------------


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise _Refused(f"it must be text, and is {_kind(value)}", f'Put it in quotes: "{_shown(value)}"')
    if not value or value != value.strip() or "\0" in value:
        raise _Refused("it is empty, or has space around it", "Say a value, or leave the line out.")
    return value


def _runtime(value: object) -> str:
    word = _word(value)
    if word not in RUNTIMES:
        known = " and ".join(f'"{name}"' for name in RUNTIMES)
        raise _Refused("there is no such runtime", did_you_mean(word, RUNTIMES, f"There are {known}."))
    return word


def _size(value: object) -> int:
    """A size in MiB.

    >>> _size("2GiB"), _size("50GB"), _size("1.5 GiB")
    (2048, 47683, 1536)
    """
    hint = 'Say it with its unit: "512MiB", "2GiB" or "50GB".'
    if not isinstance(value, str):
        raise _Refused(f"a size is text, and this is {_kind(value)}", hint)
    size = bytes_of(value)
    if size is None:
        raise _Refused("this is not a size", hint)
    if size < 1 << 20:
        raise _Refused("this is less than 1 MiB", hint)
    return size >> 20


def _days(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MOST_DAYS:
        raise _Refused(f"it must be a number of days, from 1 to {MOST_DAYS}", "Say a whole number: 7")
    return value


def _kind(value: object) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _shown(value: object) -> str:
    return f"{str(value).lower() if isinstance(value, bool) else value!s:.60}"


# --- tables -------------------------------------------------------------------------------------------

Check = Callable[[object], Any]
WORKERS: dict[str, Check] = {"network": _word, "oci_runtime": _word, "user": _word, "shm_size": _size}
APP: dict[str, Check] = {"runtime": _runtime, **WORKERS}
DOCKER: dict[str, Check] = {"host": _word, "context": _word, **WORKERS}
GC: dict[str, Check] = {"keep": _size}
LOGS: dict[str, Check] = {"budget": _size, "app": _size}
CALLS: dict[str, Check] = {"keep_results": _days}
TABLES = {"docker": (*DOCKER, "bases"), "gc": tuple(GC), "logs": tuple(LOGS), "calls": tuple(CALLS)}


class _Checking:
    """Turns what TOML gave into settings, and collects what is wrong on the way."""

    def __init__(self, file: str, lines: dict[Keys, int]) -> None:
        self.file, self.lines = file, lines
        self.faults: list[Fault] = []

    def config(self, said: dict[str, Any]) -> Config:
        tables = ("apps", *TABLES)
        top = {name: value for name, value in said.items() if name not in tables}
        found = self.known((), top, {"runtime": _runtime}, more=tables)
        apps = self.table(("apps",), said.get("apps", {}))
        calls = self.known(("calls",), self.table(("calls",), said.get("calls", {})), CALLS)
        return Config(
            runtime=found.get("runtime"),
            docker=self.docker(self.table(("docker",), said.get("docker", {}))),
            apps=tuple((name, self.app(name, value)) for name, value in apps.items()),
            keep_mib=self.known(("gc",), self.table(("gc",), said.get("gc", {})), GC).get("keep"),
            keep_results_days=calls.get("keep_results", KEEP_RESULTS_DAYS),
            logs=self.logs(self.known(("logs",), self.table(("logs",), said.get("logs", {})), LOGS)),
        )

    def logs(self, found: dict[str, Any]) -> LogSettings:
        return LogSettings(**{f"{name}_mib": value for name, value in found.items()})

    def docker(self, said: dict[str, Any]) -> DockerSettings:
        rest = {name: value for name, value in said.items() if name != "bases"}
        found = self.known(("docker",), rest, DOCKER, more=("bases",))
        if "host" in found and "context" in found:
            self.add(("docker", "context"), "host and context are both said", found["context"], "Keep one of the two.")
        bases = self.table(("docker", "bases"), said.get("bases", {}))
        for name in bases:
            if not _BASE.fullmatch(name):
                hint = did_you_mean(name, BASES, 'Such as: "debian_slim", "debian_slim 3.12" or "micromamba"')
                self.add(("docker", "bases", name), "there is no such base", bases[name], hint)
        images = self.known(("docker", "bases"), bases, dict.fromkeys(bases, _word))
        return DockerSettings(bases=tuple(images.items()), **_as_fields(found))

    def app(self, name: str, said: object) -> AppSettings:
        return AppSettings(**_as_fields(self.known(("apps", name), self.table(("apps", name), said), APP)))

    def table(self, path: Keys, said: object) -> dict[str, Any]:
        if isinstance(said, dict):
            return said
        hint = f"Write [{'.'.join(path)}] on a line of its own, and its settings below."
        self.add(path, f"it must be a table, and is {_kind(said)}", said, hint)
        return {}

    def known(
        self, path: Keys, said: dict[str, Any], checks: dict[str, Check], *, more: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """The values of a table that can be used, by name."""
        found = {}
        for name, value in said.items():
            if name not in checks:
                self.add((*path, name), "there is no such setting", value, self.way_out(name, (*checks, *more)))
                continue
            try:
                found[name] = checks[name](value)
            except _Refused as refused:
                self.add((*path, name), refused.summary, value, refused.hint)
        return found

    @staticmethod
    def way_out(name: str, known: tuple[str, ...]) -> str:
        elsewhere = next((table for table, names in TABLES.items() if name in names), None)
        if elsewhere is not None:
            return f"It belongs below [{elsewhere}]."
        return did_you_mean(name, known, f"Here go: {', '.join(known)}.")

    def add(self, path: Keys, summary: str, value: object, hint: str) -> None:
        found = "" if isinstance(value, dict | list) else f"{path[-1]} = {value!r:.100}"
        self.faults.append(_fault(self.file, line_of(self.lines, path), ".".join(path), summary, found, hint))


def _as_fields(found: dict[str, Any]) -> dict[str, Any]:
    return {("shm_mib" if name == "shm_size" else name): value for name, value in found.items()}
