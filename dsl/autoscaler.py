"""How many workers a function has, and may have: looked at and changed while it is in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .dual import twin_of
from .origin import invalid

if TYPE_CHECKING:
    from .scaled import Scaled


@frozen(kw_only=True)
class FunctionStats:
    """How busy a function is now."""

    backlog: int  # inputs that wait
    num_total_runners: int  # workers
    num_running_inputs: int
    input_headroom: int  # inputs that the workers could take at once


@frozen(kw_only=True)
class AutoscalerSettings:
    """What bounds the number of a function's workers. None: nothing was said."""

    min_containers: int | None = None
    max_containers: int | None = None
    buffer_containers: int | None = None
    scaledown_window: float | None = None


class Autoscaler:
    """`f.autoscaler`: what holds until the app is deployed anew, which resets it to what its file says."""

    __slots__ = ("_scaled",)

    def __init__(self, scaled: Scaled) -> None:
        self._scaled = scaled

    @property
    def title(self) -> str:
        return f"{self._scaled.title}.autoscaler"

    async def _settings_aio(self) -> AutoscalerSettings:
        session, ref = self._scaled.target("autoscaler.settings")
        return settings_of(await session.ask_of_aio(ref, "function.scaling", {}))

    @twin_of(_settings_aio)
    def settings(self) -> AutoscalerSettings:
        """What is in force now."""
        session, ref = self._scaled.target("autoscaler.settings")
        return settings_of(session.ask_of(ref, "function.scaling", {}))

    async def _update_aio(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: float | None = None,
    ) -> None:
        said = self._said(min_containers, max_containers, buffer_containers, scaledown_window)
        session, ref = self._scaled.target("autoscaler.update")
        await session.ask_of_aio(ref, "function.scale", said)

    @twin_of(_update_aio)
    def update(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: float | None = None,
    ) -> None:
        """Change what is given, until the next deployment. None leaves a setting as it is."""
        said = self._said(min_containers, max_containers, buffer_containers, scaledown_window)
        session, ref = self._scaled.target("autoscaler.update")
        session.ask_of(ref, "function.scale", said)

    def _said(self, least: int | None, most: int | None, buffer: int | None, window: float | None) -> dict[str, Any]:
        from .resources import checked_count, checked_seconds

        scaled = self._scaled
        if scaled.method:
            raise invalid(
                f"{scaled.title} is a method, and the workers of {scaled.name} serve all of its methods",
                hint=f"Scale the class: {scaled.name}(...).update_autoscaler(...).",
            )
        said: dict[str, Any] = {}
        for name, value, low in (
            ("min_containers", least, 0),
            ("max_containers", most, 1),
            ("buffer_containers", buffer, 0),
        ):
            if value is not None:
                said[name] = checked_count(name, value, low)
        if least is not None and most is not None and least > most:
            raise invalid(f"min_containers={least} is above max_containers={most}")
        if window is not None:
            said["scaledown_window"] = -(-checked_seconds("scaledown_window", window, 2, 3600) // 1000)
        return said


def settings_of(reply: Mapping[str, Any]) -> AutoscalerSettings:
    """The reply to "function.scaling" as a value.

    >>> settings_of({"min_containers": 1, "max_containers": None, "scaledown_window": 60.0})
    AutoscalerSettings(min_containers=1, max_containers=None, buffer_containers=None, scaledown_window=60.0)
    """
    names = ("min_containers", "max_containers", "buffer_containers", "scaledown_window")
    return AutoscalerSettings(**{name: reply.get(name) for name in names})


def stats_of(reply: Mapping[str, Any]) -> FunctionStats:
    """The reply to "function.stats" as a value."""
    return FunctionStats(
        backlog=int(reply["queued"]),
        num_total_runners=int(reply["workers"]),
        num_running_inputs=int(reply["running"]),
        input_headroom=int(reply["headroom"]),
    )
