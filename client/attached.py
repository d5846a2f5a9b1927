"""A request for a program in a container, whose streams come with its answers. For one thread that waits for more."""

from __future__ import annotations

import os
from typing import Any

from slipway.executor.worker.stream import NO_FD

from .connection import Connection
from .replies import take_reply
from .waiter import Waiter


class Attached:
    """What the engine said so far: `session` and `descriptors` once the program runs, `reply` when it has ended.

    A context manager: where it is left before the end, the request is given up, and with it the program.
    """

    def __init__(self, link: Connection, method: str, params: dict[str, Any]) -> None:
        self.session: int | None = None
        self.descriptors: list[int] = []  # ours to close
        self.reply: dict[str, Any] | None = None
        self._wanted = 0
        self._link = link
        self._waiter = Waiter()
        self._ident = link.begin(self._waiter, method, params)

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        if self.reply is None:
            self._link.cancel([self._ident])
        self._link.forget(self._ident)
        for descriptor in self.descriptors:
            os.close(descriptor)
        for _, descriptor in self._waiter.frames:
            if descriptor != NO_FD:
                os.close(descriptor)

    @property
    def is_running(self) -> bool:
        """Whether the program has its streams, and so have we."""
        return self.session is not None and len(self.descriptors) == self._wanted

    def fileno(self) -> int:
        return self._link.fileno()

    def take(self) -> None:
        """Take what the engine has said, without waiting. Raises the error that it names, `CallLost` with it."""
        while self.reply is None:
            taken = self._link.take(self._waiter)
            if taken is None:
                return
            frame, descriptor = taken
            if descriptor != NO_FD:
                self.descriptors.append(descriptor)
            else:
                self.reply = take_reply(frame, self._on_event)

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "session":
            self.session, self._wanted = int(event["session"]), int(event["descriptors"])

    def tell(self, method: str, **params: int) -> None:
        """Ask for something of the program, without waiting for an answer."""
        waiter = Waiter()
        self._link.forget(self._link.begin(waiter, method, {"session": self.session} | params))
