"""Retries: how often, and after what delay, an input that failed is tried again."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from .declaration import Retries as RetriesDecl
from .origin import invalid
from .resources import checked_count


@frozen(init=False)
class Retries:
    """Try again up to `max_retries` times, waiting `initial_delay` seconds, then `backoff_coefficient` times longer.

    >>> Retries(max_retries=3, initial_delay=0.5).decl.initial_delay_ms
    500
    >>> Retries(max_retries=-1)
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.InvalidError: ...: max_retries=-1: it takes a whole number from 0 on
    """

    decl: RetriesDecl

    def __init__(
        self,
        *,
        max_retries: int,
        backoff_coefficient: float = 2.0,
        initial_delay: float = 1.0,
        max_delay: float = 60.0,
    ) -> None:
        self.__attrs_init__(
            RetriesDecl(
                max_retries=checked_count("max_retries", max_retries, 0),
                backoff_milli=_thousandths("backoff_coefficient", backoff_coefficient, 1, 10),
                initial_delay_ms=_thousandths("initial_delay", initial_delay, 0, 60),
                max_delay_ms=_thousandths("max_delay", max_delay, 1, 60),
            )
        )


def _thousandths(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise invalid(f"{name}={value!r}: it must be from {low} to {high}")
    return round(value * 1000)


def checked_retries(value: object) -> RetriesDecl | None:
    """What a `retries=` parameter says. A plain number means that many, one second apart."""
    if value is None:
        return None
    if isinstance(value, Retries):
        return value.decl
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid(
            f"retries={value!r}: it takes a whole number from 0 on, or slipway.Retries", hint="For example retries=3."
        )
    return RetriesDecl(max_retries=value, backoff_milli=1000) if value else None
