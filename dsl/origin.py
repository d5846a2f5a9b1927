"""Where in the user's files something was said, and errors that name the place."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import InvalidError

if TYPE_CHECKING:
    from types import FrameType

    from .declaration import Origin


def user_frame() -> FrameType | None:
    """The nearest frame that is not ours: the line of the user's file that is being carried out."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if module != "slipway" and not module.startswith("slipway."):
            return frame
        frame = frame.f_back
    return None


def here() -> Origin:
    """The place in the user's file that is speaking now."""
    from .declaration import Origin  # here, because a worker that says nothing of a place does without

    frame = user_frame()
    return Origin(file=frame.f_code.co_filename, line=frame.f_lineno) if frame is not None else Origin()


def origin_of(function: Callable[..., Any]) -> Origin:
    """Where a function is written: the line of its first decorator, or of its `def`."""
    from .declaration import Origin

    code = getattr(function, "__code__", None)
    return Origin(file=code.co_filename, line=code.co_firstlineno) if code is not None else here()


NAME = r"[A-Za-z0-9_.-]{1,64}"


def checked_name(name: object, what: str) -> str:
    """A name of a stored object: letters, digits, `-`, `_` and `.`, at most 64, and not a way out of a folder."""
    if not isinstance(name, str):
        raise invalid(f"the name of {what} must be a string, not {type(name).__name__}")
    if not re.fullmatch(NAME, name) or not name.strip("."):
        raise invalid(f"{name!r} can't be the name of {what}", hint="Use letters, digits, -, _ and ., at most 64.")
    return name


def text_argument(value: object, what: str) -> str:
    """An argument that must be a string with something in it."""
    if isinstance(value, str) and value.strip():
        return value
    found = "an empty string" if isinstance(value, str) else type(value).__name__
    raise invalid(f"{what} must be a string, not {found}")


def invalid(summary: str, *, hint: str = "") -> InvalidError:
    """An error about what the user is saying right now; its message starts with the place."""
    return InvalidError(f"{here()}: {summary}", hint=hint)
