"""Attempts with real worker processes: what is tried again, what is written down first, what ends with its worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from dispatch_rig import Bench, Run, runner

from slipway.dsl.declaration import Retries
from slipway.executor import retrying, scaling
from slipway.executor.inputs import Input
from slipway.executor.scaling import PoolLimits
from slipway.executor.worker.frames import Outcome

CODE = """
import os, pathlib, signal, time

def count(path):
    with open(path, "a") as file:
        file.write("x")
    return os.stat(path).st_size

def succeeds_at(path, attempt):
    number = count(path)
    if number < attempt:
        raise ValueError(f"attempt {number}")
    return number

def hangs_before(path, attempt):
    number = count(path)
    if number < attempt:
        time.sleep(60)
    return number

def exits_before(path, attempt, code):
    number = count(path)
    if number < attempt:
        os._exit(code)
    return number

def is_killed_before(path, attempt, number):
    if count(path) < attempt:
        os.kill(os.getpid(), number)
        time.sleep(60)
    return os.getpid()

def doubles(numbers):
    return [2 * number for number in numbers]

def waits(started, go_on):
    open(started, "w").close()
    open(go_on).close()
    return os.getpid()
"""
FIVE_TIMES = Retries(max_retries=5, backoff_milli=1000, initial_delay_ms=0)
LIMITS = PoolLimits(max_workers=1, retries=FIVE_TIMES)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(retrying, "LEAST_DELAY", 0.01)
    monkeypatch.setattr(scaling, "FIRST_BACKOFF", 0.01)
    return runner(tmp_path, CODE)


def test_what_raises_is_tried_again_until_it_succeeds(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "succeeds_at", str(tmp_path / "count"), 3, limits=LIMITS)
        assert await bench.result(1) == 3
        reasons = [(1, 1, Outcome.RAISED, "ValueError: attempt 1"), (1, 2, Outcome.RAISED, "ValueError: attempt 2")]
        assert bench.over == reasons

    assert [(row.attempts, row.losses, row.outcome) for row in run(main).records] == [(3, 0, Outcome.RETURNED)]


def test_what_raises_each_time_raises_in_the_end(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        limits = evolve(LIMITS, retries=Retries(max_retries=1))
        bench.submit(1, "succeeds_at", str(tmp_path / "count"), 9, limits=limits)
        assert (await bench.answer(1)).outcome == Outcome.RAISED

    run(main)
    assert (tmp_path / "count").read_text() == "xx"


def test_what_takes_too_long_is_tried_again_with_as_much_time(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "hangs_before", str(tmp_path / "count"), 3, limits=evolve(LIMITS, timeout=0.3))
        assert await bench.result(1) == 3
        assert [over[2:] for over in bench.over] == [(Outcome.TIMED_OUT, "it took longer than 0.3 s")] * 2

    run(main)


@pytest.mark.parametrize("code", [3, 0])
def test_an_input_that_ends_its_worker_fails(run: Run, tmp_path: Path, code: int) -> None:
    async def main(bench: Bench) -> None:
        path = str(tmp_path / "count")
        bench.submit(1, "exits_before", path, 2, code, limits=evolve(LIMITS, retries=None))
        assert await bench.reason(1) == (Outcome.LOST, f"the worker exited with code {code}")
        bench.submit(2, "exits_before", path, 2, code)
        assert await bench.result(2) == 2

    run(main)


def test_an_input_that_ends_its_worker_is_tried_again_as_any_that_fails(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "exits_before", str(tmp_path / "count"), 3, 4, limits=LIMITS)
        assert await bench.result(1) == 3

    assert [(row.attempts, row.losses) for row in run(main).records] == [(3, 0)]


def test_a_worker_that_somebody_kills_takes_no_input_along(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "is_killed_before", str(tmp_path / "count"), 4, 9, limits=evolve(LIMITS, retries=None))
        await bench.result(1)
        lost = (Outcome.LOST, "the worker was killed by signal 9 (SIGKILL)")
        assert [over[2:] for over in bench.over] == [lost] * 3

    assert [(row.attempts, row.losses) for row in run(main).records] == [(4, 3)]


def test_a_drain_waits_for_attempts_that_are_to_come(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        limits = evolve(LIMITS, single_use=True, retries=Retries(max_retries=1, backoff_milli=1000))
        failed = asyncio.Event()
        bench.dispatcher._ears = evolve(bench.dispatcher._ears, on_attempt_over=lambda *_: failed.set())
        bench.submit(1, "succeeds_at", str(tmp_path / "count"), 2, limits=limits)
        await failed.wait()
        await bench.dispatcher.drain()
        assert await bench.result(1) == 2

    run(main)


def test_terminating_an_input_kills_its_worker(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        os.mkfifo(tmp_path / "started")
        os.mkfifo(tmp_path / "go")
        number = bench.submit(1, "waits", str(tmp_path / "started"), str(tmp_path / "go"))
        await asyncio.to_thread((tmp_path / "started").read_bytes)
        (task,) = bench.dispatcher.pools["app waits"].tasks.values()
        bench.dispatcher.cancel(number, force=True, terminate=True)
        await asyncio.wait([task])
        assert (await bench.answer(1)).outcome == Outcome.CANCELLED

    run(main)


def test_an_input_that_another_one_waits_for_gets_a_worker(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        os.mkfifo(tmp_path / "started")
        os.mkfifo(tmp_path / "go")
        pool = bench.pool("waits", PoolLimits(max_workers=1, elastic=True))
        parent = bench.submit_to(pool, 1, str(tmp_path / "started"), str(tmp_path / "go"))
        await asyncio.to_thread((tmp_path / "started").read_bytes)
        bench.submit_to(pool, 2, os.devnull, os.devnull, parent=parent.number)
        await bench.result(2)
        assert 1 not in bench.answers and pool.counts().workers == 2
        bench.dispatcher.waits(parent.number, 1)  # as its code asks for the result of a spawned call
        bench.submit_to(pool, 3, os.devnull, os.devnull)
        await bench.result(3)
        await asyncio.to_thread((tmp_path / "go").write_bytes, b"")
        assert await bench.result(1) != await bench.result(2)

    run(main)


# --- batches ------------------------------------------------------------------------------------------


def test_inputs_that_are_batched_are_answered_each(run: Run) -> None:
    async def main(bench: Bench) -> None:
        pool = bench.pool("doubles", PoolLimits(max_workers=1, batch=3, linger=60.0), batched=True)
        for ident in (1, 2, 3):
            bench.submit_to(pool, ident, ident)
        assert [await bench.result(ident) for ident in (1, 2, 3)] == [2, 4, 6]

    run(main)


def test_what_of_a_batch_is_cancelled_before_it_was_written_down_is_not_sent(run: Run) -> None:
    async def main(bench: Bench) -> None:
        ledger = hold_attempts(bench)
        pool = bench.pool("doubles", PoolLimits(max_workers=1, batch=3, linger=60.0), batched=True)
        given = [bench.submit_to(pool, ident, ident, durable=True) for ident in (1, 2, 3)]
        await ledger.heard(3)
        bench.dispatcher.cancel(given[1].number, force=True)
        assert await bench.reason(2) == (Outcome.CANCELLED, "cancelled while it ran")
        ledger.go()
        assert [await bench.result(ident) for ident in (1, 3)] == [2, 6]

    run(main)


# --- durable inputs -----------------------------------------------------------------------------------


class Ledger:
    """Writes attempts down when the test says so."""

    def __init__(self) -> None:
        self.attempts: list[tuple[int, int, str]] = []
        self.goes: list[Callable[[], None]] = []
        self.changed = asyncio.Event()

    def on_attempt(self, given: Input, go: Callable[[], None]) -> None:
        self.attempts.append((given.ident, given.attempts, given.worker_name))
        self.goes.append(go)
        self.changed.set()

    async def heard(self, count: int) -> None:
        while len(self.attempts) < count:
            self.changed.clear()
            await self.changed.wait()

    def go(self) -> None:
        for go in self.goes:
            go()
            go()  # a second time does nothing


def hold_attempts(bench: Bench) -> Ledger:
    ledger = Ledger()
    bench.dispatcher._ears = evolve(bench.dispatcher._ears, on_attempt=ledger.on_attempt)
    return ledger


def test_an_attempt_begins_when_it_is_written_down(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        ledger = hold_attempts(bench)
        path = tmp_path / "count"
        bench.submit_to(bench.pool("succeeds_at", LIMITS), 1, str(path), 2, durable=True)
        await ledger.heard(1)
        assert not path.exists()
        ledger.go()
        await ledger.heard(2)
        assert path.read_text() == "x"
        ledger.go()
        assert await bench.result(1) == 2
        assert [attempt[:2] for attempt in ledger.attempts] == [(1, 1), (1, 2)]
        assert all(name.startswith("w") for _, _, name in ledger.attempts)

    assert run(main).records == [], "the ledger has it"


def test_a_durable_input_counts_the_attempts_of_an_engine_before(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        pool = bench.pool("succeeds_at", LIMITS)
        bench.submit_to(pool, 1, str(tmp_path / "count"), 9, durable=True, attempts=7, losses=2)
        assert (await bench.answer(1)).outcome == Outcome.RAISED

    run(main)
    assert (tmp_path / "count").read_text() == "x", "that was its sixth failure"


@pytest.mark.parametrize("force", [False, True])
def test_one_that_is_cancelled_before_it_was_written_down_never_begins(run: Run, tmp_path: Path, force: bool) -> None:
    async def main(bench: Bench) -> None:
        ledger = hold_attempts(bench)
        path = tmp_path / "count"
        pool = bench.pool("succeeds_at", LIMITS)
        given = bench.submit_to(pool, 1, str(path), 1, durable=True)
        await ledger.heard(1)
        bench.dispatcher.cancel(given.number, force=True, terminate=force)
        assert (await bench.answer(1)).outcome == Outcome.CANCELLED
        ledger.go()
        bench.submit_to(pool, 2, str(path), 1)
        assert await bench.result(2) == 1

    run(main)


def test_what_its_worker_never_got_goes_to_the_next_as_the_same_attempt(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        ledger = hold_attempts(bench)
        pool = bench.pool("succeeds_at", LIMITS)
        bench.submit_to(pool, 1, str(tmp_path / "count"), 1, durable=True)
        await ledger.heard(1)
        (worker,) = pool.tasks
        await bench.dispatcher.end_worker(pool, worker, "it was told to end", graceful=False)
        await ledger.heard(2)
        ledger.go()
        assert await bench.result(1) == 1
        assert [attempt[:2] for attempt in ledger.attempts] == [(1, 1), (1, 1)]
        assert ledger.attempts[0][2] != ledger.attempts[1][2]

    run(main)


# --- workers that come to nothing ---------------------------------------------------------------------

COMES_UP_LATER = """
import pathlib
place = pathlib.Path(__file__).parent / "ready"
if not place.exists():
    raise RuntimeError("the model is not there")

