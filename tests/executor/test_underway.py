"""Attempts under way are known to the next process, however this one ended."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.dsl.errors import Error
from slipway.executor.underway import SIZE, SLOTS, Attempt, UnderWay

ONE = Attempt(number=7, total=2, losses=1, started_ms=1_700_000_000_000, worker="w1-1234")


def test_what_is_under_way_is_left_and_the_rest_is_not(tmp_path: Path) -> None:
    notes = UnderWay(tmp_path / "attempts")
    assert notes.left() == ()
    notes.open()
    first, second = notes.begin(ONE), notes.begin(ONE._replace(number=8))
    notes.end(first)
    assert notes.begin(ONE._replace(number=9)) == first
    notes.close()
    assert {attempt.number for attempt in UnderWay(tmp_path / "attempts").left()} == {8, 9}
    assert second != first
    again = UnderWay(tmp_path / "attempts")
    again.open()
    assert again.left() == ()
    again.close()
    again.close()


def test_there_is_room_for_any_number(tmp_path: Path) -> None:
    notes = UnderWay(tmp_path / "attempts")
    notes.open()
    slots = [notes.begin(ONE._replace(number=number)) for number in range(1, SLOTS + 2)]
    assert len(set(slots)) == SLOTS + 1 and len(notes.left()) == SLOTS + 1
    notes.close()


def test_kill_9_takes_nothing(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from slipway.executor.underway import Attempt, UnderWay
notes = UnderWay(Path({str(tmp_path / "attempts")!r}))
notes.open()
notes.begin(Attempt(*{tuple(ONE)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False)
    assert ended.returncode == -signal.SIGKILL
    assert UnderWay(tmp_path / "attempts").left() == (ONE,)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", random.Random(1).randbytes(100 * SIZE), b"slipway attempts 1\n", b"slipway attempts 2\n" * SIZE],
)
def test_what_is_no_such_file_says_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "attempts").write_bytes(data)
    notes = UnderWay(tmp_path / "attempts")
    assert notes.left() == ()
    notes.open()
    notes.begin(ONE)
    assert notes.left() == (ONE,)
    notes.close()


def test_a_torn_file_tells_what_is_whole_in_it(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    notes = UnderWay(path)
    notes.open()
    for number in (7, 8, 9):
        notes.begin(ONE._replace(number=number))
    notes.close()
    data = bytearray(path.read_bytes()[: 3 * SIZE + 20])
    data[2 * SIZE : 2 * SIZE + 8] = b"\xff" * 8
    path.write_bytes(data)
    assert UnderWay(path).left() == (ONE,)


def test_what_can_t_be_read_or_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "attempts").mkdir()
    notes = UnderWay(tmp_path / "attempts")
    for act in (notes.left, notes.open):
        with pytest.raises(Error, match="Is a directory"):
            act()
