"""Points in time as people say them."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import click

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"(?:\d{1,9}(?:\.\d+)?[smhdw])+")


def moment_ms(text: str, now_ms: int) -> int:
    """A point in time in milliseconds: so long ago, or a date and time, of here where no zone is said.

    >>> moment_ms("1h30m", 10_000_000), moment_ms("2026-11-23T10:00:00+00:00", 0)
    (4600000, 1795428000000)
    """
    if _AGO.fullmatch(text):
        parts = re.findall(r"([\d.]+)([smhdw])", text)
        return now_ms - round(sum(float(number) * UNITS[unit] for number, unit in parts) * 1000)
    return round(datetime.fromisoformat(text).timestamp() * 1000)


class Moment(click.ParamType):  # type: ignore[type-arg] # generic only in newer versions of click
    """An option's value that is a point in time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return moment_ms(str(value).strip(), time.time_ns() // 1_000_000)
        except (ValueError, OverflowError):
            said = "Say how long ago (30s, 10m, 2h, 1d) or when (2026-11-23, 2026-11-23T10:00)."
            self.fail(f"{value!r} is no point in time. {said}", param, ctx)


def ago(ms: int, now_ms: int) -> str:
    """How long ago something was, in the largest unit that fits.

    >>> [ago(0, ms) for ms in (-5, 500, 42_000, 300_000, 7_300_000, 200_000_000)]
    ['now', 'now', '42s', '5m', '2h', '2d']
    """
    seconds = (now_ms - ms) // 1000
    unit = next((unit for unit in ("d", "h", "m", "s") if seconds >= UNITS[unit]), None)
    return "now" if unit is None else f"{seconds // UNITS[unit]}{unit}"
