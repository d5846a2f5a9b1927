"""Flights: one at a time, shared by all who ask, cancelled only when the last gives up."""

from __future__ import annotations

import asyncio

import pytest

from slipway.executor.tasks import Flights, all_of


def test_all_who_ask_share_one_flight_and_the_next_is_new() -> None:
    async def main() -> None:
        flights: Flights[str, int] = Flights()
        begun: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()

        async def fly() -> int:
            landing: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            begun.put_nowait(landing)
            return await landing

        first = [asyncio.create_task(flights.join("a", fly)) for _ in range(3)]
        (await begun.get()).set_result(1)
        assert await asyncio.gather(*first) == [1, 1, 1]
        again = asyncio.create_task(flights.join("a", fly))
        (await begun.get()).set_result(2)
        assert await again == 2

    asyncio.run(main())


def test_a_failure_reaches_all() -> None:
    async def main() -> None:
        flights: Flights[str, int] = Flights()

        async def fly() -> int:
            await asyncio.sleep(0)
            raise ValueError("down")

        results = await asyncio.gather(*(flights.join("a", fly) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["down"] * 3

    asyncio.run(main())


def test_one_who_gives_up_does_not_end_it_for_the_others_the_last_does() -> None:
    async def main() -> None:
        flights: Flights[str, int] = Flights()
        ended: list[str] = []
        go = asyncio.Event()

        async def fly() -> int:
            try:
                await go.wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return 1

        one, two = (asyncio.create_task(flights.join("a", fly)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait([one])
        assert ended == []
        go.set()
        assert await two == 1
        go.clear()
        last = asyncio.create_task(flights.join("a", fly))
        await asyncio.sleep(0)
        last.cancel()
        await asyncio.wait([last])
        assert ended == ["cancelled"]
        assert "a" not in flights

    asyncio.run(main())


def test_who_comes_while_it_is_being_given_up_starts_anew() -> None:
    async def main() -> None:
        flights: Flights[str, int] = Flights()
        count = 0
        clean_up = asyncio.Event()

        async def fly() -> int:
            nonlocal count
            count += 1
            if count == 1:
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    await clean_up.wait()
            return count

        first = asyncio.create_task(flights.join("a", fly))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.create_task(flights.join("a", fly))
        await asyncio.sleep(0)
        assert count == 1
        clean_up.set()
        assert await second == 2

    asyncio.run(main())


def test_all_of_raises_the_first_failure_as_itself_after_the_rest_has_ended() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def slow() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append("slow")

        async def bad() -> None:
            await asyncio.sleep(0)
            raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            await all_of([slow(), bad()])
        assert ended == ["slow"]

    asyncio.run(main())
