"""A Docker Engine of the tests' own, which nothing of survives whoever started it.

`Dockerd` starts this file as a program (the keeper): that starts dockerd as the first process of a PID namespace, with
mounts, folders and cgroups of its own, and ends it all as soon as its standard input is closed, by whatever means.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

CLONE_NEWPID = 0x20000000
CGROUPS = Path("/sys/fs/cgroup")
READY_S, END_S = 120, 60
NEEDED = ("dockerd", "containerd", "runc", "docker-init", "unshare", "setpriv")
# What an engine leaves in folders that it shares with others: here each has its own.
PRIVATE = ("/run/containerd", "/etc/docker", "/opt/containerd")
# Workers use a socket of this machine's. Without a bridge its own network has nothing to stand on.
GVISOR = ["--host-uds=open", "--network=host"]
SCRIPT = f"""\
set -e
for folder in {" ".join(PRIVATE)}; do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
exec docker-init -- dockerd "$@"
"""


class EngineFailedError(Exception):
    """The engine did not come up; with the end of its log."""


class Dockerd:
    """An engine in a folder of its own. `stop` leaves its images and containers for the next `start`."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._env = {**os.environ, **(env or {})}
        self._keeper: subprocess.Popen[str] | None = None

    def start(self, *flags: str) -> None:
        """Have it running; `flags` are more of dockerd's own."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = [sys.executable, "-B", __file__, str(self.folder), *flags]
        pipe = subprocess.PIPE
        self._keeper = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=self._env, start_new_session=True)
        assert self._keeper.stdout is not None
        said = self._keeper.stdout.readline().rstrip("\n")
        if said != "ready":
            self._end("")
            raise EngineFailedError(f"the Docker Engine of the tests did not start: {said or 'its keeper ended'}")

    def stop(self) -> None:
        self._end("stop\n")

    def remove(self) -> None:
        """Stop it and remove all it has."""
        self._end("")
        shutil.rmtree(self.folder, ignore_errors=True)
        _remove_groups(_group(self.folder))

    def _end(self, word: str) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            try:
                keeper.communicate(word, timeout=2 * END_S)
            except BaseException:
                keeper.kill()  # the kernel ends the engine with it
                raise


def keep(folder: Path, more: list[str]) -> None:
    """Run an engine in `folder` until standard input ends; "stop" there means that what it has is to stay."""
    signal.signal(signal.SIGTERM, _leave)
    staying = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        (folder / "notify").unlink(missing_ok=True)
        ready.bind(str(folder / "notify"))
        engine = _launch(folder, more)
        died = os.pidfd_open(engine.pid)
        try:
            came, _, _ = select.select([ready, sys.stdin, died], [], [], READY_S)
            if ready in came:
                print("ready", flush=True)
                select.select([sys.stdin, died], [], [])
                staying = sys.stdin.readline()
            elif sys.stdin not in came:
                log = (folder / "log").read_text(errors="replace").splitlines()
                print(" · ".join(log[-6:]) or f"nothing heard of it in {READY_S} s", flush=True)
        finally:
            _end(engine)
            os.close(died)
            _remove_groups(_group(folder))
            if not staying:
                shutil.rmtree(folder, ignore_errors=True)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit


def _group(folder: Path) -> str:
    return f"slipway-tests-{folder.name}"


def _launch(folder: Path, more: list[str]) -> subprocess.Popen[bytes]:
    """The engine, as the first process of a PID namespace: it can't leave one behind that it started.

    Its cgroups are made by itself, not by systemd: that would not know whom its process numbers mean.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "a PID namespace was refused")
    gvisor = shutil.which("runsc")
    settings = {"runtimes": {"runsc": {"path": gvisor, "runtimeArgs": GVISOR}}} if gvisor else {}
    (folder / "daemon.json").write_text(json.dumps(settings))
    flags = {
        "config-file": folder / "daemon.json",
        "data-root": folder / "data",
        "exec-root": folder / "exec",
        "pidfile": folder / "pid",
        "host": f"unix://{folder}/docker.sock",
        "bridge": "none",
        "iptables": "false",
        "ip6tables": "false",
        "exec-opt": "native.cgroupdriver=cgroupfs",
        "cgroup-parent": f"/{_group(folder)}",
        "shutdown-timeout": 5,
    }
    (folder / "pid").unlink(missing_ok=True)
    own = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount-proc", "--propagation", "slave"]
    argv = [*own, "sh", "-c", SCRIPT, "sh", *(f"--{name}={value}" for name, value in flags.items()), *more]
    env = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)


def _end(engine: subprocess.Popen[bytes]) -> None:
    if engine.poll() is None:
        engine.terminate()
        try:
            engine.wait(END_S)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()


def _remove_groups(name: str) -> None:
    """Remove the cgroups that are left where containers were killed with the engine: they are empty."""
    for top in (CGROUPS / name, *CGROUPS.glob(f"*/{name}")):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # gone already, or a process in it is still ending
                os.rmdir(folder)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.argv[2:])
