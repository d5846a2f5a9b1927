"""Which of this machine's GPUs a container gets. Containers may share one: nothing leases a GPU to one alone yet."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from slipway.dsl.errors import InvalidError

from .runtime import gpus
from .runtime.gpus import Found, Gpu


class GpuShares:
    """The GPUs of this machine, and how many containers use each."""

    def __init__(self, find: Callable[[], Found] = lambda: gpus.find()) -> None:
        self._find = find
        self._found = Found()
        self._used: Counter[str] = Counter()
        self._asking = asyncio.Lock()

    async def take(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """UUIDs for a container that wants one of these (`"H100:2"`, the first that can be had); give them back.

        Raises `InvalidError` where this machine has none of them.
        """
        if not wanted:
            return ()
        chosen = await self._choose(wanted)
        self._used.update(chosen)
        return chosen

    async def take_all(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """UUIDs of every GPU that `take` may give for these wishes, to be given back. Raises as that does."""
        if not wanted:
            return ()
        await self._choose(wanted)
        kinds = [one.partition(":")[0] for one in wanted]
        chosen = tuple({gpu.uuid: None for kind in kinds for gpu in _fitting(kind, self._found.gpus)})
        self._used.update(chosen)
        return chosen

    async def _choose(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        async with self._asking:  # of the driver, which takes a while: once, and again where nothing fits
            chosen = choose(wanted, self._found.gpus, self._used)
            if chosen is None:
                self._found = await asyncio.to_thread(self._find)
                chosen = choose(wanted, self._found.gpus, self._used)
        if chosen is None:
            have = ", ".join(gpu.name for gpu in self._found.gpus) or self._found.reason or "none"
            raise InvalidError(
                f"gpu={' or '.join(wanted)} is wanted, and this machine has no such GPUs: {have}",
                hint="Leave gpu= out, name what is there, or use a machine that has it. `slipway doctor` lists them.",
            )
        return chosen

    def give_back(self, uuids: Iterable[str]) -> None:
        """The container that they were taken for is gone."""
        self._used.subtract(uuids)


def choose(wanted: tuple[str, ...], there: Sequence[Gpu], used: Mapping[str, int]) -> tuple[str, ...] | None:
    """UUIDs for the first wish that this machine can meet, those that the fewest containers use first.

    >>> there = [Gpu(uuid=u, name=n, memory_mib=1) for u, n in (("a", "Tesla T4"), ("b", "NVIDIA A100-SXM4-40GB"))]
    >>> choose(("H100", "a100-40gb"), there, {}), choose(("any",), there, {"a": 1}), choose(("T4:2",), there, {})
    (('b',), ('b',), None)
    """
    for one in wanted:
        kind, _, number = one.partition(":")
        count = int(number or 1)
        fitting = sorted(_fitting(kind, there), key=lambda gpu: used.get(gpu.uuid, 0))
        if len(fitting) >= count:
            return tuple(gpu.uuid for gpu in fitting[:count])
    return None


def _fitting(kind: str, there: Sequence[Gpu]) -> Iterator[Gpu]:
    """Whole words count: an L4 is no L40S."""
    words = set(re.findall(r"[a-z0-9]+", kind.lower())) - {"any"}
    for gpu in there:
        if words <= set(re.findall(r"[a-z0-9]+", gpu.name.lower())):
            yield gpu
