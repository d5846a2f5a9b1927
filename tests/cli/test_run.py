"""`slipway run`: which function, with which arguments, and what of it is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, Slipway

from slipway.dsl import registry
from slipway.dsl.session import FunctionRef

APP = """
import datetime
import slipway

app = slipway.App("shop")


@app.function()
def square(x: int):
    return x * x


@app.function()
def blob():
    return b"bytes"


@app.function()
def fails(x: int = 0):
    raise ValueError("told you so")


@app.function()
def counts(n: int):
    yield from range(n)


@app.cls()
class Model:
    size: str = slipway.parameter(default="small")
    level: int = slipway.parameter()

    @slipway.method()
    def embed(self, text: str, times: int = 1):
        'Say it.'
        return f"{self.size} {self.level} {text * times}"

    @slipway.method()
    def words(self, size: str):
        return size


@app.cls()
class Lone:
    @slipway.method()
    def only(self, *words):
        return list(words)


@app.local_entrypoint()
def main(count: int = 3, loud: bool = False):
    results = list(square.map(range(count)))
    print("LOUD" if loud else "quiet", sum(results))


@app.local_entrypoint()
async def later(when: datetime.datetime):
    print(when.year, await square.remote.aio(4))
    return "what it returns is its own business"


@app.local_entrypoint()
def broken():
    fails.remote()


@app.local_entrypoint()
def lenient():
    print([type(one).__name__ for one in fails.map([1], return_exceptions=True)])
"""


class LocalSession:
    """Calls run right here."""

    def __init__(self, _link: object) -> None: ...

    def call(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        app = registry.apps[-1]
        if function.method:
            parameters = dict(function.variant.parameters) if function.variant else {}
            return getattr(app.classes[function.name](**parameters), function.method).local(*args, **kwargs)
        return app.functions[function.name].raw(*args, **kwargs)

    async def call_aio(self, function: FunctionRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.call(function, args, kwargs)

    def map(
        self, function: FunctionRef, inputs: Iterable[Any], *, order_outputs: bool, return_exceptions: bool
    ) -> Iterator[Any]:
        for args, kwargs in inputs:
            try:
                yield self.call(function, args, kwargs)
            except ValueError as error:  # noqa: PERF203 - one input at a time
                if not return_exceptions:
                    raise
                yield error


@pytest.fixture(autouse=True)
def running(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine that takes an ephemeral app, with calls made right here."""
    monkeypatch.setattr("slipway.session.EngineSession", LocalSession)
    engine.replies |= {"run": lambda _: {"app": "ap-1"}, "app.end": lambda _: {}, "app.logs": lambda _: {}}
    Path("app.py").write_text(APP)
    return engine


def test_an_entrypoint_runs_with_its_options(slipway: Slipway, running: FakeEngine) -> None:
    assert slipway("run", "app.py::main", "--count", "4", "--loud").out == "LOUD 14\n"
    assert [method for method, _ in running.asked if method != "app.logs"] == ["run", "app.end"]


def test_an_async_entrypoint(slipway: Slipway) -> None:
    assert slipway("run", "app.py::later", "--when", "2026-11-23").out == "2026 16\n"


def test_a_function_prints_its_result(slipway: Slipway) -> None:
    assert slipway("run", "app.py::square", "--x", "7").out == "49\n"
    assert slipway("run", "app.py::app.square", "--x", "7").out == "49\n"


def test_a_method_runs_with_the_parameters_of_its_class(slipway: Slipway) -> None:
    assert slipway("run", "app.py::Model.embed", "--level", "3", "--text", "ab", "--times", "2").out == "small 3 abab\n"
    out = slipway("run", "app.py::app.Model.embed", "--level", "3", "--text", "ab", "--size", "big").out
    assert out == "big 3 ab\n"
    shown = slipway("run", "app.py::Model.embed", "--help").out
    assert "Say it." in shown and "--level INTEGER" in shown and "--self" not in shown
    assert slipway("run", "app.py::Lone", "a", "--b").out == '["a", "--b"]\n'


