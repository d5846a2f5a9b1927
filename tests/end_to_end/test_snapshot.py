"""Memory snapshots on real containers: workers are forked from a template. Told by facts, never by time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from docker_machine import DockerMachine
from machine import Machine

APP = """
import os, random, sys
import slipway

app = slipway.App("snap", image=slipway.Image.debian_slim())
shelf = slipway.Volume.from_name("shelf", create_if_missing=True)


def note(text):
    with open("/shelf/notes", "a") as file:
        file.write(f"{text} {os.getpid()}\\n")


@app.cls(enable_memory_snapshot=True, volumes={"/shelf": shelf}, max_containers=2LIMITS)
class Model:
    @slipway.enter(snap=True)
    def load(self):
        note("load")
        self.loaded_by = os.getpid()

    @slipway.enter(snap=True)
    async def load_more(self):
        note("load_more")

    @slipway.enter()
    def attach(self):
        note("attach")
        self.attached_by = os.getpid()

    @slipway.exit()
    def leave(self):
        note("leave")

    @slipway.method()
    def who(self):
        return self.facts()

    def facts(self):
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "loaded_by": self.loaded_by,
            "attached_by": self.attached_by,
            "is_local": slipway.is_local(),
            "random": random.random(),
        }

    @slipway.method()
    def meet(self, writes):
        "Returns when two workers run it at once."
        with open("/shelf/fifo", "w" if writes else "r"):
            return self.facts()

    @slipway.method()
    def calls_back(self):
        "Code in a fork calls another function, by its own connection."
        return Model().who.remote()["parent"]

    @slipway.method()
    def dies_once(self):
        try:
            os.mkdir("/shelf/died")
        except FileExistsError:
            return self.facts()
        os.kill(os.getpid(), 9)

    @slipway.method()
    def exits(self):
        os._exit(3)

    @slipway.method()
    def grows(self):
        return len(bytearray(os.urandom(1 << 20) * 400))
"""


class Snap:
    """An app with a memory snapshot, deployed on a machine."""

    def __init__(self, machine: Machine, *, limits: str = "") -> None:
        self.machine = machine
        machine.write("app.py", APP.replace("LIMITS", limits))
        machine.run("apply", "app.py", "--yes")
        (self.shelf,) = (machine.home / "volumes").iterdir()

    def ask(self, expression: str) -> Any:
        """What an expression gives in a program of its own; `model` is an object of the class."""
        program = (
            "import json, slipway\nmodel = slipway.Cls.from_name('snap', 'Model')()\n"
            f"try:\n    value = {expression}\nexcept slipway.Error as error:\n    value = str(error)\n"
            "print(json.dumps(value))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=self.machine.env,
            cwd=self.machine.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def notes(self) -> list[str]:
        """What the hooks have noted, without the numbers of the processes."""
        return [line.split()[0] for line in (self.shelf / "notes").read_text().splitlines()]

    def workers(self) -> list[str]:
        listed = json.loads(self.machine.run("container", "list", "--json").out)
        return [one["id"] for one in listed]

    def log(self) -> str:
        return self.machine.run("app", "logs", "snap").out

    def kill_template(self) -> None:
        if isinstance(self.machine, DockerMachine):
            with self.machine.engine.client() as client:
                (container,) = client.containers.list(filters={"label": self.machine.label})
                container.kill()
            return
        pid = self.machine.engine_pid()
        assert pid is not None
        ours = [
            one for one in psutil.Process(pid).children(recursive=True) if any("main.py" in a for a in one.cmdline())
        ]
        (template,) = [one for one in ours if one.ppid() not in {other.pid for other in ours}]
        os.kill(template.pid, signal.SIGKILL)


@pytest.fixture(params=["native", "docker"])
def any_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    yield request.getfixturevalue("machine" if request.param == "native" else "docker_machine")


def test_the_second_worker_is_a_fork_and_so_is_the_next_after_none_was_left(any_machine: Machine) -> None:
    snap = Snap(any_machine)
    os.mkfifo(snap.shelf / "fifo")
    one, two = snap.ask("list(model.meet.map([True, False]))")
    assert one["pid"] != two["pid"]
    assert one["parent"] == two["parent"] == one["loaded_by"] == two["loaded_by"]
    for each in (one, two):
        assert each["attached_by"] == each["pid"]
        assert not each["is_local"]
    assert one["random"] != two["random"]
    assert sorted(snap.notes()) == ["attach", "attach", "load", "load_more"]
    assert snap.notes()[:2] == ["load", "load_more"]

    for worker in snap.workers():
        any_machine.run("container", "stop", worker, "--graceful")
    assert snap.workers() == []
    assert snap.notes().count("leave") == 2
    third = snap.ask("model.who.remote()")
    assert third["parent"] == one["parent"]
    assert third["pid"] not in (one["pid"], two["pid"])
    assert snap.notes().count("load") == 1
    assert snap.ask("model.calls_back.remote()") == one["parent"]


def test_forks_and_templates_may_be_killed(any_machine: Machine) -> None:
    snap = Snap(any_machine)
    first = snap.ask("model.dies_once.remote()")
    assert snap.notes().count("load") == 1
    assert "exited with code 3" in snap.ask("model.exits.remote()")
    assert snap.ask("model.who.remote()")["parent"] == first["parent"]
    snap.kill_template()
    assert snap.ask("model.who.remote()")["loaded_by"]
    assert snap.notes().count("load") == 2
    assert "the template was killed by signal 9" in snap.log()


def test_limits_hold_for_each_fork_or_there_is_no_fork(any_machine: Machine) -> None:
    snap = Snap(any_machine, limits=", memory=256")
    who = snap.ask("model.who.remote()")
    if isinstance(any_machine, DockerMachine):
        assert who["pid"] == who["loaded_by"]
        assert "no memory snapshot, each worker starts by itself: forks of one container" in snap.log()
        assert "snap.Model: no memory snapshot: forks of one container" in any_machine.run("app", "list").out
        assert "no memory snapshot where memory=, cpu= or" in any_machine.run("plan", "app.py").out
    else:
        assert who["parent"] == who["loaded_by"]
    assert "ran out of memory (limit 256 MiB)" in snap.ask("model.grows.remote()")
    if not isinstance(any_machine, DockerMachine):
        assert snap.ask("model.who.remote()")["parent"] == who["parent"]


def test_nothing_is_left_of_an_engine_that_was_killed(machine: Machine) -> None:
    snap = Snap(machine)
    snap.ask("model.who.remote()")
    pid = machine.engine_pid()
    assert pid is not None
    family = psutil.Process(pid).children(recursive=True)
    assert len([one for one in family if any("main.py" in word for word in one.cmdline())]) == 2
    os.kill(pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