def add(x):
    return x + 1
"""


def test_a_deployed_function_waits_for_workers_that_come_up_and_says_what_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "FIRST_BACKOFF", 0.01)

    async def main(bench: Bench) -> None:
        pool = bench.pool("add", PoolLimits(max_workers=1, give_up_after=None))
        bench.submit_to(pool, 1, 1)
        for _ in range(2):
            (task,) = pool.tasks.values()
            await asyncio.wait([task])
            assert pool.trouble is not None and "the model is not there" in pool.trouble.reason
            pool.stirred.clear()
            await pool.stirred.wait()
        (bench.root / "root" / "ready").touch()
        assert await bench.result(1) == 2
        assert pool.trouble is None

    runner(tmp_path, COMES_UP_LATER)(main)


def test_an_ephemeral_function_that_can_not_be_imported_fails_what_waits(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "add", 1, limits=PoolLimits(max_workers=1, give_up_after=1, retries=FIVE_TIMES))
        assert (await bench.answer(1)).outcome == Outcome.RAISED

    assert [row.attempts for row in runner(tmp_path, COMES_UP_LATER)(main).records] == [0]


def test_workers_that_die_idle_again_and_again_are_a_trouble(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        pool = bench.pool("doubles", PoolLimits(max_workers=1, min_workers=1))
        for _ in range(3):
            while not pool.workers:
                pool.stirred.clear()
                await pool.stirred.wait()
            ((number, task),) = pool.tasks.items()
            process = pool.workers[number]._process
            assert process is not None
            process.signal(9)
            await asyncio.wait([task])
        assert pool.trouble is not None
        assert "end before they answer anything: the worker was killed by signal 9" in pool.trouble.reason
        bench.submit_to(pool, 1, [1])
        assert await bench.result(1) == [2]
        assert pool.trouble is None

    run(main)


def test_results_of_an_attempt_that_is_over_are_not_heard(run: Run, tmp_path: Path) -> None:
    """The function answers after its time is over, before its worker is killed."""

    async def main(bench: Bench) -> None:
        bench.submit(1, "stubborn", str(tmp_path / "count"), limits=evolve(LIMITS, timeout=0.3))
        assert await bench.result(1) == 2

    code = """
import os, time

def stubborn(path):
    with open(path, "a") as file:
        file.write("x")
    number = os.stat(path).st_size
    if number == 1:
        try:
            time.sleep(60)
        except BaseException:
            pass
    return number
"""
    (tmp_path / "second").mkdir()
    runner(tmp_path / "second", code)(main)
