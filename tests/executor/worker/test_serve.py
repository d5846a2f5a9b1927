"""The worker program, in processes of its own: what user code does, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_engine import APP, EngineThread, pool_spec, small_engine

from slipway.connection import Connection
from slipway.dsl.errors import (
    CallCancelled,
    CallLost,
    DeserializationError,
    ExecutionError,
    FunctionTimeoutError,
    InvalidError,
    SerializationError,
)
from slipway.dsl.session import FunctionRef
from slipway.executor import placement
from slipway.executor.scaling import PoolLimits
from slipway.session import EngineSession

CODE = '''
import asyncio, ctypes, os, signal, subprocess, sys, threading, time, types
import slipway
from slipway.dsl.errors import InputCancellation

def add(x, y=1):
    return x + y

def where():
    main = threading.current_thread() is threading.main_thread()
    return os.getpid(), slipway.is_local(), slipway.current_input_id(), main

def double(array):
    array *= 2
    return array

def prints(name, count=1):
    for i in range(count):
        print(name, i)
    print(name, "err", file=sys.stderr)
    print("unfinished", end="")

def silent(x):
    return x

def child_outlives(fifo):
    subprocess.Popen(["cat"], stdin=open(fifo))
    os.write(1, b"cut off")
    os._exit(3)

def child_prints(text):
    subprocess.run(["echo", text], check=True)

class Odd(Exception):
    def __init__(self, code, *, why):
        super().__init__(why)
        self.code = code

def fails(how):
    if how == "odd":
        raise Odd(7, why="because")
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "chained":
        try:
            {}["gone"]
        except KeyError as error:
            raise ValueError("outer") from error
    if how == "lock":
        error = ValueError("holds a lock")
        error.lock = threading.Lock()
        raise error
    if how == "only here":
        module = types.ModuleType("only_here")
        sys.modules["only_here"] = module
        exec("class Gone(Exception): pass", module.__dict__)
        raise module.Gone("far away")

def returns(what):
    if what == "lock":
        return threading.Lock()
    if what == "coroutine":
        async def inner(): pass
        return inner()
    if what == "generator":
        return (i for i in range(3))

def dies(how):
    if how == "exit":
        print("last words", flush=True)
        os._exit(4)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segv":
        ctypes.string_at(0)
    if how == "hang up":
        os.closerange(3, 1100)

def forks(x):
    pid = os.fork()
    if pid == 0:
        return "the child"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def sleeps(seconds, mark=None, started=None):
    if started:
        open(started, "w").close()
    try:
        time.sleep(seconds)
    except InputCancellation:
        if mark:
            open(mark, "w").close()
        raise
    return "slept"

def deaf(started):
    """Takes no notice of being cancelled."""
    while True:
        try:
            open(started, "w").close()
            time.sleep(60)
        except InputCancellation:
            pass

LOOPS = set()
async def on_loop(x):
    await asyncio.sleep(0)
    LOOPS.add(id(asyncio.get_running_loop()))
    return x, len(LOOPS)

async def waits(seconds, started=None):
    if started:
        open(started, "w").close()
    await asyncio.sleep(seconds)
    return "waited"

async def async_fails():
    raise ValueError("async")

async def blocks(started):
    open(started, "w").close()
    time.sleep(60)

async def says(name, evens):
    for _ in range(3):
        print(name)
        await asyncio.sleep(0)

async def forks_too(x):
    return forks(x)

async def leaves_things(x):
    async def tick():
        while True:
            await asyncio.sleep(3600)
    async def items():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
    leaves_things.kept = asyncio.ensure_future(tick()), items()
    async for _ in leaves_things.kept[1]:
        return x

def fd_numbers():
    return [os.get_inheritable(int(fd)) for fd in os.listdir("/proc/self/fd") if int(fd) > 800]

def token():
    return [key for key in os.environ if "TOKEN" in key]
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    (root / "root").mkdir()
    (root / "root" / "app.py").write_text(CODE)
    (root / "root" / "broken.py").write_text("print('importing')\nimport no_such_module\n")
    (root / "root" / "quits.py").write_text("import os\nprint('quitting', flush=True)\nos._exit(5)\n")
    (root / "root" / "slow.py").write_text("import time\nprint('slow', flush=True)\ntime.sleep(60)\n")
    return root


class Program:
    def __init__(self, engine: EngineThread, root: Path) -> None:
        self.engine = engine
        self.root = root
        self.session = EngineSession(Connection.connect(engine.engine.socket_path))
        self._known: set[str] = set()

    def declare(self, name: str, *, module: str = "app", limits: PoolLimits | None = None, **start: Any) -> None:
        spec = pool_spec(self.root, name, limits or PoolLimits(max_workers=1), module=module, **start)
        self.engine.on_loop(lambda: self.engine.add(spec))
        self._known.add(name)

    def ref(self, name: str) -> FunctionRef:
        if name not in self._known:
            self.declare(name)
        return FunctionRef(app=APP, name=name)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.session.call(self.ref(name), args, kwargs)

    def lines(self, name: str) -> list[tuple[int, bool, str]]:
        lines = [line for function, line in self.engine.engine.lines if function == name]
        return [(line.stream, line.call is not None, line.text) for line in lines]


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineThread]:
    with small_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def program(engine: EngineThread, root: Path) -> Iterator[Program]:
    program = Program(engine, root)
    yield program
    program.session.connection.close()


def appeared(path: Path) -> None:
    """Wait for the sign of a process that has no other way to say it."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.002)


