"""Every command-line test has a folder, a home and an engine of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fake_engine import FakeEngine, Slipway

from slipway import engine_client


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that every command of the test reaches."""
    fake = FakeEngine()
    monkeypatch.setattr(engine_client, "connect", lambda *_, **__: fake)
    return fake


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder and a home of the test's own, no colour, 100 columns; what loading leaves behind is undone."""
    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files are rewritten within one tick of their mtime
    before = set(sys.modules)
    yield place
    for name in set(sys.modules) - before:
        if any(Path(file).is_relative_to(tmp_path) for file in _files(sys.modules[name])):
            del sys.modules[name]


def _files(module: ModuleType) -> list[str]:
    """Where a module, or a package without a file of its own, is from."""
    return [*filter(None, [getattr(module, "__file__", None)]), *getattr(module, "__path__", ())]


@pytest.fixture
def slipway(capsys: pytest.CaptureFixture[str]) -> Slipway:
    return Slipway(capsys)
