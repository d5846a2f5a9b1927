"""Locks that are files: held by one process, given back by the kernel when that ends in whatever way."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

LOOK_AGAIN = 0.01  # seconds; flock has no deadline of its own


def lock(path: Path, *, wait: float) -> int | None:
    """The descriptor of a locked file, made where it isn't there; None where another holds it for so many seconds.

    Blocks. Closing the descriptor gives the lock back.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait
    while not try_lock(fd):
        if time.monotonic() > deadline:
            os.close(fd)
            return None
        time.sleep(LOOK_AGAIN)
    return fd


def try_lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file if nobody else holds it; `how` is LOCK_EX or LOCK_SH."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
