"""`slipway shell` and `slipway container`, on a real terminal and without one, on every runtime."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from docker_machine import DockerMachine
from machine import SLIPWAY, Machine
from terminals import Tty

APP = """
import slipway

shelf = slipway.Volume.from_name("shelf", create_if_missing=True)
app = slipway.App("shop", image=slipway.Image.debian_slim().env({"FLAVOUR": "tart"}))


@app.function(volumes={"/shelf": shelf}, secrets=[slipway.Secret.from_dict({"TOKEN": "hunter22"})])
def serve(name: str = ""):
    print("serving", name, flush=True)
    if name:
        open(f"/shelf/{name}").read()
    return name
"""
LOOK = 'echo "$FLAVOUR $TOKEN"; pwd; ls app.py; echo "to stderr" >&2; exit 3'
TRAPPED = "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 1000 & wait; done"
SIZES = "trap 'stty size; exit 6' WINCH; stty size; while :; do sleep 1000 & wait; done"
SECONDS = 60


class Shop:
    """A machine on which the app above is deployed."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.write("app.py", APP)
        machine.run("plan", "app.py")
        machine.run("apply", "--yes")
        (self.shelf,) = (machine.home / "volumes").iterdir()
        self._fifos = 0

    def fifo(self) -> Path:
        self._fifos += 1
        path = self.shelf / f"gate-{self._fifos}"
        os.mkfifo(path)
        path.chmod(0o666)
        return path

    def tty(self, *argv: str, **size: int) -> Tty:
        return Tty([SLIPWAY, *argv], cwd=self.machine.folder, env=self.machine.env | {"TERM": "vt100"}, **size)

    def piped(self, *argv: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [SLIPWAY, *argv], input=stdin, capture_output=True, cwd=self.machine.folder, env=self.machine.env,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.machine.run("container", "list", "--json").out)
        return found

    def worker(self) -> str:
        """A worker that is there and idle."""
        assert self.machine.run("call", "shop.serve").code == 0
        return str(next(one["id"] for one in self.listed() if one["kind"] == "worker" and one["state"] == "idle"))


