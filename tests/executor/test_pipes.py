"""The engine's end of a process's output."""

from __future__ import annotations

import asyncio
import os

from slipway.executor.pipes import DRAIN, Pipes


def test_what_lies_in_them_is_handed_over_and_whoever_holds_them_is_not_waited_for() -> None:
    async def scenario() -> None:
        said: list[tuple[int, bytes]] = []
        pipes = Pipes(lambda stream, data: said.append((stream, data)))
        out, err = pipes.open()
        os.write(out, b"a")
        os.write(err, b"b")
        pipes.drain()
        assert said == [(1, b"a"), (2, b"b")]
        os.close(err)
        os.write(out, b"c")
        pipes.finish()
        assert said[2:] == [(1, b"c")]
        pipes.finish()
        os.close(out)

    asyncio.run(scenario())


def test_a_writer_that_never_pauses_is_not_read_for_ever() -> None:
    async def scenario() -> None:
        came = 0

        def more(stream: int, data: bytes) -> None:
            nonlocal came
            came += len(data)
            os.write(out, bytes(4096))

        pipes = Pipes(more)
        out, err = pipes.open()
        os.write(out, bytes(4096))
        pipes.drain()
        assert DRAIN <= came < 2 * DRAIN
        pipes.close()
        for end in (out, err):
            os.close(end)

    asyncio.run(scenario())
