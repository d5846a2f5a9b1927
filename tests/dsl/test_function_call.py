"""Handles to spawned calls, and to what bounds a function's workers."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import cloudpickle
import pytest

import slipway
from slipway.dsl.autoscaler import AutoscalerSettings, FunctionStats
from slipway.dsl.errors import AsyncUsageWarning, DeprecationError, InvalidError
from slipway.dsl.function_call import FunctionCall, InputStatus

from .conftest import LocalRunner

app = slipway.App("stored")


@app.function()
def add(x: int, y: int = 0) -> int:
    return x + y


# --- function calls -----------------------------------------------------------------------------------


def test_an_id_is_all_that_a_call_is(runner: LocalRunner) -> None:
    runner.session_.spawned["fc-1"] = [5]
    call: FunctionCall[int] = slipway.FunctionCall.from_id("fc-1")
    assert runner.session_.requests == []  # nothing was asked
    assert (call.object_id, repr(call), repr(call.get)) == ("fc-1", "<FunctionCall fc-1>", "<fc-1.get>")
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dumps(call)) == call
    assert cloudpickle.loads(cloudpickle.dumps(lambda: call))().get() == 5
    assert len({call, slipway.FunctionCall.from_id("fc-1"), slipway.FunctionCall.from_id("fc-2")}) == 2
    assert call != "fc-1"


@pytest.mark.parametrize("wrong", ["", "fc-", "in-1", "fc-XYZ", "fc-1/../2", 7])
def test_what_is_no_id(wrong: Any) -> None:
    with pytest.raises(InvalidError, match=r"test_function_call.py:\d+: .*function call"):
        slipway.FunctionCall.from_id(wrong)


def test_getting(runner: LocalRunner) -> None:
    runner.session_.spawned["fc-1"] = [1, ValueError("no")]
    call: FunctionCall[int] = slipway.FunctionCall.from_id("fc-1")
    assert [call.get(), call.get(timeout=0), call.get(2.5, index=0)] == [1, 1, 1]
    assert runner.session_.waited == [None, 0, 2.5]
    with pytest.raises(ValueError, match="no"):
        call.get(index=1)
    for timeout in (-1, float("nan")):
        with pytest.raises(InvalidError, match="it takes seconds, or None"):
            call.get(timeout)
    for start, end in ((-1, None), (0, -2)):
        with pytest.raises(InvalidError, match="it takes a whole number from 0 on"):
            call.iter(start, end)
    with pytest.raises(InvalidError, match="index=-1: it takes a whole number from 0 on"):
        call.get(index=-1)


def test_a_call_blocks_no_loop_without_saying_so(runner: LocalRunner) -> None:
    runner.session_.spawned["fc-1"] = [1]
    call: FunctionCall[int] = slipway.FunctionCall.from_id("fc-1")

    async def main() -> None:
        for blocking in (call.get, call.iter, call.num_inputs, lambda: slipway.FunctionCall.gather(call)):
            with pytest.warns(AsyncUsageWarning, match=r"use .*\.aio"):
                blocking()
        assert [item async for item in call.iter.aio()] == [await call.get.aio()] == [1]
        assert await slipway.FunctionCall.gather.aio(call, call) == [1, 1]

    asyncio.run(main())


def test_the_graph_of_a_call(runner: LocalRunner) -> None:
    common = {"app": "stored", "call": "fc-1", "parent": "", "worker": "w1", "started_ms": 5}
    runner.session_.replies["call.graph"] = {
        "inputs": [
            {**common, "input": "in-1", "function": "add", "method": "", "state": "running"},
            {**common, "input": "in-2", "function": "Model", "method": "embed", "state": "timed_out", "parent": "in-1"},
            {**common, "input": "in-3", "function": "add", "state": "cancelled", "parent": "in-2", "worker": None},
            {**common, "input": "in-4", "function": "add", "state": "lost", "parent": "in-2"},
            {**common, "input": "in-5", "function": "add", "state": "raised", "parent": "in-2", "started_ms": None},
        ]
    }
    (top,) = slipway.FunctionCall.from_id("fc-1").get_call_graph()
    (below,) = top.children
    assert (top.input_id, top.task_id, top.status, top.module_name) == ("in-1", "w1", InputStatus.PENDING, "stored")
    assert (below.function_name, below.status) == ("Model.embed", InputStatus.TIMEOUT)
    assert [child.status.name for child in below.children] == ["TERMINATED", "FAILURE", "INIT_FAILURE"]
    assert below.children[0].task_id == ""


def test_cancelling_and_looking_up(runner: LocalRunner) -> None:
    runner.session_.replies |= {"call.cancel": {"queued": 0, "running": 1}, "call.show": {"call": {}}}
    call: FunctionCall[int] = slipway.FunctionCall.from_id("fc-1")
    call.cancel()
    call.cancel(terminate_containers=True)
    assert call.hydrate() is call
    assert runner.session_.requests == [
        ("call.cancel", {"call": "fc-1", "terminate": False}),
        ("call.cancel", {"call": "fc-1", "terminate": True}),
        ("call.show", {"call": "fc-1", "limit": 1}),
    ]
    with pytest.raises(InvalidError, match=r"FunctionCall\.logs is not in this release"):
        slipway.FunctionCall.logs()


# --- workers ------------------------------------------------------------------------------------------


def test_looking_at_workers(runner: LocalRunner) -> None:
    runner.session_.replies["function.stats"] = {"queued": 1, "running": 2, "workers": 3, "headroom": 4, "done": 5}
    query = slipway.Function.from_name("search", "query")
    stats = FunctionStats(backlog=1, num_total_runners=3, num_running_inputs=2, input_headroom=4)
    assert query.get_current_stats() == asyncio.run(query.get_current_stats.aio()) == stats
    assert query.hydrate() is query and runner.session_.asked[-1].name == "query"


def test_bounding_workers(runner: LocalRunner) -> None:
    said = {"min_containers": 1, "max_containers": None, "buffer_containers": 0, "scaledown_window": 60.0}
    runner.session_.replies |= {"function.scaling": said, "function.scale": said}
    query = slipway.Function.from_name("search", "query")
    assert query.autoscaler.settings() == AutoscalerSettings(**said)  # type: ignore[arg-type]
    query.autoscaler.update(min_containers=2, scaledown_window=2.5)
    with pytest.warns(DeprecationError, match=r"query.update_autoscaler.* is called query.autoscaler.update"):
        query.update_autoscaler(max_containers=4, buffer_containers=0)
    assert [params for method, params in runner.session_.requests if method == "function.scale"] == [
        {"min_containers": 2, "scaledown_window": 3},
        {"max_containers": 4, "buffer_containers": 0},
    ]

    async def main() -> None:
        assert (await query.autoscaler.settings.aio()).min_containers == 1
        await query.autoscaler.update.aio(max_containers=1)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_containers": -1}, "min_containers=-1: it takes a whole number from 0 on"),
        ({"max_containers": 0}, "max_containers=0: it takes a whole number from 1 on"),
        ({"min_containers": 3, "max_containers": 2}, "min_containers=3 is above max_containers=2"),
        ({"scaledown_window": 1}, "scaledown_window=1: it takes seconds, from 2 to 3600"),
    ],
)
def test_bounds_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        slipway.Function.from_name("search", "query").autoscaler.update(**settings)


def test_a_method_has_no_workers_of_its_own() -> None:
    embed = slipway.Function.from_id("fu-search/Model.embed")
    with pytest.raises(InvalidError, match=r"Model.embed is a method, and the workers of Model serve all"):
        embed.autoscaler.update(min_containers=1)
