"""The home: one folder that holds everything an engine owns, and the lock that makes it one engine's.

Programs know it too, to find the engine; so what takes a while to import (psutil) is imported where it is used.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from attrs import field, frozen

from slipway.dsl.errors import RuntimeUnavailable

ENDING_SECONDS = 30.0  # as long an engine that was told to end may take before the next one gives up


@frozen
class Home:
    """Where things lie. `create` makes the folders, readable by their owner alone."""

    path: Path = field(converter=Path)

    @property
    def state(self) -> Path:
        return self.path / "state.db"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def volumes(self) -> Path:
        return self.path / "volumes"

    @property
    def bundles(self) -> Path:
        return self.path / "bundles"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def engine_log(self) -> Path:
        return self.logs / "engine.log"

    @property
    def run(self) -> Path:
        """Control folders of the workers, one each."""
        return self.path / "run"

    @property
    def lock(self) -> Path:
        return self.path / "engine.lock"

    @property
    def start_lock(self) -> Path:
        """Held by a program while it starts an engine, so that two do not start two."""
        return self.path / "start.lock"

    @property
    def socket(self) -> Path:
        return self.path / "engine.sock"

    def create(self) -> None:
        """Make the home. Raises `RuntimeUnavailable` where it cannot be made or written to."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
            for folder in (self.logs, self.run, self.volumes, self.bundles):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RuntimeUnavailable(
                f"the home {self.path} cannot be made or written to: {error.strerror}",
                hint="Set SLIPWAY_HOME to a folder of your own on a local disk.",
            ) from error


def boot_id() -> str:
    """Tells one run of the kernel from the next, so that a pid of before a reboot is not mistaken for a live one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class EngineLock:
    """The lock of a home: held by one engine, given back by the kernel when its process ends in whatever way.

    The file also says who holds it (pid, start time, boot id), for messages and for `slipway status`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, *, wait: float = ENDING_SECONDS) -> None:
        """Take the lock, waiting so many seconds for an engine that is on its way out. Raises `RuntimeUnavailable`."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait
        while not _locked(fd):
            if time.monotonic() > deadline:
                os.close(fd)
                raise RuntimeUnavailable(
                    f"another engine holds {self._path.parent}: pid {_note(self._path).get('pid', 'unknown')}",
                    hint="End it with `slipway down --now`, or end its process.",
                )
            time.sleep(0.02)  # flock has no deadline of its own
        import psutil

        os.ftruncate(fd, 0)
        note = {"pid": os.getpid(), "started": psutil.Process().create_time(), "boot": boot_id()}
        os.pwrite(fd, json.dumps(note).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def _locked(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def holder(path: Path) -> int | None:
    """The pid of the engine that holds the lock at `path`, or None where nobody does (a dead holder's note is void).

    The lock itself is asked: start times move when the clock is set.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _locked(fd, fcntl.LOCK_SH) else _note(path).get("pid")
    finally:
        os.close(fd)
