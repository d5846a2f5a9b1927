"""Classes in a worker: the object, its hooks, its methods."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from worker_rig import worker

from slipway.dsl.errors import ExecutionError
from slipway.executor.runtime.pythons import Pythons
from slipway.executor.worker.failure import RemoteTraceback

CODE = """
import asyncio, sys, threading
import slipway

app = slipway.App("example")

class Base:
    @slipway.enter(snap=True)
    def first(self):
        print("first")

    @slipway.enter()
    def third(self):
        print("third of the base")

    @slipway.exit()
    def last(self):
        print("last", slipway.current_input_id())

@app.cls(enable_memory_snapshot=True)
class Model(Base):
    size: str = slipway.parameter(default="small")
    key: bytes = slipway.parameter()
    level: int = slipway.parameter(default=3)

    @slipway.enter(snap=True)
    def second(self):
        self.loaded = [self.size, self.key, self.level]
        print("second")

    @slipway.enter()
    def third(self):
        print("third")

    @slipway.method()
    def embed(self, text):
        main = threading.current_thread() is threading.main_thread()
        return [*self.loaded, text, self.plain(), main]

    def plain(self):
        return "plain"

    @slipway.method()
    def twice(self, text):
        return self.embed.local(text) * 2

    @slipway.method()
    def count(self, n):
        yield from range(n)

@app.cls()
class Mixed:
    @slipway.enter()
    async def begin(self):
        self.loop = asyncio.get_running_loop()
        self.ticks = 0
        self.ticking = asyncio.ensure_future(self.tick())
        print("begun")

    @slipway.enter()
    def plainly(self):
        self.thread = threading.current_thread()

    async def tick(self):
        while True:
            await asyncio.sleep(0)
            self.ticks += 1

    @slipway.method()
    async def slow(self, x):
        await asyncio.sleep(0)
        return x, asyncio.get_running_loop() is self.loop

    @slipway.method()
    def quick(self, x):
        try:
            asyncio.get_running_loop()
            running = True
        except RuntimeError:
            running = False
        async def inner():
            return x
        return asyncio.run(inner()), running, threading.current_thread() is self.thread

    @slipway.method()
    async def items(self, n):
        for i in range(n):
            yield i

    @slipway.exit()
    async def end(self):
        before = self.ticks
        await asyncio.sleep(0.001)
        print("ended", self.ticks > before, asyncio.get_running_loop() is self.loop)

@app.cls()
class Clumsy:
    @slipway.method()
    def work(self): ...

    @slipway.exit()
    def one(self):
        raise ValueError("one is broken")

    @slipway.exit()
    def two(self):
        print("two")

@app.cls()
class Broken:
    @slipway.enter()
    def load(self):
        raise LookupError("no weights")

    @slipway.exit()
    def never(self):
        print("never")

    @slipway.method()
    def work(self): ...

@app.cls()
class Interrupted:
    @slipway.method()
    def work(self):
        try:
            print("working", flush=True)
            threading.Event().wait(60)
        finally:
            print("let go")

    @slipway.method()
    async def work_async(self):
        try:
            print("working", flush=True)
            await asyncio.sleep(60)
        finally:
            print("let go")

    @slipway.exit()
    def end(self):
        print("ended")
