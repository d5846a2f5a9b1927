"""Whole-process times of the command line: `--help`, a no-op plan of 200 nodes over 10,000 files, a no-op apply.

    python bench/plan.py [--files 10000] [--functions 190] [--runs 7]

Each figure is the median of several runs, beside `python -c pass` in the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SLIPWAY = str(Path(sys.executable).with_name("slipway"))


def write_app(folder: Path, *, files: int, functions: int) -> None:
    data = folder / "data"
    for number in range(files):
        path = data / f"{number % 100:02}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number}\n")
    lines = [
        "import slipway",
        "image = slipway.Image.debian_slim().run_commands('true').env({'A': '1'}).add_local_dir('data', '/data')",
        "app = slipway.App('wide', image=image)",
    ]
    for number in range(functions):
        lines += ["", f"@app.function(name='f{number}')", f"def f{number}(): return {number}"]
    (folder / "app.py").write_text("\n".join(lines) + "\n")


def median_ms(argv: list[str], *, folder: Path, env: dict[str, str], runs: int) -> tuple[float, float]:
    """(median, minimum) wall time of a command, in milliseconds, after one run that is not counted."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(argv, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[1:]), min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--functions", type=int, default=190)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        folder.mkdir()
        env = {**os.environ, "SLIPWAY_HOME": str(Path(name) / "home"), "NO_COLOR": "1"}
        write_app(folder, files=options.files, functions=options.functions)
        start = time.perf_counter()
        subprocess.run([SLIPWAY, "plan", "app.py"], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        first = (time.perf_counter() - start) * 1000
        subprocess.run([SLIPWAY, "apply", "--yes"], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        try:
            base, _ = median_ms([sys.executable, "-c", "pass"], folder=folder, env=env, runs=options.runs)
            print(f"python -c pass                              {base:8.1f} ms")
            print(f"first plan, engine started, all files read  {first:8.1f} ms")
            for label, argv in {
                "slipway --help": [SLIPWAY, "--help"],
                "no-op plan, warm engine": [SLIPWAY, "plan", "app.py"],
                "no-op apply of the saved plan": [SLIPWAY, "apply", "--yes"],
            }.items():
                middle, least = median_ms(argv, folder=folder, env=env, runs=options.runs)
                print(f"{label:<42}  {middle:8.1f} ms  (min {least:.1f}; {middle / base:.1f} x python -c pass)")
        finally:
            subprocess.run([SLIPWAY, "down"], cwd=folder, env=env, check=False, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
