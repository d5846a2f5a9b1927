"""Logs on disk: budgets, reading back from the end, and what a crash leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.executor import log_files
from slipway.executor.log_files import LogFiles, LogLimits, backwards
from slipway.executor.log_query import LogLine, Query, decode, encode

LARGE = LogLimits(total=1 << 30, app=64 << 20)
SMALL = LogLimits(total=1 << 20, app=1 << 16)  # files of 4 KiB


def line(number: int, text: str = "", **more: str) -> LogLine:
    said = {"app": "shop", "run": "shop", "function": "f", "worker": "w1-7", "stream": "stdout"} | more
    return LogLine(at_ms=number, text=text or f"line {number}", **said)


def files(root: Path, limits: LogLimits = LARGE) -> LogFiles:
    return LogFiles(root, lambda: limits)


def texts(lines: list[LogLine]) -> list[str]:
    return [one.text for one in lines]


def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines that were looked into, from now on."""
    seen: list[bytes] = []

    def look(data: bytes) -> LogLine | None:
        seen.append(data)
        return decode(data)

    monkeypatch.setattr(log_files, "decode", look)
    return seen


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.*"))


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    logs = files(tmp_path)
    logs.write("shop", [encode(line(n)) for n in range(5)])
    logs.write("other", [encode(line(9, app="other"))])
    assert texts(logs.read("shop", Query())) == [f"line {n}" for n in range(5)]
    assert texts(logs.read("shop", Query(tail=2))) == ["line 3", "line 4"]
    assert logs.read("nobody", Query()) == []
    assert sorted(logs.apps()) == ["other", "shop"]


def test_an_app_keeps_to_its_share_and_its_last_lines(tmp_path: Path) -> None:
    logs = files(tmp_path, SMALL)
    for n in range(3000):
        logs.write("shop", [encode(line(n))])
        assert size(tmp_path) <= SMALL.app
    kept = logs.read("shop", Query())
    assert texts(kept) == [f"line {n}" for n in range(3000 - len(kept), 3000)]
    assert len(kept) > 400
    assert len(list((tmp_path / "apps" / "shop").iterdir())) > 10


def test_many_at_once_keep_to_it_too(tmp_path: Path) -> None:
    logs = files(tmp_path, SMALL)
    logs.write("shop", [encode(line(n)) for n in range(5000)])
    assert size(tmp_path) <= SMALL.app
    assert texts(logs.read("shop", Query(tail=1))) == ["line 4999"]


def test_a_home_keeps_to_its_budget_and_the_oldest_goes_first(tmp_path: Path) -> None:
    builds = tmp_path / "layers"
    builds.mkdir()
    (builds / "old.log").write_text("x" * 30_000)
    os.utime(builds / "old.log", (1, 1))
    (tmp_path / "engine.log").write_text("x" * 300_000)
    logs = files(tmp_path, LogLimits(total=1 << 17, app=1 << 16))
    for number in range(6):
        app = f"app{number}"
        logs.write(app, [encode(line(n, app=app)) for n in range(700)])
        for path in (tmp_path / "apps" / app).iterdir():
            os.utime(path, (number + 2, number + 2))
    logs.trim()
    assert size(tmp_path) - 300_000 <= 1 << 17
    assert not (builds / "old.log").exists()
    assert (tmp_path / "engine.log").exists()
    assert logs.read("app0", Query()) == []
    assert texts(logs.read("app5", Query(tail=1))) == ["line 699"]
    logs.write("app0", [encode(line(1, app="app0"))])
    assert texts(logs.read("app0", Query())) == ["line 1"]


def test_half_a_line_of_a_crash_is_passed_over(tmp_path: Path) -> None:
    files(tmp_path).write("shop", [encode(line(1)), encode(line(2))[:-20]])
    again = files(tmp_path)
    assert texts(again.read("shop", Query())) == ["line 1"]
    again.write("shop", [encode(line(3))])
    again.write("shop", [encode(line(4))])
    assert texts(again.read("shop", Query())) == ["line 1", "line 3", "line 4"]


def test_a_mark_ends_what_is_read(tmp_path: Path) -> None:
    logs = files(tmp_path, SMALL)
    logs.write("shop", [encode(line(n)) for n in range(100)])
    end = logs.end("shop")
    logs.write("shop", [encode(line(n)) for n in range(100, 200)])
    assert texts(logs.read("shop", Query(), end)) == [f"line {n}" for n in range(100)]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (Query(since_ms=2990), range(2990, 3000)),
        (Query(until_ms=9), range(10)),
        (Query(until_ms=9, tail=2), range(8, 10)),
        (Query(since_ms=100, until_ms=109), range(100, 110)),
        (Query(since_ms=5000), range(0)),
    ],
)
def test_times_are_found_without_reading_everything(
    query: Query, wanted: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = files(tmp_path, LogLimits(total=1 << 30, app=1 << 20))  # files of 64 KiB
    logs.write("shop", [encode(line(n)) for n in range(3000)])
    monkeypatch.setattr(log_files, "BLOCK", 4096)
    read = reads(monkeypatch)
    assert texts(logs.read("shop", query)) == [f"line {n}" for n in wanted]
    assert len(read) < 700


def test_what_narrows_down_reads_only_what_it_may_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = files(tmp_path)
    many = [encode(line(n, worker=f"w{n % 100}-7")) for n in range(5000)]
    tricky = encode(line(9, '"worker":"w3-7"', worker="w101-7"))
    logs.write("shop", [*many, tricky, encode(line(10, 'say "ä\n"'))])
    read = reads(monkeypatch)
    assert len(logs.read("shop", Query(worker="w3-7"))) == 50
    assert len(read) == 50
    assert texts(logs.read("shop", Query(search='"ä\n'))) == ['say "ä\n"']
    assert texts(logs.read("shop", Query(search='r":"w3-7"'))) == ['"worker":"w3-7"']


def test_a_line_by_its_input_or_its_call(tmp_path: Path) -> None:
    logs = files(tmp_path)
    logs.write(
        "shop",
        [
            encode(line(1, call="fc-a", input="in-a", stream="stderr")),
            encode(line(2, call="fc-a", input="in-b", function="Model.embed")),
            encode(line(3)),
        ],
    )
    assert texts(logs.read("shop", Query(call="fc-a"))) == ["line 1", "line 2"]
    assert texts(logs.read("shop", Query(call="in-b"))) == ["line 2"]
    assert texts(logs.read("shop", Query(function="Model"))) == ["line 2"]
    assert texts(logs.read("shop", Query(function="Mod"))) == []
    assert texts(logs.read("shop", Query(stream="stderr"))) == ["line 1"]
    assert texts(logs.read("shop", Query(run="shop", tail=1))) == ["line 3"]


@given(
    st.lists(st.binary(max_size=40).filter(lambda data: b"\n" not in data)), st.binary(max_size=9), st.integers(1, 64)
)
def test_blocks_are_the_whole_lines(lines: list[bytes], half: bytes, block: int) -> None:
    whole = b"".join(one + b"\n" for one in lines)
    descriptor = os.memfd_create("log")
    try:
        os.write(descriptor, whole + half.replace(b"\n", b""))
        end = os.fstat(descriptor).st_size
        blocks = list(backwards(descriptor, end, block))
    finally:
        os.close(descriptor)
    assert b"".join(reversed(blocks)) == whole
    assert all(one.endswith(b"\n") for one in blocks)
