"""The engine's own log keeps to a size."""

from __future__ import annotations

import logging
from pathlib import Path

from slipway.cli.daemon import KeptLog


def said(text: str) -> logging.LogRecord:
    return logging.LogRecord("slipway", logging.INFO, __file__, 1, text, None, None)


def test_a_full_log_begins_anew_and_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    with path.open("a") as stream:
        handler = KeptLog(stream, path, most=100)
        for number in range(20):
            handler.emit(said(f"line {number:02d}"))
    assert path.stat().st_size + (tmp_path / "engine.1.log").stat().st_size <= 220
    lines = (tmp_path / "engine.1.log").read_text().splitlines() + path.read_text().splitlines()
    assert lines == [f"line {number:02d}" for number in range(20)]


def test_a_file_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "engine.log").touch()
    with (tmp_path / "mine.log").open("a") as stream:
        handler = KeptLog(stream, tmp_path / "engine.log", most=10)
        for _ in range(20):
            handler.emit(said("a line"))
    assert (tmp_path / "mine.log").read_text() == "a line\n" * 20
