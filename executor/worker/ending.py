"""The end of a worker: how long it may take, and how the process dies. Runs in the container."""

from __future__ import annotations

import _thread
import os
import signal
import time
from typing import NoReturn

GRACE = 30.0  # seconds from the order to end until the process is gone, exit hooks and all
_LATE = f"the worker did not end within {GRACE:.0f} s of being told to, and is killed\n"
_begun = False


def begin_deadline() -> None:
    """Be gone within the grace time, whatever the user's code does. Safe to call in a signal's handler, and twice."""
    global _begun
    if not _begun:
        _begun = True
        _thread.start_new_thread(_wait, ())  # `threading` takes locks, which a handler must not


def _wait() -> NoReturn:
    time.sleep(GRACE)
    try:
        os.write(2, _LATE.encode())
    finally:
        die_by(signal.SIGKILL)


def ignore_signals() -> None:
    """From here on nothing breaks off what the worker still does. Programs that it starts hear them all the same."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def let_signals_be() -> None:
    """Have signals do what they do in any Python."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def die_by(number: int) -> NoReturn:
    """End by a signal, so that whoever waits for the process hears what ended it."""
    signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # a container's first process is spared by signals
