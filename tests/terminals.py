"""A terminal of a test's own, with a command that runs on it: typed into, looked at, changed in size."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

SECONDS = 60


class Tty:
    """A context manager: in the end the command is killed where it still runs."""

    def __init__(
        self, argv: Sequence[str | Path], *, cwd: Path, env: dict[str, str], rows: int = 33, columns: int = 101
    ) -> None:
        self.ours, self._theirs = pty.openpty()
        self.resize(rows, columns, tell=False)
        self.before: list[Any] = termios.tcgetattr(self._theirs)
        self._shown = b""
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> Tty:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self._theirs)

    def resize(self, rows: int, columns: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            os.killpg(self.process.pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def until(self, text: str) -> str:
        """What is shown up to and with this text."""
        wanted = text.encode()
        while wanted not in self._shown:
            ready, _, _ = select.select([self.ours], [], [], SECONDS)
            assert ready, f"{text!r} was not shown, but {self._shown!r}"
            self._shown += os.read(self.ours, 65536)
        end = self._shown.index(wanted) + len(wanted)
        shown, self._shown = self._shown[:end], self._shown[end:]
        return shown.decode()

    def end(self) -> tuple[int, str]:
        """The exit code, and what was shown last."""
        code = self.process.wait(timeout=SECONDS)
        while select.select([self.ours], [], [], 0)[0]:
            self._shown += os.read(self.ours, 65536)
        return code, self._shown.decode()

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as it was before the command began."""
        return bool(termios.tcgetattr(self._theirs) == self.before)
