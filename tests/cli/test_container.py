"""`slipway container` and `slipway shell`: what is asked of the engine, and how its answers look."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, Slipway

from slipway.cli import container, shell
from slipway.dsl.errors import NotFoundError

WORKER = {
    "id": "w1-7", "kind": "worker", "app": "shop", "run": "shop", "function": "serve", "runtime": "native",
    "since_ms": 0, "state": "idle", "calls": 0, "serial": 3, "image": "sha256:1", "memory_bytes": 5 << 20,
    "memory_limit_mib": 512,
}  # fmt: skip
LINE = {"at_ms": 1_700_000_000_123, "app": "shop", "function": "serve", "worker": "w1-7", "stream": "stdout"}

Attended = list[tuple[str, dict[str, Any], "bool | None"]]


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> Attended:
    """The programs that were asked for; each ends with 7."""
    asked: Attended = []

    def attend(_link: object, method: str, params: dict[str, Any], *, pty: bool | None) -> int:
        asked.append((method, params, pty))
        return 7

    for module in (container, shell):
        monkeypatch.setattr(module, "attend", attend)
    return asked


def replying(value: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda _: value


def test_list(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["container.list"] = replying({"containers": []})
    assert "No container runs" in slipway("container", "list").out
    assert json.loads(slipway("container", "list", "--json").out) == []
    old = WORKER | {"id": "w2-7", "serial": None, "memory_bytes": None, "state": "running", "calls": 2}
    mine = WORKER | {"id": "s1-7", "kind": "shell", "serial": 0, "memory_limit_mib": None}
    engine.replies["container.list"] = replying({"containers": [WORKER, old, mine]})
    head, first, second, third = slipway("container", "list").out.splitlines()
    assert head.split() == ["CONTAINER", "APP", "FUNCTION", "RUNTIME", "SINCE", "STATE", "CALLS", "SERIAL", "MEMORY"]
    assert first.split()[:4] == ["w1-7", "shop", "serve", "native"]
    assert first.split()[-7:] == ["idle", "0", "3", "5", "of", "512", "MiB"]
    assert second.split()[-3:] == ["running", "2", "old"]
    assert "shell, idle" in third and third.endswith(" 5 MiB")


def test_exec(engine: FakeEngine, slipway: Slipway, attended: Attended) -> None:
    slipway("container", "exec", "w1-7", "ls", "-l", "--json", code=7)
    slipway("container", "exec", "--no-pty", "w1-7", "--", "sh", "-c", "x", code=7)
    assert attended == [
        ("container.exec", {"id": "w1-7", "argv": ["ls", "-l", "--json"]}, None),
        ("container.exec", {"id": "w1-7", "argv": ["sh", "-c", "x"]}, False),
    ]
    assert "Missing argument" in slipway("container", "exec", "w1-7", code=2).err


def test_logs(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["container.logs"] = lambda _: {}
    engine.events["container.logs"] = [
        {"event": "lines", "lines": [LINE | {"text": "one"}, LINE | {"text": "two"}]},
        LINE | {"event": "line", "text": "three"},
    ]
    assert slipway("container", "logs", "w1-7", "-f").out == "one\ntwo\nthree\n"
    assert engine.asked[-1] == ("container.logs", {"id": "w1-7", "tail": 100, "follow": True})
    assert ".123 one" in slipway("container", "logs", "w1-7", "--timestamps", "-n", "5").out
    assert engine.asked[-1] == ("container.logs", {"id": "w1-7", "tail": 5})
    first = slipway("container", "logs", "w1-7", "--json").out.splitlines()[0]
    assert json.loads(first)["worker"] == "w1-7"


def test_stop(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["container.stop"] = replying({})
    assert slipway("container", "stop", "w1-7", "--graceful").out == "w1-7 has ended.\n"
    assert engine.asked == [("container.stop", {"id": "w1-7", "graceful": True})]

    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise NotFoundError("there is no container w1-8", hint="Did you mean w1-7?")

    engine.replies["container.stop"] = refuse
    err = slipway("container", "stop", "w1-8", code=1).err
    assert err.startswith("error: there is no container w1-8\n") and err.endswith("Did you mean w1-7?\n")


def test_a_shell_of_a_deployed_app(engine: FakeEngine, slipway: Slipway, attended: Attended) -> None:
    slipway("shell", "shop::serve", "--pty", "--runtime", "native", code=7)
    slipway("shell", "shop::serve", "-c", "python -c 'a b'", code=7)
    assert attended == [
        ("container.shell", {"app": "shop", "function": "serve", "argv": [], "runtime": "native"}, True),
        ("container.shell", {"app": "shop", "function": "serve", "argv": ["python", "-c", "a b"]}, None),
    ]
    for command, says in (("'", "No closing quotation"), (" ", "names nothing to run")):
        assert says in slipway("shell", "shop::serve", "--cmd", command, code=1).err


def test_a_shell_of_the_only_function(engine: FakeEngine, slipway: Slipway, attended: Attended) -> None:
    apps = [{"app": "one", "functions": ["f"]}, {"app": "two", "functions": ["f", "g"]}]
    engine.replies["app.list"] = replying({"apps": apps})
    slipway("shell", "one", code=7)
    slipway("shell", "none", code=7)  # the engine says that it is not there
    assert [params["function"] for _, params, _ in attended] == ["f", ""]
    err = slipway("shell", "two", code=1).err
    assert "two has 2 functions, and it isn't said which is meant" in err and "  two::g" in err


def test_a_shell_of_a_file(engine: FakeEngine, slipway: Slipway, attended: Attended) -> None:
    engine.replies["run"] = replying({"app": "ap-1", "executed": 0, "faults": []})
    text = "import slipway\napp = slipway.App('shop')\n@app.function()\ndef serve(): ...\n"
    Path("shop.py").write_text(text + "@app.local_entrypoint()\ndef main(): ...\n")
    slipway("shell", "shop.py::serve", code=7)
    slipway("shell", "shop.py", code=7)
    assert attended == [("container.shell", {"app": "ap-1", "function": "serve", "argv": []}, None)] * 2
    assert "main is a local entrypoint" in slipway("shell", "shop.py::main", code=1).err
    assert "there is no file 'other.py'" in slipway("shell", "other.py::serve", code=1).err
