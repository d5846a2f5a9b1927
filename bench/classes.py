"""How long callers wait for workers of a class that takes 3 s to load, with a memory snapshot and without.

python bench/classes.py [ROUNDS] [--runtime docker --image IMAGE]

Half of the load is the import of the module, half an `enter` hook; both sleep, so that the figures are those of a model
that is read, whatever the machine. The home is a new one each time; the engine runs before the clock does. The image is
one that the Docker Engine has already.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import slipway

LOAD = 3.0
APP = """
import os
import time
import slipway

app = slipway.App("{name}", image=slipway.Image.{base})
shelf = slipway.Volume.from_name("shelf", create_if_missing=True)
if not slipway.is_local():
    time.sleep({half})  # as the import of a big library does


@app.cls(volumes={{"/shelf": shelf}}, max_containers=2, scaledown_window=600, enable_memory_snapshot={snapshot})
class Model:
    @slipway.enter(snap={snapshot})
    def load(self):
        time.sleep({half})  # as reading the weights does
        self.weights = bytearray(os.urandom(1 << 20) * 64)

    @slipway.method()
    def predict(self, x):
        return os.getpid(), self.weights[x]

    @slipway.method()
    def hold(self, began, until):
        open(f"/shelf/{{began}}", "w").close()
        open(f"/shelf/{{until}}").close()
"""
ROWS = ("first call from nothing", "first call of a second worker", "first call after scaling to zero")


class Side:
    """One of the two apps on a machine of its own."""

    def __init__(self, root: Path, runtime: str, image: str | None, *, snapshot: bool) -> None:
        self.home = root / "home"
        base = f"from_registry({image!r})" if image else "debian_slim()"
        self.name = "snapshot" if snapshot else "plain"
        self.env = os.environ | {"SLIPWAY_HOME": str(self.home), "SLIPWAY_RUNTIME": runtime, "NO_COLOR": "1"}
        (root / "app.py").write_text(APP.format(name=self.name, base=base, half=LOAD / 2, snapshot=snapshot))
        self.root = root
        self.slipway("apply", "app.py", "--yes")
        (self.shelf,) = (self.home / "volumes").iterdir()

    def slipway(self, *argv: str) -> str:
        program = Path(sys.executable).with_name("slipway")
        done = subprocess.run(
            [program, *argv], cwd=self.root, env=self.env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"slipway {' '.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout

    def scale_to_zero(self) -> None:
        for worker in json.loads(self.slipway("container", "list", "--json")):
            self.slipway("container", "stop", worker["id"], "--graceful")

    @contextlib.contextmanager
    def held(self, model: Any) -> Iterator[None]:
        """One worker is busy meanwhile."""
        for name in ("began", "until"):
            os.mkfifo(self.shelf / name)
        thread = threading.Thread(target=model.hold.remote, args=("began", "until"))
        thread.start()
        (self.shelf / "began").open().close()  # returns when the worker opens it, too
        try:
            yield
        finally:
            (self.shelf / "until").open("w").close()
            thread.join()
            for name in ("began", "until"):
                (self.shelf / name).unlink()

    def measure(self) -> tuple[list[float], float]:
        """Seconds of each row, and milliseconds of a call to a warm worker."""
        model = slipway.Cls.from_name(self.name, "Model")()
        took = [seconds(lambda: model.predict.remote(1))]
        with self.held(model):
            took.append(seconds(lambda: model.predict.remote(2)))
        self.scale_to_zero()
        took.append(seconds(lambda: model.predict.remote(3)))
        warm = statistics.median(seconds(lambda: model.predict.remote(4)) for _ in range(50))
        return took, warm * 1000


def seconds(act: Any) -> float:
    before = time.perf_counter()
    act()
    return time.perf_counter() - before


def run(runtime: str, image: str | None, *, snapshot: bool) -> None:
    """One round in a process of its own (a program talks to one home); prints what it took."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        side = Side(Path(folder), runtime, image, snapshot=snapshot)
        os.environ.update({name: side.env[name] for name in ("SLIPWAY_HOME", "SLIPWAY_RUNTIME")})
        try:
            print(json.dumps(side.measure()))
        finally:
            side.slipway("down")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    parser.add_argument("--runtime", default="native")
    parser.add_argument("--image")
    parser.add_argument("--side", choices=("plain", "snapshot"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        run(chosen.runtime, chosen.image, snapshot=chosen.side == "snapshot")
        return
    took: dict[str, list[tuple[list[float], float]]] = {"plain": [], "snapshot": []}
    for _ in range(chosen.rounds):
        for side, rounds in took.items():
            argv = [sys.executable, __file__, "--side", side, "--runtime", chosen.runtime]
            argv += ["--image", chosen.image] if chosen.image else []
            rounds.append(json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout))
    print(f"a class that takes {LOAD:g} s to load, {chosen.runtime}; median of {chosen.rounds}, seconds")
    print(f"  {'':34}{'plain':>10}{'snapshot':>10}{'ratio':>8}")
    for index, row in enumerate(ROWS):
        plain, snapshot = (statistics.median(times[index] for times, _ in took[side]) for side in took)
        print(f"  {row:34}{plain:10.3f}{snapshot:10.3f}{snapshot / plain:8.3f}")
    warm = [statistics.median(each for _, each in rounds) for rounds in took.values()]
    print(f"  {'a call to a warm worker, ms':34}{warm[0]:10.3f}{warm[1]:10.3f}{warm[1] / warm[0]:8.3f}")


if __name__ == "__main__":
    main()
