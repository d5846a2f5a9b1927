"""Logs and calls through the command line, with real workers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from machine import SLIPWAY, Machine
from terminals import Tty

APP = """
import os, signal, sys
import slipway

app = slipway.App("talk")


@app.function()
def say(text: str):
    print(text)
    print(text.upper(), file=sys.stderr)
    return len(text)


@app.function(retries=slipway.Retries(max_retries=1, initial_delay=1.0))
def fails(text: str):
    print("trying", text)
    raise ValueError(text)


@app.function()
def dies():
    print("about to", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


@app.cls()
class Model:
    size: str = slipway.parameter(default="small")

    @slipway.method()
    def embed(self, text: str):
        print("embedding", text, self.size)
        return say.remote(text) * 2


@app.function()
def calls():
    return sum(say.map(["a", "bb"])) + Model().embed.remote("ccc")
"""


class Talk:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.write("app.py", APP)
        machine.run("apply", "app.py", "--yes")

    def logs(self, *more: str) -> list[dict[str, Any]]:
        out = self.machine.run("app", "logs", "talk", "--json", *more).out
        return [json.loads(line) for line in out.splitlines()]

    def texts(self, *more: str) -> list[str]:
        return [line["text"] for line in self.logs(*more)]

    def last(self, function: str) -> dict[str, Any]:
        """The youngest call of a function."""
        listed = self.machine.run("call", "list", "--app", "talk", "--function", function, "--limit", "1", "--json").out
        found: dict[str, Any] = json.loads(listed)[0]
        return found


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    machine = Machine(tmp_path_factory.mktemp("talk"))
    try:
        yield Talk(machine)
    finally:
        machine.close()


def test_lines_are_found_by_what_is_known_of_them(talk: Talk) -> None:
    assert talk.machine.run("call", "talk.say", '["one"]').out == "3\n"
    call = talk.last("say")
    assert (call["state"], call["inputs"], call["returned"]) == ("returned", 1, 1)
    talk.machine.run("call", "talk.say", '["two"]')
    assert talk.texts("--call", call["call"]) == ["one", "ONE"]
    (line, _) = talk.logs("--call", call["call"].replace("fc-", "in-"))
    assert (line["call"], line["function"], line["stream"]) == (call["call"], "say", "stdout")
    assert talk.texts("--search", "TWO", "--source", "stderr") == ["TWO"]
    assert talk.texts("--worker", line["worker"], "--function", "say", "--tail", "2") == ["two", "TWO"]
    assert talk.texts("--since", "1h", "--until", "30m") == []
    assert "TWO" in talk.texts("--since", "10m")
    assert f"say {line['worker']} | one\n" in talk.machine.run("app", "logs", "talk").out
    assert talk.machine.run("call", "logs", call["call"]).out == (
        f"say {line['worker']} | one\nsay {line['worker']} | ONE\n"
    )


def test_the_engine_tells_of_workers_and_attempts(talk: Talk) -> None:
    assert "SIGSEGV" in talk.machine.run("call", "talk.dies", code=1).err
    (said,) = talk.logs("--function", "dies", "--source", "system")
    assert said["text"] == "the worker was killed by signal 11 (SIGSEGV)"
    assert talk.texts("--function", "dies") == ["about to", said["text"]]
    assert "ValueError: no" in talk.machine.run("call", "talk.fails", '["no"]', code=1).err
    (said,) = talk.logs("--function", "fails", "--source", "system")
    assert said["text"].startswith("attempt 1 raised") and said["text"].endswith("another follows")
    assert said["call"] == talk.last("fails")["call"]
    assert talk.texts("--function", "fails", "--search", "trying") == ["trying no"] * 2


def test_a_worker_that_cannot_be_started_is_told_of(talk: Talk) -> None:
    broken = """
import slipway

app = slipway.App("broken")
if not slipway.is_local():
    1 / 0


@app.function()
def f(): ...
"""
    talk.machine.write("broken.py", broken)
    talk.machine.run("run", "broken.py", code=1)
    out = talk.machine.run("app", "logs", "broken", "--source", "system", "--json").out
    texts = [json.loads(line)["text"] for line in out.splitlines()]
    assert texts and all("could not be started" in text and "ZeroDivisionError" in text for text in texts)


def test_a_call_is_shown_with_what_it_called(talk: Talk) -> None:
    assert talk.machine.run("call", "talk.calls").out == "9\n"
    call = talk.last("calls")["call"]
    out = talk.machine.run("call", "show", call, "--graph").out
    lines = [line.rstrip() for line in out.partition("\n\n")[2].splitlines()]
    assert lines[0].startswith(f"{call} talk.calls  returned")
    assert any("talk.say  2/2 inputs" in line for line in lines)
    embed = next(n for n, line in enumerate(lines) if "talk.Model.embed  returned" in line)
    assert lines[embed + 1].lstrip("│ ").startswith("└─ fc-") and "talk.say  returned" in lines[embed + 1]
    assert "embedding ccc small" in talk.texts("--function", "Model.embed")


def test_a_call_that_goes_on_is_followed_waited_for_and_given_up(talk: Talk) -> None:
    machine = talk.machine
    spawned = machine.run("call", "talk.fails", '["later"]', "--spawn").out.strip()
    followed = machine.run("call", "logs", spawned, "--follow", "--json")
    said = [json.loads(line) for line in followed.out.splitlines()]
    assert [line["text"] for line in said if line["text"].startswith("trying")] == ["trying later"] * 2
    assert "raised" in machine.run("call", "wait", spawned, code=1).out
    shown = json.loads(machine.run("call", "show", spawned, "--json").out)
    assert shown["inputs"][0]["attempts"] == 2 and len(shown["inputs"][0]["history"]) == 1
    assert machine.run("call", "retry", spawned).out == f"{spawned}: 1 input waits to be run again\n"
    assert "raised" in machine.run("call", "wait", spawned, code=1).out
    fine = machine.run("call", "talk.say", '["fine"]', "--spawn").out.strip()
    assert "returned" in machine.run("call", "wait", fine).out
    assert "nothing of it was under way" in machine.run("call", "cancel", fine).out
    assert {fine, spawned} <= {one["call"] for one in json.loads(machine.run("call", "list", "--json").out)}


def test_whoever_follows_on_a_terminal_sees_who_speaks_and_ends_it(talk: Talk) -> None:
    machine = talk.machine
    with Tty([SLIPWAY, "app", "logs", "talk", "-f", "-n", "1"], cwd=machine.folder, env=machine.env) as tty:
        tty.until("\r\n")
        machine.run("call", "talk.say", '["hello there"]')
        tty.until("HELLO THERE")
        tty.type("\x03")
        code, shown = tty.end()
    assert code == 128 + signal.SIGINT and shown.strip() in ("", "^C")


def test_a_log_that_never_was(talk: Talk) -> None:
    assert "no app nobody has run here" in talk.machine.run("app", "logs", "nobody", code=1).err
    assert "is not the id of a call" in talk.machine.run("call", "show", "fc-xyz", code=1).err
    assert "no call fc-1 is known here" in talk.machine.run("call", "logs", "fc-1", code=1).err
