"""One map of a million tiny inputs: what it takes of memory in the client, the daemon and the workers, and its pace.

    python bench/million.py [--inputs 1000000]

The memory is resident size, looked at after every twentieth of the inputs. `ProcessPoolExecutor.map`, which takes all
of its inputs at once, is given a tenth of them; the pace of both is inputs a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
from attrs import frozen

PROCESSES = os.cpu_count() or 1
SLIPWAY = Path(sys.executable).with_name("slipway")

APP = """
import slipway

app = slipway.App("million")


@app.function(max_containers={processes})
def same(x):
    return x
"""


@frozen(kw_only=True)
class Sizes:
    """Resident MiB of the client, the daemon, and the biggest worker."""

    client: float
    daemon: float
    worker: float


def same(x: object) -> object:
    return x


def mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / (1 << 20)
    except psutil.NoSuchProcess:  # a helper of the daemon's that has ended meanwhile
        return 0.0


def look(daemon: psutil.Process) -> Sizes:
    workers = [mib(process) for process in daemon.children(recursive=True)]
    return Sizes(client=mib(psutil.Process()), daemon=mib(daemon), worker=max(workers, default=0.0))


def measure(inputs: int) -> tuple[list[Sizes], float]:
    """The sizes along the way, the first after a twentieth; and inputs a second."""
    import app  # type: ignore[import-not-found]  # written below, into the folder that is on the path then

    found = []
    with app.app.run():
        app.same.remote(0)
        status = json.loads(subprocess.run([SLIPWAY, "status", "--json"], capture_output=True, check=True).stdout)
        daemon = psutil.Process(status["pid"])
        every = max(inputs // 20, 1)
        start = time.perf_counter()
        total = 0
        for number, result in enumerate(app.same.map(range(inputs)), start=1):
            total += result
            if number % every == 0:
                found.append(look(daemon))
        took = time.perf_counter() - start
    if total != inputs * (inputs - 1) // 2:
        raise SystemExit(f"the results add up to {total}")
    return found, inputs / took


def measure_theirs(inputs: int) -> float:
    with ProcessPoolExecutor(PROCESSES) as pool:
        deque(pool.map(same, range(1000)), maxlen=0)
        start = time.perf_counter()
        deque(pool.map(same, range(inputs), chunksize=1), maxlen=0)
        return inputs / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        Path(name, "app.py").write_text(APP.format(processes=PROCESSES))
        os.environ["SLIPWAY_HOME"] = str(Path(name, "home"))
        sys.path.insert(0, name)
        try:
            sizes, pace = measure(options.inputs)
        finally:
            subprocess.run([SLIPWAY, "down"], check=False, stdout=subprocess.DEVNULL)
    theirs = measure_theirs(max(options.inputs // 10, 1))
    print(f"{'resident MiB of':<20}{'after 1/20':>12}{'at half':>12}{'at the end':>12}{'most':>12}")
    for who in ("client", "daemon", "worker"):
        row = [getattr(size, who) for size in sizes]
        print(f"{who:<20}{row[0]:>12.1f}{row[len(row) // 2]:>12.1f}{row[-1]:>12.1f}{max(row):>12.1f}")
    print(f"\n{options.inputs} inputs: {pace:.0f}/s, ProcessPoolExecutor.map {theirs:.0f}/s: {pace / theirs:.2f}x")


if __name__ == "__main__":
    main()
