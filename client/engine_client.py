"""Finds the engine of a home and starts it where none runs."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.dsl.errors import Error, RuntimeUnavailable, VersionError
from slipway.dsl.version import VERSION
from slipway.executor.home import Home

from .connection import Connection


def home_path() -> Path:
    """`$SLIPWAY_HOME`, or `~/.slipway`; absolute, whether it is there or not."""
    given = os.environ.get("SLIPWAY_HOME")
    return Path(given).expanduser().absolute() if given else Path.home() / ".slipway"


def connect(home: Path | None = None, *, start: bool = True) -> Connection:
    """A connection to the home's engine; the engine is started in the background where none runs.

    Raises `RuntimeUnavailable` when it does not run and `start` is False, or when it cannot be started, and
    `VersionError` when the engine that runs is of other code and is busy.
    """
    home = home or home_path()
    connection = _try(home)
    if connection is not None and not _is_other_code(connection):
        return connection
    if connection is None and not start:
        raise RuntimeUnavailable(f"no engine runs for {home}", hint="Start one with: slipway up")
    if connection is not None:
        if not start:
            return connection
        _retire(connection)
    return _start(home)


def _try(home: Path) -> Connection | None:
    try:
        return Connection.connect(Home(home).socket)
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, RuntimeUnavailable):
        return None


def _is_other_code(connection: Connection) -> bool:
    return bool(connection.peer.get("code") != connection.code)


def _retire(connection: Connection) -> None:
    """Ask an engine of other code to end, where nothing is under way in it."""
    theirs, ours = connection.peer.get("version"), VERSION
    status = connection.request("status", {})
    if status["busy"]:
        connection.close()
        raise VersionError(
            f"the engine that runs (pid {status['pid']}) is of other code ({theirs}) than this program ({ours}), "
            f"and it is busy: {status['busy']}",
            hint="End it with `slipway down`, then try again.",
        )
    sys.stderr.write(f"The engine is of other code ({theirs}); starting it anew.\n")
    stop(connection)


def stop(connection: Connection, *, drain: bool = True) -> None:
    """Ask the engine to end, and return when it has."""
    connection.request("down", {"drain": drain})
    connection.wait_closed()


@contextmanager
def _only_one_starts(home: Path) -> Iterator[None]:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(Home(home).start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RuntimeUnavailable(
            f"the home {home} cannot be made or written to: {error.strerror}",
            hint="Set SLIPWAY_HOME to a folder of your own on a local disk.",
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _start(home: Path) -> Connection:
    with _only_one_starts(home):
        connection = _try(home)  # somebody else may have started it while we waited
        if connection is not None:
            return connection
        _spawn(home)
        connection = _try(home)
    if connection is None:
        raise RuntimeUnavailable(f"the engine of {home} ended as soon as it was started", hint=_log_tail(home))
    return connection


def _spawn(home: Path) -> None:
    """Start the engine as a process of its own and wait until it says that it is ready, or ends."""
    import subprocess

    log_path = Home(home).engine_log
    log_path.parent.mkdir(exist_ok=True)
    ready, write_end = os.pipe()
    try:
        with log_path.open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "slipway.cli.daemon", "--home", str(home), "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                start_new_session=True,
                cwd="/",
            ).returncode = 0  # it outlives us on purpose: no warning when the handle goes
    finally:
        os.close(write_end)
    try:
        with os.fdopen(ready, "rb") as pipe:
            word = pipe.read()
    except OSError as error:
        raise RuntimeUnavailable(f"the engine did not start: {error}") from error
    if word != b"ready":
        raise RuntimeUnavailable(f"the engine of {home} could not be started", hint=_log_tail(home))


def _log_tail(home: Path) -> str:
    path = Home(home).engine_log
    try:
        lines = path.read_text(errors="replace").splitlines()[-12:]
    except OSError as error:
        raise Error(f"the engine's log {path} cannot be read: {error.strerror}") from error
    return f"The end of {path}:\n" + "\n".join(f"  {line}" for line in lines)
