"""Which GPUs containers get, and that workers ask for theirs and give them back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.errors import InvalidError
from slipway.executor.gpu_shares import GpuShares, choose
from slipway.executor.runtime.gpus import Found, Gpu

T4S = tuple(Gpu(uuid=f"GPU-{number}", name="Tesla T4", memory_mib=16384) for number in range(3))
L40S = Gpu(uuid="GPU-l", name="NVIDIA L40S", memory_mib=46068)


def test_whole_words_count() -> None:
    assert choose(("L4",), (L40S,), {}) is None
    assert choose(("l40s",), (L40S,), {}) == ("GPU-l",)
    assert choose(("H100", "any"), (L40S,), {}) == ("GPU-l",)


def test_the_least_used_come_first_and_come_back() -> None:
    async def main() -> None:
        shares = GpuShares(lambda: Found(gpus=T4S))
        first = [await shares.take(("T4",)) for _ in range(3)]
        assert {uuid for taken in first for uuid in taken} == {"GPU-0", "GPU-1", "GPU-2"}
        shares.give_back(first[1])
        assert await shares.take(("T4",)) == first[1]
        assert await shares.take(()) == ()

    asyncio.run(main())


def test_a_gpu_that_appears_later_is_found_and_one_that_never_does_is_said() -> None:
    answers = iter((Found(reason="Driver Not Loaded"), Found(gpus=T4S[:1])))

    async def main() -> None:
        shares = GpuShares(lambda: next(answers))
        with pytest.raises(InvalidError, match=r"gpu=H100 or T4:2 is wanted.*Driver Not Loaded"):
            await shares.take(("H100", "T4:2"))
        assert await shares.take(("T4",)) == ("GPU-0",)

    asyncio.run(main())


@given(st.lists(st.integers(1, 3), max_size=20))
def test_nobody_is_given_more_while_another_is_given_less(counts: list[int]) -> None:
    async def main() -> None:
        shares = GpuShares(lambda: Found(gpus=T4S))
        used = dict.fromkeys((gpu.uuid for gpu in T4S), 0)
        for count in counts:
            taken = await shares.take((f"T4:{count}",))
            assert len(set(taken)) == count
            for uuid in taken:
                used[uuid] += 1
        assert max(used.values()) - min(used.values()) <= 1

    asyncio.run(main())
