"""An app that a program runs by itself: what of it is seen."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine

import slipway
from slipway import runner
from slipway.dsl import session

LINES = [
    {"event": "line", "function": "f", "stream": "stdout", "text": "hello"},
    {"event": "line", "function": "f", "stream": "stderr", "text": "bad"},
]
NODES = [
    {"event": "node", "address": "image default/1", "state": state, "title": "run_commands x"}
    for state in ("running", "done")
]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine that runs any app: it builds one layer, and a worker prints two lines."""
    fake = FakeEngine()
    fake.replies = {"run": lambda _: {"app": "ap-1"}, "app.end": lambda _: {}, "app.logs": lambda _: {}}
    fake.events = {"app.logs": LINES}
    monkeypatch.setattr(runner, "connect", lambda: fake)
    monkeypatch.setattr(session._Program, "runner", runner.ProgramRunner())
    return fake


def test_output_is_shown_where_it_is_enabled(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    app = slipway.App("quiet")
    engine.events["run"] = NODES
    with slipway.enable_output(), app.run():
        pass
    assert capfd.readouterr() == ("f | hello\n", "building  run_commands x\nbuilt     run_commands x\nf | bad\n")


def test_output_is_not_shown_elsewhere(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    with slipway.App("quiet").run():
        pass
    assert capfd.readouterr() == ("", "")
    assert [method for method, _ in engine.asked] == ["run", "app.end"]
