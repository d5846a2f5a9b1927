"""Who waits for the outcome of an input, or for the end of a call."""

from __future__ import annotations

import asyncio

FINISHED, SEALED = -1, -2  # in the place of an index


class Waits:
    """Futures by call and index. Whoever waits asks for one first and looks then, so that nothing is missed."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], set[asyncio.Future[None]]] = {}

    def join(self, call: int, *indexes: int) -> asyncio.Future[None]:
        """Done when any of these has happened; given up with `leave`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for index in indexes:
            self._waiting.setdefault((call, index), set()).add(future)
        return future

    def leave(self, call: int, future: asyncio.Future[None], *indexes: int) -> None:
        for index in indexes:
            waiting = self._waiting.get((call, index), set())
            waiting.discard(future)
            if not waiting:
                self._waiting.pop((call, index), None)

    @property
    def calls(self) -> set[int]:
        """The calls that somebody waits for."""
        return {call for call, _ in self._waiting}

    def tell(self, call: int, index: int) -> None:
        """An input is over."""
        for future in self._waiting.get((call, index), ()):
            if not future.done():
                future.set_result(None)

    def tell_finished(self, call: int) -> None:
        """All inputs of a call are over."""
        self.tell(call, FINISHED)

    def tell_sealed(self, call: int) -> None:
        """No more inputs come."""
        self.tell(call, SEALED)
