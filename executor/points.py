"""Named points at which a test can have this process killed, to see what a crash there leaves behind.

`SLIPWAY_FAULT=after-commit` kills it the first time that it gets to that point, `after-commit:3` the third time.
Without the variable a point is one comparison.
"""

from __future__ import annotations

import os
import signal


def _parse(text: str | None) -> tuple[str, int] | None:
    if not text:
        return None
    name, _, number = text.partition(":")
    return name, int(number) if number else 1


_armed = _parse(os.environ.get("SLIPWAY_FAULT"))
_passed = 0


def point(name: str) -> None:
    """Die here, at once and without any cleaning up, where `SLIPWAY_FAULT` says so.

    >>> point("nobody-armed-this")
    """
    global _passed
    if _armed is None or _armed[0] != name:
        return
    _passed += 1
    if _passed == _armed[1]:
        os.kill(os.getpid(), signal.SIGKILL)
