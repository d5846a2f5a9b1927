"""Function calls as lines for the screen. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .moments import ago
from .output import Line, Piece, count, duration, table

OUTCOMES = ("returned", "raised", "timed_out", "lost", "cancelled")
FAILED = frozenset({"raised", "timed_out", "lost"})
STYLES = {"returned": "add", "running": "note", "queued": "dim", "cancelled": "warning"} | dict.fromkeys(
    FAILED, "error"
)
MOST_OF_ONE_CALL = 12  # inputs of one call in a tree; the others are counted
MOST_REASON = 100

When = Callable[[int], str]  # milliseconds since 1970 as a date and a time of here


def title(entry: dict[str, Any]) -> str:
    """
    >>> title({"app": "shop", "function": "Model", "method": "embed"})
    'shop.Model.embed'
    """
    return ".".join(filter(None, (entry["app"], entry["function"], entry.get("method", ""))))


def state_of(entry: dict[str, Any]) -> Piece:
    """A state in words, in its colour."""
    return entry["state"].replace("_", " "), STYLES.get(entry["state"], "dim")


def is_over(entry: dict[str, Any]) -> bool:
    return entry["state"] in OUTCOMES


def done(call: dict[str, Any]) -> str:
    """How many inputs of a call are over, of those that are known; "+": more may come.

    >>> done({"inputs": 3, "returned": 1, "raised": 1, "timed_out": 0, "lost": 0, "cancelled": 0, "sealed": False})
    '2/3+'
    """
    return f"{sum(call[outcome] for outcome in OUTCOMES)}/{call['inputs']}{'' if call['sealed'] else '+'}"


def took(entry: dict[str, Any], began: str, now_ms: int) -> str:
    """How long something took, or how long it has been at it."""
    start, end = entry.get(began), entry.get("finished_ms")
    if start is None:
        return ""
    return exact(max(end - start, 0)) if end is not None else f"{duration(max(now_ms - start, 0))} so far"


def exact(ms: int) -> str:
    """
    >>> exact(4), exact(1400)
    ('4 ms', '1.4 s')
    """
    return f"{ms} ms" if ms < 1000 else duration(ms)


def list_lines(calls: Sequence[dict[str, Any]], now_ms: int) -> list[Line]:
    """Calls, one a line."""
    head = ("CALL", "FUNCTION", "STATE", "DONE", "AGE", "TOOK")
    rows = [
        (
            call["call"],
            title(call),
            state_of(call),
            done(call),
            ago(call["created_ms"], now_ms),
            took(call, "created_ms", now_ms),
        )
        for call in calls
    ]
    return table(head, rows)


def call_lines(call: dict[str, Any], now_ms: int, when: When) -> Iterator[Line]:
    """What there is to say of a call as a whole."""
    kind = "spawned" if call["durable"] else "not spawned, so its results are kept by nobody"
    yield ((call["call"], "bold"), f"  {title(call)}  ", state_of(call), (f"  {kind}", "dim"))
    run = f", run {call['run']}" if call["run"] != call["app"] else ""
    age = ago(call["created_ms"], now_ms)
    spent = took(call, "created_ms", now_ms)
    yield (f"began {when(call['created_ms'])} ({age if age == 'now' else f'{age} ago'}), {spent}{run}",)
    if call.get("parent"):
        yield (f"called by {call['parent']}",)
    yield (counts(call),)
    if call.get("expired"):
        yield (("its results have expired", "warning"),)


def counts(call: dict[str, Any]) -> str:
    """
    >>> counts({"inputs": 3, "queued": 1, "running": 0, "returned": 2, "sealed": True})
    '3 inputs: 2 returned, 1 queued'
    """
    parts = [
        f"{call[state]} {state.replace('_', ' ')}" for state in (*OUTCOMES, "running", "queued") if call.get(state)
    ]
    more = "" if call["sealed"] else "; more may come"
    return count(call["inputs"], "input") + (f": {', '.join(parts)}" if parts else "") + more


def input_lines(inputs: Sequence[dict[str, Any]], now_ms: int) -> Iterator[Line]:
    """Inputs, one a line; below each the attempts before the last one, and why it failed."""
    head = ("#", "INPUT", "STATE", "WORKER", "ATTEMPTS", "TOOK")
    rows = [
        (
            str(one["index"]),
            one["input"],
            state_of(one),
            one["worker"],
            attempts(one),
            took(one, "started_ms", now_ms),
        )
        for one in inputs
    ]
    titles, *lines = table(head, rows)
    yield titles
    for one, line in zip(inputs, lines, strict=True):
        yield line
        for before in one.get("history", ()):
            yield ((f"     attempt {before['attempt']}", "dim"), *_attempt(before))
        if one.get("reason"):
            yield from ((f"     {part}",) for part in one["reason"].splitlines())


def _attempt(before: dict[str, Any]) -> Line:
    spent = took(before, "started_ms", before["finished_ms"] or 0) if before.get("finished_ms") else ""
    said = " ".join(filter(None, (f"on {before['worker']}" if before["worker"] else "", spent)))
    reason = (before.get("reason") or "").splitlines()
    return (
        f" {said}: ",
        state_of({"state": before["outcome"]}),
        *((f": {reason[0]:.{MOST_REASON}}",) if reason else ()),
    )


def attempts(one: dict[str, Any]) -> str:
    """
    >>> attempts({"attempts": 3, "losses": 1}), attempts({"attempts": 1, "losses": 0}), attempts({"attempts": 0})
    ('3 (1 lost)', '1', '')
    """
    if not one.get("attempts"):
        return ""
    return f"{one['attempts']}" + (f" ({one['losses']} lost)" if one.get("losses") else "")


# --- the tree -----------------------------------------------------------------------------------------


def tree_lines(inputs: Sequence[dict[str, Any]], root: str, now_ms: int) -> Iterator[Line]:
    """A call, what its inputs called, and so on."""
    tree = _Tree(now_ms)
    for one in inputs:
        if one["call"] not in tree.by_call and one["call"] != root:
            tree.made.setdefault(one["parent"], []).append(one["call"])
        tree.by_call.setdefault(one["call"], []).append(one)
    yield from tree.call(root, "", "")


class _Tree:
    """`first` stands before the first line of what is told, `then` before the others."""

    def __init__(self, now_ms: int) -> None:
        self.by_call: dict[str, list[dict[str, Any]]] = {}
        self.made: dict[str, list[str]] = {}  # input → the calls that it made
        self._now_ms = now_ms

    def call(self, call: str, first: str, then: str) -> Iterator[Line]:
        inputs = self.by_call.get(call, [])
        if len(inputs) == 1:
            yield from self._input(inputs[0], f"{call} {title(inputs[0])}", first, then)
            return
        if not inputs:
            yield ((first, "dim"), call, ("  no inputs", "dim"))
            return
        over = sum(is_over(one) for one in inputs)
        yield ((first, "dim"), f"{call} {title(inputs[0])}  ", (f"{over}/{len(inputs)} inputs", "dim"))
        told = sorted(inputs, key=lambda one: (one["input"] not in self.made, one["state"] == "returned", one["index"]))
        shown = sorted(told[:MOST_OF_ONE_CALL], key=lambda one: int(one["index"]))
        hidden = told[MOST_OF_ONE_CALL:]
        for one in shown:
            last = one is shown[-1] and not hidden
            yield from self._input(one, f"#{one['index']} {one['input']}", *_branch(then, last))
        if hidden:
            states = [str(one["state"]) for one in hidden]
            summed = ", ".join(f"{states.count(state)} {state.replace('_', ' ')}" for state in dict.fromkeys(states))
            yield ((f"{_branch(then, last=True)[0]}and {len(hidden)} more: {summed}", "dim"),)

    def _input(self, one: dict[str, Any], name: str, first: str, then: str) -> Iterator[Line]:
        spent = took(one, "started_ms", self._now_ms)
        again = f", {one['attempts']} attempts" if one.get("attempts", 0) > 1 else ""
        yield ((first, "dim"), f"{name}  ", state_of(one), (f"  {spent}{again}", "dim"))
        children = self.made.get(one["input"], [])
        for child in children:
            yield from self.call(child, *_branch(then, child == children[-1]))


def _branch(then: str, last: bool) -> tuple[str, str]:
    return (f"{then}└─ ", f"{then}   ") if last else (f"{then}├─ ", f"{then}│  ")
