"""Batches as one call: what goes in by rows comes out by columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.errors import InvalidError
from slipway.executor.worker.batch import apart, together


def plain(a: Any, b: Any, c: Any) -> Any:
    return a, b, c


def by_place(a: Any, /, b: Any, *, c: Any) -> Any:
    return a, b, c


class Model:
    def method(self, a: Any, b: Any, c: Any) -> Any:
        return a, b, c


SHAPES: dict[str, tuple[Callable[..., Any], int, int]] = {  # how many may, and how many must, go by place
    "plain": (plain, 0, 3),
    "by place": (by_place, 1, 2),
    "method": (Model().method, 0, 3),
}


@st.composite
def batches(draw: st.DrawFn) -> tuple[Callable[..., Any], list[Any], list[Any]]:
    function, least, most = SHAPES[draw(st.sampled_from(sorted(SHAPES)))]
    rows = draw(st.lists(st.tuples(st.integers(), st.text(), st.none() | st.booleans()), min_size=1, max_size=8))
    inputs = []
    for row in rows:
        cut = draw(st.integers(least, most))
        inputs.append((row[:cut], dict(zip("abc"[cut:], row[cut:], strict=True))))
    return function, rows, inputs


@given(batches())
def test_each_parameter_gets_its_values_in_the_order_of_the_inputs(
    batch: tuple[Callable[..., Any], list[Any], list[Any]],
) -> None:
    function, rows, inputs = batch
    args, kwargs = together(function, inputs, "f")
    assert function(*args, **kwargs) == tuple([row[place] for row in rows] for place in range(3))


@pytest.mark.parametrize(
    ("function", "inputs", "says"),
    [
        (plain, [((1, 2, 3), {}), ((1, 2), {})], "missing a required argument: 'c'"),
        (plain, [((1, 2, 3), {"d": 4})], "unexpected keyword argument 'd'"),
        (lambda a, b=1: ..., [((1,), {})], "leaves out b"),
        (lambda *rest: ..., [((1,), {})], r"takes \*rest"),
        (lambda **rest: ..., [((), {"a": 1})], r"takes \*\*rest"),
    ],
)
def test_what_does_not_fit_is_said(function: Callable[..., Any], inputs: Any, says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        together(function, inputs, "f")


@pytest.mark.parametrize(
    ("results", "says"), [((1, 2), "a tuple"), ([1], "a batch of 2 and returned 1"), (None, "None")]
)
def test_results_are_a_list_as_long(results: Any, says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        apart(results, 2, "f")
    assert apart([1, 2], 2, "f") == [1, 2]
