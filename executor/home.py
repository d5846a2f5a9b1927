"""The home: one folder that holds everything an engine owns, and the lock that makes it one engine's.

Programs know it too, to find the engine; so what takes a while to import (psutil) is imported where it is used.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from attrs import field, frozen

from slipway.dsl.errors import RuntimeUnavailable


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

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock, waiting for an engine that is on its way out. False when it is held and `wait` is not set."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(fd)
            return False
        import psutil

        os.ftruncate(fd, 0)
        holder = {"pid": os.getpid(), "started": psutil.Process().create_time(), "boot": boot_id()}
        os.pwrite(fd, json.dumps(holder).encode(), 0)
        self._fd = fd
        return True

    def release(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def holder(path: Path) -> int | None:
    """The pid of the engine that holds the lock at `path`, or None where nobody does (a dead holder's note is void)."""
    import psutil

    try:
        note = json.loads(path.read_text())
        process = psutil.Process(note["pid"])
        alive = note["boot"] == boot_id() and abs(process.create_time() - note["started"]) < 1
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return int(note["pid"]) if alive else None
