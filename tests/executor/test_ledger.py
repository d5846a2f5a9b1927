"""Durable inputs: on disk before anybody hears of them, run until they have one outcome, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ledger_rig import CRASHED, KEY, KILLED, TIMEOUT, Rig

from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.executor import feeder, ledger
from slipway.executor.feeder import QueueKey
from slipway.executor.intake import Fresh
from slipway.executor.ports import Exit
from slipway.executor.store.payloads import IN_ROW
from slipway.executor.waits import FINISHED
from slipway.executor.worker.frames import Flag, Frame, Kind, Outcome
from slipway.executor.worker.wire import NO_FD


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(tmp_path, monkeypatch)
    yield rig
    rig.run(rig.close())
    rig.loop.close()


def outcome(rig: Rig, number: int) -> tuple[int | None, int]:
    rig.run(rig.settle())
    return rig.row(number)


def test_an_input_is_accepted_run_and_ended(rig: Rig) -> None:
    number = rig.spawn(b"args")
    rig.run(rig.settle())
    assert rig.accepted == [number] and rig.ledger.open == 1
    (worker,) = rig.busy
    assert worker.payloads[number] == b"args" and worker.held[0].call == number
    rig.do(lambda: worker.answer(Outcome.RETURNED, b"result"))
    assert outcome(rig, number) == (Outcome.RETURNED, 1) and rig.ledger.open == 0
    found = rig.run(rig.state.call_reads.result(number, 0))
    assert found is not None and found.result == b"result"


@pytest.mark.parametrize("size", [IN_ROW, IN_ROW + 1, 1 << 20])
def test_payloads_and_results_of_any_size(rig: Rig, size: int) -> None:
    big = os.urandom(size)
    number = rig.spawn(big)
    rig.run(rig.settle())
    wait_until(rig, lambda: bool(rig.busy))
    (worker,) = rig.busy
    assert worker.payloads[number] == big
    rig.do(lambda: worker.answer(Outcome.RETURNED, big))
    wait_until(rig, lambda: not rig.ledger.open)
    found = rig.run(rig.state.call_reads.result(number, 0))
    assert found is not None
    assert (found.result if size <= IN_ROW else rig.ledger.files.read(number, "out", size)) == big
    rig.run(rig.close_tasks())
    assert {kind for _, kind in rig.ledger.files.all()} == ({"out"} if size > IN_ROW else set())


def test_descriptors_are_copied_in_both_directions(rig: Rig) -> None:
    def memfd(data: bytes) -> int:
        fd = os.memfd_create("payload")
        os.write(fd, data)
        return fd

    number = rig.spawn(b"", fd=memfd(b"argument" * 1000), length=8000)
    wait_until(rig, lambda: bool(rig.busy))
    (worker,) = rig.busy
    assert worker.payloads[number] == b"argument" * 1000
    rig.do(lambda: worker.answer(Outcome.RETURNED, b"", memfd(b"result"), 6))
    wait_until(rig, lambda: not rig.ledger.open)
    assert rig.ledger.files.read(number, "out", 6) == b"result"


def test_a_result_that_can_t_be_read_is_lost_and_holds_up_no_other(rig: Rig, tmp_path: Path) -> None:
    first, second = rig.spawn(), rig.spawn()
    rig.run(rig.settle())
    bad, good = sorted(rig.busy, key=lambda worker: worker.held[0].id)
    folder = os.open(tmp_path, os.O_RDONLY)
    rig.do(lambda: bad.answer(Outcome.RETURNED, b"", folder, 100))
    rig.do(lambda: good.answer(Outcome.RETURNED, bytes(IN_ROW + 1)))
    wait_until(rig, lambda: not rig.ledger.open)
    assert rig.row(first) == (Outcome.LOST, 1) and rig.row(second) == (Outcome.RETURNED, 1)
    (found,) = rig.run(rig.state.call_reads.inputs(first, limit=1))
    assert found.reason == "its result was lost: the payload can't be read: Invalid argument"


def test_an_error_that_can_t_be_read_is_an_outcome_all_the_same(rig: Rig, tmp_path: Path) -> None:
    entry = Frame(Kind.RESULT, 1, flags=int(Flag.FD), outcome=Outcome.RAISED, fd_length=100)
    folder = os.open(tmp_path, os.O_RDONLY)
    assert ledger._summary(entry, folder, ()) == ledger._summary(Frame(Kind.RESULT, 1, b"?"), NO_FD, ()) == ""
    os.close(folder)


def test_what_is_on_record_of_an_error_holds_no_secret(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = rig.spec()
    monkeypatch.setattr(rig, "spec", lambda: evolve(spec, worker=evolve(spec.worker, secrets=("ValueError: bad",))))
    number = rig.spawn()
    rig.run(rig.settle())
    for _ in range(2):  # its policy allows for one more
        rig.do(lambda: rig.busy[0].answer(Outcome.RAISED))
        rig.run(rig.advance(1.5))
    (found,) = rig.run(rig.state.call_reads.inputs(number, limit=1))
    (first,) = rig.run(rig.state.call_reads.attempts([number]))
    assert (found.reason, first.reason) == ("***", "***")


def test_a_result_without_room_waits_for_it_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    large = 1 << 20
    room = False
    reserve = os.posix_fallocate

    def full(fd: int, offset: int, length: int) -> None:
        if length == large and not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(fd, offset, length)

    first, second = rig.spawn(), rig.spawn()
    rig.run(rig.settle())
    monkeypatch.setattr("slipway.executor.journal.AGAIN", 0.0)
    monkeypatch.setattr("slipway.executor.store.payloads.os.posix_fallocate", full)
    one, other = sorted(rig.busy, key=lambda worker: worker.held[0].id)
    rig.do(lambda: one.answer(Outcome.RETURNED, bytes(large)))
    rig.do(lambda: other.answer(Outcome.RETURNED, bytes(IN_ROW + 1)))
    wait_until(rig, lambda: rig.ledger.open == 1)
    assert rig.row(first)[0] is None and rig.row(second) == (Outcome.RETURNED, 1)
    assert set(rig.ledger.files.all()) == {(second, "out")}
    room = True
    wait_until(rig, lambda: not rig.ledger.open)
    assert rig.row(first) == (Outcome.RETURNED, 1)


@pytest.mark.parametrize("size", [IN_ROW + 1, 1 << 20])
def test_an_input_whose_file_is_damaged_is_lost(rig: Rig, size: int) -> None:
    numbers = [rig.spawn(bytes(size)) for _ in range(3)]  # one more than there are workers
    wait_until(rig, lambda: len(rig.busy) == 2)
    os.truncate(rig.ledger.files.path(numbers[2], "in"), size - 1)
    rig.do(lambda: rig.busy[0].answer(Outcome.RETURNED))
    wait_until(rig, lambda: rig.row(numbers[2])[0] is not None)
    (found,) = rig.run(rig.state.call_reads.inputs(numbers[2], limit=1))
    assert (found.outcome, found.reason) == (Outcome.LOST, "its input can't be read: the file is damaged")


def wait_until(rig: Rig, is_so: Callable[[], bool]) -> None:
    """Run the loop until something has happened that a thread has a part in."""

    async def wait() -> None:
        while not is_so():
            await rig.settle()

    rig.run(asyncio.wait_for(wait(), 30))


def test_only_a_window_of_them_is_in_memory(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "WINDOW", 10)
    numbers = [rig.spawn() for _ in range(100)]
    rig.run(rig.settle())
    assert rig.ledger.open == 100 and 5 < len(rig.ledger._entries) <= 10
    assert rig.ledger.waiting(KEY) >= 90
    rig.run(rig.finish_all())
    assert [rig.executed[number] for number in numbers] == [1] * 100
    order = [number for number in rig.executed if number in numbers]
    assert order == numbers


def test_an_error_is_tried_again_by_the_policy_and_on_record(rig: Rig) -> None:
    number = rig.spawn()
    rig.run(rig.settle())
    rig.do(lambda: rig.busy[0].answer(Outcome.RAISED))
    rig.run(rig.settle())
    assert not rig.busy
    rig.run(rig.advance(1.5))
    rig.do(lambda: rig.busy[0].answer(Outcome.RAISED))
    assert outcome(rig, number) == (Outcome.RAISED, 2)
    (first,) = rig.run(rig.state.call_reads.attempts([number]))
    assert (first.attempt, first.outcome, first.reason) == (1, Outcome.RAISED, "ValueError: bad")


def test_a_crash_of_the_engine_is_a_loss_and_no_failure(rig: Rig) -> None:
    running, waiting = rig.spawn(), rig.spawn()
    third = rig.spawn()
    rig.run(rig.settle())
    assert len(rig.busy) == 2
    rig.run(rig.crash())
    rig.run(rig.open())
    assert rig.ledger.open == 3
    rig.run(rig.finish_all())
    assert [rig.row(number) for number in (running, waiting, third)] == [(0, 2), (0, 2), (0, 1)]
    left = rig.run(rig.state.call_reads.attempts([running, waiting, third]))
    assert {(row.input, row.outcome) for row in left} == {(running, Outcome.LOST), (waiting, Outcome.LOST)}


def test_an_input_that_every_engine_dies_of_is_lost_in_the_end(rig: Rig) -> None:
    number = rig.spawn()
    for _ in range(9):
        rig.run(rig.settle())
        assert rig.busy
        rig.run(rig.crash())
        rig.run(rig.open())
    assert outcome(rig, number)[0] == Outcome.LOST
    assert rig.executed[number] == 9


def test_what_is_not_deployed_any_more_is_cancelled_at_the_start(rig: Rig) -> None:
    number = rig.spawn()
    rig.run(rig.settle())
    rig.run(rig.crash())
    rig.deployed = False
    rig.run(rig.open())
    assert rig.row(number)[0] == Outcome.CANCELLED and rig.ledger.open == 0
    result = rig.run(rig.state.call_reads.result(number, 0))
    assert result is not None and result.reason == "shop is not deployed any more"


def test_a_call_is_cancelled_where_it_waits_and_where_it_runs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "WINDOW", 4)
    call = rig.dispatcher.numbers.next_input()
    numbers = [rig.spawn(call=call, index=index, sealed=False) for index in range(20)]
    other = rig.spawn()
    rig.run(rig.settle())
    rig.run(rig.ledger.seal(KEY, "{}", call, "", 0))
    heard = rig.do(lambda: rig.ledger.waits.join(call, FINISHED))
    assert rig.run(rig.ledger.cancel(call, terminate=False)) == (18, 2)
    rig.run(rig.settle())
    assert heard.done()
    assert {rig.row(number)[0] for number in numbers} == {int(Outcome.CANCELLED)}
    assert {row.reason for row in rig.run(rig.state.call_reads.inputs(call))} == {"the call was cancelled"}
    rig.run(rig.finish_all())
    assert rig.row(other) == (0, 1)
    assert rig.run(rig.ledger.cancel(call, terminate=False)) == (0, 0)


def test_what_failed_can_be_tried_again_by_hand(rig: Rig) -> None:
    call = rig.dispatcher.numbers.next_input()
    good, bad = (rig.spawn(call=call, index=index, sealed=False) for index in range(2))
    rig.run(rig.settle())
    with pytest.raises(InvalidError, match="is not over yet"):
        rig.run(rig.ledger.retry(call))
    rig.run(rig.ledger.seal(KEY, "{}", call, "", 0))
    for _ in range(2):
        for worker in rig.busy:
            result = Outcome.RETURNED if worker.held[0].id == good else Outcome.RAISED
            rig.do(partial(worker.answer, result))
        rig.run(rig.advance(1.5))
    assert outcome(rig, bad) == (Outcome.RAISED, 2)
    assert rig.run(rig.ledger.retry(call)) == 1
    rig.run(rig.finish_all())
    assert rig.row(bad) == (0, 3) and rig.row(good) == (0, 1)
    with pytest.raises(NotFoundError):
        rig.run(rig.ledger.retry(99))


def test_a_new_version_gets_what_waits(rig: Rig) -> None:
    numbers = [rig.spawn() for _ in range(5)]
    rig.run(rig.settle())
    old = rig.busy
    rig.version = 2
    rig.run(rig.ledger.refresh("shop"))
    rig.run(rig.settle())
    new = [worker for worker in rig.busy if worker not in old]
    assert len(old) == len(new) == 2
    assert {spec.spec.key for spec in rig.dispatcher.all_pools()} == {"shop f1", "shop f2"}
    rig.run(rig.finish_all())
    assert [rig.row(number) for number in numbers] == [(0, 1)] * 5


def test_an_app_that_ends_takes_what_waits_with_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "WINDOW", 4)
    numbers = [rig.spawn() for _ in range(9)]
    rig.run(rig.settle())
    rig.run(rig.ledger.end_run("shop", "shop was destroyed"))
    running = {worker.held[0].id for worker in rig.busy}
    late = rig.spawn()
    rig.run(rig.finish_all())
    assert {number for number in numbers if rig.row(number)[0] == 0} == running
    assert {rig.row(number)[0] for number in {late, *numbers} - running} == {int(Outcome.CANCELLED)}


def test_a_pause_leaves_what_has_not_begun_to_the_next_engine(rig: Rig) -> None:
    numbers = [rig.spawn() for _ in range(6)]
    rig.run(rig.settle())
    rig.ledger.pause()
    rig.run(rig.settle())
    for worker in rig.busy:
        rig.do(partial(worker.answer, Outcome.RETURNED))
    rig.run(rig.settle())
    assert not rig.busy and rig.ledger.open == 4
    rig.run(rig.close())
    rig.run(rig.open())
    rig.run(rig.finish_all())
    assert [rig.row(number) for number in numbers] == [(0, 1)] * 6


def test_the_end_of_an_engine_is_no_outcome(rig: Rig) -> None:
    number = rig.spawn()
    rig.run(rig.settle())
    rig.run(rig.close())
    assert rig.row(number) == (None, 1)
    rig.run(rig.open())
    rig.run(rig.finish_all())
    assert rig.row(number) == (0, 2)


def test_a_key_is_one_call(rig: Rig) -> None:
    answers: list[object] = []
    for number in (5, 6):
        rig.take(KEY, "{}", Fresh(number, b"", answers.append, key="daily 2026-11-23"))
    rig.run(rig.settle())
    assert answers == [5, 5] and rig.ledger.open == 1


def test_variants_have_queues_of_their_own_and_survive(rig: Rig) -> None:
    key = QueueKey(run="shop", app="shop", function="f", variant="v1")
    asked: list[str] = []
    find = rig.ledger._find

    async def finding(key: QueueKey, opening: str) -> object:
        asked.append(opening)
        return await find(key, opening)

    rig.ledger._find = finding  # type: ignore[assignment]
    rig.take(key, '{"options": {"cpu": 2}}', Fresh(5, b"", lambda _: None))
    rig.run(rig.settle())
    assert asked == ['{"options": {"cpu": 2}}']
    rig.run(rig.crash())
    raw = sqlite3.connect(rig.folder / "state.db").execute("SELECT opening FROM queues").fetchone()[0]
    assert b"cpu" not in raw
    rig.run(rig.open())
    rig.run(rig.finish_all())
    assert rig.row(5) == (0, 2)


def test_a_full_disk_refuses_what_comes_and_loses_nothing_that_happened(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slipway.dsl.errors import Error
    from slipway.executor import journal

    monkeypatch.setattr(journal, "AGAIN", 0.0)
    number = rig.spawn()
    rig.run(rig.settle())
    write, full = rig.ledger._writes.write, [True]

    async def failing(entries: object) -> object:
        if full:
            full.pop()
            raise Error("the disk is full")
        return await write(entries)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.ledger._journal._writes, "write", failing)
    refused: list[object] = []

    def both() -> None:
        rig.busy[0].answer(Outcome.RETURNED)
        rig.ledger.take(KEY, "{}", Fresh(7, b"", refused.append))

    rig.do(both)
    wait_until(rig, lambda: not rig.ledger.open)
    assert [str(error) for error in refused] == ["the disk is full"]
    assert rig.row(number) == (0, 1)


class Interleaving(RuleBasedStateMachine):
    """Whatever happens in whatever order: one outcome each, none lost, none run after its outcome was recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(feeder, "WINDOW", 6)
        self.folder = TemporaryDirectory(prefix="slipway-ledger-")
        self.rig = Rig(Path(self.folder.name), self.patch)
        self.calls: list[int] = []

    def do(self, *acts: Callable[[], object]) -> None:
        for act in acts:
            self.rig.do(act)
        self.rig.run(self.rig.settle())

    @rule(size=st.sampled_from([1, IN_ROW + 1]), count=st.integers(1, 4))
    def spawn(self, size: int, count: int) -> None:
        self.calls += [self.rig.spawn(b"p" * size) for _ in range(count)]
        self.do()

    @rule(count=st.integers(1, 9))
    def spawn_together(self, count: int) -> None:
        rig = self.rig
        call = rig.dispatcher.numbers.next_input()
        self.calls.append(call)
        for index in range(count):
            rig.spawn(call=call, index=index, sealed=False)
        rig.run(rig.ledger.seal(KEY, "{}", call, "", 0))

    # Threads have a part in what happens when, so what is drawn must not depend on it.

    @rule(which=st.integers(0, 1), outcome=st.sampled_from([Outcome.RETURNED, Outcome.RETURNED, Outcome.RAISED]))
    def answer(self, which: int, outcome: Outcome) -> None:
        for worker in self.rig.busy[which : which + 1]:
            self.do(partial(worker.answer, outcome))

    @rule(which=st.integers(0, 1), end=st.sampled_from([CRASHED, KILLED]))
    def die(self, which: int, end: Exit) -> None:
        for worker in self.rig.busy[which : which + 1]:
            self.do(partial(worker.die, end))

    @rule(which=st.integers(1, 6), terminate=st.booleans())
    def cancel(self, which: int, terminate: bool) -> None:
        for call in self.calls[-which:][:1]:
            self.rig.run(self.rig.ledger.cancel(call, terminate=terminate))
        self.do()

    @rule(seconds=st.sampled_from([0.1, 1.5, 3.0, TIMEOUT + 1]))
    def time_goes_by(self, seconds: float) -> None:
        self.rig.run(self.rig.advance(seconds))

    @rule()
    def deploy_anew(self) -> None:
        self.rig.version += 1
        self.rig.run(self.rig.ledger.refresh("shop"))
        self.do()

    @rule(settled=st.booleans(), count=st.integers(0, 3))
    def crash(self, settled: bool, count: int) -> None:
        """kill -9, also in the middle of what goes on."""
        for _ in range(count):
            self.rig.spawn()
        for worker in self.rig.busy[: 1 if settled else 2]:
            self.rig.do(partial(worker.answer, Outcome.RETURNED))
        self.rig.run(self.rig.crash())
        self.rig.run(self.rig.open())
        self.do()

    @rule()
    def restart(self) -> None:
        self.rig.run(self.rig.close())
        self.rig.workers.clear()
        self.rig.run(self.rig.open())
        self.do()

    @invariant()
    def no_more_is_in_memory_than_the_window(self) -> None:
        assert len(self.rig.ledger._entries) <= 6

    def teardown(self) -> None:
        rig = self.rig
        try:
            rig.run(rig.finish_all())
            for number in rig.accepted:
                ended, attempts = rig.row(number)
                assert ended is not None, "an input that was accepted has no outcome"
                assert rig.executed[number] <= attempts
            connection = sqlite3.connect(rig.folder / "state.db")
            (open_calls,) = connection.execute(
                "SELECT COUNT(*) FROM function_calls WHERE finished_ms IS NULL"
            ).fetchone()
            counted = "returned + raised + timed_out + cancelled + lost"
            (odd,) = connection.execute(f"SELECT COUNT(*) FROM function_calls WHERE inputs <> {counted}").fetchone()
            connection.close()
            assert (open_calls, odd) == (0, 0)
            rig.run(rig.close())
        finally:
            rig.loop.close()
            self.patch.undo()
            self.folder.cleanup()


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
