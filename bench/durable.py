"""Calls that are spawned: how many a second are on disk, one after the other and in a pipeline, how many are done, and
what the daemon takes of memory while a million of them wait.

    python bench/durable.py [--queued 1000000] [--spawns 20000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from attrs import frozen

SLIPWAY = Path(sys.executable).with_name("slipway")
BUDGET_SPAWNS, BUDGET_MIB = 5000, 500
APP = """
import time

import slipway

app = slipway.App("durable")


@app.function()
def same(x):
    return x


@app.function(max_containers=1)
def wait(seconds):
    time.sleep(seconds)
"""


@frozen(kw_only=True)
class Found:
    """Spawns a second, alone and in a pipeline; results a second; MiB before and with the queue, and at the most."""

    alone: float
    pipelined: float
    done: float
    queued: int
    queueing: float
    before: float
    after: float
    peak: float


def daemon() -> psutil.Process:
    status = json.loads(subprocess.run([SLIPWAY, "status", "--json"], capture_output=True, check=True).stdout)
    return psutil.Process(status["pid"])


def peak_mib(process: psutil.Process) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def fsync_ms(folder: Path) -> float:
    """What the disk takes to write out a little: no spawn alone can be quicker."""
    fd = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT)
    start = time.perf_counter()
    for _ in range(50):
        os.write(fd, b"x" * 4096)
        os.fsync(fd)
    os.close(fd)
    return (time.perf_counter() - start) / 50 * 1000


def measure(spawns: int, queued: int) -> Found:
    import slipway

    same = slipway.Function.from_name("durable", "same")
    wait = slipway.Function.from_name("durable", "wait")
    same.remote(0)
    start = time.perf_counter()
    for number in range(200):
        same.spawn(number)
    alone = 200 / (time.perf_counter() - start)
    start = time.perf_counter()
    call = same.experimental_spawn_map(range(spawns))
    pipelined = spawns / (time.perf_counter() - start)
    total: Any = sum(call.iter())
    done = spawns / (time.perf_counter() - start)
    if total != spawns * (spawns - 1) // 2:
        raise SystemExit(f"the results add up to {total}")
    engine = daemon()
    before = engine.memory_info().rss / (1 << 20)
    start = time.perf_counter()
    waiting = wait.experimental_spawn_map(10_000.0 for _ in range(queued))
    queueing = queued / (time.perf_counter() - start)
    after = engine.memory_info().rss / (1 << 20)
    found = Found(
        alone=alone,
        pipelined=pipelined,
        done=done,
        queued=queued,
        queueing=queueing,
        before=before,
        after=after,
        peak=peak_mib(engine),
    )
    start = time.perf_counter()
    waiting.cancel(terminate_containers=True)
    print(f"cancelled in {time.perf_counter() - start:.1f} s")
    return found


@contextmanager
def home() -> Iterator[Path]:
    """A home of our own with the app deployed in it."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        os.environ["SLIPWAY_HOME"] = str(Path(folder) / "home")
        Path(folder, "durable_app.py").write_text(APP)
        try:
            apply = [str(SLIPWAY), "apply", "durable_app.py", "--yes"]
            subprocess.run(apply, cwd=folder, check=True, capture_output=True)
            yield Path(folder)
        finally:
            subprocess.run([SLIPWAY, "down", "--now"], check=False, capture_output=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Spawned calls.")
    parser.add_argument("--spawns", type=int, default=20_000)
    parser.add_argument("--queued", type=int, default=1_000_000)
    given = parser.parse_args()
    with home() as folder:
        sync = fsync_ms(folder)
        found = measure(given.spawns, given.queued)
    print(f"an fsync here takes {sync:.2f} ms")
    print(f"spawn, one after the other   {found.alone:10,.0f} /s")
    print(f"spawn, in a pipeline         {found.pipelined:10,.0f} /s   budget {BUDGET_SPAWNS:,}")
    print(f"spawned, done and fetched    {found.done:10,.0f} /s")
    print(f"queueing {found.queued:,}         {found.queueing:10,.0f} /s")
    print(f"the daemon before            {found.before:10,.0f} MiB")
    print(f"the daemon with the queue    {found.after:10,.0f} MiB  budget {BUDGET_MIB}")
    print(f"the daemon at the most       {found.peak:10,.0f} MiB")
    return 0 if found.pipelined >= BUDGET_SPAWNS and found.peak <= BUDGET_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