# --- results ------------------------------------------------------------------------------------------


def test_a_result_comes_back(program: Program) -> None:
    assert program.call("add", 1) == 2
    assert program.call("add", [1], y=[2]) == [1, 2]


def test_inputs_run_on_the_main_thread_of_a_process_that_knows_it_is_a_worker(program: Program) -> None:
    pid, local, ident, main = program.call("where")
    assert pid != os.getpid() and not local and ident.startswith("in-") and main
    assert program.call("where")[0] == pid


def test_big_arrays_go_there_and_back(program: Program) -> None:
    array = np.arange(1 << 20)
    result = program.call("double", array)
    assert np.array_equal(result, np.arange(1 << 20) * 2)
    assert array[1] == 1, "the caller's own array is left alone"
    result[0] = 5


def test_async_inputs_share_one_loop(program: Program) -> None:
    program.declare("on_loop", is_async=True)
    assert [program.call("on_loop", i) for i in range(3)] == [(i, 1) for i in range(3)]


def test_the_workers_connections_are_out_of_reach_and_its_token_gone(program: Program) -> None:
    assert not any(program.call("fd_numbers"))
    assert program.call("token") == []


# --- output -------------------------------------------------------------------------------------------


def test_lines_carry_their_call_and_are_there_before_the_result(program: Program) -> None:
    program.call("prints", "a", 2)
    assert sorted(program.lines("prints")) == [
        (1, True, "a 0"),
        (1, True, "a 1"),
        (1, True, "unfinished"),
        (2, True, "a err"),
    ]
    program.call("prints", "b")
    calls = {line.text: line.call for name, line in program.engine.engine.lines if name == "prints"}
    assert calls["a 0"] == calls["a err"] != calls["b 0"] == calls["b err"]


def test_nothing_is_written_when_nothing_is_printed(program: Program) -> None:
    for i in range(3):
        program.call("silent", i)
    assert program.lines("silent") == []


def test_what_a_child_process_prints_arrives(program: Program) -> None:
    program.call("child_prints", "from a child")
    program.engine.on_loop(lambda: program.engine.engine.runtime.drain())
    assert [text for _, _, text in program.lines("child_prints")] == ["from a child"]


