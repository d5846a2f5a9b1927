"""The caller's side of calls against a real engine: it ends, programs fork, loops come and go, Ctrl-C cuts frames."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from machine import Machine

APP = """
import slipway

app = slipway.App("callers")


@app.function()
def double(x):
    return 2 * x


@app.function(volumes={"/shared": slipway.Volume.from_name("shared", create_if_missing=True)})
def wait(path):
    return open(path).read()


@app.function()
def size(data):
    return len(data)


@app.function()
def count(n):
    yield from range(n)


@app.function()
def fetch(call, function):
    return [call.get(), function.remote(4), list(function.map(range(3))), sum(count.remote_gen(5))]


@app.cls()
class Scaled:
    factor: int = slipway.parameter(default=1)

    @slipway.method()
    def times(self, x):
        return self.factor * x

    @slipway.method()
    def each(self, n):
        yield from range(0, n * self.factor, self.factor)
"""


@pytest.fixture
def deployed(machine: Machine) -> Iterator[Machine]:
    machine.write("callers.py", APP)
    machine.run("apply", "callers.py", "--yes")
    yield machine


def start(machine: Machine, program: str) -> subprocess.Popen[str]:
    """A program that looks its functions up, with pipes to talk over."""
    return subprocess.Popen(
        [sys.executable, "-c", "import slipway\nfrom slipway import Function, FunctionCall\n" + program],
        cwd=machine.folder,
        env=machine.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(machine: Machine, program: str) -> list[str]:
    """What a program prints, to its end."""
    process = start(machine, program)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return out.splitlines()


def test_handles_are_arguments(deployed: Machine) -> None:
    """A function and a spawned call, used by the code of a worker."""
    program = """
double, fetch = Function.from_name("callers", "double"), Function.from_name("callers", "fetch")
print(fetch.remote(double.spawn(1), double))
print(slipway.Cls.from_name("callers", "Scaled")(factor=3).times.remote(5))
print(Function.from_id(double.hydrate().object_id).with_options(timeout=30).remote(3))
"""
    assert said(deployed, program) == ["[2, 8, [0, 2, 4], 10]", "15", "6"]


def test_methods_and_generators_are_called_on_the_command_line(deployed: Machine) -> None:
    assert deployed.run("call", "callers.Scaled.times", "[7]").out == "7\n"
    assert deployed.run("call", "callers.Scaled.each", '{"n": 3}', "--json").out == "0\n1\n2\n"
    assert deployed.run("call", "callers.count", "[2]").out == "0\n1\n"
    for function, calls in (("Scaled", 2), ("Scaled.times", 1), ("Scaled.none", 0)):
        assert len(json.loads(deployed.run("call", "list", "--function", function, "--json").out)) == calls
    assert "a generator" in deployed.run("call", "callers.count", "[2]", "--spawn", code=1).err
    assert "has no method tims" in deployed.run("call", "callers.Scaled.tims", "[2]", code=1).err
    assert "no app other is deployed" in deployed.run("call", "other.Scaled.times", "[2]", code=1).err


WAITS = """
import asyncio, threading
call = Function.from_name("callers", "wait").spawn("/shared/pipe")
print(call.object_id, flush=True)
found = []
waits = [
    call.get,
    lambda: FunctionCall.gather(call),
    lambda: list(call.iter()),
    lambda: asyncio.run(call.get.aio(timeout=100)),
]
threads = [threading.Thread(target=lambda wait=wait: found.append(wait())) for wait in waits]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*sorted(map(str, found)))
"""


def test_a_result_is_waited_for_over_kill_9_of_the_engine(deployed: Machine) -> None:
    """Blocking, in a loop, and for many: the next engine takes the call up again, and all of them hear of its end."""
    (volume,) = (deployed.home / "volumes").iterdir()
    os.mkfifo(volume / "pipe")
    process = start(deployed, WAITS)
    assert process.stdout is not None
    ident = process.stdout.readline().strip()
    pid = deployed.engine_pid()
    assert pid is not None
    engine = psutil.Process(pid)
    family = [engine, *engine.children(recursive=True)]
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs(family, timeout=20)
    with open(volume / "pipe", "w") as pipe:  # opens when the call has been begun again
        pipe.write("done")
    out, err = process.communicate(timeout=120)
    assert out == "['done'] ['done'] done done\n", out + err
    assert said(deployed, f"print(FunctionCall.from_id({ident!r}).get())") == ["done"]


def test_a_forked_process_calls_through_a_connection_of_its_own(deployed: Machine) -> None:
    program = """
import multiprocessing

def call(x):
    return Function.from_name("callers", "double").remote(x)

print(call(1))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(call, range(4)), call(2))
"""
    assert said(deployed, program) == ["2", "[0, 2, 4, 6] 4"]


def test_several_loops_one_after_the_other_and_at_once(deployed: Machine) -> None:
    program = """
import asyncio, threading
double, count = Function.from_name("callers", "double"), Function.from_name("callers", "count")

async def main(n):
    mapped = [x async for x in double.map.aio(range(n), order_outputs=False)]
    items = [x async for x in count.remote_gen.aio(n)]
    calls = await asyncio.gather(*[double.spawn.aio(i) for i in range(n)])
    return [sum(mapped), sum(items), sum(await FunctionCall.gather.aio(*calls))]

print(asyncio.run(main(4)), asyncio.run(main(5)))
found = []
threads = [threading.Thread(target=lambda n=n: found.append(asyncio.run(main(n)))) for n in range(3, 7)]
for thread in threads:
    thread.start()
print(double.remote(7))
for thread in threads:
    thread.join()
print(sorted(found))
"""
    expected = [[n * (n - 1), n * (n - 1) // 2, n * (n - 1)] for n in range(3, 7)]
    assert said(deployed, program) == [f"{expected[1]} {expected[2]}", "14", str(expected)]


def test_ctrl_c_in_the_midst_of_a_big_input_leaves_the_connection_whole(deployed: Machine) -> None:
    """Inputs that travel in the stream and fill it: the one that is cut short is finished before the next request."""
    program = """
size = Function.from_name("callers", "size")
size.remote(b"")
inputs = (bytes(900_000) for _ in iter(int, 1))
try:
    print("mapping", flush=True)
    for _ in size.map(inputs):
        pass
except KeyboardInterrupt:
    print(size.remote(b"it goes on"))
"""
    for _ in range(3):
        process = start(deployed, program)
        assert process.stdout is not None
        assert process.stdout.readline() == "mapping\n"
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (out, process.returncode) == ("10\n", 0), err


def test_durable_calls_in_great_number(deployed: Machine) -> None:
    program = """
double = Function.from_name("callers", "double")
call = double.experimental_spawn_map(range(3000))
print(call.num_inputs(), sum(call.iter()), call.get(index=2999), len(call.get_call_graph()))
double.spawn_map(range(3000))
stats = double.get_current_stats()
print(stats.backlog + stats.num_running_inputs <= 3000)
"""
    assert said(deployed, program) == ["3000 8997000 5998 3000", "True"]
