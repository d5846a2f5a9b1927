"""Serving inputs of plain functions, one after the other or in threads. Runs in the container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plain import MainCarrier
from .server import Ended, Server

if TYPE_CHECKING:
    from .output import Output
    from .served import Served
    from .stream import Stream


class SyncServer(Server):
    """One input (or batch) after the other, on the main thread; where several may be under way, in threads."""

    def __init__(self, link: Stream, control: Stream, served: Served, printed: Output) -> None:
        super().__init__(link, control, served, printed)
        self.main = MainCarrier(self)

    def serve(self) -> None:
        main, receive = self.main, self.link.receive
        carry_out = main.run
        if self.concurrency > 1:
            from .threads import Threads

            carry_out = Threads(self, main.end).put
        while True:
            for piece in main.wait(receive):
                pieces = self.gather(piece) if piece[0].flags or self.gathered else [piece]
                job = None if pieces is None else self.claim(pieces)
                if job is not None:
                    carry_out(job)

    def cut_off(self) -> None:
        self.main.end(Ended())
