"""The engine killed at any point of a durable call's way: what was accepted has one outcome, and every attempt that had
an effect is on record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.test_build import native_works
from machine import Machine

APP = """
import os
import slipway
from slipway import current_input_id

shelf = slipway.Volume.from_name("shelf", create_if_missing=True)
app = slipway.App("durable")


@app.function(volumes={"/shelf": shelf}, max_containers=2)
def work(i):
    fd = os.open("/shelf/done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{i} {current_input_id()}\\n".encode())
    os.close(fd)
    return b"x" * 20_000 if i % 3 == 0 else i
"""
SPAWN = """
import sys
import slipway

work = slipway.Function.from_name("durable", "work")
try:
    for i in range(12):
        print(i, work.spawn(i).object_id, flush=True)
except slipway.Error as error:
    print("lost:", error, file=sys.stderr)
"""
GET = """
import json
import sys
import slipway

for line in sys.stdin:
    i, ident = line.split()
    found = slipway.FunctionCall.from_id(ident).get(timeout=60)
    assert found == (b"x" * 20_000 if int(i) % 3 == 0 else int(i)), found
"""


@pytest.fixture
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if not native_works(tmp_path_factory.getbasetemp() / "ask"):
        pytest.skip("the native runtime can't make containers here")
    box = Machine(tmp_path)
    box.write("durable.py", APP)
    box.run("apply", "durable.py", "--yes")
    box.run("down")
    yield box
    box.close()


def python(machine: Machine, code: str, said: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=machine.folder,
        env={**machine.env, **env},
        input=said,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def inputs_of(machine: Machine, call: str) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = json.loads(machine.run("call", "show", call, "--json").out)["inputs"]
    return shown


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "call-taken:4",
        "call-written:1",
        "call-written:4",
        "attempt-written:1",
        "attempt-written:6",
        "outcome-written:1",
        "outcome-written:6",
        "before-commit:9",
        "after-commit:10",
    ],
)
def test_killed_at_a_point(machine: Machine, fault: str) -> None:
    spawned = python(machine, SPAWN, SLIPWAY_FAULT=fault)
    assert spawned.returncode == 0, spawned.stderr
    accepted = [line.split() for line in spawned.stdout.splitlines()]
    assert "lost:" in spawned.stderr or len(accepted) == 12
    got = python(machine, GET, spawned.stdout)
    assert got.returncode == 0, got.stderr
    listed = json.loads(machine.run("call", "list", "--json").out)
    calls = [call["call"] for call in listed]
    assert {ident for _, ident in accepted} <= set(calls)
    machine.run("call", "wait", calls[0])
    (done,) = (machine.home / "volumes").glob("*/done")
    effects = Counter(line.split()[1] for line in done.read_text().splitlines())
    recorded = {one["input"]: one for call in calls for one in inputs_of(machine, call)}
    assert effects.keys() <= recorded.keys()
    for ident, count in effects.items():
        one = recorded[ident]
        assert one["state"] == "returned"
        assert count <= one["attempts"] == 1 + one["losses"] == 1 + len(one["history"])
