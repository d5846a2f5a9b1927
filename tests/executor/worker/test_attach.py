"""The program that takes its streams over a socket and becomes another."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.executor.worker import attach


def attached(folder: Path, *argv: str) -> tuple[int, bytes, bytes]:
    """Run a program by way of `attach`: its exit code, and what it said on the streams that were handed over."""
    pipes = [os.pipe() for _ in range(3)]
    os.write(pipes[0][1], b"from us")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", attach.__file__, str(folder / "socket"), *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        link, _ = listener.accept()
        with link:
            socket.send_fds(link, [b"."], [pipes[0][0], pipes[1][1], pipes[2][1]])
    for descriptor in (pipes[0][0], pipes[0][1], pipes[1][1], pipes[2][1]):
        os.close(descriptor)
    with open(pipes[1][0], "rb") as out, open(pipes[2][0], "rb") as err:
        said = out.read(), err.read()
    assert process.communicate(timeout=30)[0] == b"", "nothing goes to the streams that it was started with"
    return process.returncode, *said


def test_the_program_has_the_streams_and_nothing_else(tmp_path: Path) -> None:
    script = 'cat; echo err >&2; for n in 0 1 2 3 4 5 6 7; do [ -e /proc/$$/fd/$n ] && printf "%s " $n; done; exit 3'
    assert attached(tmp_path, "sh", "-c", script) == (3, b"from us0 1 2 ", b"err\n")


@pytest.mark.parametrize("which", [signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ])
def test_the_program_has_signals_as_they_are_by_default(tmp_path: Path, which: signal.Signals) -> None:
    assert attached(tmp_path, "sh", "-c", f"kill -{int(which)} $$")[0] == -which


def test_a_program_that_is_not_there_or_none(tmp_path: Path) -> None:
    assert attached(tmp_path, "no-such-program") == (127, b"", b"no-such-program: not found on PATH\n")
    (tmp_path / "socket").unlink()
    assert attached(tmp_path, str(tmp_path)) == (126, b"", f"{tmp_path}: Permission denied\n".encode())
