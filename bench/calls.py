"""Calls through the daemon beside `ProcessPoolExecutor`, in one run: warm calls, maps, cold starts, big arrays.

    python bench/calls.py [--calls 3000] [--inputs 10000]

Both sides use as many processes. Each figure is a median; the ratio is ours to theirs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy

PROCESSES = os.cpu_count() or 1
ARRAY = 256 << 20  # bytes

APP = """
import slipway

app = slipway.App("bench")


@app.function(max_containers={processes})
def same(x):
    return x


@app.function(image=slipway.Image.debian_slim().pip_install("numpy=={numpy}"))
def array(x):
    return x


@app.function(single_use_containers=True, max_containers=1)
def cold(x):
    return x
"""


def same(x: object) -> object:
    return x


def times(call: Callable[[object], object], count: int) -> list[float]:
    """Seconds of each of so many calls, after some that are not counted."""
    for number in range(max(count // 10, 3)):
        call(number)
    found = []
    for number in range(count):
        start = time.perf_counter()
        call(number)
        found.append(time.perf_counter() - start)
    return found


def p50_p99(found: list[float]) -> tuple[float, float]:
    return statistics.median(found), sorted(found)[int(len(found) * 0.99)]


def rate(mapped: Callable[[range], object], count: int) -> float:
    """Inputs a second of the best of three maps: what the machine can do when others leave it alone."""
    mapped(range(count // 10))
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        mapped(range(count))
        best = max(best, count / (time.perf_counter() - start))
    return best


def measure(count: int, inputs: int, cold_starts: int) -> None:
    import app  # type: ignore[import-not-found]  # written below, into the folder that is on the path then

    array = numpy.zeros(ARRAY, dtype=numpy.uint8)
    with ProcessPoolExecutor(PROCESSES) as pool:
        theirs = p50_p99(times(lambda x: pool.submit(same, x).result(), count))
        their_rate = rate(lambda numbers: list(pool.map(same, numbers, chunksize=1)), inputs)
        their_array = statistics.median(times(lambda _: pool.submit(same, array).result(), 3))
    with app.app.run():
        call = app.same.remote
        ours = p50_p99(times(call, count))
        our_rate = rate(lambda numbers: list(app.same.map(numbers)), inputs)
        our_array = statistics.median(times(lambda _: app.array.remote(array), 3))
        cold = statistics.median(times(app.cold.remote, cold_starts))
    print(f"{'':<34}{'slipway':>14}{'ProcessPool':>14}{'ratio':>8}")
    print(f"{'warm call, p50':<34}{ours[0] * 1e6:>11.0f} us{theirs[0] * 1e6:>11.0f} us{ours[0] / theirs[0]:>8.2f}")
    print(f"{'warm call, p99':<34}{ours[1] * 1e6:>11.0f} us{theirs[1] * 1e6:>11.0f} us{ours[1] / theirs[1]:>8.2f}")
    label = f"map of {inputs} inputs"
    print(f"{label:<34}{our_rate:>12.0f}/s{their_rate:>12.0f}/s{our_rate / their_rate:>8.2f}")
    label = f"{ARRAY >> 20} MiB there and back"
    print(f"{label:<34}{our_array * 1e3:>11.0f} ms{their_array * 1e3:>11.0f} ms{our_array / their_array:>8.2f}")
    print(f"{'cold call, image built':<34}{cold * 1e3:>11.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--cold", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP.format(processes=PROCESSES, numpy=numpy.__version__))
        os.environ["SLIPWAY_HOME"] = str(folder / "home")
        sys.path.insert(0, name)
        try:
            measure(options.calls, options.inputs, options.cold)
        finally:
            slipway = Path(sys.executable).with_name("slipway")
            subprocess.run([slipway, "down"], check=False, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
