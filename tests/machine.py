"""A real home, a real engine, the real command line; nothing is faked here."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
from attrs import frozen

SLIPWAY = Path(sys.executable).with_name("slipway")


@frozen
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


class Machine:
    """A home and a folder of a user's, with the commands run in it."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.folder = root / "project"
        self.folder.mkdir(parents=True)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY_")},
            "SLIPWAY_HOME": str(self.home),
            "NO_COLOR": "1",
            "COLUMNS": "120",
            "TERM": "dumb",
        }

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, *argv: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [SLIPWAY, *argv],
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: str, code: int | None = 0, **env: str) -> Ran:
        """Run a command to its end; `code` is what its exit code must be (None: anything)."""
        process = self.start(*argv, **env)
        out, err = process.communicate(timeout=300)
        assert code in (None, process.returncode), f"slipway {' '.join(argv)}: {process.returncode}\n{out}\n{err}"
        return Ran(process.returncode, out, err)

    def engine_pid(self) -> int | None:
        from slipway.executor.home import holder

        return holder(self.home / "engine.lock")

    def close(self) -> None:
        """End the engine, and see that it left no process behind."""
        pid = self.engine_pid()
        if pid is None:
            return
        engine = psutil.Process(pid)
        family = [engine, *engine.children(recursive=True)]
        self.run("down", code=None)
        _gone, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()
        assert not alive, f"left behind: {alive}"


def make_wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """A wheel with one module that says which it is."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
