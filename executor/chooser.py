"""Chooses a runtime for an app by asking those that there are; says what is wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from slipway.compiler.facts import BaseNeed, Missing
from slipway.dsl.declaration import AppDecl, Fault
from slipway.dsl.errors import DeclarationError, NotFoundError

from .choice import DOCKER, NATIVE, Choice, Obstacle, Wishes, bases_to_look_for, default, obstacles, wished
from .config_file import ConfigFile
from .ports import Runtime

PATIENCE = 3.0  # seconds in which a runtime says how it is
WHERE = ("DOCKER_HOST", "DOCKER_CONTEXT")  # what names an engine of Docker's


class Chooser:
    """`environ` is what the engine was started with."""

    def __init__(self, runtimes: Mapping[str, Runtime], config: ConfigFile, environ: Mapping[str, str]) -> None:
        self._runtimes = runtimes
        self._config = config
        self._environ = environ

    async def choose(
        self, decl: AppDecl, option: str | None, caller: Mapping[str, str], deployed: str | None
    ) -> Choice:
        """The runtime for an app, as said or else as it can be. Raises `InvalidError` for one that there isn't, and
        `DeclarationError` where the settings are wrong."""
        wishes = Wishes(
            app=decl.name,
            option=option,
            variable=caller.get("SLIPWAY_RUNTIME"),
            settings=self._config.read(),
            deployed=deployed,
        )
        choice = wished(wishes, tuple(self._runtimes))
        if choice is not None or len(self._runtimes) < 2:
            return choice or Choice(runtime=next(iter(self._runtimes)))
        found = await self._obstacles(decl, self._runtimes[NATIVE])
        if not found:
            return default((), "")
        trouble = await self._trouble(self._runtimes[DOCKER])
        return default(found, "\n".join(filter(None, (trouble, self.other_engine(DOCKER, caller) if trouble else ""))))

    async def _obstacles(self, decl: AppDecl, runtime: Runtime) -> tuple[Obstacle, ...]:
        refusals = dict((await runtime.ability()).refusals)
        missing = {need: await _missing(runtime, need) for need in bases_to_look_for(decl, refusals)}
        lacking = {need: lacks for need, lacks in missing.items() if lacks is not None}
        return obstacles(decl, runtime.name, refusals, lacking)

    # --- which engine of Docker's ---------------------------------------------------------------------

    def other_engine(self, runtime: str, caller: Mapping[str, str]) -> str:
        """What to say where the caller's environment names another engine of Docker's than ours does, which counts:
        an engine outlives its callers, and its workers can't be on two."""
        docker = self._config.current().docker
        if runtime != DOCKER or docker.host is not None or docker.context is not None:
            return ""
        theirs, ours = (next(((n, e[n]) for n in WHERE if e.get(n)), None) for e in (caller, self._environ))
        if theirs is None or theirs == ours:
            return ""
        has = f"{ours[0]}={ours[1]}" if ours is not None else "neither that nor another"
        return (
            f"Your {theirs[0]} is {theirs[1]}; the engine was started with {has}, and keeps to it. "
            "To have yours: slipway down, then again; or say `host` under [docker] in config.toml."
        )

    def caller_notes(self, runtime: str, caller: Mapping[str, str]) -> tuple[Fault, ...]:
        words = self.other_engine(runtime, caller)
        return (Fault(severity="note", address=f"runtime {runtime}", summary=words),) if words else ()

    # --- how they are ---------------------------------------------------------------------------------

    async def troubles(self) -> list[dict[str, str]]:
        """Every runtime with what is wrong with it, or ""."""
        said = await asyncio.gather(*(self._trouble(runtime) for runtime in self._runtimes.values()))
        return [{"name": name, "trouble": trouble} for name, trouble in zip(self._runtimes, said, strict=True)]

    @staticmethod
    async def _trouble(runtime: Runtime) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                return await runtime.trouble()
        except TimeoutError:
            return f"no answer within {PATIENCE:g} s"

    def settings_trouble(self) -> str:
        """The first thing that is wrong with the settings, or ""."""
        try:
            self._config.read()
        except DeclarationError as error:
            first = error.faults[0]
            return f"{first.origin}: {f'{first.address}: ' if first.address else ''}{first.summary}"
        return ""


async def _missing(runtime: Runtime, need: BaseNeed) -> Missing | None:
    try:
        await runtime.resolve(need.kind, need.ref)
    except NotFoundError as error:
        return Missing(summary=error.message, hint=error.hint)
    return None
