"""Function calls, inputs and attempts as they go over the wire: docs/wire.md names every field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .inputs import Input, call_id, input_id
from .store.call_reads import AttemptRow, FunctionCall, InputRow
from .store.call_writes import COLUMNS

AtMs = Callable[[float], int]  # a time of the loop as milliseconds since the epoch
_FAILED = frozenset({"raised", "timed_out", "lost"})
_OPEN = frozenset({"queued", "running"})
_WORST_FIRST = ("raised", "timed_out", "lost", "cancelled")


def call_view(row: FunctionCall, here: Sequence[Input]) -> dict[str, Any]:
    """A function call; `here` are its inputs that are in memory."""
    running = sum(given.pool.runs(given.number) for given in here)
    over = {name: getattr(row, name) for name in COLUMNS}
    ended = sum(over.values())
    # Inputs that are not durable are written down when they are over.
    inputs = row.inputs if row.queue is not None else ended + len(here)
    queued = max(inputs - ended - running, 0)
    finished_ms = None if here or queued else row.finished_ms
    return {
        "call": call_id(row.number),
        "app": row.app,
        "run": row.run,
        "function": row.function,
        "method": row.method,
        "parent": input_id(row.parent) if row.parent else "",
        "durable": row.queue is not None,
        "sealed": bool(row.sealed),
        "state": _state(over, running, finished_ms),
        "inputs": inputs,
        "queued": queued,
        "running": running,
        **over,
        "created_ms": row.created_ms,
        "finished_ms": finished_ms,
        "expired": bool(row.expired),
    }


def _state(over: dict[str, int], running: int, finished_ms: int | None) -> str:
    if running:
        return "running"
    if finished_ms is None:
        return "queued"
    return next((name for name in _WORST_FIRST if over[name]), "returned")


def is_in_state(view: dict[str, Any], state: str | None) -> bool:
    """Whether a call is in a state that "call.list" was asked for.

    >>> [is_in_state({"state": "lost"}, state) for state in (None, "open", "failed", "lost")]
    [True, False, True, True]
    """
    groups = {"open": _OPEN, "failed": _FAILED}
    return state is None or view["state"] in groups.get(state, {state})


def unwritten(here: Sequence[Input], at_ms: AtMs) -> FunctionCall:
    """A call of which nothing is written down yet, as its inputs in memory show it."""
    first = here[0]
    spec = first.pool.spec
    return FunctionCall(
        number=first.call,
        run=spec.app,
        app=spec.worker.function.app,
        function=spec.function,
        method=first.pool.method_name(first.method),
        parent=first.parent or None,
        queue=None,
        sealed=0,
        created_ms=at_ms(first.submitted),
        finished_ms=None,
        inputs=len(here),
        returned=0,
        raised=0,
        timed_out=0,
        cancelled=0,
        lost=0,
        expired=0,
    )


def input_view(call: int, row: InputRow | None, here: Input | None, at_ms: AtMs) -> tuple[int, dict[str, Any]]:
    """An input by its row, or as it is in memory, or both; with its number."""
    if row is None:
        assert here is not None, "an input is known from one of the two"
        row = InputRow(
            number=here.number,
            call=call,
            place=here.index,
            attempts=here.attempts,
            losses=here.losses,
            worker=here.worker_name,
            submitted_ms=at_ms(here.submitted),
            started_ms=at_ms(here.started) if here.started else None,
            finished_ms=None,
            outcome=None,
            reason="",
        )
    runs = here is not None and here.pool.runs(here.number)
    if here is not None and here.durable and runs:  # what is written of an attempt is written when it is over
        started_ms = at_ms(here.started)
        row = row._replace(worker=here.worker_name, attempts=row.attempts + 1, started_ms=started_ms)
    return row.number, {
        "input": input_id(row.number),
        "call": call_id(row.call),
        "index": row.place,
        "state": COLUMNS[row.outcome] if row.outcome is not None else "running" if runs else "queued",
        "worker": row.worker,
        "attempts": row.attempts,
        "losses": row.losses,
        "submitted_ms": row.submitted_ms,
        "started_ms": row.started_ms,
        "finished_ms": row.finished_ms,
        "reason": row.reason,
    }


def attempt_view(row: AttemptRow) -> dict[str, Any]:
    return {
        "attempt": row.attempt,
        "worker": row.worker,
        "started_ms": row.started_ms,
        "finished_ms": row.finished_ms,
        "outcome": COLUMNS[row.outcome],
        "reason": row.reason,
    }


def in_graph(row: FunctionCall) -> dict[str, Any]:
    """What an input of a call graph has of its call."""
    parent = input_id(row.parent) if row.parent else ""
    return {"app": row.app, "function": row.function, "method": row.method, "parent": parent}
