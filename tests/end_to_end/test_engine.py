"""The engine's own life: started on demand, once, ended when idle; what happens to calls when things go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from machine import Machine

APP = """
import slipway

app = slipway.App("deep")


@app.function()
def inner(x: int) -> int:
    return x * 2


@app.function()
def outer(x: int) -> int:
    return sum(inner.map(range(x))) + inner.remote(1)


@app.function(timeout=1)
def spin():
    while True:
        pass


@app.function()
def big(n: int) -> bytes:
    return bytes(n)


@app.function()
def wait(path: str):
    open(path).read()


@app.local_entrypoint()
def main():
    print("OUTER", outer.remote(4))
    print("BIG", len(big.remote(32 << 20)))


@app.local_entrypoint()
def forever():
    spin.remote()
"""


def test_functions_call_functions(machine: Machine) -> None:
    machine.write("app.py", APP)
    out = machine.run("run", "app.py::main").out
    assert "OUTER 14" in out and f"BIG {32 << 20}" in out


def test_a_call_that_never_yields_times_out(machine: Machine) -> None:
    machine.write("app.py", APP)
    assert "longer than 1 s" in machine.run("run", "app.py::forever", code=1).err


def test_two_commands_start_one_engine(machine: Machine) -> None:
    machine.write("app.py", APP)
    commands = [machine.start("plan", "app.py") for _ in range(4)]
    for command in commands:
        out, err = command.communicate(timeout=60)
        assert command.returncode == 0, out + err
    log = (machine.home / "logs" / "engine.log").read_text()
    assert log.count("ready:") == 1


def test_status_up_and_down(machine: Machine) -> None:
    assert machine.run("status", code=1).out
    engine = machine.start("up")
    assert engine.stderr is not None
    for line in engine.stderr:
        if "ready:" in line:
            break
    status = json.loads(machine.run("status", "--json").out)
    assert status["pid"] == engine.pid
    machine.run("up", code=1)
    machine.run("down")
    assert engine.wait(timeout=20) == 0
    engine.communicate()
    assert not (machine.home / "engine.sock").exists()


def test_an_engine_is_ready_also_when_who_started_it_has_gone(machine: Machine) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    engine = subprocess.Popen(
        [sys.executable, "-m", "slipway.cli.daemon", "--home", str(machine.home), "--ready-fd", str(writer)],
        env=machine.env,
        pass_fds=(writer,),
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert engine.stderr is not None
    assert any("ready:" in line for line in engine.stderr)
    machine.run("down")
    assert (engine.wait(timeout=20), "Traceback" in engine.communicate()[1]) == (0, False)


def test_an_idle_engine_ends_itself(machine: Machine) -> None:
    machine.write("app.py", APP)
    machine.run("plan", "app.py", SLIPWAY_IDLE_MS="50")
    pid = machine.engine_pid()
    if pid is not None:  # it may be gone already
        try:
            psutil.Process(pid).wait(timeout=20)
        except psutil.NoSuchProcess:
            pass
    assert machine.engine_pid() is None


def test_a_deployed_app_is_there_again_after_kill_9(machine: Machine) -> None:
    machine.write("app.py", APP)
    machine.run("apply", "app.py", "--yes")
    pid = machine.engine_pid()
    assert pid is not None
    engine = psutil.Process(pid)
    family = engine.children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([engine, *family], timeout=20)
    assert "6" in machine.run("call", "deep.inner", "[3]").out


STAYING = """
import os

import slipway

app = slipway.App("staying")


@app.function(min_containers=1)
def index() -> str:
    return "it works"
"""


def test_a_deployment_whose_workers_cannot_start_is_refused(machine: Machine) -> None:
    machine.write("app.py", STAYING)
    assert "started   function index" in machine.run("apply", "app.py", "--yes").out
    machine.write("app.py", STAYING + "\nif not slipway.is_local():\n    print('going down')\n    os._exit(3)\n")
    ran = machine.run("apply", "app.py", "--yes", code=1)
    assert "Failed: function index" in ran.out and "what is in force stays as it was" in ran.out
    assert "exited with code 3 before it was ready; the last it printed:\n  going down" in ran.err
    assert "it works" in machine.run("call", "staying.index", "[]").out
    (app,) = json.loads(machine.run("status", "--json").out)["apps"]
    assert (app["serial"], app["workers"], app["troubles"]) == (1, 1, {})


def test_destroy_spares_volumes_unless_named(machine: Machine) -> None:
    machine.write(
        "app.py",
        APP.replace(
            "@app.function()\ndef inner",
            "@app.function(volumes={'/v': slipway.Volume.from_name('kept', create_if_missing=True)})\ndef inner",
        ),
    )
    machine.run("apply", "app.py", "--yes")
    machine.run("destroy", "deep", "--yes")
    assert json.loads(machine.run("app", "list", "--json").out) == []
    assert len(list((machine.home / "volumes").iterdir())) == 1
    machine.run("call", "deep.inner", "[3]", code=1)
    machine.run("apply", "app.py", "--yes")
    machine.run("destroy", "deep", "--yes", "--volume", "kept")
    assert list((machine.home / "volumes").iterdir()) == []


PROGRAM = """
import app

if __name__ == "__main__":
    with app.app.run():
        print(app.inner.remote(21), list(app.inner.map(range(3))))

    import asyncio

    async def later():
        async with app.app.run():
            print(await app.inner.remote.aio(4), [x async for x in app.inner.map.aio(range(3))])

    asyncio.run(later())
"""


def test_from_a_plain_program(machine: Machine) -> None:
    machine.write("app.py", APP)
    machine.write("program.py", PROGRAM)
    ran = subprocess.run(
        [sys.executable, "program.py"], cwd=machine.folder, env=machine.env, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.splitlines() == ["42 [0, 2, 4]", "8 [0, 2, 4]"], ran.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk_in_the_middle_of_a_build(tmp_path: Path) -> None:
    """The step fails with the reason and what to do; with room again the same apply goes through."""
    machine = Machine(tmp_path)
    machine.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(machine.home)], check=True)
    try:
        machine.write(
            "app.py",
            "import slipway\n"
            "image = slipway.Image.debian_slim().run_commands('dd if=/dev/zero of=/big bs=1M count=100')\n"
            "app = slipway.App('fat', image=image)\n"
            "@app.function()\ndef size():\n    import os\n    return os.path.getsize('/big')\n",
        )
        failed = machine.run("apply", "app.py", "--yes", code=1)
        assert "disk" in failed.err + failed.out and "full" in failed.err + failed.out, failed
        subprocess.run(["mount", "-o", "remount,size=400m", str(machine.home)], check=True)
        machine.run("apply", "app.py", "--yes")
        assert str(100 << 20) in machine.run("call", "fat.size").out
    finally:
        machine.close()
        subprocess.run(["umount", str(machine.home)], check=True)
