"""`kill -9` of the daemon and of the command line in the middle of a build."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from machine import Machine

LAYERS = 5

GATE = """
import slipway

app = slipway.App("gate")


@app.function(volumes={"/shelf": slipway.Volume.from_name("gate", create_if_missing=True)})
def f(): ...
"""
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


@app.function()
def look():
    import pathlib
    return sorted(path.name for path in pathlib.Path("/").glob("layer-*"))


@app.local_entrypoint()
def main():
    print("LAYERS", look.remote())
"""


def mounts_below(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]


@pytest.mark.parametrize("victim", ["daemon", "client"])
def test_kill_in_the_middle_of_a_build(machine: Machine, victim: str) -> None:
    """The third of five layers is held at a named pipe in a volume; then the victim is killed."""
    machine.write("gate.py", GATE)
    machine.write("app.py", APP.format(layers=LAYERS))
    plan = machine.run("plan", "app.py")
    assert f"{LAYERS} layers" in plan.out
    machine.run("plan", "gate.py")
    machine.run("apply")
    (gate,) = (machine.home / "volumes").iterdir()
    os.mkfifo(gate / "hold-2")
    process = machine.start("apply", "app.py", "--yes")
    held = os.open(gate / "hold-2", os.O_WRONLY)  # returns when the step has opened it to read
    pid = machine.engine_pid()
    assert pid is not None
    family = psutil.Process(pid).children(recursive=True)
    if victim == "daemon":
        engine = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([engine, *family], timeout=20)
        assert process.wait(timeout=60) == 1
        assert machine.engine_pid() is None
        assert not [child for child in family if child.is_running()]
    else:
        process.kill()
        process.wait(timeout=60)
    os.close(held)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    (gate / "hold-2").unlink()
    assert mounts_below(machine.home) == []

    reply = json.loads(machine.run("apply", "app.py", "--yes", "--json").out.splitlines()[-1])
    assert reply["executed"] == LAYERS - 2, "the finished layers are kept, the half one is built anew"
    out = machine.run("run", "app.py").out
    assert f"LAYERS {[f'layer-{number}' for number in range(LAYERS)]}" in out
