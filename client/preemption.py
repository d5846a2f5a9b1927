"""A preemption as a rehearsal: what a worker goes through when its machine is taken away."""

from __future__ import annotations

import os
import random
import signal
import threading

from slipway.dsl.origin import invalid

GRACE = 30.0  # seconds for exit hooks, before the process is killed


def begin(wait_seconds: float, jitter_seconds: float = 0, *, grace: float = GRACE) -> None:
    """Have SIGINT come to this process after a while, and SIGKILL when its time to tidy up is over."""
    if wait_seconds <= 0 or jitter_seconds < 0:
        raise invalid(f"simulate_preemption({wait_seconds}, {jitter_seconds}): it takes seconds from now on")
    delay = wait_seconds + random.uniform(0, jitter_seconds)  # noqa: S311 - no secret hangs on it
    for after, number in ((delay, signal.SIGINT), (delay + grace, signal.SIGKILL)):
        timer = threading.Timer(after, os.kill, (os.getpid(), number))
        timer.daemon = True  # the process may end before
        timer.start()