def test_methods_that_cannot_be_run_so(slipway: Slipway, running: FakeEngine) -> None:
    assert "the class and the method both have a parameter 'size'" in slipway("run", "app.py::Model.words", code=1).err
    err = slipway("run", "app.py::Model", code=1).err
    assert "Model has 2 methods" in err and "app.py::Model.embed\n" in err
    assert "Did you mean app.py::Model.embed?" in slipway("run", "app.py::Model.embd", code=1).err
    assert "Missing option '--level'" in slipway("run", "app.py::Model.embed", "--text", "x", code=2).err
    assert "counts is a generator" in slipway("run", "app.py::counts", "--n", "3", code=1).err
    assert "--spawn" in slipway("run", "--detach", "app.py::main", code=1).err
    assert running.asked == []


def test_the_result_goes_to_a_file(slipway: Slipway) -> None:
    slipway("run", "-w", "result", "app.py::blob")
    assert Path("result").read_bytes() == b"bytes"
    assert "result is of int" in slipway("run", "-w", "result", "app.py::square", "--x", "1", code=1).err


def test_help_of_a_function_starts_nothing(slipway: Slipway, running: FakeEngine) -> None:
    assert "--count INTEGER" in slipway("run", "app.py::main", "--help").out
    assert "Usage: slipway run " in slipway("run", "--help").out
    assert running.asked == []


def test_wrong_usage_starts_nothing(slipway: Slipway, running: FakeEngine) -> None:
    assert "Missing option '--x'" in slipway("run", "app.py::square", code=2).err
    assert "not a valid int" in slipway("run", "app.py::square", "--x", "one", code=2).err
    late = slipway("run", "app.py::square", "--x", "1", "--runtime", "native", code=2).err
    assert "stands before APP" in late
    assert "stands before APP" not in slipway("run", "app.py::square", "--y", code=2).err
    assert "5 local entrypoints" not in slipway("run", "app.py", code=1).err
    assert "Did you mean app.py::square?" in slipway("run", "app.py::sqare", code=1).err
    assert running.asked == []


def test_what_the_user_raises_is_theirs_and_the_app_ends(slipway: Slipway, running: FakeEngine) -> None:
    err = slipway("run", "app.py::broken", code=1).err
    assert "ValueError: told you so" in err and 'app.py", line' in err
    shown = [line.partition('"')[2].partition('"')[0] for line in err.splitlines() if line.startswith("  File")]
    assert {Path(file).name for file in shown} == {"app.py", "test_run.py"}  # the latter stands in for a worker
    assert running.asked[-1][0] == "app.end"


def test_a_map_goes_on_past_a_failed_input(slipway: Slipway) -> None:
    assert slipway("run", "app.py::lenient").out == "['ValueError']\n"


def test_what_workers_print_is_shown_with_their_function(slipway: Slipway, running: FakeEngine) -> None:
    line = {"event": "line", "function": "square", "text": "hello", "stream": "stdout"}
    running.events["app.logs"] = [line, line | {"stream": "stderr", "text": "oops"}]
    ran = slipway("run", "app.py::main")
    assert "square | hello\n" in ran.out and "square | oops\n" in ran.err
    assert "square" not in slipway("run", "-q", "app.py::main").out


def test_builds_are_told_on_stderr(slipway: Slipway, running: FakeEngine) -> None:
    running.events["run"] = [
        {"event": "node", "address": "image default/1", "title": "run_commands x", "state": "running"},
        {"event": "node", "address": "image default/1", "title": "run_commands x", "state": "done", "ms": 1500},
    ]
    ran = slipway("run", "app.py::main")
    assert ran.err.startswith("building  run_commands x\nbuilt     run_commands x  1.5 s\n")
    assert ran.out == "quiet 5\n"
