"""Leaves out the body of a `with app.run():` block that stands at the top of a file which is being imported.

Such a file is a script: run by Python it calls its functions. Imported to see what it declares, or in a worker, it
must not. Python has no way to say "not this body", so a trace function on that one frame raises at the first
instruction of it, and the block's `__exit__` takes that exception in.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any


class BodyLeftOut(BaseException):
    """Raised in place of the body of the block."""


def leave_out_body(frame: FrameType) -> None:
    """Raise `BodyLeftOut` in a frame as soon as it runs on. Called from `__enter__` of its `with` statement."""
    before = sys.gettrace()

    def raise_there(frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace, frame.f_trace_opcodes = None, False
        sys.settrace(before)
        raise BodyLeftOut

    def look_on(frame: FrameType, event: str, arg: Any) -> Any:
        return None

    frame.f_trace = raise_there
    frame.f_trace_opcodes = True  # the body may stand on the line of the `with`
    sys.settrace(look_on)