@pytest.fixture(scope="module", params=["native", "docker"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    if request.param == "docker":
        machine: Machine = DockerMachine(folder, request.getfixturevalue("docker_engine"))
    else:
        machine = Machine(folder)
    try:
        yield Shop(machine)
    finally:
        machine.close()


def until_nobody_reads(fifo: int) -> None:
    """Returns when the last reader of a named pipe is gone."""
    poll = select.poll()
    poll.register(fifo, 0)
    assert poll.poll(SECONDS * 1000), "somebody still reads"
    os.close(fifo)


# --- without a terminal -------------------------------------------------------------------------------


def test_a_program_in_a_worker_has_what_the_worker_has(shop: Shop) -> None:
    assert shop.piped("container", "exec", shop.worker(), "sh", "-c", LOOK) == (
        3, b"tart hunter22\n/root\napp.py\n", b"to stderr\n",
    )  # fmt: skip


def test_a_shell_takes_commands_from_stdin_in_a_container_of_its_own(shop: Shop) -> None:
    code, out, err = shop.piped("shell", "shop::serve", stdin=f"touch /root/mine; echo $0; {LOOK}".encode())
    assert (code, out, err) == (3, b"/bin/bash\ntart hunter22\n/root\napp.py\n", b"to stderr\n")
    assert shop.piped("shell", "shop", "--cmd", "ls /root/mine")[0] == 2
    assert [one for one in shop.listed() if one["kind"] == "shell"] == []


def test_a_shell_for_an_app_that_is_not_deployed(shop: Shop) -> None:
    shop.machine.write("other.py", APP.replace('App("shop"', 'App("other"'))
    code, out, _ = shop.piped("shell", "other.py::serve", stdin=b"echo $SLIPWAY_APP; echo other > /shelf/other")
    assert (code, out) == (0, b"other\n")
    assert (shop.shelf / "other").read_text() == "other\n"


def test_python_finds_the_functions_module(shop: Shop) -> None:
    line = "import app; print(app.app.name)"
    assert shop.piped("container", "exec", shop.worker(), "python3", "-c", line) == (0, b"shop\n", b"")
    assert shop.piped("shell", "shop", "--cmd", f"python3 -c '{line}'") == (0, b"shop\n", b"")


def test_what_is_ours_is_not_handed_on(shop: Shop) -> None:
    script = "echo ${SLIPWAY_WORKER_TOKEN-none} ${LC_CTYPE-none}"
    assert shop.piped("container", "exec", shop.worker(), "sh", "-c", script) == (0, b"none none\n", b"")


def test_much_goes_in_and_comes_out(shop: Shop) -> None:
    data = os.urandom(3_000_000)
    assert shop.piped("container", "exec", shop.worker(), "cat", stdin=data) == (0, data, b"")


def test_a_program_that_is_not_there(shop: Shop) -> None:
    code, out, err = shop.piped("container", "exec", shop.worker(), "no-such-program")
    assert (code, out) == (127, b"") and b"no-such-program: not found" in err


def test_an_interrupt_goes_to_the_program(shop: Shop) -> None:
    process = subprocess.Popen(
        [SLIPWAY, "container", "exec", "--no-pty", shop.worker(), "sh", "-c", TRAPPED],
        cwd=shop.machine.folder, env=shop.machine.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=SECONDS)[0] == b"got it\n"
    assert process.returncode == 9


def test_nobody_reads_any_more(shop: Shop) -> None:
    worker, fifo = shop.worker(), shop.fifo()
    process = subprocess.Popen(
        [SLIPWAY, "container", "exec", worker, "sh", "-c", f"exec 3</shelf/{fifo.name}; exec yes"],
        cwd=shop.machine.folder, env=shop.machine.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    held = os.open(fifo, os.O_WRONLY)
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=SECONDS) == 1
    until_nobody_reads(held)


# --- on a terminal ------------------------------------------------------------------------------------


def test_a_shell_on_a_terminal(shop: Shop) -> None:
    with shop.tty("shell", "shop::serve", rows=41, columns=117) as tty:
        tty.type("echo $((40 + 2)) $TOKEN $TERM; stty size; tty\r")
        tty.until("42 hunter22 vt100\r\n41 117\r\n/dev/pts/")
        assert not tty.is_restored
        tty.type("exit 7\r")
        assert tty.end()[0] == 7
        assert tty.is_restored


def test_the_size_of_the_window_follows(shop: Shop) -> None:
    with shop.tty("shell", "shop::serve", "--cmd", f'sh -c "{SIZES}"') as tty:
        tty.until("33 101\r\n")
        tty.resize(44, 102)
        code, shown = tty.end()
        assert (code, shown) == (6, "44 102\r\n")


def test_ctrl_c_is_for_the_program(shop: Shop) -> None:
    with shop.tty("container", "exec", shop.worker(), "sh", "-c", TRAPPED) as tty:
        tty.until("ready\r\n")
        tty.type("\x03")
        code, shown = tty.end()
        assert code == 9 and "got it" in shown


def test_whoever_is_told_to_go_leaves_the_terminal_as_it_was(shop: Shop) -> None:
    fifo = shop.fifo()
    with shop.tty("shell", "shop::serve", "--cmd", f'sh -c "echo ready; cat /shelf/{fifo.name}"') as tty:
        held = os.open(fifo, os.O_WRONLY)
        tty.until("ready\r\n")
        tty.process.send_signal(signal.SIGTERM)
        assert tty.end()[0] == 128 + signal.SIGTERM
        assert tty.is_restored
        until_nobody_reads(held)


def test_a_shell_ends_with_its_user(shop: Shop) -> None:
    fifo = shop.fifo()
    with shop.tty("shell", "shop::serve", "--cmd", f"cat /shelf/{fifo.name}") as tty:
        held = os.open(fifo, os.O_WRONLY)
        tty.process.kill()
        until_nobody_reads(held)


def test_a_shell_that_is_stopped_says_so(shop: Shop) -> None:
    fifo = shop.fifo()
    with shop.tty("shell", "shop::serve", "--cmd", f"cat /shelf/{fifo.name}") as tty:
        held = os.open(fifo, os.O_WRONLY)
        (shell,) = [one["id"] for one in shop.listed() if one["kind"] == "shell"]
        assert "is a shell" in shop.machine.run("container", "logs", shell, code=1).err
        shop.machine.run("container", "stop", shell)
        code, shown = tty.end()
        assert code == 128 + signal.SIGKILL and f"the shell {shell} was stopped" in shown
        assert tty.is_restored
        os.close(held)


# --- workers ------------------------------------------------------------------------------------------


def test_a_worker_is_listed_followed_and_stopped(shop: Shop) -> None:
    machine, fifo = shop.machine, shop.fifo()
    call = machine.start("call", "shop.serve", json.dumps([fifo.name]))
    held = os.open(fifo, os.O_WRONLY)
    (busy,) = [one for one in shop.listed() if one["state"] == "running"]
    assert (busy["app"], busy["function"], busy["calls"], busy["serial"]) == ("shop", "serve", 1, 1)
    assert busy["memory_bytes"] is None or busy["memory_bytes"] > 0
    worker = busy["id"]
    assert worker in machine.run("container", "list").out
    follow = machine.start("container", "logs", worker, "--follow")
    assert follow.stdout is not None
    while follow.stdout.readline() != f"serving {fifo.name}\n":
        pass
    exec_in = machine.start("container", "exec", worker, "sh", "-c", "echo ready; exec sleep 1000")
    assert exec_in.stdout is not None and exec_in.stdout.readline() == "ready\n"
    assert machine.run("container", "stop", worker).out == f"{worker} has ended.\n"
    again = os.open(fifo, os.O_WRONLY)  # another worker has begun the call again, for it was not to blame
    os.close(held)
    os.close(again)
    assert call.communicate(timeout=SECONDS)[0] == f"{fifo.name}\n"
    out, err = follow.communicate(timeout=SECONDS)
    assert out.splitlines()[0] == "the worker was stopped: slipway container stop"
    assert (err, follow.returncode) == ("", 0)
    assert f"the container {worker} has ended" in exec_in.communicate(timeout=SECONDS)[1]
    assert exec_in.returncode == 128 + signal.SIGKILL
    assert f"serving {fifo.name}\n" in machine.run("container", "logs", worker).out
    assert worker not in {one["id"] for one in shop.listed()}
    said = machine.run("app", "logs", "shop", "--worker", worker, "--source", "system").out
    assert "the worker was stopped: slipway container stop" in said


def test_a_worker_that_has_nothing_to_do_stops_gracefully(shop: Shop) -> None:
    worker = shop.worker()
    assert shop.machine.run("container", "stop", "--graceful", worker).out == f"{worker} has ended.\n"
    assert worker not in {one["id"] for one in shop.listed()}


def test_an_unknown_container_is_refused_with_the_close_ones(shop: Shop) -> None:
    worker = shop.worker()
    for command in (("exec", worker + "0", "ls"), ("stop", worker + "0"), ("logs", worker + "0")):
        err = shop.machine.run("container", *command, code=1).err
        assert f"there is no container {worker}0" in err and worker in err.split("Did you mean")[1]


# --- the engine's death -------------------------------------------------------------------------------


def test_an_engine_that_is_killed_leaves_the_terminal_as_it_was(shop: Shop) -> None:
    with shop.tty("shell", "shop::serve", "--cmd", f'sh -c "{TRAPPED}"') as tty:
        tty.until("ready\r\n")
        pid = shop.machine.engine_pid()
        assert pid is not None
        family = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        code, shown = tty.end()
        assert code == 1 and "the connection to the engine is lost" in shown
        assert tty.is_restored
        psutil.wait_procs(family, timeout=SECONDS)
    assert [one for one in shop.listed() if one["kind"] == "shell"] == []  # a new engine, which removes what was left