"""
PYTHONS = {python.minor: python.executable for python in Pythons().all()}
METHODS: dict[str, Any] = {
    "Model": (("embed", False, False), ("twice", False, False), ("count", False, True)),
    "Mixed": (("slow", True, False), ("quick", False, False), ("items", True, True)),
}


def texts(printed: list[tuple[int, int | None, str]]) -> list[str]:
    return [text for _, _, text in printed]


def test_hooks_parameters_and_methods(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "Model", methods=METHODS["Model"], parameters=(("key", b"\0k"), ("level", 5))) as rig:
        assert texts(rig.printed()) == ["first", "second", "third"]
        assert rig.result(rig.send(("a",), method=0)) == ["small", b"\0k", 5, "a", "plain", True]
        assert len(rig.result(rig.send(("a",), method=1))) == 12
        assert list(rig.items(rig.send((3,), method=2))) == [0, 1, 2]
        assert rig.hang_up() == 0
        assert [line.text for line in rig.lines][3:] == ["last None"]
        assert rig.lines[-1].call is None


@pytest.mark.parametrize("version", PYTHONS)
def test_on_every_python(tmp_path: Path, version: str) -> None:
    with worker(tmp_path, CODE, "Mixed", python=PYTHONS[version], methods=METHODS["Mixed"], concurrency=2) as rig:
        assert rig.result(rig.send((1,), method=0)) == (1, True)
        assert rig.result(rig.send((1,), method=1)) == (1, False, False)
        assert list(rig.items(rig.send((300,), method=2))) == list(range(300))
        with pytest.raises(TypeError, match="unexpected") as caught:
            rig.result(rig.send((), {"gone": 1}, method=0))
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        rig.process.terminate()
        assert rig.ended() == -signal.SIGTERM
        assert [line.text for line in rig.lines if line.stream == 1] == ["begun", "ended True True"]


def test_async_hooks_share_the_loop_with_inputs_and_plain_methods_run_between(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "Mixed", methods=METHODS["Mixed"]) as rig:
        numbers = [rig.send((i,), method=i % 2) for i in range(6)]
        got = [rig.result(number) for number in numbers]
        assert got[::2] == [(i, True) for i in (0, 2, 4)]
        assert got[1::2] == [(i, False, True) for i in (1, 3, 5)]
        assert list(rig.items(rig.send((3,), method=2))) == [0, 1, 2]
        assert rig.hang_up() == 0
        assert [line.text for line in rig.lines] == ["begun", "ended True True"]


def test_plain_methods_beside_async_ones_run_in_threads_where_several_may_be_under_way(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "Mixed", methods=METHODS["Mixed"], concurrency=4) as rig:
        numbers = [rig.send((i,), method=i % 2) for i in range(4)]
        got = [rig.result(number) for number in numbers]
        assert got[::2] == [(0, True), (2, True)]
        assert [(x, running) for x, running, _ in got[1::2]] == [(1, False), (3, False)]
        assert [main for _, _, main in got[1::2]] == [False, False]
        assert rig.hang_up() == 0


def test_an_exit_hook_that_fails_is_told_and_the_next_runs(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "Clumsy", methods=(("work", False, False),)) as rig:
        assert rig.call() is None
        assert rig.hang_up() == 0
        errors = [line.text for line in rig.lines if line.stream == 2]
        assert errors[0] == "Clumsy: the exit hook one failed:" and errors[-1] == "ValueError: one is broken"
        assert [line.text for line in rig.lines if line.stream == 1] == ["two"]


def test_a_hook_that_fails_is_the_workers_failure(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "Broken", methods=(("work", False, False),)) as rig:
        assert isinstance(rig.failed, LookupError) and "no weights" in str(rig.failed)
        assert rig.ended() == 0
        said = [line.text for line in rig.lines]
        assert said[-1] == "LookupError: no weights" and "never" not in said


def test_a_method_that_the_class_has_not_is_said(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "Clumsy", methods=(("gone", False, False),)) as rig:
        assert isinstance(rig.failed, ExecutionError) and "no method gone" in str(rig.failed)


@pytest.mark.parametrize("method", ["work", "work_async"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_breaks_off_what_runs_and_the_exit_hooks_run(
    tmp_path: Path, method: str, number: signal.Signals
) -> None:
    with worker(tmp_path, CODE, "Interrupted", methods=((method, method != "work", False),)) as rig:
        rig.begin()
        rig.said("working")
        rig.process.send_signal(number)
        assert rig.ended() == -number
        assert [line.text for line in rig.lines] == ["working", "let go", "ended"]
        assert rig.quiet(), "the input is for another worker"


@pytest.mark.parametrize("method", ["work", "work_async"])
def test_so_does_an_engine_that_has_gone(tmp_path: Path, method: str) -> None:
    with worker(tmp_path, CODE, "Interrupted", methods=((method, method != "work", False),)) as rig:
        rig.begin()
        rig.said("working")
        rig.hang_up()
        assert [line.text for line in rig.lines] == ["working", "let go", "ended"]


def test_a_signal_while_nothing_runs(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "Interrupted", methods=(("work", False, False),)) as rig:
        rig.process.send_signal(signal.SIGINT)
        assert rig.ended() == -signal.SIGINT
        assert [line.text for line in rig.lines] == ["ended"]
