"""A plan as a file: one line that says what it is and its sha256, then the plan as JSON.

Nothing here waits, sleeps, opens or spawns. A plan file holds no secret and no code that runs when it is read. What
comes in is checked three times: the header, the sum over the body, and the digest of every node, which is made anew.
"""

from __future__ import annotations

import hashlib
import re

from slipway.dsl.errors import PlanFormatError, StalePlanError

from .check_graph import check_graph
from .encode import dumps, loads, node_digest
from .nodes import Graph
from .plan import PLAN_FORMAT, Change, Plan, Verb

MAGIC = b"slipway-plan"
HEADER = re.compile(rb"slipway-plan ([0-9]{1,9}) sha256:([0-9a-f]{64})")
AGAIN = "Make it again: slipway plan APP -o FILE"


def write(plan: Plan) -> bytes:
    """The bytes of a plan file; the same plan gives the same bytes.

    >>> nothing = Graph(app="a", runtime="native")
    >>> write(Plan(engine_version="0.1.0", lineage="", serial=0, graph=nothing, changes=()))[:15]
    b'slipway-plan 1 '
    """
    return enclose(dumps(plan))


def enclose(body: bytes) -> bytes:
    """The bytes of a plan file around a plan that is JSON already."""
    return b"%s %d sha256:%s\n" % (MAGIC, PLAN_FORMAT, hashlib.sha256(body).hexdigest().encode()) + body + b"\n"


def read(data: bytes) -> Plan:
    """The plan of a plan file. Raises `PlanFormatError` saying what was found and what to do.

    >>> read(b"import slipway\\n")
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.PlanFormatError: this is not a plan file: it begins with 'import slipway'
    To plan an app file: slipway plan FILE
    """
    header, newline, rest = data.partition(b"\n")
    found = HEADER.fullmatch(header)
    if found is None:
        raise _foreign(data, header)
    if int(found[1]) != PLAN_FORMAT:
        written = int(found[1])
        newer = " by a newer Slipway" if written > PLAN_FORMAT else ""
        raise PlanFormatError(
            f"this plan file is of format {written}{newer}; this Slipway reads format {PLAN_FORMAT}", hint=AGAIN
        )
    if not newline or not rest.endswith(b"\n"):
        raise PlanFormatError(f"this plan file was cut short: it ends after {len(data)} bytes", hint=AGAIN)
    body = rest[:-1]
    if hashlib.sha256(body).hexdigest().encode() != found[2]:
        raise PlanFormatError(
            "this plan file was changed after it was made: its content does not match the sum in its first line",
            hint="A plan can't be edited by hand; change the app file. " + AGAIN,
        )
    plan = loads(body, Plan)
    verify(plan)
    return plan


def _foreign(data: bytes, header: bytes) -> PlanFormatError:
    if not data:
        return PlanFormatError("this plan file is empty", hint=AGAIN)
    if b"\n" not in data and (MAGIC.startswith(data) or data.startswith(MAGIC)):
        return PlanFormatError(f"this plan file was cut short: it ends after {len(data)} bytes", hint=AGAIN)
    if header.startswith(MAGIC):
        return PlanFormatError("the first line of this plan file is damaged", hint=AGAIN)
    if b"\0" in data[:512]:
        return PlanFormatError("this is not a plan file: it holds binary data", hint=AGAIN)
    start = header[:40].decode(errors="replace").strip()
    return PlanFormatError(
        f"this is not a plan file: it begins with {start!r}", hint="To plan an app file: slipway plan FILE"
    )


def verify(plan: Plan) -> None:
    """What the sum can't tell: someone may have made a new sum over an edited plan."""
    if plan.format != PLAN_FORMAT:
        raise PlanFormatError(f"the plan within says format {plan.format}, its header {PLAN_FORMAT}", hint=AGAIN)
    verify_graph(plan.graph)
    there = {node.address for node in plan.graph.nodes}
    listed = [change.address for change in plan.changes if change.verb is not Verb.REMOVE]
    if set(listed) != there or len({change.address for change in plan.changes}) != len(plan.changes):
        odd = sorted(there.symmetric_difference(listed))[:3] or ["one of them twice"]
        raise PlanFormatError(f"the changes of this plan are not those of its nodes: {', '.join(odd)}", hint=AGAIN)
    if any(fault.severity == "error" for fault in plan.faults):
        raise PlanFormatError("this plan holds errors, so it can't have been made by Slipway", hint=AGAIN)


def verify_graph(graph: Graph) -> None:
    """Make every digest of a graph anew, and look where its names and paths lead. Raises `PlanFormatError` naming the
    first node that is not what it says."""
    digests: dict[str, str] = {}
    for node in graph.nodes:
        unknown = [address for address in node.inputs if address not in digests]
        if unknown or node.address in digests:
            problem = f"names {unknown[0]!r} before it is there" if unknown else "is there twice"
            raise PlanFormatError(f"{node.address}: the graph {problem}", hint=AGAIN)
        if node_digest(node.spec, [digests[address] for address in node.inputs]) != node.digest:
            raise PlanFormatError(
                f"{node.address} is not what its digest says: it was changed after the plan was made",
                hint="A plan can't be edited by hand; change the app file. " + AGAIN,
            )
        digests[node.address] = node.digest
    check_graph(graph)


def check_fresh(plan: Plan, *, lineage: str, serial: int, engine_version: str, changes_now: tuple[Change, ...]) -> None:
    """Whether a plan may still be applied; `changes_now` is the same graph against what is deployed now.

    A plan whose list of changes would come out the same goes on, whatever else has moved.
    Raises `StalePlanError` saying what changed since.
    """
    reasons = []
    if plan.engine_version != engine_version:
        reasons.append(f"it was made by Slipway {plan.engine_version}, this is {engine_version}")
    if plan.lineage != lineage:
        theirs = "before anything was deployed" if not plan.lineage else "against another deployment"
        now = f"now serial {serial} is in force" if lineage else "now nothing is deployed"
        reasons.append(f"it was made {theirs}; {now}")
    elif plan.serial != serial:
        reasons.append(f"it was made against serial {plan.serial}; now serial {serial} is in force")
    moved = _moved(plan.changes, changes_now) if reasons else []
    if moved:
        app = plan.graph.app
        raise StalePlanError(
            "\n".join([f"the plan for {app} is out of date: {'; '.join(reasons)}", *(f"  {line}" for line in moved)]),
            hint=f"Look at the plan as it would be now: slipway plan {plan.app_file or 'APP'}",
        )


SAYS = {
    Verb.CREATE: "to be made",
    Verb.UPDATE: "to be updated",
    Verb.REPLACE: "to be replaced",
    Verb.REMOVE: "to be removed",
    Verb.KEEP: "unchanged",
}


def _moved(then: tuple[Change, ...], now: tuple[Change, ...]) -> list[str]:
    """What the two lists of changes differ in. Whether a layer is in the store is no difference: nothing was decided
    by it."""
    before, after = {c.address: c for c in then}, {c.address: c for c in now}
    lines = []
    for address in dict.fromkeys((*before, *after)):
        was, is_ = before.get(address), after.get(address)
        if was is None or is_ is None or (was.verb, _because(was)) != (is_.verb, _because(is_)):
            lines.append(f"{address}: was {_says(was)}, is {_says(is_)} now")
    most = 10
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]


def _because(change: Change) -> tuple[str, ...]:
    return () if change.verb is Verb.KEEP else change.because


def _says(change: Change | None) -> str:
    if change is None:
        return "not there"
    return SAYS[change.verb] + (f" ({change.because[0]})" if change.because and change.verb is not Verb.KEEP else "")
