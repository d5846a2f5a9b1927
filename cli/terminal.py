"""Joins what the command stands in, a terminal or three streams, with a program in a container."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from slipway.dsl.errors import Error

from .output import say

if TYPE_CHECKING:
    from slipway.attached import Attached
    from slipway.connection import Connection

READ_SIZE = 65536
QUIET_MS = 1000  # a stream that says nothing for so long after the program's end has said all
END_OF_INPUT = b"\x04"  # as one types it
LOST = 255  # the exit code where nobody knows how the program ended, as that of ssh
FORWARDED = (signal.SIGINT,)
LEAVING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
GONE = (errno.EIO, errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)  # the other side is: how depends on what it is

pty_option = click.option(
    "--pty/--no-pty", default=None, help="With a terminal of its own, or not; as stdin is one, where nothing is said."
)


def attend(link: Connection, method: str, params: dict[str, Any], *, pty: bool | None) -> int:
    """Have the engine run a program and stay with it to its end; returns its exit code."""
    from slipway.attached import Attached

    if pty is None:
        pty = sys.stdin.isatty()
    if pty:
        rows, columns = _size()
        params = params | {"terminal": {"rows": rows, "columns": columns, "kind": os.environ.get("TERM", "xterm")}}
    with Attached(link, method, params) as attached:
        _await_start(attached)
        if attached.is_running:
            try:
                with _Signals() as signals, _raw(0) if pty else nullcontext():
                    _Pump(attached, signals, pty=pty).run()
            except Error:
                _leave_line(pty)
                raise
        reply = attached.reply or {}
    why = reply.get("why") or ("it ran out of memory" if reply.get("oom") else "")
    if why:
        _leave_line(pty)
        say(why, err=True)
    return _exit_code(reply)


def _leave_line(pty: bool) -> None:
    """A program that was cut off may have left the cursor anywhere."""
    if pty:
        sys.stderr.write("\n")


def _exit_code(reply: dict[str, Any]) -> int:
    """
    >>> [_exit_code({"code": code, "signal": number}) for code, number in ((3, None), (None, 9), (None, None))]
    [3, 137, 255]
    """
    if reply["signal"]:
        return 128 + int(reply["signal"])
    return LOST if reply["code"] is None else int(reply["code"])


def _await_start(attached: Attached) -> None:
    poll = select.poll()
    poll.register(attached, select.POLLIN)
    attached.take()
    while attached.reply is None and not attached.is_running:
        poll.poll()
        attached.take()


# --- the terminal that we stand in --------------------------------------------------------------------


def _size() -> tuple[int, int]:
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            if rows and columns:
                return rows, columns
    return 24, 80


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Every key goes through as it is; whatever happens, the terminal is then as it was before."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


class _Signals:
    """What comes while a program is attended is kept for whoever waits for it together with other things."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        self._ours, self._theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken = signal.set_wakeup_fd(self._theirs, warn_on_full_buffer=False)
        for number in (signal.SIGWINCH, *FORWARDED, *LEAVING):
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, _nothing)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._woken)
        os.close(self._ours)
        os.close(self._theirs)

    def fileno(self) -> int:
        return self._ours

    def take(self) -> bytes:
        """Their numbers."""
        return os.read(self._ours, 512)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler, so that the signal reaches `_Signals` and ends nothing."""


# --- the streams --------------------------------------------------------------------------------------


class _Copy:
    """One way: what comes from `source` and has not gone to `target` yet. `into`: the target is the program's."""

    def __init__(self, source: int, target: int, *, into: bool) -> None:
        self.source = source
        self.target = target
        self.into = into
        self.held = b""
        self.is_open = True

    def wants(self) -> tuple[int, int]:
        """The descriptor to wait for, and for what; (-1, 0) at the end."""
        if self.held:
            return self.target, select.POLLOUT
        return (self.source, select.POLLIN) if self.is_open else (-1, 0)

    def read(self) -> None:
        """Take what is there."""
        try:
            self.held = os.read(self.source, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in GONE:
                raise
        self.is_open = bool(self.held)

    def write(self) -> None:
        """Hand on what is held, as much as goes without waiting: for our own streams, which may block, a piece."""
        size = len(self.held) if self.into else select.PIPE_BUF
        try:
            written = os.write(self.target, self.held[:size])
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in GONE:
                raise
            if not self.into:
                raise BrokenPipeError from error
            self.held, self.is_open = b"", False  # the program hears nothing any more
            return
        self.held = self.held[written:]


class _Pump:
    def __init__(self, attached: Attached, signals: _Signals, *, pty: bool) -> None:
        self._attached = attached
        self._signals = signals
        self._pty = pty
        ends = attached.descriptors
        for end in ends:
            os.set_blocking(end, False)
        self._input = _Copy(0, ends[0], into=True)
        outs = ((ends[0], 1),) if pty else ((ends[1], 1), (ends[2], 2))
        self._outputs = tuple(_Copy(source, target, into=False) for source, target in outs)
        self._input_ended = False

    def run(self) -> None:
        """Until the engine says that the program has ended, and what it said is out."""
        while self._attached.reply is None:
            wanted = {self._attached.fileno(): select.POLLIN, self._signals.fileno(): select.POLLIN}
            for copy in (self._input, *self._outputs):
                descriptor, events = copy.wants()
                if events:
                    wanted[descriptor] = wanted.get(descriptor, 0) | events
            self._step(_poll(wanted))
        for copy in self._outputs:
            _finish(copy)

    def _step(self, ready: set[int]) -> None:
        if self._signals.fileno() in ready:
            for number in self._signals.take():
                self._on_signal(number)
        if self._attached.fileno() in ready:
            self._attached.take()
        for copy in (self._input, *self._outputs):
            if copy.wants()[0] in ready:
                if copy.held:
                    copy.write()
                else:
                    copy.read()
        if not self._input.is_open and not self._input.held and not self._input_ended:
            self._end_input()

    def _end_input(self) -> None:
        """Our input has come to its end, and the program's does."""
        self._input_ended = True
        if self._pty:
            self._input.held = END_OF_INPUT
        else:
            self._attached.descriptors.remove(self._input.target)
            os.close(self._input.target)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if self._pty:
                rows, columns = _size()
                self._attached.tell("session.resize", rows=rows, columns=columns)
        elif number in FORWARDED:
            self._attached.tell("session.signal", number=number)
        elif number in LEAVING:
            raise click.exceptions.Exit(128 + number)


def _finish(copy: _Copy) -> None:
    """The program has ended: what it said lies there. Whoever else holds its streams is not waited for."""
    wait_ms = QUIET_MS if stat.S_ISSOCK(os.fstat(copy.source).st_mode) else 0
    while copy.is_open or copy.held:
        if copy.held:
            copy.write()
        elif _poll({copy.source: select.POLLIN}, wait_ms):
            copy.read()
        else:
            return


def _poll(wanted: dict[int, int], timeout_ms: int | None = None) -> set[int]:
    """The descriptors with something for us; what is wrong with one shows when it is used."""
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    return {descriptor for descriptor, _ in poll.poll(timeout_ms)}
