"""Parts of the programming model that this release doesn't have: named, so that using one says so in words."""

from __future__ import annotations

from typing import Any, NoReturn

from .origin import invalid


class Later:
    """A method that comes with a later release. Reading it is fine, calling it says what to do instead.

    >>> Later("Image.publish").aio()
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.InvalidError: ...: Image.publish is not in this release of Slipway
    """

    __slots__ = ("hint", "what")

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise invalid(f"{self.what} is not in this release of Slipway", hint=self.hint)

    @property
    def aio(self) -> Later:
        return self

    def __repr__(self) -> str:
        return f"<{self.what}: not in this release>"
