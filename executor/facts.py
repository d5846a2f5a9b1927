"""Gathering the facts that a plan is made of: the world is read once, in threads, and never waited for on the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from uv import find_uv_bin

from slipway.compiler.facts import (
    BaseNeed,
    Fact,
    Facts,
    Missing,
    Need,
    PythonNeed,
    SecretFact,
    SecretNeed,
    TextNeed,
    TreeNeed,
    VolumeFact,
    VolumeNeed,
)
from slipway.dsl.errors import InvalidError, NotFoundError

from . import add_python
from .ports import Runtime
from .store.seal import Seal
from .store.state import State
from .tasks import all_of
from .trees import TreeReading, read_text, read_tree

Values = Mapping[str, Mapping[str, str]]  # slot -> key -> value


async def gather(
    needs: Iterable[Need],
    *,
    runtime: Runtime,
    state: State,
    seal: Seal,
    app: str,
    secrets: Values | None = None,
    notes: tuple[tuple[str, str], ...] = (),
) -> Facts:
    """Meet every need; what can't be met is a `Missing` with the way out. `secrets` are the present values.

    `notes` come after those of the runtime. Raises `RuntimeUnavailable` where the runtime can't be reached at all.
    """
    wanted = tuple(needs)
    gathering = _Gathering(runtime=runtime, state=state, seal=seal, app=app, secrets=secrets or {})
    ability = await runtime.ability()
    reading = asyncio.Semaphore(2)  # trees at a time: one reads the disk while the other hashes

    async def meet(need: Need) -> Fact:
        async with reading:
            return await gathering.meet(need)

    found = await all_of(meet(need) for need in wanted)
    return Facts(
        runtime=runtime.name,
        found=tuple(zip(wanted, found, strict=True)),
        refusals=ability.refusals,
        notes=(*ability.notes, *notes),
    )


class _Gathering:
    def __init__(self, *, runtime: Runtime, state: State, seal: Seal, app: str, secrets: Values) -> None:
        self._runtime = runtime
        self._state = state
        self._seal = seal
        self._app = app
        self._secrets = secrets

    async def meet(self, need: Need) -> Fact:
        match need:
            case BaseNeed():
                return await self._base(need)
            case TreeNeed():
                return await self._tree(need)
            case TextNeed():
                return await asyncio.to_thread(read_text, need.path)
            case SecretNeed():
                return await self._secret(need)
            case VolumeNeed():
                return VolumeFact(exists=await self._state.volume(need.name) is not None)
            case PythonNeed():
                return await asyncio.to_thread(add_python.find, need.version, Path(find_uv_bin()))

    async def _base(self, need: BaseNeed) -> Fact:
        try:
            auth = tuple(sorted(self._secrets.get(need.secret, {}).items()))
            return await self._runtime.resolve(need.kind, need.ref, auth=auth, fresh=need.fresh)
        except (NotFoundError, InvalidError) as error:  # it is not to be had, or not with these keys
            return Missing(summary=error.message, hint=error.hint)

    async def _tree(self, need: TreeNeed) -> Fact:
        def read() -> TreeReading:
            return read_tree(need.source, self._state.files_below(os.path.realpath(need.source.local)))

        reading = await asyncio.to_thread(read)
        await self._state.record_files(reading.hashed, reading.gone)
        return reading.fact

    async def _secret(self, need: SecretNeed) -> Fact:
        values = self._secrets.get(need.slot)
        if values is None:
            return Missing(
                summary=f"the values of secret {need.slot} did not come with the declaration",
                hint="Make the plan with the same slipway as the engine's: slipway plan",
            )
        mac = self._seal.mac(need.slot, values)
        sealed = self._seal.seal(values)
        return SecretFact(version=await self._state.secret_version(self._app, need.slot, mac, sealed))
