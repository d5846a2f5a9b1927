"""Why a node changes, or doesn't: from its own line in the plan down to the file or the field that began it.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from collections.abc import Iterator

from slipway.dsl.declaration import Setting
from slipway.dsl.errors import NotFoundError

from .faults import did_you_mean
from .graph import dependants
from .nodes import LayerSpec, Node
from .plan import Change, Plan, Verb
from .titles import image_of, node_title

WORDS = {
    Verb.CREATE: "will be made",
    Verb.UPDATE: "will be updated",
    Verb.REPLACE: "will be replaced",
    Verb.REMOVE: "will be removed",
    Verb.KEEP: "stays as it is",
}
MOST = 12


def explain(plan: Plan, wanted: str) -> tuple[str, ...]:
    """Lines about one node. `wanted` is an address, or a part that only one node has: `index`, `search/2`.

    Raises `NotFoundError` with suggestions.
    """
    changes = {change.address: change for change in plan.changes}
    nodes = {node.address: node for node in plan.graph.nodes}
    address = find(plan, wanted)
    change, node = changes[address], nodes.get(address)
    return tuple(_lines(plan, change, node, changes, nodes))


def find(plan: Plan, wanted: str) -> str:
    """The address that is meant; an image's name means its last layer.

    >>> from slipway.compiler.nodes import Graph
    >>> nothing = Plan(engine_version="", lineage="", serial=0, graph=Graph(app="a", runtime="native"), changes=())
    >>> find(nothing, "index")
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.NotFoundError: a has no node 'index'
    It has none at all.
    """
    addresses = [change.address for change in plan.changes]
    if wanted in addresses:
        return wanted
    images = {f"image {place[0]}": a for a in addresses if (place := image_of(a)) is not None}
    if wanted in images:
        return images[wanted]
    named = {address.partition(" ")[2]: address for address in addresses}
    short = [address for address in addresses if address.partition(" ")[2] == wanted]
    if len(short) == 1:
        return short[0]
    if f"image {wanted}" in images and not short:
        return images[f"image {wanted}"]
    if short:
        hint = f"Which of them? {', '.join(map(repr, short))}"
        raise NotFoundError(f"{plan.graph.app} has {len(short)} nodes called {wanted!r}", hint=hint)
    known = [*addresses, *named, *images, *(name.removeprefix("image ") for name in images)]
    listed = f"It has: {', '.join(addresses[:MOST])}{', …' if len(addresses) > MOST else ''}"
    hint = did_you_mean(wanted, known, listed if addresses else "It has none at all.")
    raise NotFoundError(f"{plan.graph.app} has no node {wanted!r}", hint=hint)


def _lines(
    plan: Plan, change: Change, node: Node | None, changes: dict[str, Change], nodes: dict[str, Node]
) -> Iterator[str]:
    yield f"{change.verb.value} {_called(change, node)} {WORDS[change.verb]}{_build(change, node)}"
    if node is None:
        yield "  it is deployed, but the app file does not ask for it any more"
        yield from (f"  {line}" for line in change.because)
    elif change.verb is Verb.CREATE:
        yield "  it is new: nothing that is deployed goes by this name"
        yield from (f"  {line}" for line in change.because)
    elif change.verb is Verb.KEEP and not change.because:
        yield "  nothing that it is made of has changed"
    if node is not None:
        if change.verb is not Verb.CREATE and (change.because or change.verb is not Verb.KEEP):
            yield from _chain(node, changes, nodes)
        if node.origin.line:
            yield f"  declared at {node.origin}"
        if node.inputs:
            yield f"  made of: {_listed(node.inputs)}"
        users = dependants(plan.graph, node.address)
        yield f"  depends on it: {_listed(users) if users else 'nothing'}"
        if change.was:
            yield f"  was called {change.was}"
        yield f"  digest: {node.digest}"
    if change.before and (node is None or change.before != node.digest):
        yield f"  deployed: {change.before}"


def _called(change: Change, node: Node | None) -> str:
    title = change.title or (node_title(node) if node else "")
    return f"{change.address} ({title})" if title and title != change.address else change.address


def _build(change: Change, node: Node | None) -> str:
    if node is None or not isinstance(node.spec, LayerSpec) or isinstance(node.spec.step, Setting):
        return ""
    if not change.build:
        return "; nothing to build" if change.verb is Verb.KEEP else "; it is in the store already"
    return "; its step will run" + ("" if change.last_ms is None else f" ({change.last_ms / 1000:.1f} s last time)")


def _chain(start: Node, changes: dict[str, Change], nodes: dict[str, Node]) -> Iterator[str]:
    """The reasons of the node, of the inputs that changed, of theirs; each node once, root causes marked."""
    seen: set[str] = set()
    waiting = [(start, 1)]
    while waiting:
        node, depth = waiting.pop()
        if node.address in seen:
            continue
        seen.add(node.address)
        change = changes[node.address]
        moved = [nodes[a] for a in node.inputs if changes[a].verb is not Verb.KEEP or changes[a].because]
        indent = "  " * depth
        if node is not start:
            yield f"{indent}{change.verb.value} {_called(change, node)}" + ("" if change.because else ": new")
            indent += "  "
        for line in change.because:
            yield f"{indent}{'' if line.startswith('because ') else 'because '}{line}"
        if not moved and (change.because or node is not start):
            where = f" ({node.origin})" if node.origin.line and node.spec.KIND != "bundle" else ""
            yield f"{indent}this is where it begins{where}"
        waiting.extend((below, depth + 1) for below in reversed(moved))


def _listed(addresses: tuple[str, ...]) -> str:
    rest = len(addresses) - MOST
    return ", ".join(addresses[:MOST]) + (f" and {rest} more" if rest > 0 else "")
