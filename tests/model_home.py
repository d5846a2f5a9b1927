"""A home for the conformance suite: one engine, apps that run or are deployed once, and a way to talk to workers."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import Machine, Ran

import slipway
from slipway import runner
from slipway.dsl import session
from slipway.loader import load

APPS = Path(__file__).parent / "model" / "apps"
PATIENCE = 60.0  # seconds, for what must come; where it does, nothing waits

_numbers = itertools.count(1)


class Scratch:
    """Names in the volume /scratch, which workers share with the test: files of lines, and pipes.

    The test holds both ends of every pipe, so that neither side waits for the other to come.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = f"k{next(_numbers)}"
        self._pipes: dict[str, int] = {}

    def pipe(self, name: str = "") -> str:
        """A pipe that workers open by the key that this gives: they `say` and `hear` lines."""
        key = f"{self.key}{name}"
        os.mkfifo(self.folder / key)
        self._pipes[key] = os.open(self.folder / key, os.O_RDWR | os.O_NONBLOCK)
        return key

    def hear(self, key: str) -> str:
        """The next line that a worker says."""
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._pipes[key]], [], [], PATIENCE)
            assert ready, f"nobody said a line in {PATIENCE:g} s; so far: {line!r}"
            line += os.read(self._pipes[key], 1)
        return line.decode().rstrip("\n")

    def say(self, key: str, text: str = "go") -> None:
        os.write(self._pipes[key], f"{text}\n".encode())

    def notes(self, key: str = "") -> list[str]:
        """The lines that workers have noted under a key so far."""
        path = self.folder / (key or self.key)
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        for fd in self._pipes.values():
            os.close(fd)


class ModelHome:
    """The home of one runtime. What it runs ends with the session of tests."""

    def __init__(self, machine: Machine, runtime: str) -> None:
        self.machine = machine
        self.runtime = runtime
        self._stack = contextlib.ExitStack()
        self._modules: dict[str, Any] = {}
        self._deployed: set[str] = set()
        self._program = runner.ProgramRunner()
        self._folders = itertools.count(1)

    def enter(self) -> None:
        """From here on this program means this home."""
        os.environ.update(self.variables)
        session._Program.runner = self._program

    @property
    def variables(self) -> dict[str, str]:
        return {"SLIPWAY_HOME": str(self.machine.home), "SLIPWAY_RUNTIME": self.runtime}

    def app(self, name: str) -> Any:
        """The module of apps/<name>.py, with its app running."""
        if name not in self._modules:
            loaded = load(str(APPS / f"{name}.py"))
            self._stack.enter_context(loaded.app.run())
            session.current_session.set(None)  # within the block names would mean this app, and not the deployed one
            self._modules[name] = loaded.module
        return self._modules[name]

    def deploy(self, name: str) -> str:
        """Put apps/<name>.py in force; its app is called as the file."""
        if name not in self._deployed:
            self.machine.run("apply", str(APPS / f"{name}.py"), "--yes")
            self._deployed.add(name)
        return name

    def function(self, app: str, name: str) -> Any:
        """A function of a deployed app."""
        return slipway.Function.from_name(self.deploy(app), name)

    def cls(self, app: str, name: str) -> Any:
        return slipway.Cls.from_name(self.deploy(app), name)

    def scratch(self) -> Scratch:
        """The volume is there from the first app on."""
        self.app("calls")
        (folder,) = (self.machine.home / "volumes").iterdir()
        return Scratch(folder)

    def write(self, files: dict[str, str]) -> Path:
        """A new folder with these files."""
        folder = self.machine.folder / f"p{next(self._folders)}"
        folder.mkdir()
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    def python(self, folder: Path, *argv: str, code: int | None = 0, stdin: str | None = None) -> Ran:
        """Run a Python program in a folder, as its user would."""
        done = subprocess.run(
            [sys.executable, *argv],
            cwd=folder,
            env=self.machine.env | self.variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert code in (None, done.returncode), (
            f"python {' '.join(argv)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def slipway(self, folder: Path, *argv: str, code: int | None = 0) -> Ran:
        """Run one of our commands in a folder."""
        return self.python(folder, "-m", "slipway.cli.main", *argv, code=code)

    def close(self) -> None:
        try:
            self._stack.close()
            made: Any = self._program._session
            if made is not None:
                made.connection.close()
        finally:
            self.machine.close()
