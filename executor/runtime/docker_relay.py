"""A plain socket for what goes through TLS: Docker's streams are read as sockets, which an encrypted one is not."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from typing import Any

CHUNK = 1 << 16
MOST = 1 << 20  # bytes that wait for the other side before no more are taken


def plain(response: Any, below: ssl.SSLSocket) -> socket.socket:
    """What stands for an encrypted socket, served by a thread until either end closes; `response` closes with it."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_serve, args=(response, below, theirs), name="docker-tls", daemon=True).start()
    return ours


def _serve(response: Any, below: ssl.SSLSocket, theirs: socket.socket) -> None:
    with contextlib.closing(response), theirs, contextlib.suppress(OSError):
        relay = _Relay(below, theirs)
        while relay.step():
            pass


class _Relay:
    """Both directions in one thread, since the two of a TLS connection may not be used at once, and neither waits for
    the other: a program that answers while it is told would stand still otherwise."""

    def __init__(self, below: ssl.SSLSocket, theirs: socket.socket) -> None:
        self.below, self.theirs = below, theirs
        below.setblocking(False)
        theirs.setblocking(False)
        self.up, self.down = bytearray(), bytearray()  # to the engine, and from it
        self.typing = self.listening = True
        self.gone = False  # nobody listens on our side any more
        self.said_end = False
        self.last = b""  # what says so, ready to be sent
        self.must_write = False  # TLS has something of its own to send

    def step(self) -> bool:
        """Pass on what can be, then wait until more can; False when it is over."""
        self.must_write = False
        self._hear()
        self._pass_down()
        self._pass_up()
        if (not self.down and not self.listening) or (self.gone and not self.up and not self.last):
            return False
        self._wait()
        return True

    def _hear(self) -> None:
        while self.listening and len(self.down) < MOST:
            try:
                data = self.below.recv(CHUNK)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                self.must_write = True
                return
            except OSError:  # TLS's own end after we have said ours, or the engine died
                data = b""
            self.listening = bool(data)
            self.down += data

    def _pass_down(self) -> None:
        try:
            while self.down and not self.gone:
                del self.down[: self.theirs.send(self.down)]
        except BlockingIOError:
            pass
        except OSError:
            self.gone, self.typing = True, False
        if self.gone:
            self.down.clear()

    def _pass_up(self) -> None:
        try:
            while self.up:
                del self.up[: self.below.send(self.up)]
            if not self.typing and not self.said_end and self.listening and not self.below.pending():
                self.said_end = True
                self.last = _farewell(self.below)
            while self.last:
                self.last = self.last[os.write(self.below.fileno(), self.last) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:  # the engine takes no more, and may have more to say
            self.up.clear()
            self.typing, self.said_end, self.last = False, True, b""

    def _wait(self) -> None:
        poll = select.poll()
        hear = select.POLLIN if self.listening and len(self.down) < MOST else 0
        poll.register(self.below, hear | (select.POLLOUT if self.up or self.last or self.must_write else 0))
        take = select.POLLIN if self.typing and len(self.up) < MOST else 0
        wanted = take | (select.POLLOUT if self.down else 0)
        if not self.gone and (wanted or not self.up):
            poll.register(self.theirs, wanted)
        state = dict(poll.poll()).get(self.theirs.fileno(), 0)
        if state & select.POLLIN:
            data = self.theirs.recv(CHUNK)
            self.typing = bool(data)
            self.up += data
        elif state & (select.POLLHUP | select.POLLERR):
            self.gone, self.typing = True, False


def _farewell(below: ssl.SSLSocket) -> bytes:
    """The record by which TLS says that nothing more comes from here.

    `unwrap` makes and sends it, then looks for the engine's own, and loses what has come instead. So for as long as
    that takes it has another socket under it, on which nothing ever comes.
    """
    number = below.fileno()
    ours, instead = socket.socketpair()
    with ours, instead:
        instead.setblocking(False)
        real = os.dup(number)
        os.dup2(instead.fileno(), number, inheritable=False)
        try:
            with contextlib.suppress(ssl.SSLWantReadError):
                below.unwrap()
        finally:
            os.dup2(real, number, inheritable=False)
            os.close(real)
        return ours.recv(CHUNK)