def test_last_words_are_heard_and_a_child_that_stays_is_not_waited_for(program: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    holder = os.open(tmp_path / "fifo", os.O_RDWR)
    with pytest.raises(CallLost, match=r"exited with code 3(.|\n)*cut off"):
        program.call("child_outlives", str(tmp_path / "fifo"))
    os.close(holder)  # only now does the child end
    assert (1, False, "cut off") in program.lines("child_outlives")


def test_output_from_before_the_start_comes_too(program: Program, tmp_path: Path) -> None:
    from attrs import evolve

    (tmp_path / "sitecustomize.py").write_text("print('from before', end='')\n")
    spec = pool_spec(program.root, "silent", PoolLimits(max_workers=1))
    container = evolve(spec.worker.container, env=(("PYTHONPATH", str(tmp_path)),))
    spec = evolve(spec, key="app early", function="early", worker=evolve(spec.worker, container=container))
    program.engine.on_loop(lambda: program.engine.add(spec))
    program.session.call(FunctionRef(app=APP, name="early"), (1,), {})
    dispatcher = program.engine.engine.dispatcher
    asyncio.run_coroutine_threadsafe(dispatcher.drain_pool("app early"), program.engine.loop).result()
    assert program.lines("early") == [(1, False, "from before")]


def test_async_calls_at_the_same_time_keep_their_lines_apart(program: Program) -> None:
    program.declare("says", is_async=True, concurrency=2, limits=PoolLimits(max_workers=1, slots=2))
    inputs: list[Any] = [((name, None), {}) for name in ("x", "y")]
    list(program.session.map(program.ref("says"), inputs, order_outputs=True, return_exceptions=False))
    by_text: dict[str, set[int | None]] = {}
    for name, line in program.engine.engine.lines:
        if name == "says":
            by_text.setdefault(line.text, set()).add(line.call)
    assert {text: len(calls) for text, calls in by_text.items()} == {"x": 1, "y": 1}
    assert by_text["x"] != by_text["y"]


# --- failures -----------------------------------------------------------------------------------------


def test_an_exception_of_a_class_that_exists_only_there(program: Program) -> None:
    with pytest.raises(ExecutionError, match=r"app\.Odd") as caught:
        program.call("fails", "odd")  # the test program has no module `app`
    assert "line" in str(caught.value) and "because" in str(caught.value)
    with pytest.raises(ExecutionError, match=r"only_here\.Gone"):
        program.call("fails", "only here")


@pytest.mark.parametrize(("how", "kind"), [("exit", SystemExit), ("interrupt", KeyboardInterrupt)])
def test_what_is_no_exception_is_an_outcome_all_the_same(program: Program, how: str, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        program.call("fails", how)
    assert program.call("fails", "not at all") is None


def test_the_traceback_of_a_failure_shows_the_users_frames_alone(program: Program) -> None:
    with pytest.raises(ValueError, match="outer") as caught:
        program.call("fails", "chained")
    assert isinstance(caught.value.__cause__, KeyError)
    shown = "".join(traceback.format_exception(caught.value))
    assert '{}["gone"]' in shown and "executor/worker/serve" not in shown


def test_what_cannot_be_pickled_is_said(program: Program) -> None:
    with pytest.raises(SerializationError, match="holds a lock"):
        program.call("fails", "lock")
    with pytest.raises(SerializationError, match="the result of returns can't be pickled"):
        program.call("returns", "lock")


@pytest.mark.parametrize("what", ["coroutine", "generator"])
def test_what_is_no_result_is_refused(program: Program, what: str) -> None:
    with pytest.raises(InvalidError, match=f"a {what}"):
        program.call("returns", what)


def test_arguments_that_cannot_be_read_there_are_said(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("only_at_the_caller")
    exec("class Thing: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_at_the_caller", module)
    with pytest.raises(DeserializationError, match=r"the arguments for silent can't be read.*only_at_the_caller"):
        program.call("silent", module.Thing())


def test_an_async_failure_comes_back(program: Program) -> None:
    program.declare("async_fails", is_async=True)
    with pytest.raises(ValueError, match="async"):
        program.call("async_fails")


# --- the end of workers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("exit", r"exited with code 4.*\n.*last words"),
        ("kill", r"killed by signal 9 \(SIGKILL\)"),
        ("segv", r"killed by signal 11 \(SIGSEGV\)"),
        ("hang up", r"exited with code 1.*\n.*file descriptors that are not its own"),
    ],
)
def test_a_worker_that_dies_takes_its_call_along_and_no_other(program: Program, how: str, says: str) -> None:
    with pytest.raises(CallLost, match=says):
        program.call("dies", how)
    assert program.call("dies", "not") is None


def test_a_forked_child_that_comes_back_does_not_answer(program: Program) -> None:
    program.declare("forks_too", is_async=True)
    assert program.call("forks", 1) == program.call("forks_too", 1) == 0
    assert program.call("add", 1) == 2


def test_an_async_worker_finishes_what_is_left_on_its_loop_without_a_word(program: Program) -> None:
    program.declare("leaves_things", is_async=True)
    assert program.call("leaves_things", 1) == 1
    dispatcher = program.engine.engine.dispatcher
    asyncio.run_coroutine_threadsafe(dispatcher.drain_pool("app leaves_things"), program.engine.loop).result()
    assert program.lines("leaves_things") == []


@pytest.mark.parametrize(
    ("module", "kind", "says"),
    [
        ("broken", ModuleNotFoundError, "no_such_module"),
        ("no_module_at_all", ModuleNotFoundError, "no_module_at_all"),
        ("quits", CallLost, r"exited with code 5 before it was ready(.|\n)*quitting"),
    ],
)
def test_a_worker_that_cannot_start_fails_its_calls_with_the_reason(
    program: Program, module: str, kind: type[Exception], says: str
) -> None:
    program.declare(f"{module}_f", module=module, limits=PoolLimits(max_workers=1, give_up_after=1))
    for _ in range(2):
        with pytest.raises(kind, match=says):
            program.call(f"{module}_f")


def test_a_name_that_the_module_has_not_is_said(program: Program) -> None:
    program.declare("no_such_function", limits=PoolLimits(max_workers=1, give_up_after=1))
    with pytest.raises(ExecutionError, match="has no no_such_function in the container"):
        program.call("no_such_function")


def test_a_start_that_takes_too_long_is_given_up(program: Program) -> None:
    from attrs import evolve

    spec = pool_spec(program.root, "slow_f", PoolLimits(max_workers=1, give_up_after=1), module="slow")
    spec = evolve(spec, worker=evolve(spec.worker, startup_timeout=0.7))
    program.engine.on_loop(lambda: program.engine.add(spec))
    with pytest.raises(CallLost, match=r"not ready within 0.7 s"):
        program.session.call(FunctionRef(app=APP, name="slow_f"), (), {})


# --- time and cancelling ------------------------------------------------------------------------------


def test_a_call_that_takes_too_long_is_interrupted_and_its_worker_kept(program: Program, tmp_path: Path) -> None:
    program.declare("sleeps", limits=PoolLimits(max_workers=1, timeout=0.3))
    program.call("sleeps", 0)
    with pytest.raises(FunctionTimeoutError, match=r"longer than 0\.3 s"):
        program.call("sleeps", 60, str(tmp_path / "cancelled"))
    assert program.call("sleeps", 0) == "slept"
    assert (tmp_path / "cancelled").exists()


def test_a_call_that_takes_no_notice_loses_its_worker(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "GRACE", 0.1)
    program.declare("deaf", limits=PoolLimits(max_workers=1, timeout=0.3))
    with pytest.raises(FunctionTimeoutError):
        program.call("deaf", str(tmp_path / "a"))
    with pytest.raises(FunctionTimeoutError):
        program.call("deaf", str(tmp_path / "b"))


def test_an_async_call_is_cancelled_by_its_task(program: Program, tmp_path: Path) -> None:
    program.declare("waits", is_async=True)

    async def main() -> str:
        started = tmp_path / "started"
        task = asyncio.create_task(program.session.call_aio(program.ref("waits"), (60, str(started)), {}))
        await asyncio.to_thread(appeared, started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result: str = await program.session.call_aio(program.ref("waits"), (0,), {})
        return result

    assert asyncio.run(main()) == "waited"


def test_ending_the_pool_cancels_what_runs(program: Program, tmp_path: Path) -> None:
    import threading

    caught: list[BaseException] = []

    def run() -> None:
        try:
            program.call("blocks", str(tmp_path / "started"))
        except CallCancelled as error:
            caught.append(error)

    program.declare("blocks", is_async=True)
    thread = threading.Thread(target=run)
    thread.start()
    appeared(tmp_path / "started")
    dispatcher = program.engine.engine.dispatcher
    asyncio.run_coroutine_threadsafe(
        dispatcher.close_pool("app blocks", "the app has ended"), program.engine.loop
    ).result()
    thread.join()
    assert "the app has ended" in str(caught[0])
