"""The streams between a command and a program, where the other side is a pipe, a terminal or a socket."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from slipway.cli import terminal
from slipway.cli.terminal import _Copy, _Signals

Make = Callable[[], tuple[int, int]]


@pytest.fixture
def ends() -> Iterator[list[int]]:
    """Descriptors to be closed in the end."""
    opened: list[int] = []
    yield opened
    for descriptor in opened:
        os.close(descriptor)


def terminal_pair() -> tuple[int, int]:
    return pty.openpty()


def socket_pair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def pipe() -> tuple[int, int]:
    return os.pipe()


@pytest.mark.parametrize("make", [terminal_pair, socket_pair, pipe])
def test_what_a_program_said_last_is_read_to_its_end(make: Make, ends: list[int]) -> None:
    ours, theirs = make()
    read, write = os.pipe()
    ends += (ours, read, write)
    os.set_blocking(ours, False)
    copy = _Copy(ours, write, into=False)
    copy.read()  # there is nothing yet
    assert copy.is_open and copy.wants() == (ours, select.POLLIN)
    os.write(theirs, b"last words")
    os.close(theirs)
    terminal._finish(copy)
    assert not copy.is_open and copy.wants() == (-1, 0)
    assert os.read(read, 100) == b"last words"


@pytest.mark.parametrize("make", [terminal_pair, pipe])
def test_whoever_else_holds_the_streams_is_not_waited_for(make: Make, ends: list[int]) -> None:
    ours, theirs = make()
    read, write = os.pipe()
    ends += (ours, theirs, read, write)
    os.set_blocking(ours, False)
    copy = _Copy(ours, write, into=False)
    os.write(theirs, b"last words")
    terminal._finish(copy)
    assert copy.is_open and os.read(read, 100) == b"last words"


def test_a_program_that_takes_no_more_is_told_no_more(ends: list[int]) -> None:
    for ours, theirs in (socket_pair(), tuple(reversed(pipe()))):
        ends.append(ours)
        os.close(theirs)
        copy = _Copy(0, ours, into=True)
        copy.held = b"x"
        copy.write()
        assert (copy.held, copy.is_open) == (b"", False)


def test_a_reader_of_ours_that_is_gone_ends_the_command(ends: list[int]) -> None:
    read, write = os.pipe()
    ends.append(write)
    os.close(read)
    copy = _Copy(0, write, into=False)
    copy.held = b"x"
    with pytest.raises(BrokenPipeError):
        copy.write()


def test_a_full_stream_is_written_piece_by_piece(ends: list[int]) -> None:
    ours, theirs = socket_pair()
    ends += (ours, theirs)
    os.set_blocking(ours, False)
    copy = _Copy(0, ours, into=True)
    copy.held = data = os.urandom(3_000_000)
    got = b""
    while copy.held:
        copy.write()
        got += os.read(theirs, 1 << 20)
    while len(got) < len(data):
        got += os.read(theirs, 1 << 20)
    assert got == data


def test_signals_are_kept_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGWINCH)
    with _Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGWINCH)
        assert set(signals.take()) == {signal.SIGINT, signal.SIGWINCH}
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGWINCH)) == before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _Signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
