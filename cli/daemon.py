"""The daemon: the one place where an engine is put together, and its process's life from start to end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import TextIO

from slipway.dsl.errors import Error
from slipway.executor.config_file import ConfigFile
from slipway.executor.engine import Engine
from slipway.executor.home import EngineLock, Home
from slipway.executor.runtime.docker_runtime import DockerRuntime
from slipway.executor.runtime.native import NativeRuntime
from slipway.executor.server import Server

IDLE_MS = 600_000  # an engine with nothing deployed and nobody connected ends itself after this time
GC_AFTER = 10_000  # objects more than were let go, before the collector looks through the young ones

MOST_LOG = 4 << 20  # bytes of the engine's own log, before it begins anew

log = logging.getLogger("slipway")


class KeptLog(logging.StreamHandler[TextIO]):
    """Writes to a stream. Where that is the engine's own file, it begins anew when it is full; what it held is kept
    once, beside it, and goes with the oldest logs. Any other file belongs to whoever sent our output there."""

    def __init__(self, stream: TextIO, path: Path, most: int = MOST_LOG) -> None:
        super().__init__(stream)
        self._path = path
        self._most = most

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        with contextlib.suppress(OSError):
            here = os.fstat(self.stream.fileno())
            if here.st_size > self._most and stat.S_ISREG(here.st_mode) and os.path.samestat(here, self._path.stat()):
                shutil.copyfile(self._path, self._path.with_suffix(".1.log"))
                os.ftruncate(self.stream.fileno(), 0)  # it is open for appending: the next line is the first


async def serve(home: Home, *, idle_ms: int | None, ready: int | None = None) -> None:
    """Open the engine, serve until it is told to end, close it. `ready` is a pipe that is told when it listens."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    runtimes = (NativeRuntime(home.path), DockerRuntime(home.path, ConfigFile(home.config).current))
    async with (
        Engine.open(home, runtimes=runtimes) as engine,
        Server.open(engine, home.socket, ended=ended, idle_ms=idle_ms),
    ):
        log.info("ready: pid %d, home %s", os.getpid(), home.path)
        if ready is not None:
            with contextlib.suppress(BrokenPipeError):  # whoever started it was interrupted; others come
                os.write(ready, b"ready")
            os.close(ready)
        # What is there now stays. What calls leave goes by itself: the collector finds little, and need not look often.
        gc.freeze()
        gc.set_threshold(GC_AFTER, 20, 20)
        await ended.wait()
        log.info("ending")


def run(home: Home, *, idle_ms: int | None, ready: int | None = None) -> None:
    """Run an engine for `home` in this process until it ends. Raises `Error` when it cannot start."""
    import uvloop

    handlers = [KeptLog(sys.stderr, home.engine_log)]
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, handlers=handlers)
    home.create()
    lock = EngineLock(home.lock)
    lock.acquire()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(home, idle_ms=idle_ms, ready=ready))
    finally:
        lock.release()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="slipway.cli.daemon", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--idle-ms", type=int, default=int(os.environ.get("SLIPWAY_IDLE_MS", IDLE_MS)))
    options = parser.parse_args(argv)
    if options.ready_fd is not None:
        os.set_inheritable(options.ready_fd, False)
    try:
        run(Home(options.home), idle_ms=options.idle_ms, ready=options.ready_fd)
    except Error as error:
        sys.stderr.write(f"slipway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
