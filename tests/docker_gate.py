"""Stands between Slipway and Docker Engine, and holds a request until the test lets it go."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class Gate:
    """`hold(word)`: the next request with the word in its first line, or the one after `letting` such ones through,
    waits for `release`; `held` is set meanwhile."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = f"unix://{folder}/gate.sock"
        self.held = threading.Event()
        self.answered = threading.Event()  # the engine has answered what was held
        self._target = url.removeprefix("unix://")
        self._word = b""
        self._letting = 0
        self._go = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{folder}/gate.sock")
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def hold(self, word: str, letting: int = 0) -> None:
        self.held.clear()
        self.answered.clear()
        self._go.clear()
        self._letting = letting
        self._word = word.encode()

    def release(self) -> None:
        self._go.set()

    def close(self) -> None:
        self.release()
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):  # its other end was closed before
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            self._open += [client, engine]
            try:
                engine.connect(self._target)
            except OSError:
                client.shutdown(socket.SHUT_RDWR)
                continue
            ours = threading.Event()  # the held request came by this connection
            for work, ends in ((self._requests, (client, engine)), (self._answers, (engine, client))):
                self._threads.append(threading.Thread(target=work, args=(*ends, ours)))
                self._threads[-1].start()

    def _requests(self, client: socket.socket, engine: socket.socket, ours: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if self._word and self._word in data.partition(b"\r\n")[0]:
                    self._letting -= 1
                    if self._letting < 0:
                        self._word = b""
                        ours.set()
                        self.held.set()
                        self._go.wait()
                engine.sendall(data)
            engine.shutdown(socket.SHUT_WR)

    def _answers(self, engine: socket.socket, client: socket.socket, ours: threading.Event) -> None:
        reads = True  # who asked may be gone: the engine's answer is read all the same
        with contextlib.suppress(OSError):
            while data := engine.recv(1 << 16):
                wanted = ours.is_set()  # looked at before the client may ask for the next thing
                if reads:
                    try:
                        client.sendall(data)
                    except OSError:
                        reads = False
                if wanted:
                    self.answered.set()
            client.shutdown(socket.SHUT_WR)
