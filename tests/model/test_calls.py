"""Functions: how they are called, where they run, and what may be handed to them."""

from __future__ import annotations

import asyncio
import threading

import pytest
from model_home import ModelHome

import slipway
from slipway.dsl.errors import ExecutionError, InvalidError, NotFoundError

rule = pytest.mark.rule


@rule("1.0 both ways")
def test_every_call_blocks_and_has_a_twin_that_does_not(home: ModelHome) -> None:
    calls = home.app("calls")
    assert (calls.double.remote(2, plus=1), calls.triple.remote(2)) == (5, 6)

    async def twins() -> list[int]:
        return list(await asyncio.gather(calls.double.remote.aio(2), calls.triple.remote.aio(2)))

    assert asyncio.run(twins()) == [4, 6]


@rule("1.3 no direct call")
def test_a_function_is_not_called_directly(home: ModelHome) -> None:
    calls = home.app("calls")
    with pytest.raises(InvalidError, match=r"double\.remote\(\.\.\.\).*double\.local\(\.\.\.\)"):
        calls.double(2)
    assert calls.double.local(2) == 4
    assert asyncio.run(calls.triple.local(2)) == 6


@rule("1.3 lookup has no code")
def test_a_function_that_was_looked_up_has_no_code_here(home: ModelHome) -> None:
    with pytest.raises(ExecutionError, match="looked up by name"):
        home.function("calls", "double").local(2)


@rule("1.0 from_name")
def test_from_name_asks_nothing_and_what_is_missing_is_found_out_at_use(home: ModelHome) -> None:
    missing = [slipway.Function.from_name("nowhere", "f"), slipway.Function.from_name(home.deploy("calls"), "f")]
    for function in missing:
        with pytest.raises(NotFoundError):
            function.remote()
    with pytest.raises(NotFoundError):
        slipway.Cls.from_name("nowhere", "C")().method.remote()
    with pytest.raises(InvalidError, match=r"method"):
        slipway.Function.from_name("calls", "C.method")


PROGRAM = """
import pathlib, os
import slipway
handles = slipway.Function.from_name("a", "f"), slipway.Cls.from_name("a", "C"), slipway.FunctionCall.from_id("fc-1")
handles += slipway.Volume.from_name("v"), slipway.Secret.from_name("s")
print(len(handles), pathlib.Path(os.environ["SLIPWAY_HOME"]).exists())
"""


@rule("1.0 from_name")
def test_making_handles_starts_no_engine(home: ModelHome) -> None:
    folder = home.write({"program.py": PROGRAM})
    asking = f"import os, runpy; os.environ['SLIPWAY_HOME'] = {str(folder / 'none')!r}; runpy.run_path('program.py')"
    assert home.python(folder, "-c", asking).out == "5 False\n"


@rule("1.0 handles as arguments", "8.19")
def test_handles_are_arguments_and_results(home: ModelHome) -> None:
    calls = home.app("calls")
    assert calls.call.remote(calls.double, 4) == 8
    assert calls.call.remote(home.function("calls", "double"), 5) == 10
    assert calls.call.remote(calls.call, calls.double, 6) == 12
    assert calls.wait_for.remote(calls.double.spawn(7)) == 14


@rule("8.19")
def test_functions_call_functions_and_maps_nest(home: ModelHome) -> None:
    calls = home.app("calls")
    assert (calls.quadruple.remote(3), calls.sextuple.remote(3), calls.total.remote(5)) == (12, 18, 20)
    assert calls.nested.remote(3, 2) == 8


@rule("8.19")
def test_functions_of_a_deployed_app_call_each_other(home: ModelHome) -> None:
    assert home.function("calls", "quadruple").remote(3) == 12
    assert home.function("calls", "total").remote(5) == 20


@rule("3.4 main thread", "8.8")
def test_a_plain_function_runs_on_the_main_thread(home: ModelHome) -> None:
    assert home.app("calls").main_thread.remote() is True


@rule("8.8")
def test_an_async_function_keeps_its_loop(home: ModelHome) -> None:
    calls = home.app("calls")
    assert len({calls.loop.remote() for _ in range(3)}) == 1


@rule("3.4 reuse")
def test_a_worker_takes_many_inputs_and_keeps_its_globals(home: ModelHome) -> None:
    calls = home.app("calls")
    assert [calls.remember.remote(x) for x in range(3)] == [[0], [0, 1], [0, 1, 2]]


@rule("1.14 is_local", "8.21")
def test_is_local_is_false_in_the_worker_alone(home: ModelHome) -> None:
    assert slipway.is_local() is True
    assert home.app("calls").locality.remote() == {
        "worker": False,
        "fork": True,
        "spawn": True,
        "program": True,
    }


@rule("1.14 ids")
def test_ids_are_there_inside_of_a_call_alone(home: ModelHome) -> None:
    calls = home.app("calls")
    assert (slipway.current_function_call_id(), slipway.current_input_id()) == (None, None)
    call, one = calls.identify.remote()
    assert call.startswith("fc-") and one.startswith("in-")
    assert calls.identify.remote() != (call, one)


@rule("1.14 ids")
def test_the_inputs_of_a_map_share_their_call(home: ModelHome) -> None:
    found = list(home.app("calls").identify.map(range(5)))
    assert len({call for call, _ in found}) == 1 and len({one for _, one in found}) == 5


@rule("1.14 ids")
def test_ids_are_context_variables(home: ModelHome) -> None:
    here, with_context, without = home.app("calls").identify_in_threads.remote()
    assert here == with_context and without == (None, None)


@rule("8.6")
def test_python_is_the_local_minor_version(home: ModelHome) -> None:
    import sys

    assert home.app("calls").interpreter.remote() == sys.version_info[:2]


@rule("1.0 user iterators")
def test_the_users_iterators_run_on_the_callers_thread(home: ModelHome) -> None:
    calls = home.app("calls")
    threads = set()

    def inputs() -> object:
        for number in range(3):
            threads.add(threading.current_thread())
            yield number

    assert list(calls.double.map(inputs())) == [0, 2, 4]
    assert list(calls.double.starmap((x,) for x in inputs())) == [0, 2, 4]  # type: ignore[attr-defined]
    calls.double.for_each(inputs())
    calls.double.spawn_map(inputs())
    assert threads == {threading.current_thread()}
