"""`kill -9` of the daemon on Docker Engine, and a Docker Engine that goes away under it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import debian
import psutil
import pytest
from docker_engine import DockerTestEngine, import_base, own_engine
from docker_gate import Gate
from docker_machine import DockerMachine
from dockerd import Dockerd

LAYERS = 4
APP = """
import slipway

gate = slipway.Volume.from_name("gate", create_if_missing=True)
image = slipway.Image.debian_slim()
for number in range({layers}):
    image = image.run_commands(
        f"echo {{number}} > /layer-{{number}}",
        f"test ! -e /shelf/hold-{{number}} || read line < /shelf/hold-{{number}}",
        volumes={{"/shelf": gate}},
    )
app = slipway.App("tower", image=image)


@app.function(volumes={{"/shelf": gate}})
def look(hold: str = "") -> list[str]:
    import pathlib

    if hold:
        open(f"/shelf/{{hold}}").read()
    return sorted(path.name for path in pathlib.Path("/").glob("layer-*"))
"""
GATE = """
import slipway

app = slipway.App("gate", image=slipway.Image.debian_slim())


@app.function(volumes={"/shelf": slipway.Volume.from_name("gate", create_if_missing=True)})
def f(): ...
"""
ALL = json.dumps([f"layer-{number}" for number in range(LAYERS)])


@pytest.fixture
def gate(tmp_path: Path, docker_engine: DockerTestEngine) -> Iterator[Gate]:
    gate = Gate(docker_engine.url, tmp_path)
    yield gate
    gate.close()


@pytest.fixture
def machine(tmp_path: Path, docker_engine: DockerTestEngine, gate: Gate) -> Iterator[DockerMachine]:
    """Its daemon reaches the engine through the gate."""
    box = DockerMachine(tmp_path, docker_engine, url=gate.url)
    box.write("app.py", APP.format(layers=LAYERS))
    yield box
    box.close()


def shelf(machine: DockerMachine, name: str) -> Path:
    """A named pipe in the volume, at which a step or a call waits."""
    machine.write("gate.py", GATE)
    machine.run("apply", "gate.py", "--yes")
    (volume,) = (machine.home / "volumes").iterdir()
    os.mkfifo(volume / name)
    return volume / name


def kill_daemon(machine: DockerMachine) -> None:
    pid = machine.engine_pid()
    assert pid is not None
    engine = psutil.Process(pid)
    family = [engine, *engine.children(recursive=True)]
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs(family, timeout=20)


def ended(process: subprocess.Popen[str]) -> str:
    """What a command said that must have failed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "Traceback" not in err
    return err


def check_the_next_start(machine: DockerMachine, built: int) -> None:
    reply = json.loads(machine.run("apply", "app.py", "--yes", "--json").out.splitlines()[-1])
    assert reply["executed"] == built
    assert machine.containers() == []
    assert len(machine.layers()) == LAYERS
    assert json.loads(machine.run("call", "tower.look").out) == json.loads(ALL)


def test_kill_during_exec(machine: DockerMachine) -> None:
    """The third layer is held at a pipe; the two below it are kept."""
    pipe = shelf(machine, "hold-2")
    process = machine.start("apply", "app.py", "--yes")
    held = os.open(pipe, os.O_WRONLY)  # returns when the step has opened it to read
    kill_daemon(machine)
    ended(process)
    os.close(held)
    pipe.unlink()
    check_the_next_start(machine, built=LAYERS - 2)


@pytest.mark.parametrize("done", [False, True], ids=["undone", "done"])
def test_kill_during_commit(machine: DockerMachine, gate: Gate, done: bool) -> None:
    """The second commit is held; then the daemon dies, and the engine still does it or never hears of it."""
    machine.run("plan", "app.py")
    gate.hold("/commit?", letting=1)
    process = machine.start("apply", "app.py", "--yes")
    assert gate.held.wait(60)
    kill_daemon(machine)
    ended(process)
    if done:
        gate.release()
        assert gate.answered.wait(60)
    check_the_next_start(machine, built=LAYERS - 2 if done else LAYERS - 1)


def test_kill_during_a_call(machine: DockerMachine) -> None:
    pipe = shelf(machine, "hold")
    machine.run("apply", "app.py", "--yes")
    process = machine.start("call", "tower.look", '["hold"]')
    held = os.open(pipe, os.O_WRONLY)
    kill_daemon(machine)
    assert "lost" in ended(process)
    os.close(held)
    check_the_next_start(machine, built=0)


def test_a_durable_call_goes_on(machine: DockerMachine) -> None:
    """What was spawned has its outcome from the next daemon; the records say that one attempt was lost."""
    pipe = shelf(machine, "hold")
    machine.run("apply", "app.py", "--yes")
    call = machine.run("call", "tower.look", '["hold"]', "--spawn").out.strip()
    held = os.open(pipe, os.O_WRONLY)
    kill_daemon(machine)
    os.close(held)
    process = machine.start("call", "wait", call)
    os.close(os.open(pipe, os.O_WRONLY))  # opened when the next attempt has
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    (entry,) = json.loads(machine.run("call", "show", call, "--json").out)["inputs"]
    assert (entry["state"], entry["attempts"], entry["losses"]) == ("returned", 2, 1)


@pytest.fixture
def own(docker_engine: DockerTestEngine) -> Iterator[Dockerd]:
    """A Docker Engine that a test may stop."""
    if debian.refusal():
        pytest.skip(debian.refusal())
    with own_engine() as engine:
        yield engine


def test_the_engine_goes_and_comes_back(own: Dockerd, tmp_path: Path) -> None:
    """A call loses its worker; `status` says what is wrong; then the call runs again, and nothing was restarted."""
    machine = DockerMachine(tmp_path, DockerTestEngine(own.url, import_base(own.url)))
    try:
        machine.write("app.py", APP.format(layers=LAYERS))
        pipe = shelf(machine, "hold")
        machine.run("apply", "app.py", "--yes")
        pid = machine.engine_pid()
        process = machine.start("call", "tower.look", '["hold"]')
        held = os.open(pipe, os.O_WRONLY)

        own.stop()
        os.close(held)
        status = machine.run("status").out
        assert "Docker Engine" in status and own.url in status

        own.start()
        os.close(os.open(pipe, os.O_WRONLY))  # opened when the next attempt has
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in err, err
        assert json.loads(out) == json.loads(ALL)
        assert own.url not in machine.run("status").out
        assert machine.engine_pid() == pid
    finally:
        machine.close()
