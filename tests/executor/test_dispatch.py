"""The dispatcher with real worker processes: answers, records, counts, draining and closing, descriptors."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from dispatch_rig import Bench, Run, runner
from small_engine import input_of, pool_spec

from slipway.compiler.nodes import FunctionSpec
from slipway.dsl.declaration import Autoscaling, Batching, Concurrency, Resources
from slipway.executor.pool import Counts, limits_of
from slipway.executor.ports import ContainerSpec, Prepared
from slipway.executor.runtime import gpus
from slipway.executor.scaling import PoolLimits
from slipway.executor.worker import failure, payload
from slipway.executor.worker.credit import MOST_ITEMS
from slipway.executor.worker.frames import Flag, Frame, Kind, Outcome
from slipway.executor.worker.host import MOST_STRANGERS
from slipway.executor.worker.wire import NO_FD

CODE = """
import os, time

def add(x, y=1):
    return x + y

def size(data):
    return len(data)

def fails():
    raise ValueError("bad")

def knocks(run, number, kept):
    import glob, socket
    (path,) = glob.glob(run + "/*/engine.sock")
    strangers = [socket.socket(socket.AF_UNIX) for _ in range(number)]
    for stranger in strangers:
        stranger.connect(path)
    return [stranger.recv(1) for stranger in strangers[kept:]]

def floods(number):
    import socket
    from slipway.dsl.context import input_id
    from slipway.executor.worker.frames import Flag, Frame, Kind, pack
    for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            link = socket.socket(fileno=fd)
        except OSError:
            continue
        if link.family == socket.AF_UNIX:
            break
    link.setblocking(True)
    ident = int(input_id.get()[3:], 16)
    for index in range(number):
        link.sendall(pack(Frame(Kind.RESULT, ident, b"x" * 100, index, int(Flag.MORE))))

def waits(started, go_on):
    open(started, "w").close()
    open(go_on).close()
    return os.getpid()
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return runner(tmp_path, CODE)


def test_answers_and_records(run: Run) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "add", 1)
        bench.submit(2, "add", 2)
        bench.submit(3, "fails")
        assert [await bench.result(ident) for ident in (1, 2)] == [2, 3]
        raised = await bench.answer(3)
        assert failure.summary(bytes(raised.payload)) == "ValueError: bad"
        pool = bench.dispatcher.pools["app add"]
        assert pool.counts() == Counts(queued=0, running=0, workers=1, headroom=1, done=2, failed=0)
        assert bench.dispatcher.busy == 0

    engine = run(main)
    rows = {(row.function, row.outcome) for row in engine.records}
    assert rows == {("add", Outcome.RETURNED), ("fails", Outcome.RAISED)} and len(engine.records) == 3
    for row in engine.records:
        assert row.started_ms is not None and row.finished_ms is not None
        assert row.submitted_ms <= row.started_ms <= row.finished_ms
        assert row.call == row.number and row.worker.startswith("w")
    assert len({row.number for row in engine.records}) == 3


def test_big_payloads_pass_by_descriptor_and_none_is_left(run: Run) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "size", b"x")
        await bench.result(1)
        before = len(os.listdir("/proc/self/fd"))
        bench.submit(2, "size", bytes(3_000_000))
        assert await bench.result(2) == 3_000_000
        assert len(os.listdir("/proc/self/fd")) == before

    run(main)


def test_a_worker_that_connects_without_end_and_says_nothing_is_not_let_in(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "knocks", str(tmp_path / "run"), MOST_STRANGERS + 20, MOST_STRANGERS)
        assert await bench.result(1) == [b""] * 20

    run(main)


def test_a_worker_that_sends_items_without_end_is_ended(run: Run) -> None:
    async def main(bench: Bench) -> None:
        items = 0

        def send(frame: Frame, fd: int) -> None:
            nonlocal items
            if frame.flags & Flag.MORE:
                items += 1
            else:
                bench.send(frame, fd)

        pool = bench.dispatcher.open_pool(pool_spec(bench.root, "floods", PoolLimits(max_workers=1)))
        packed = payload.dump(((1_000_000,), {})).bytes()
        bench.dispatcher.submit(input_of(bench.dispatcher, pool, Frame(Kind.CALL, 1, packed), NO_FD, send))
        answer = await bench.answer(1)
        assert (answer.outcome, bytes(answer.payload)) == (
            Outcome.LOST,
            b"the worker sent more items than were asked for",
        )
        assert items == MOST_ITEMS

    run(main)


