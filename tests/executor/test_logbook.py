"""The log book: what is followed and what is read back make one log, whatever rotates meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.executor import log_files, logbook
from slipway.executor.log_files import LogLimits
from slipway.executor.log_query import LogLine, Query
from slipway.executor.logbook import LogBook

SMALL = LogLimits(total=1 << 20, app=1 << 18)  # files of 16 KiB


def line(number: int, **more: str) -> LogLine:
    said = {"app": "shop", "run": "shop", "function": "f", "worker": "w1-7", "stream": "stdout"} | more
    return LogLine(at_ms=number, text=f"line {number}", **said)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[LogBook]:
    book = LogBook(tmp_path, lambda: SMALL)
    yield book
    book.close()


def test_the_past_and_what_follows_are_every_line_once(book: LogBook) -> None:
    """Also where files begin and go while somebody reads them."""
    for number in range(500):
        book.append(line(number))
    heard: list[LogLine] = []
    end = book.follow("shop", heard.append)
    mark = book.mark("shop")
    for number in range(500, 900):
        book.append(line(number))
    past = book.read(Query(), mark)
    for number in range(900, 2500):
        book.append(line(number))
    end()
    book.append(line(9999))
    assert [one.at_ms for one in (*past, *heard)] == list(range(2500))


def test_a_run_is_followed_by_its_id(book: LogBook) -> None:
    heard: list[LogLine] = []
    end = book.follow("ap-1", heard.append)
    book.append(line(1, run="ap-1"))
    book.append(line(2))
    end()
    assert [one.at_ms for one in heard] == [1]
    assert [one.at_ms for one in book.read(Query(run="ap-1"), book.mark())] == [1]


def test_a_worker_is_found_in_whichever_app(book: LogBook) -> None:
    book.append(line(1, app="one"))
    book.append(line(2, app="two", worker="w2-7"))
    book.append(line(3, app="three"))
    assert [one.at_ms for one in book.read(Query(worker="w2-7"), book.mark())] == [2]
    assert book.read(Query(worker="w3-7"), book.mark()) == []
    assert sorted(book.apps()) == ["one", "three", "two"]


def test_what_is_left_at_the_end_is_written(tmp_path: Path) -> None:
    book = LogBook(tmp_path)
    for number in range(100):
        book.append(line(number))
    book.close()
    again = LogBook(tmp_path)
    assert len(again.read(Query(), again.mark("shop"))) == 100
    again.close()


def test_a_full_disk_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    book = LogBook(tmp_path)
    heard: list[LogLine] = []
    book.follow("shop", heard.append)
    with monkeypatch.context() as patch:
        patch.setattr(log_files.LogFiles, "write", full)
        book.append(line(1))
        assert book.read(Query(), book.mark("shop")) == []
    book.append(line(2))
    assert [one.at_ms for one in book.read(Query(), book.mark("shop"))] == [2]
    assert [one.at_ms for one in heard] == [1, 2]
    book.close()


def test_a_disk_that_is_too_slow_leaves_lines_out_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "MOST_WAITING", 10)
    gate, begun = threading.Event(), threading.Event()
    write = log_files.LogFiles.write

    def slow(self: log_files.LogFiles, app: str, lines: list[bytes]) -> None:
        begun.set()
        gate.wait()
        write(self, app, lines)

    monkeypatch.setattr(log_files.LogFiles, "write", slow)
    book = LogBook(tmp_path)
    book.append(line(0))
    begun.wait()
    for number in range(1, 21):
        book.append(line(number))
    gate.set()
    book.read(Query(), book.mark("shop"))
    book.append(line(21))
    said = [one.text for one in book.read(Query(), book.mark("shop"))]
    assert said[:12] == [f"line {number}" for number in range(12)]
    assert said[12:] == ["9 lines left out: the disk could not take them so fast", "line 21"]
    book.close()
