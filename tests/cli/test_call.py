"""`slipway call`: what is asked of the engine, and what its replies look like."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from fake_engine import FakeEngine, Slipway

from slipway.cli.call_view import call_lines, input_lines, list_lines, tree_lines
from slipway.cli.output import paint
from slipway.dsl.errors import NotFoundError
from slipway.replies import Pending

NOW = 1_795_428_000_000
COUNTS = dict.fromkeys(("queued", "running", "returned", "raised", "timed_out", "lost", "cancelled"), 0)
CALL = {
    "call": "fc-a1", "app": "shop", "run": "shop", "function": "square", "method": "", "parent": "", "durable": True,
    "sealed": True, "state": "returned", "inputs": 1, **COUNTS, "returned": 1, "created_ms": NOW - 60_000,
    "finished_ms": NOW - 58_600, "expired": False,
}  # fmt: skip
INPUT = {
    "input": "in-a1", "call": "fc-a1", "index": 0, "state": "returned", "worker": "w1-7", "attempts": 1, "losses": 0,
    "submitted_ms": NOW - 60_000, "started_ms": NOW - 59_000, "finished_ms": NOW - 58_600, "reason": "", "history": [],
}  # fmt: skip


def text(lines: Any) -> str:
    return "\n".join(paint(line, colour=False) for line in lines)


def date(ms: int) -> str:
    return f"at {ms - NOW}"


# --- what it looks like -------------------------------------------------------------------------------


def test_a_list_of_calls() -> None:
    running = CALL | {
        "call": "fc-b2", "function": "Model", "method": "embed", "state": "running", "inputs": 10, "returned": 3,
        "raised": 1, "running": 6, "sealed": False, "created_ms": NOW - 7_200_000, "finished_ms": None,
    }  # fmt: skip
    assert text(list_lines([CALL, running], NOW)) == (
        "CALL   FUNCTION          STATE     DONE   AGE  TOOK\n"
        "fc-a1  shop.square       returned  1/1    1m   1.4 s\n"
        "fc-b2  shop.Model.embed  running   4/10+  2h   2 h 0 min so far"
    )


def test_a_call_and_its_inputs() -> None:
    call = CALL | {"parent": "in-99", "run": "ap-5", "state": "raised", "inputs": 2, "raised": 1, "expired": True}
    assert text(call_lines(call, NOW, date)) == (
        "fc-a1  shop.square  raised  spawned\n"
        "began at -60000 (1m ago), 1.4 s, run ap-5\n"
        "called by in-99\n"
        "2 inputs: 1 returned, 1 raised\n"
        "its results have expired"
    )
    lost = {
        "attempt": 1, "worker": "w1-7", "started_ms": NOW - 59_900, "finished_ms": NOW - 59_000, "outcome": "lost",
        "reason": "the worker was killed by signal 9 (SIGKILL); the last it printed:\n  hi",
    }  # fmt: skip
    failed = INPUT | {
        "input": "in-a2", "index": 1, "state": "raised", "attempts": 3, "losses": 1, "worker": "w2-7",
        "reason": "ValueError: no\nsuch thing", "history": [lost],
    }  # fmt: skip
    waiting = INPUT | {"index": 2, "state": "queued", "worker": "", "attempts": 0, "started_ms": None}
    assert text(input_lines([INPUT, failed, waiting | {"finished_ms": None}], NOW)) == (
        "#  INPUT  STATE     WORKER  ATTEMPTS    TOOK\n"
        "0  in-a1  returned  w1-7    1           400 ms\n"
        "1  in-a2  raised    w2-7    3 (1 lost)  400 ms\n"
        "     attempt 1 on w1-7 900 ms: lost: the worker was killed by signal 9 (SIGKILL); the last it printed:\n"
        "     ValueError: no\n"
        "     such thing\n"
        "2  in-a1  queued"
    )


def one(call: str, number: str, index: int = 0, *, parent: str = "", state: str = "returned") -> dict[str, Any]:
    about = {"app": "shop", "function": "sort", "method": "", "parent": parent}
    return INPUT | about | {"call": call, "input": number, "index": index, "state": state}


def test_a_tree_of_calls() -> None:
    inputs = [
        one("fc-1", "in-1"),
        one("fc-2", "in-2", 0, parent="in-1"),
        one("fc-2", "in-3", 1, parent="in-1", state="running") | {"finished_ms": None, "attempts": 2},
        one("fc-4", "in-4", parent="in-3"),
        one("fc-5", "in-5", parent="in-1"),
    ]
    assert text(tree_lines(inputs, "fc-1", NOW)) == (
        "fc-1 shop.sort  returned  400 ms\n"
        "├─ fc-2 shop.sort  1/2 inputs\n"
        "│  ├─ #0 in-2  returned  400 ms\n"
        "│  └─ #1 in-3  running  59 s so far, 2 attempts\n"
        "│     └─ fc-4 shop.sort  returned  400 ms\n"
        "└─ fc-5 shop.sort  returned  400 ms"
    )


def test_a_tree_of_many_shows_those_that_matter() -> None:
    inputs = [one("fc-1", f"in-{n + 1}", n) for n in range(1000)]
    inputs[700] |= {"state": "raised"}
    inputs += [one("fc-2001", "in-2001", parent="in-901")]
    shown = text(tree_lines(inputs, "fc-1", NOW)).splitlines()
    assert shown[0] == "fc-1 shop.sort  1000/1000 inputs"
    assert shown[-1] == "└─ and 988 more: 988 returned"
    assert any("#700 in-701  raised" in line for line in shown)
    at = next(n for n, line in enumerate(shown) if "#900 in-901" in line)
    assert shown[at + 1] == "│  └─ fc-2001 shop.sort  returned  400 ms"
    assert len(shown) == 1 + 12 + 1 + 1


def test_states_have_their_colours() -> None:
    (_, row) = list_lines([CALL | {"state": "timed_out"}], NOW)
    assert "\x1b[31m\x1b[1mtimed out\x1b[0m" in paint(row, colour=True)


# --- what is asked ------------------------------------------------------------------------------------


def test_a_function_is_called_with_json(engine: FakeEngine, slipway: Slipway, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spawned:
        object_id = "fc-77"

    class Looked:
        @staticmethod
        def remote(*args: Any, **kwargs: Any) -> Any:
            return {"args": args, "kwargs": kwargs}

        @staticmethod
        def spawn(*_: Any) -> Any:
            return Spawned

    engine.replies["function.open"] = lambda _: {"channel": 1, "is_generator": False}
    monkeypatch.setattr("slipway.dsl.function.Function.from_name", lambda app, name: Looked)
    assert json.loads(slipway("call", "a.b.f", '[1, "x"]').out) == {"args": [1, "x"], "kwargs": {}}
    assert json.loads(slipway("call", "a.f", '{"x": 1}', "--json").out) == {"args": [], "kwargs": {"x": 1}}
    assert slipway("call", "a.f", "--spawn").out == "fc-77\n"
    assert "not JSON" in slipway("call", "a.f", "[1", code=1).err
    assert "'[7]'" in slipway("call", "a.f", "7", code=1).err
    assert "APP.FUNCTION" in slipway("call", "f", code=2).err
    assert "Did you mean 'list'?" in slipway("call", "lits", code=2).err
    assert "APP.FUNCTION" in slipway("call", ".f", code=1).err
    assert slipway("call", "a.f", "--help").out.startswith("Usage: slipway call a.f [OPTIONS] [JSON]")


def test_list(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["call.list"] = lambda _: {"calls": []}
    assert slipway("call", "list").out == "No function was called yet.\n"
    assert engine.asked[-1] == ("call.list", {"limit": 20})
    assert "no such call" in slipway("call", "list", "--app", "shop", "--state", "open", "--function", "f").out
    assert engine.asked[-1] == ("call.list", {"limit": 20, "app": "shop", "state": "open", "function": "f"})
    engine.replies["call.list"] = lambda _: {"calls": [CALL]}
    assert "fc-a1" in slipway("call", "list").out
    assert json.loads(slipway("call", "list", "--json").out) == [CALL]


def test_show(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["call.show"] = lambda _: {"call": CALL, "inputs": [INPUT], "more": True}
    engine.replies["call.graph"] = lambda _: {"inputs": [one("fc-a1", "in-a1")]}
    out = slipway("call", "show", "in-a1", "--start", "5").out
    assert engine.asked[-1] == ("call.show", {"call": "in-a1", "start": 5, "limit": 20})
    assert out.startswith("fc-a1  shop.square  returned") and "More: slipway call show fc-a1 --start 6" in out
    assert slipway("call", "fc-a1").out.startswith("fc-a1  shop.square")
    assert "fc-a1 shop.sort  returned  400 ms" in slipway("call", "show", "fc-a1", "--graph").out
    assert engine.asked[-1] == ("call.graph", {"call": "fc-a1"})
    assert set(json.loads(slipway("call", "show", "fc-a1", "--graph", "--json").out)) == {
        "call", "inputs", "more", "graph",
    }  # fmt: skip


def test_logs(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies |= {"call.show": lambda _: {"call": CALL, "inputs": [], "more": False}, "app.logs": lambda _: {}}
    engine.events["app.logs"] = [{"event": "line", "function": "f", "worker": "w1-7", "text": "hi", "stream": "stdout"}]
    assert slipway("call", "logs", "fc-a1", "-f", "--search", "hi").out == "f w1-7 | hi\n"
    params = {"app": "shop", "call": "fc-a1", "tail": 100, "search": "hi", "follow": True}
    assert engine.asked[-1] == ("app.logs", params)


def test_cancel(engine: FakeEngine, slipway: Slipway) -> None:
    replies = iter(({"queued": 3, "running": 1}, {"queued": 0, "running": 0}))
    engine.replies["call.cancel"] = lambda _: next(replies)
    assert slipway("call", "cancel", "fc-1", "fc-2").out == (
        "fc-1: given up, 3 queued and 1 running\nfc-2: nothing of it was under way\n"
    )
    engine.replies["call.cancel"] = lambda _: {"queued": 1, "running": 0}
    slipway("call", "cancel", "fc-1", "--terminate")
    assert engine.asked[-1] == ("call.cancel", {"call": "fc-1", "terminate": True})


def test_retry(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["call.retry"] = lambda _: {"inputs": 1}
    assert slipway("call", "retry", "fc-1").out == "fc-1: 1 input waits to be run again\n"


@pytest.mark.parametrize(
    ("about", "code", "said"),
    [
        ({}, 0, "fc-a1 shop.square: returned, 1 input: 1 returned, in 1.4 s\n"),
        ({"state": "lost", "returned": 0, "lost": 1}, 1, "fc-a1 shop.square: lost, 1 input: 1 lost, in 1.4 s\n"),
    ],
)
def test_wait(about: dict[str, Any], code: int, said: str, engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["call.wait"] = lambda _: {"call": CALL | about}
    assert slipway("call", "wait", "fc-a1", code=code).out == said
    assert engine.asked[-1] == ("call.wait", {"call": "fc-a1"})


def test_wait_not_so_long(engine: FakeEngine, slipway: Slipway) -> None:
    def pending(_: dict[str, Any]) -> dict[str, Any]:
        raise Pending("fc-a1 is not over yet")

    now = round(time.time() * 1000)
    running = CALL | {"state": "running", "returned": 0, "running": 1, "finished_ms": None, "created_ms": now}
    engine.replies |= {"call.wait": pending, "call.show": lambda _: {"call": running, "inputs": [], "more": True}}
    assert slipway("call", "wait", "fc-a1", "--timeout", "1.5", code=2).out == (
        "fc-a1 shop.square: not over yet, 0/1 inputs\n"
    )
    assert ("call.wait", {"call": "fc-a1", "timeout_ms": 1500}) in engine.asked
    assert json.loads(slipway("call", "wait", "fc-a1", "--json", code=2).out)["state"] == "running"


def test_a_call_that_nobody_knows(engine: FakeEngine, slipway: Slipway) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise NotFoundError("there is no call fc-9", hint="See them: slipway call list")

    engine.replies["call.show"] = refuse
    assert slipway("call", "fc-9", code=1).err.startswith("error: there is no call fc-9\n")