def test_draining_waits_for_what_is_there(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")

    async def main(bench: Bench) -> None:
        os.mkfifo(tmp_path / "started")
        bench.submit(1, "waits", str(tmp_path / "started"), str(tmp_path / "go"))
        await asyncio.to_thread((tmp_path / "started").read_bytes)
        draining = asyncio.create_task(bench.dispatcher.drain())
        for _ in range(2):  # it begins, and so does what it waits for
            await asyncio.sleep(0)
        assert 1 not in bench.answers and not draining.done()
        (pool,) = bench.dispatcher.all_pools()
        assert len(pool.tasks) == 1 and not bench.dispatcher.pools
        again = asyncio.create_task(bench.dispatcher.drain())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not again.done()
        await asyncio.to_thread((tmp_path / "go").write_bytes, b"")
        await asyncio.gather(draining, again)
        assert bench.dispatcher.all_pools() == ()
        pid = await bench.result(1)
        assert str(pid) not in os.listdir("/proc")
        assert list((bench.engine.home / "run").iterdir()) == []

    run(main)


def test_closing_ends_what_is_being_drained_too(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        os.mkfifo(tmp_path / "started")
        os.mkfifo(tmp_path / "go")
        bench.submit(1, "waits", str(tmp_path / "started"), str(tmp_path / "go"))
        await asyncio.to_thread((tmp_path / "started").read_bytes)
        draining = asyncio.create_task(bench.dispatcher.drain_pool("app waits"))
        await asyncio.sleep(0)  # it has begun
        draining.cancel()  # as whoever deployed gives up when the engine ends
        await bench.dispatcher.close()
        assert (await bench.answer(1)).outcome == Outcome.CANCELLED
        assert bench.dispatcher.all_pools() == ()

    assert [row.outcome for row in run(main).records] == [Outcome.CANCELLED]


def test_closing_ends_calls_and_workers_at_once(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        os.mkfifo(tmp_path / "started")
        os.mkfifo(tmp_path / "go")
        bench.submit(1, "waits", str(tmp_path / "started"), str(tmp_path / "go"))
        bench.submit(2, "waits", "", "")
        await asyncio.to_thread((tmp_path / "started").read_bytes)
        await bench.dispatcher.close_pool("app waits", "the app has ended")
        for ident in (1, 2):
            frame = await bench.answer(ident)
            assert frame.outcome == Outcome.CANCELLED and bytes(frame.payload) == b"the app has ended"
        assert list((bench.engine.home / "run").iterdir()) == []

    run(main)


def test_what_a_worker_runs_that_is_ended_is_run_again(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        os.mkfifo(tmp_path / "started")
        os.mkfifo(tmp_path / "go")
        bench.submit(1, "waits", str(tmp_path / "started"), str(tmp_path / "go"))
        bench.submit(2, "waits", os.devnull, os.devnull)
        await asyncio.to_thread((tmp_path / "started").read_bytes)
        pool = bench.dispatcher.pools["app waits"]
        (number,) = pool.tasks
        await bench.dispatcher.end_worker(pool, number, "it was told to end", graceful=False)
        await asyncio.to_thread((tmp_path / "started").read_bytes)
        await asyncio.to_thread((tmp_path / "go").write_bytes, b"")
        assert await bench.result(1) == await bench.result(2)
        assert bench.over == [(1, 1, Outcome.LOST, "it was told to end")]

    assert [(row.attempts, row.losses) for row in run(main).records] == [(2, 1), (1, 0)]


def test_a_worker_that_is_ended_gracefully_answers_first(run: Run, tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        os.mkfifo(tmp_path / "started")
        os.mkfifo(tmp_path / "go")
        bench.submit(1, "waits", str(tmp_path / "started"), str(tmp_path / "go"))
        await asyncio.to_thread((tmp_path / "started").read_bytes)
        pool = bench.dispatcher.pools["app waits"]
        (number,) = pool.tasks
        ending = bench.dispatcher.end_worker(pool, number, "it was told to end", graceful=True)
        bench.submit(2, "waits", os.devnull, os.devnull)
        assert not ending.done() and 1 not in bench.answers
        await asyncio.to_thread((tmp_path / "go").write_bytes, b"")
        await ending
        assert await bench.result(1) != await bench.result(2), "another worker took the second call"

    run(main)


def test_closing_while_a_worker_starts_leaves_nothing(run: Run) -> None:
    async def main(bench: Bench) -> None:
        bench.submit(1, "add", 1)
        await asyncio.sleep(0)
        await bench.dispatcher.close()
        assert (await bench.answer(1)).outcome == Outcome.CANCELLED
        assert list((bench.engine.home / "run").iterdir()) == []

    run(main)


def test_an_idle_worker_goes_by_itself_and_the_next_call_starts_another(run: Run) -> None:
    async def main(bench: Bench) -> None:
        limits = PoolLimits(max_workers=1, idle=0.05)
        bench.submit(1, "add", 1, limits=limits)
        await bench.result(1)
        pool = bench.dispatcher.pools["app add"]
        await asyncio.wait(tuple(pool.tasks.values()))
        assert pool.counts().workers == 0
        bench.submit(2, "add", 2, limits=limits)
        assert await bench.result(2) == 3

    run(main)


def test_a_waiting_call_is_cancelled_and_a_finished_one_let_be(run: Run) -> None:
    async def main(bench: Bench) -> None:
        number = bench.submit(1, "add", 1)
        bench.dispatcher.cancel(number)
        assert (await bench.answer(1)).outcome == Outcome.CANCELLED
        bench.dispatcher.cancel(number, force=True)
        bench.submit(2, "add", 2)
        assert await bench.result(2) == 3

    run(main)


def test_the_limits_of_a_function() -> None:
    def limits(**more: Any) -> PoolLimits:
        spec = FunctionSpec(name="f", module="app", qualname="f", **more)
        return limits_of(spec, cores=8, ephemeral=False)

    assert limits().max_workers == 8
    assert limits(resources=Resources(cpu_milli=2000)).max_workers == 4
    assert limits(resources=Resources(cpu_milli=64_000)).max_workers == 1
    assert limits(resources=Resources(cpu_milli=500)).max_workers == 16
    assert limits(autoscaling=Autoscaling(max_containers=3, min_containers=2)).min_workers == 2
    assert limits(autoscaling=Autoscaling(max_containers=100)).max_workers == 100
    assert limits(timeout_ms=1500).timeout == 1.5
    assert limits(concurrency=Concurrency(max_inputs=4)).slots == 4
    single = Autoscaling(single_use_containers=True)
    assert limits(concurrency=Concurrency(max_inputs=4), autoscaling=single).slots == 1
    assert limits(batching=Batching(max_batch_size=3, wait_ms=50)).linger == 0.05
    assert limits().elastic and not limits(autoscaling=Autoscaling(max_containers=8)).elastic
    assert limits().give_up_after is None
    assert limits_of(FunctionSpec(name="f", module="m", qualname="f"), cores=1, ephemeral=True).give_up_after == 1


def test_a_worker_that_is_given_up_before_its_first_step_is_gone_too(run: Run) -> None:
    async def main(bench: Bench) -> None:
        limits = PoolLimits(max_workers=1, min_workers=1)
        pool = bench.dispatcher.open_pool(pool_spec(bench.root, "add", limits))
        await bench.dispatcher.close_pool("app add", "no more")  # it would wait for ever for a worker that never began
        assert not pool.tasks

    run(main)


def test_a_fault_of_ours_in_a_start_fails_the_calls_and_starts_no_workers_without_end(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(bench: Bench) -> None:
        starts = []

        async def broken(spec: ContainerSpec) -> Prepared:
            starts.append(spec)
            raise AttributeError("nobody foresaw this")

        bench.engine.runtime.prepare = broken  # type: ignore[method-assign]
        bench.submit(1, "add", 1, limits=PoolLimits(max_workers=1, give_up_after=1))
        lost = await bench.answer(1)
        assert lost.outcome == Outcome.LOST
        assert b"nobody foresaw this" in bytes(lost.payload)
        assert len(starts) == 1

    run(main)
    assert "nobody foresaw this" in caplog.text


def test_workers_get_gpus_by_model_and_give_them_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    there = gpus.Found(gpus=(gpus.Gpu(uuid="GPU-1", name="Tesla T4", memory_mib=16384),))
    monkeypatch.setattr(gpus, "find", lambda: there)

    async def main(bench: Bench) -> None:
        spec = pool_spec(bench.root, "add", PoolLimits(max_workers=1, give_up_after=1))
        for wanted, outcome in (("T4", Outcome.RETURNED), ("H100", Outcome.LOST), ("T4", Outcome.RETURNED)):
            pool = bench.dispatcher.open_pool(evolve(spec, key=wanted, worker=evolve(spec.worker, gpus=(wanted,))))
            bench.answers.clear()
            call = Frame(Kind.CALL, 1, payload.dump(((1,), {})).bytes())
            bench.dispatcher.submit(input_of(bench.dispatcher, pool, call, NO_FD, bench.send))
            answer = await bench.answer(1)
            assert answer.outcome == outcome
            await bench.dispatcher.close_pool(wanted, "over")
            if outcome == Outcome.LOST:
                assert b"gpu=H100 is wanted, and this machine has no such GPUs: Tesla T4" in bytes(answer.payload)

    engine = run(main)
    assert [container.spec.gpus for container in engine.runtime.containers] == [("GPU-1",), ("GPU-1",)]
