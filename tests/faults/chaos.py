"""`kill -9` of workers, templates, the daemon and the client at random moments of a mixed load of durable calls.

    python tests/faults/chaos.py [--calls 10000] [--rounds 10] [--seed 1]

Afterwards every call that was accepted must have exactly one outcome, and the marks that its attempts left in a volume
must be what the records say: at least one where it returned, and never more than attempts were written down.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from attrs import field, frozen

from slipway.engine_client import connect

HERE = Path(__file__).parent
APP = HERE / "chaos_app.py"
SLIPWAY = Path(sys.executable).with_name("slipway")
VICTIMS = ("worker", "template", "daemon", "client", "worker", "daemon")
OVER = frozenset({"returned", "raised", "timed_out", "cancelled", "lost"})


class Broken(Exception):
    """A promise was not kept."""


@frozen(kw_only=True)
class Chaos:
    """One home that is put under load and has its processes killed."""

    folder: Path
    random: random.Random
    killed: Counter[str] = field(factory=Counter)
    accepted: dict[int, str] = field(factory=dict)  # number → id of the call

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLIPWAY_HOME": str(self.folder / "home")}

    def slipway(self, *args: str) -> str:
        done = subprocess.run(
            [SLIPWAY, *args], env=self.environment, cwd=HERE, capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode:
            raise Broken(f"slipway {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def daemon(self) -> psutil.Process | None:
        """The daemon, where it is there."""
        said = subprocess.run([SLIPWAY, "status", "--json"], env=self.environment, capture_output=True, check=False)
        pid = json.loads(said.stdout).get("pid")
        return psutil.Process(pid) if pid else None

    # --- the load

    def round(self, first: int, last: int) -> None:
        """Spawn those calls, with a kill after every so many that were accepted."""
        while first < last:
            client = subprocess.Popen(
                [sys.executable, str(APP), str(first), str(last)],
                env=self.environment,
                cwd=HERE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            before, killed = first, self.killed.total()
            try:
                first = self._follow(client, first, last)
            finally:
                client.kill()
                said = client.communicate()[1]
            if client.returncode and first == before and self.killed.total() == killed:
                raise Broken(f"the client failed by itself:\n{said}")

    def _follow(self, client: subprocess.Popen[str], first: int, last: int) -> int:
        """Take in what the client says until it ends; the number to go on with."""
        assert client.stdout is not None
        left = self._span(last - first)
        for line in client.stdout:
            number, call = line.split()
            first = int(number) + 1
            self.accepted[int(number)] = call
            left -= 1
            if left == 0:
                self.kill(client)
                left = self._span(last - first)
        if client.wait() == 0 and first < last:
            raise Broken(f"the client ended in peace before {last}")
        return first

    def _span(self, most: int) -> int:
        return self.random.randint(1, max(most // 2, 1))

    def kill(self, client: subprocess.Popen[str]) -> None:
        victim = self.random.choice(VICTIMS)
        if victim == "client":
            client.kill()
            self.killed[victim] += 1
            return
        try:
            daemon = self.daemon()
            if daemon is None:
                return  # it was killed, and nobody has needed one since
            found = [daemon] if victim == "daemon" else _inside(daemon, template=victim == "template")
        except psutil.NoSuchProcess:
            return
        if found:
            self.killed[victim] += _kill(self.random.choice(found))

    # --- the reckoning

    def wait(self) -> None:
        """Until every accepted call is over."""
        with connect() as engine:
            for call in self.accepted.values():
                engine.request("call.wait", {"call": call})

    def reckon(self) -> Counter[str]:
        """What became of the calls, checked against the marks."""
        marks = self._marks()
        found: Counter[str] = Counter()
        wrong = []
        with connect() as engine:
            for number, call in self.accepted.items():
                (entry,) = engine.request("call.show", {"call": call})["inputs"]
                found[entry["state"]] += 1
                fault = _fault(number, entry, marks.get(call, 0))
                if fault:
                    wrong.append(f"{call} (number {number}): {fault}: {json.dumps(entry)}")
        if wrong:
            raise Broken(f"{len(wrong)} of {len(self.accepted)} calls:\n" + "\n".join(wrong[:20]))
        return found

    def _marks(self) -> dict[str, int]:
        """How many attempts of each call have begun."""
        return {path.name: path.stat().st_size for path in (self.folder / "home" / "volumes").rglob("fc-*")}


def _inside(daemon: psutil.Process, *, template: bool) -> list[psutil.Process]:
    """The processes that run the worker program: those that forked others of it, or those that did not."""
    found = []
    for process in daemon.children(recursive=True):
        try:
            if "executor/worker/main.py" in " ".join(process.cmdline()):
                forked = any("executor/worker/main.py" in " ".join(child.cmdline()) for child in process.children())
                if forked == template:
                    found.append(process)
        except psutil.NoSuchProcess:  # noqa: PERF203 - each may end by itself
            continue
    return found


def _kill(process: psutil.Process) -> int:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return 0
    return 1


def _fault(number: int, entry: dict[str, Any], marks: int) -> str:
    """What is wrong with the records of an input, or nothing."""
    state, attempts, losses = entry["state"], entry["attempts"], entry["losses"]
    if state not in OVER:
        return "it has no outcome"
    if state == "returned" and not marks:
        return "it returned and left no mark"
    if marks > attempts:
        return f"it left {marks} marks, and {attempts} attempts are written down"
    own = attempts - losses
    dies, fails = number % 500 == 7, number % 500 != 7 and number % 20 in {1, 2}
    if dies and (state, own) != ("lost", 1):
        return "a call that ends its worker counts as one attempt, which is lost"
    if fails and number % 100 == 1 and (state, own) != ("raised", 3):
        return "a call that always fails has three attempts of its own"
    if fails and number % 100 != 1 and (state != "returned" or own > 2):
        return "a call that fails once returns at the second attempt"
    if not dies and not fails and (state != "returned" or own != 1):
        return "a call that works returns at its first attempt that nothing cut short"
    return ""


def run(folder: Path, calls: int, rounds: int, seed: int) -> tuple[Chaos, Counter[str]]:
    chaos = Chaos(folder=folder, random=random.Random(seed))
    os.environ["SLIPWAY_HOME"] = chaos.environment["SLIPWAY_HOME"]
    try:
        chaos.slipway("plan", str(APP))
        chaos.slipway("apply")
        for number in range(rounds):
            chaos.round(number * calls // rounds, (number + 1) * calls // rounds)
        chaos.wait()
        return chaos, chaos.reckon()
    finally:
        subprocess.run([SLIPWAY, "down"], env=chaos.environment, capture_output=True, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the home where it is, to look into it")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="slipway-chaos-"))
    try:
        chaos, found = run(folder, options.calls, options.rounds, options.seed)
        print(f"{len(chaos.accepted)} calls accepted; killed: {dict(chaos.killed)}; outcomes: {dict(found)}")
    finally:
        if options.keep:
            print(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
