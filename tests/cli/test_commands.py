"""The commands that ask the engine for one thing each."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from fake_engine import FakeEngine, Slipway

from slipway import engine_client
from slipway.dsl.errors import RuntimeUnavailable

LINE = {"at_ms": 1_700_000_000_123, "app": "a", "function": "f", "worker": "w", "call": "c", "stream": "stdout"}


def test_app_list(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["app.list"] = lambda _: {"apps": []}
    assert "Nothing is deployed" in slipway("app", "list").out
    assert json.loads(slipway("app", "list", "--json").out) == []
    entry = {"app": "search", "serial": 3, "runtime": "native", "functions": ["a", "b"], "created_ms": 0}
    entry |= {"workers": 1, "running": 0, "queued": 7}
    engine.replies["app.list"] = lambda _: {"apps": [entry]}
    head, row = slipway("app", "list").out.splitlines()
    assert head.split() == ["APP", "SERIAL", "RUNTIME", "FUNCTIONS", "WORKERS", "RUNNING", "QUEUED", "SINCE"]
    assert row.split()[:7] == ["search", "3", "native", "2", "1", "0", "7"]
    engine.replies["app.list"] = lambda _: {"apps": [entry | {"troubles": {"a": "it died"}}]}
    assert slipway("app", "list").out.splitlines()[2:] == ["search.a: its workers fail: it died"]


def test_app_logs(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["app.logs"] = lambda _: {}
    engine.events["app.logs"] = [
        {"event": "lines", "lines": [LINE | {"text": "one"}]},
        LINE | {"event": "line", "text": "two"},
    ]
    assert slipway("app", "logs", "a", "-n", "5").out == "f w | one\nf w | two\n"
    assert engine.asked[-1] == ("app.logs", {"app": "a", "tail": 5})
    assert ".123 f w | two" in slipway("app", "logs", "a", "--timestamps", "-f").out
    assert engine.asked[-1] == ("app.logs", {"app": "a", "tail": 100, "follow": True})
    first, second = map(json.loads, slipway("app", "logs", "a", "--json").out.splitlines())
    assert first["call"] == "c" and second == LINE | {"text": "two"}


def test_app_logs_narrowed_down(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["app.logs"] = lambda _: {}
    slipway(
        "app",
        "logs",
        "a",
        "--since",
        "2026-11-23T10:00:00+00:00",
        "--until",
        "1970-01-01T00:00:01+00:00",
        "--search",
        "x",
    )
    said = {"since_ms": 1_795_428_000_000, "until_ms": 1000, "search": "x"}
    assert engine.asked[-1] == ("app.logs", {"app": "a"} | said)
    slipway(
        "app",
        "logs",
        "a",
        "--function",
        "f",
        "--call",
        "fc-1",
        "--worker",
        "w1-7",
        "--source",
        "system",
        "--since",
        "1h",
        "-n",
        "3",
    )
    params: dict[str, Any] = engine.asked[-1][1]
    assert 3_590_000 < time.time() * 1000 - params.pop("since_ms") < 3_700_000
    assert params == {"app": "a", "tail": 3, "function": "f", "call": "fc-1", "worker": "w1-7", "stream": "system"}
    assert "how long ago" in slipway("app", "logs", "a", "--since", "yesterday", code=2).err


def test_whoever_follows_ends_it_without_a_word(engine: FakeEngine, slipway: Slipway) -> None:
    def interrupted(_: dict[str, Any]) -> dict[str, Any]:
        raise KeyboardInterrupt

    engine.replies["app.logs"] = interrupted
    ran = slipway("app", "logs", "a", "-f", code=130)
    assert (ran.out, ran.err) == ("", "")


def test_destroy_asks_and_spares_volumes(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["destroy"] = lambda params: {"removed": ["function f", *params["volumes"]]}
    assert "Add --yes" in slipway("destroy", "shop", code=1).err
    assert slipway("destroy", "shop", "--yes").out == "  -  function f\nshop is destroyed.\n"
    slipway("destroy", "shop", "-y", "--volume", "scratch")
    assert engine.asked[-1] == ("destroy", {"app": "shop", "volumes": ["scratch"]})


def test_a_no_is_not_an_interruption(engine: FakeEngine, slipway: Slipway, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> bool:
        raise click.Abort

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda question: "shop" not in question)
    assert slipway("destroy", "shop", code=1).err == "Nothing was changed.\n"
    monkeypatch.setattr(click, "confirm", interrupted)
    assert slipway("destroy", "shop", code=130).err == "\ninterrupted\n"
    assert "destroy" not in [kind for kind, _ in engine.asked]


def test_destroy_by_file(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["destroy"] = lambda _: {}
    Path("my_app.py").write_text("import slipway\napp = slipway.App('shop')\n")
    assert slipway("destroy", "my_app.py", "--yes").out == "shop is destroyed.\n"


def test_status_of_an_engine(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["status"] = lambda _: {"pid": 7, "version": "0.1.0", "busy": "", "started_ms": 0}
    out = slipway("status").out
    assert "pid 7" in out and "idle" in out
    assert json.loads(slipway("status", "--json").out)["running"] is True


def test_without_an_engine(slipway: Slipway, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeUnavailable("no engine runs")

    monkeypatch.setattr(engine_client, "connect", refuse)
    assert "No engine runs" in slipway("status", code=1).out
    assert json.loads(slipway("status", "--json", code=1).out)["running"] is False
    assert "No engine runs" in slipway("down").out


@pytest.mark.slow
def test_doctor_looks_at_this_machine(slipway: Slipway) -> None:
    checks = {check["name"]: check for check in json.loads(slipway("doctor", "--json").out)}
    assert checks["uv"]["verdict"] == "ok"
    assert {"kernel", "namespaces", "python", "docker", "gpus", "engine"} <= set(checks)
