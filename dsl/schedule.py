"""Schedules: when a deployed function runs by itself."""

from __future__ import annotations

from attrs import frozen

from .declaration import CronDecl, PeriodDecl
from .origin import here, invalid, text_argument
from .resources import checked_count, checked_seconds


@frozen(init=False)
class Cron:
    """At the times of a five-field cron expression, in a time zone.

    >>> Cron("0 3 * * 1", timezone="Europe/Berlin").decl.timezone
    'Europe/Berlin'
    """

    decl: CronDecl

    def __init__(self, cron_string: str, timezone: str = "UTC") -> None:
        fields = text_argument(cron_string, "a cron expression").split()
        timezone = text_argument(timezone, "timezone=")
        self.__attrs_init__(CronDecl(expression=" ".join(fields), timezone=timezone, origin=here()))


@frozen(init=False)
class Period:
    """Again and again, this long after the deployment.

    >>> Period(hours=6).decl.ms, Period(years=1, weeks=2).decl.months, Period(years=1, weeks=2).decl.days
    (21600000, 12, 14)
    """

    decl: PeriodDecl

    def __init__(
        self,
        *,
        years: int = 0,
        months: int = 0,
        weeks: int = 0,
        days: int = 0,
        hours: int = 0,
        minutes: int = 0,
        seconds: float = 0,
    ) -> None:
        whole = {"years": years, "months": months, "weeks": weeks, "days": days, "hours": hours, "minutes": minutes}
        for name, value in whole.items():
            checked_count(f"Period({name}", value, 0)
        second_ms = checked_seconds("Period(seconds", seconds, 0, 1e9)
        ms = (hours * 60 + minutes) * 60_000 + second_ms
        decl = PeriodDecl(months=years * 12 + months, days=weeks * 7 + days, ms=ms, origin=here())
        if not (decl.months or decl.days or decl.ms):
            raise invalid("a Period must be longer than nothing", hint="For example slipway.Period(hours=1).")
        self.__attrs_init__(decl)
