"""The home: one folder that holds everything an engine owns, and the lock that makes it one engine's."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from slipway.dsl.errors import RuntimeUnavailable

from .locks import lock, try_lock

ENDING_SECONDS = 30.0  # as long an engine that was told to end may take before the next one gives up


class Home:
    """Where things lie. `create` makes the folders, readable by their owner alone."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"<Home {self.path}>"

    @property
    def config(self) -> Path:
        """What its owner has set; there need not be one."""
        return self.path / "config.toml"

    @property
    def state(self) -> Path:
        return self.path / "state.db"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def payloads(self) -> Path:
        """What of durable inputs and their results is too big for the state."""
        return self.path / "payloads"

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
    def layer_logs(self) -> Path:
        return self.logs / "layers"

    @property
    def caches(self) -> Path:
        """What package managers keep for the next build."""
        return self.path / "cache"

    @property
    def codes(self) -> Path:
        """Copies of our own code for workers, one of each version: `worker.package` makes them."""
        return self.path / "runtime"

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


class EngineLock:
    """The lock of a home: held by one engine, given back by the kernel when its process ends in whatever way.

    The file also says who holds it, for messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, *, wait: float = ENDING_SECONDS) -> None:
        """Take the lock, waiting so many seconds for an engine that is on its way out. Raises `RuntimeUnavailable`."""
        fd = lock(self._path, wait=wait)
        if fd is None:
            raise RuntimeUnavailable(
                f"another engine holds {self._path.parent}: pid {_pid(self._path) or 'unknown'}",
                hint="End it with `slipway down --now`, or end its process.",
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def _pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def holder(path: Path) -> int | None:
    """The pid of the engine that holds the lock at `path`, or None where nobody does (a dead holder's note is void).

    The lock itself is asked: a pid that was written down may be somebody else's by now.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if try_lock(fd, fcntl.LOCK_SH) else _pid(path)
    finally:
        os.close(fd)
