"""A plan as lines for the screen. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap
from typing import Any

from attrs import field, frozen

from slipway.compiler.plan import Change, Verb
from slipway.compiler.wire import from_wire
from slipway.dsl.declaration import Fault

from .failure import fault_lines
from .output import Line, count, duration

STYLE = {
    Verb.CREATE: "add",
    Verb.UPDATE: "update",
    Verb.REPLACE: "replace",
    Verb.REMOVE: "remove",
    Verb.KEEP: "keep",
}
WIDEST_TITLE = 44
MOST_KEPT = 4  # unchanged nodes that are named; the rest is counted


@frozen(kw_only=True)
class PlanView:
    """What the screen needs of a plan. The graph itself, which may be large, is not decoded."""

    app: str
    runtime: str
    serial: int
    changes: tuple[Change, ...]
    faults: tuple[Fault, ...]
    says: dict[str, str]  # address of a base -> what it is here
    settings: frozenset[str] = frozenset()  # layers that run nothing: env, workdir, …
    digests: dict[str, str] = field(factory=dict)  # of the nodes, by address

    @property
    def is_empty(self) -> bool:
        """True when applying it would change nothing."""
        return all(change.verb is Verb.KEEP and not change.build for change in self.changes)


def view(plan: dict[str, Any]) -> PlanView:
    """The view of a plan as it came over the wire."""
    graph = plan["graph"]
    specs = [(node["address"], node["spec"]) for node in graph.get("nodes", ())]
    return PlanView(
        app=graph["app"],
        runtime=graph["runtime"],
        serial=plan.get("serial", 0),
        changes=tuple(from_wire(Change, change) for change in plan.get("changes", ())),
        faults=tuple(from_wire(Fault, fault) for fault in plan.get("faults", ())),
        says={address: spec.get("says", "") for address, spec in specs if spec.get("") == "base"},
        settings=frozenset(a for a, spec in specs if spec.get("") == "layer" and spec["step"].get("") == "setting"),
        digests={node["address"]: node["digest"] for node in graph.get("nodes", ())},
    )


@frozen
class Row:
    """One node on screen: sign, title, because (a line each), time."""

    verb: Verb
    title: str
    because: tuple[str, ...] = ()
    time: str = ""
    indent: int = 2


def plan_lines(plan: PlanView, *, width: int | None = None) -> list[Line]:
    """The whole plan: head, nodes, notes, totals.

    >>> empty = PlanView(app="shop", runtime="native", serial=3, changes=(), faults=(), says={})
    >>> [line[-1] for line in plan_lines(empty)]
    [' · native · serial 3', '', 'Nothing to do: 0 unchanged.']
    """
    serial = f"serial {plan.serial}"
    if not plan.is_empty:
        serial = f"serial {plan.serial} → {plan.serial + 1}" if plan.serial else "first time"
    lines: list[Line] = [((plan.app, "bold"), f" · {plan.runtime} · {serial}"), ("",)]
    body = _body(plan)
    lines += _aligned(body, width)
    if body:
        lines.append(("",))
    if plan.faults:
        lines += [*fault_lines(plan.faults), ("",)]
    lines += [(total,) for total in totals(plan)]
    return lines


# --- the nodes ----------------------------------------------------------------------------------------


def _image(change: Change) -> str:
    """'image search' for each of its base and layers, '' for a node that stands by itself."""
    if change.kind not in {"base", "layer"} or not change.address.startswith("image "):
        return ""
    return change.address.partition("/")[0]


def _body(plan: PlanView) -> list[Row | str]:
    """Images that change, each with its base and layers; other nodes that change; what is kept, on one line."""
    rows: list[Row | str] = []
    kept: list[str] = []
    for image, members in groupby(sorted(plan.changes, key=lambda c: not _image(c)), key=_image):
        changes = list(members)
        if image and all(c.verb is Verb.KEEP and not c.build for c in changes):
            kept.append(image)
        elif image:
            rows.append(image)
            rows += [_row(change, plan, indent=4) for change in changes]
        else:
            rows += [_row(change, plan, indent=2) for change in changes if change.verb is not Verb.KEEP]
            kept += [change.address for change in changes if change.verb is Verb.KEEP]
    if kept and rows:
        named = kept if len(kept) <= MOST_KEPT + 1 else [*kept[:MOST_KEPT], f"{len(kept) - MOST_KEPT} more"]
        rows.append(Row(Verb.KEEP, ", ".join(named)))
    return rows


def _row(change: Change, plan: PlanView, *, indent: int) -> Row:
    because = change.because or ((plan.says[change.address],) if plan.says.get(change.address) else ())
    is_new = change.verb in {Verb.CREATE, Verb.REPLACE, Verb.UPDATE}
    if is_new and change.kind == "layer" and not change.build and change.address not in plan.settings:
        because = (*because, "built before: found in the store")
    time = ""
    if change.build and change.last_ms is not None:
        time = f"{duration(change.last_ms)} last time" if change.last_ms >= 1000 else duration(change.last_ms)
    return Row(change.verb, change.title or change.address, because, time, indent)


def _aligned(rows: Sequence[Row | str], width: int | None) -> Iterator[Line]:
    """Signs, titles, becauses and times in columns; a long title keeps its line to itself."""
    table = [row for row in rows if isinstance(row, Row)]
    titles = [len(row.title) for row in table if row.because or row.verb is not Verb.KEEP]
    title_width = max((length for length in titles if length <= WIDEST_TITLE), default=0)
    because_width = max((len(line) for row in table if row.time for line in row.because), default=0)
    most = max((width or 1000) - 9 - title_width, 20)
    because_width = min(because_width, max(most - 18, 20))
    for row in rows:
        if isinstance(row, str):
            yield ((f"  {row}", "bold"),)
            continue
        sign = (row.verb.value, STYLE[row.verb])
        pad = " " * row.indent
        title: str | tuple[str, str] = (row.title, "dim") if row.verb is Verb.KEEP else row.title
        column = " " * (6 - row.indent + max(title_width - len(row.title), 0))
        room = because_width if row.time else most
        first, *rest = [part for line in row.because for part in wrap(line, room)] or [""]
        if len(row.title) > title_width and first:
            yield (pad, sign, "  ", title)
            pad, sign, title, column = " " * row.indent, (" ", "keep"), "", " " * (6 - row.indent + title_width)
        time = (" " * max(because_width - len(first), 0) + "   " + row.time, "dim") if row.time else ""
        yield (pad, sign, "  ", title, column, (first, "dim") if row.verb is Verb.KEEP else first, time)
        for line in rest:
            yield (" " * (9 + title_width), line)


# --- the totals ---------------------------------------------------------------------------------------


def totals(plan: PlanView) -> list[str]:
    """One sentence that counts, with the time it should take."""
    changes = plan.changes
    if plan.is_empty:
        return [f"Nothing to do: {len(changes)} unchanged."]
    others = [change for change in changes if change.kind != "layer"]
    verbs = [change.verb for change in others]
    # A layer that two images share is built once, so it counts once.
    builds = list({plan.digests.get(c.address, c.address): c for c in changes if c.build}.values())
    parts = [
        (verbs.count(Verb.CREATE), "to add"),
        (verbs.count(Verb.UPDATE), "to update"),
        (verbs.count(Verb.REPLACE), "to replace"),
        (sum(change.verb is Verb.REMOVE for change in changes), "to remove"),
    ]
    said = [f"{number} {what}" for number, what in parts if number]
    if builds:
        said.append(f"{count(len(builds), 'layer')} to {'rebuild' if any(c.before for c in builds) else 'build'}")
    kept = sum(change.verb is Verb.KEEP for change in changes)
    if kept:
        said.append(f"{kept} unchanged")
    return [f"{', '.join(said) or 'Only names change'}{_estimate(builds)}."]


def _estimate(builds: Sequence[Change]) -> str:
    known = [change.last_ms for change in builds if change.last_ms is not None]
    if not known or sum(known) < 1000:
        return ""
    return f"; {'about' if len(known) == len(builds) else 'at least'} {duration(sum(known))}"
