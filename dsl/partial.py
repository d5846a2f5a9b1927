"""Decorators that stand below `@app.function` or `@app.cls` and say more about what they decorate."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .cls import Cls
from .declaration import Batching, Concurrency
from .function import Function
from .hooks import Parameter, Partial
from .origin import invalid
from .resources import checked_count

Target = Callable[..., Any] | type | Partial


def partial_of(target: Target, decorator: str) -> Partial:
    """What a decorator was put on. Refuses one that stands above `@app.function`, or has lost its parentheses."""
    if isinstance(target, Partial):
        return target
    if isinstance(target, Function | Cls):
        above = "@app.function(...)" if isinstance(target, Function) else "@app.cls(...)"
        raise invalid(
            f"@slipway.{decorator} stands above {above} of {target.name}", hint=f"Put it below: {above} comes first."
        )
    if not callable(target):
        raise invalid(f"@slipway.{decorator} decorates functions and classes, not {type(target).__name__}")
    return Partial(target=target)


def needs_parentheses(given: tuple[object, ...], decorator: str) -> None:
    """Refuse positional arguments: as a rule the parentheses were left out."""
    if given:
        raise invalid(
            f"@slipway.{decorator} takes its arguments by name",
            hint=f"Write @slipway.{decorator}(...), with parentheses.",
        )


def with_role(target: Target, decorator: str, role: str, **changes: Any) -> Partial:
    """The target with a role; it can have only one."""
    partial = partial_of(target, decorator)
    if partial.role:
        raise invalid(
            f"{partial.target.__name__} is decorated with both {partial.role!r} and {role!r}",
            hint="A function has one of them; split it in two.",
        )
    if isinstance(partial.target, type):
        raise invalid(f"@slipway.{decorator} decorates functions, and {partial.target.__name__} is a class")
    if not inspect.isfunction(partial.target):
        what = type(partial.target).__name__
        raise invalid(f"@slipway.{decorator} decorates plain functions and methods, not a {what}")
    return partial.but(role=role, **changes)


def method(*wrong: object, is_generator: bool | None = None) -> Callable[[Target], Partial]:
    """A method of an `@app.cls()` class that can be called from elsewhere.

    >>> @method()
    ... def predict(self, x): ...
    >>> predict.role
    'method'
    """
    needs_parentheses(wrong, "method")
    return lambda target: with_role(target, "method", "method", is_generator=is_generator)


def enter(*wrong: object, snap: bool = False) -> Callable[[Target], Partial]:
    """A method of an `@app.cls()` class that runs when a worker starts, before its first input.

    >>> @enter(snap=True)
    ... def load(self): ...
    >>> load.snap
    True
    """
    needs_parentheses(wrong, "enter")
    return lambda target: with_role(target, "enter", "enter", snap=snap)


def exit(*wrong: object) -> Callable[[Target], Partial]:
    """A method of an `@app.cls()` class that runs when a worker ends.

    >>> @exit()
    ... def close(self): ...
    >>> close.role
    'exit'
    """
    needs_parentheses(wrong, "exit")
    return lambda target: with_role(target, "exit", "exit")


_NONE = object()


def parameter(*, default: Any = _NONE, init: bool = True) -> Any:
    """A parameter of an `@app.cls()` class; each set of values has workers of its own.

    >>> class Model:
    ...     size: str = parameter(default="small")
    >>> Model.size.default
    'small'
    """
    if default is not _NONE and type(default) not in {str, int, bool, bytes}:
        raise invalid(f"parameter(default={default!r}): a str, int, bool or bytes is wanted")
    required = default is _NONE
    return Parameter(default=None if required else default, required=required, init=init)


def checked_concurrency(max_inputs: int, target_inputs: int | None) -> Concurrency:
    """How many inputs a worker takes at once: at most, and as a rule."""
    checked_count("max_inputs", max_inputs, 1)
    if target_inputs is not None and checked_count("target_inputs", target_inputs, 1) > max_inputs:
        raise invalid(f"target_inputs={target_inputs} is above max_inputs={max_inputs}")
    return Concurrency(max_inputs=max_inputs, target_inputs=target_inputs)


def checked_batching(max_batch_size: int, wait_ms: int) -> Batching:
    """How many inputs make a batch, and how long the first waits for the others."""
    checked_count("max_batch_size", max_batch_size, 1, 1000)
    checked_count("wait_ms", wait_ms, 0, 600_000)
    return Batching(max_batch_size=max_batch_size, wait_ms=wait_ms)


def concurrent(*wrong: object, max_inputs: int, target_inputs: int | None = None) -> Callable[[Target], Partial]:
    """Let each worker take several inputs at a time.

    >>> @concurrent(max_inputs=8, target_inputs=4)
    ... def fetch(url): ...
    >>> fetch.concurrency.max_inputs
    8
    """
    needs_parentheses(wrong, "concurrent")
    concurrency = checked_concurrency(max_inputs, target_inputs)

    def decorate(target: Target) -> Partial:
        partial = partial_of(target, "concurrent")
        if partial.role in {"method", "enter", "exit"}:
            raise invalid(
                "@slipway.concurrent is for a whole class, not for one method",
                hint="Put it between @app.cls and class.",
            )
        if partial.batching:
            raise invalid("a function can be @slipway.concurrent or @slipway.batched, not both")
        return partial.but(concurrency=concurrency)

    return decorate


def batched(*wrong: object, max_batch_size: int, wait_ms: int) -> Callable[[Target], Partial]:
    """Collect inputs for up to `wait_ms`, and call the function with lists of them.

    >>> @batched(max_batch_size=16, wait_ms=50)
    ... def embed(texts): ...
    >>> embed.batching.wait_ms
    50
    """
    needs_parentheses(wrong, "batched")
    batching = checked_batching(max_batch_size, wait_ms)

    def decorate(target: Target) -> Partial:
        partial = with_role(target, "batched", "batched", batching=batching)
        if partial.concurrency:
            raise invalid("a function can be @slipway.concurrent or @slipway.batched, not both")
        name, parameters = partial.target.__name__, inspect.signature(partial.target).parameters.values()
        if any(p.default is not p.empty for p in parameters):
            raise invalid(f"{name} is batched, so its parameters can't have defaults", hint="Each one gets a list.")
        if partial.yields:
            raise invalid(f"{name} is batched, so it can't be a generator", hint="Return a list, one result an input.")
        return partial

    return decorate
