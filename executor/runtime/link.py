"""The engine's end of the launcher: starts it, hands it containers to make, hears when they are gone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from slipway.dsl.errors import RuntimeUnavailable

from .launcher import boot

START_SECONDS = 20
NAMESPACES_HINT = (
    "Allow user namespaces: `sysctl user.max_user_namespaces=15000` and, where it exists, "
    "`sysctl kernel.apparmor_restrict_unprivileged_userns=0` (inside Docker: `--privileged`); "
    "or run as root; or use `--runtime docker`."
)


class Link:
    """One launcher process. `gone` callbacks come on the loop, once for each container, whatever ended it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._gone: dict[int, Callable[[], None]] = {}
        self._next = 0
        self._ended = asyncio.Event()
        self.rootless = False  # a container has one user, its root, and that is this user
        self.nested = False  # below the first user namespace, whoever made ours

    @property
    def alive(self) -> bool:
        return self._socket is not None

    async def start(self, lock: int, groups: tuple[str, ...]) -> None:
        """Raises `RuntimeUnavailable` where namespaces are not to be had."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        program = memory_file(boot(str(Path(__file__).parent)).encode())  # every container sees the command line
        try:
            with theirs:
                self._keeper = subprocess.Popen(  # noqa: ASYNC220 - a millisecond, once
                    [sys.executable, "-I", "-S", "-", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=program,
                    stdout=subprocess.DEVNULL,
                    env={},
                    cwd="/",
                )
        finally:
            os.close(program)
        socket.send_fds(ours, [json.dumps({"groups": groups}).encode()], [lock])
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_SECONDS):
                answer = json.loads(await loop.sock_recv(ours, 65536) or b"{}")
        except TimeoutError:
            answer = {"failed": f"no answer within {START_SECONDS} s"}
        if "ready" not in answer:
            ours.close()
            await asyncio.to_thread(self._keeper.wait)
            reason = answer.get("failed", f"it ended with status {self._keeper.returncode}")
            raise RuntimeUnavailable(f"namespaces can't be made here: {reason}", hint=NAMESPACES_HINT)
        self.rootless, self.nested = answer["rootless"], answer["nested"]
        self._socket = ours
        loop.add_reader(ours.fileno(), self._readable)

    def create(self, control: int, layout: int, gone: Callable[[], None]) -> int:
        """Have a container made from a layout; its first process answers on `control`."""
        if self._socket is None:
            raise RuntimeUnavailable("the launcher of containers has ended", hint="Start the engine again.")
        self._next += 1
        self._gone[self._next] = gone
        try:
            socket.send_fds(self._socket, [json.dumps({"create": self._next}).encode()], [control, layout])
        except OSError as error:
            del self._gone[self._next]
            raise RuntimeUnavailable(f"the launcher of containers does not answer: {error.strerror}") from error
        return self._next

    def kill(self, ident: int) -> None:
        if self._socket is not None and ident in self._gone:
            try:
                self._socket.send(json.dumps({"kill": ident}).encode())
            except OSError:  # it has just ended, and its containers with it
                pass

    async def close(self) -> None:
        """End the launcher and with it every container; return when all of it is gone."""
        if self._socket is not None:
            self._bury()
        if self._keeper is not None:
            await self._ended.wait()

    def _readable(self) -> None:
        assert self._socket is not None
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._bury()
                return
            gone = self._gone.pop(json.loads(data)["gone"], None)
            if gone is not None:
                gone()

    def _bury(self) -> None:
        """The launcher has ended or is to end: its keeper ends when the last of its containers is dead."""
        assert self._socket is not None and self._keeper is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        loop.run_in_executor(None, self._keeper.wait).add_done_callback(self._buried)

    def _buried(self, _: object) -> None:
        for gone in self._gone.values():
            gone()
        self._gone.clear()
        self._ended.set()


def memory_file(data: bytes) -> int:
    """A descriptor of anonymous memory that holds `data`, to be read from its start."""
    descriptor = os.memfd_create("slipway", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
