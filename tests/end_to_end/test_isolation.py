"""What a worker sees of the machine that it runs on, asked from inside."""

from __future__ import annotations

import json
import os
from pathlib import Path

from machine import Machine

SECRET = "s3cret-value"
PROBE = """
import json
import os
import pathlib

import slipway

app = slipway.App("probe")
volume = slipway.Volume.from_name("shelf", create_if_missing=True)
other = slipway.Volume.from_name("other", create_if_missing=True)


def exists(path):
    try:
        return os.path.lexists(path) and bool(os.listdir(path) if os.path.isdir(path) else True)
    except OSError:
        return False


@app.function(volumes={"/shelf": volume}, secrets=[slipway.Secret.from_local_environ(["TOKEN"])],
              single_use_containers=True)
def look(paths: list[str]):
    pathlib.Path("/usr/left-behind").write_text("x")
    pathlib.Path("/root/left-behind").write_text("x")
    seen_before = os.path.exists("/tmp/left-behind")
    pathlib.Path("/tmp/left-behind").write_text("x")
    with open("/etc/hosts", "a") as file:
        file.write("# left behind")
    pathlib.Path("/shelf/kept").write_text("kept")
    print("the token is", os.environ["TOKEN"])
    return {
        "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
        "visible": [p for p in paths if exists(p)],
        "token": os.environ["TOKEN"],
        "argv": open("/proc/self/cmdline").read(),
        "seen_before": seen_before,
    }


@app.function(volumes={"/shelf": other})
def elsewhere():
    return os.listdir("/shelf")


@app.local_entrypoint()
def main(paths: str):
    seen = look.remote(json.loads(paths))
    again = look.remote(json.loads(paths))
    print("SEEN", json.dumps([seen, again, elsewhere.remote()]))
"""


def test_what_a_worker_sees(machine: Machine) -> None:
    secret = Path.home() / ".ssh"
    hidden = [
        str(machine.home),
        str(machine.folder),
        str(machine.folder / "app.py"),
        str(secret),
        "/run/systemd",
        "/run/docker.sock",
        "/home",
    ]
    hidden += [
        str(Path.home() / name) for name in (".pyenv/shims", ".cache", ".cargo") if (Path.home() / name).exists()
    ]
    machine.write("app.py", PROBE)
    ran = machine.run("run", "app.py", "--paths", json.dumps(hidden), TOKEN=SECRET)
    line = next(line for line in ran.out.splitlines() if line.startswith("SEEN "))
    seen, again, elsewhere = json.loads(line[5:])
    assert seen["visible"] == []
    assert len(seen["pids"]) < 10 and os.getpid() not in seen["pids"]
    assert seen["token"] == SECRET and "s3cret" not in seen["argv"]
    assert not again["seen_before"]
    assert elsewhere == []
    assert not Path("/usr/left-behind").exists() and not Path("/tmp/left-behind").exists()
    assert not (Path.home() / "left-behind").exists()
    assert "left behind" not in Path("/etc/hosts").read_text()
    # The value is in no plan, log or state, and what is printed is masked.
    assert "s3cret-value" not in ran.out.replace(line, "") + ran.err
    machine.run("plan", "app.py", "-o", "plan.out", TOKEN=SECRET)
    machine.run("apply", "--yes")
    for path in [*machine.home.rglob("*"), machine.folder / "plan.out"]:
        if path.is_file() and not path.is_symlink():
            assert b"s3cret-value" not in path.read_bytes(), path


MEMORY = """
import slipway

app = slipway.App("greedy")


@app.function(memory=(64, 128))
def eat():
    hoard = []
    while True:
        hoard.append(bytearray(8 << 20))


@app.local_entrypoint()
def main():
    eat.remote()
"""


def test_memory_limit(machine: Machine) -> None:
    """Held where cgroups can be written, and said at plan where not."""
    machine.write("app.py", MEMORY)
    shown = machine.run("plan", "app.py").out
    if "memory limit not enforced" in shown:
        assert os.getuid() != 0 or not os.access("/sys/fs/cgroup/memory", os.W_OK)
        return
    assert "out of memory" in machine.run("run", "app.py", code=1).err
