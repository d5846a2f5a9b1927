"""What depends on what in a plan graph, and the graph as text, Mermaid and SVG.

Nothing here waits, sleeps, opens or spawns. networkx is used in this file and never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import networkx as nx
from attrs import frozen

from slipway.dsl.declaration import CronDecl
from slipway.dsl.errors import NotFoundError

from .check_function import period_text
from .faults import did_you_mean
from .nodes import BaseSpec, BundleSpec, Graph, Node, RouteSpec, ScheduleSpec
from .titles import image_of, node_title, shorten


def refers_to(node: Node) -> tuple[str, ...]:
    """What a node names without having it as an input: the function of a schedule or a route."""
    return (f"function {node.spec.function}",) if isinstance(node.spec, ScheduleSpec | RouteSpec) else ()


def dependants(graph: Graph, address: str) -> tuple[str, ...]:
    """Everything that a change of the node is felt by, in the order of the graph: what is made of it, directly or not,
    and the schedules and routes of functions among that. Raises `NotFoundError` with a suggestion."""
    directed: nx.DiGraph[str] = nx.DiGraph()
    directed.add_nodes_from(node.address for node in graph.nodes)
    for node in graph.nodes:
        directed.add_edges_from((below, node.address) for below in (*node.inputs, *refers_to(node)))
    if address not in directed:
        addresses = [node.address for node in graph.nodes]
        raise NotFoundError(f"{graph.app} has no node {address!r}", hint=did_you_mean(address, addresses, ""))
    found = nx.descendants(directed, address)
    return tuple(node.address for node in graph.nodes if node.address in found)


# --- text ---------------------------------------------------------------------------------------------


def render_text(graph: Graph) -> str:
    """The graph as a tree: images with their layers, then the rest, each with what it is made of.

    >>> print(render_text(Graph(app="search", runtime="native")))
    search · native · 0 nodes
    """
    lines = [f"{graph.app} · {graph.runtime} · {len(graph.nodes)} node{'' if len(graph.nodes) == 1 else 's'}"]
    groups = list(_groups(graph))
    for number, (head, children) in enumerate(groups):
        last = number == len(groups) - 1
        lines.append(f"{'└─' if last else '├─'} {head}")
        for position, child in enumerate(children):
            elbow = "└─" if position == len(children) - 1 else "├─"
            lines.append(f"{'   ' if last else '│  '}{elbow} {child}")
    return "\n".join(lines)


def _groups(graph: Graph) -> Iterator[tuple[str, list[str]]]:
    images: dict[str, list[str]] = {}
    for node in graph.nodes:
        place = image_of(node.address)
        if place is not None:
            images.setdefault(place[0], []).append(f"{place[1]}  {node_title(node)}")
    yield from ((f"image {name}", layers) for name, layers in images.items())
    users: dict[str, list[str]] = {}
    for node in graph.nodes:
        for address in refers_to(node):
            users.setdefault(address, []).append(_said(node))
    for node in graph.nodes:
        if image_of(node.address) is None and not refers_to(node):
            yield _said(node), users.get(node.address, [])


def _said(node: Node) -> str:
    """A node on one line: its address, what it is, and what it is made of."""
    match node.spec:
        case BundleSpec(files=files):
            return f"{node.address}  ({len(files)} file{'' if len(files) == 1 else 's'})"
        case ScheduleSpec(schedule=CronDecl(expression=expression, timezone=zone)):
            return f"{node.address}  {expression} {zone}"
        case ScheduleSpec(schedule=period):
            return f"{node.address}  every {period_text(period)}"  # type: ignore[arg-type]  # no cron: a period
        case RouteSpec(endpoint=endpoint):
            return f"{node.address}  {endpoint.style} {endpoint.method}"
        case _:
            return node.address + (f"  ← {', '.join(node.inputs)}" if node.inputs else "")


# --- Mermaid ------------------------------------------------------------------------------------------


def render_mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart, for a page of documentation.

    >>> print(render_mermaid(Graph(app="a", runtime="native",
    ...                            nodes=(Node(address="bundle app.py", spec=BundleSpec(files=())),))))
    flowchart LR
      n0["bundle app.py"]
    """
    number = {node.address: index for index, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    lines.extend(f'  n{number[n.address]}["{"<br/>".join(map(_mermaid, _label(n)))}"]' for n in graph.nodes)
    for node in graph.nodes:
        lines.extend(f"  n{number[address]} --> n{number[node.address]}" for address in node.inputs)
        lines.extend(
            f"  n{number[address]} -.-> n{number[node.address]}" for address in refers_to(node) if address in number
        )
    return "\n".join(lines)


def _mermaid(text: str) -> str:
    """Characters that mean something to Mermaid, by number."""
    return "".join(c if c.isalnum() or c in " /.,:_-+=·…" else f"#{ord(c)};" for c in text)


def _label(node: Node) -> tuple[str, ...]:
    title = shorten(node_title(node), 40)
    return (node.address,) if title == node.address else (node.address, title)


# --- SVG ----------------------------------------------------------------------------------------------

CHARACTER, LINE, PAD, GAP_X, GAP_Y, MARGIN = 7.3, 16, 10, 60, 14, 20
FILLS = {
    "base": "#e8eaf0",
    "layer": "#dfe8f7",
    "bundle": "#fdf1d3",
    "volume": "#e3f1e3",
    "secret": "#f6e0e0",
    "function": "#e9e1f6",
    "schedule": "#f7e7da",
    "route": "#d9f0f0",
}


@frozen(kw_only=True)
class Box:
    """A node's place on the drawing."""

    node: Node
    lines: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float


def render_svg(graph: Graph) -> str:
    """The graph as a drawing: what a node is made of stands to its left. Valid XML, no script, no outside font.

    >>> render_svg(Graph(app="a", runtime="native")).startswith("<svg")
    True
    """
    boxes = _boxes(graph)
    width = max((box.x + box.width for box in boxes.values()), default=0) + MARGIN
    height = max((box.y + box.height for box in boxes.values()), default=0) + MARGIN
    name = _xml(f"{graph.app} on {graph.runtime}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="ui-monospace, monospace" font-size="12" role="img">',
        f"<title>{name}</title>",
    ]
    for box in boxes.values():
        parts.extend(_edge(boxes[address], box, "") for address in box.node.inputs if address in boxes)
        dashed = ' stroke-dasharray="4 3"'
        parts.extend(_edge(boxes[address], box, dashed) for address in refers_to(box.node) if address in boxes)
    parts.extend(_drawn(box) for box in boxes.values())
    return "\n".join([*parts, "</svg>"]) + "\n"


def _boxes(graph: Graph) -> dict[str, Box]:
    """A column per rank (one more than the highest input's), its rows in the order of their inputs' rows."""
    ranks: dict[str, int] = {}
    for node in graph.nodes:
        ranks[node.address] = max((ranks[a] + 1 for a in (*node.inputs, *refers_to(node)) if a in ranks), default=0)
    columns: list[list[Node]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for node in graph.nodes:
        columns[ranks[node.address]].append(node)
    boxes: dict[str, Box] = {}
    x = float(MARGIN)
    for column in columns:
        middle = {node.address: _middle(node, boxes) for node in column}
        labels = {node.address: _label(node) for node in column}
        width = max(len(line) for lines in labels.values() for line in lines) * CHARACTER + 2 * PAD
        y = float(MARGIN)
        for node in sorted(column, key=lambda node: middle[node.address]):  # stable: ties keep the graph's order
            height = float(LINE * len(labels[node.address]) + PAD)
            # No higher than its inputs, so that chains run straight.
            y = max(y, middle[node.address] - height / 2)
            boxes[node.address] = Box(node=node, lines=labels[node.address], x=x, y=y, width=width, height=height)
            y += height + GAP_Y
        x += width + GAP_X
    return boxes


def _middle(node: Node, boxes: dict[str, Box]) -> float:
    inputs = [boxes[a] for a in (*node.inputs, *refers_to(node)) if a in boxes]
    return sum(box.y + box.height / 2 for box in inputs) / len(inputs) if inputs else 0.0


def _edge(start: Box, end: Box, style: str) -> str:
    x1, y1 = start.x + start.width, start.y + start.height / 2
    x2, y2 = end.x, end.y + end.height / 2
    bend = max(GAP_X / 2, (x2 - x1) / 2)
    path = f"M{x1:.1f} {y1:.1f} C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return f'<path d="{path}" fill="none" stroke="#8a94a6"{style}/>'


def _drawn(box: Box) -> str:
    fill = FILLS.get(box.node.spec.KIND, "#ffffff")
    says = f"<title>{_xml(_hover(box.node))}</title>"
    rect = (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="5" '
        f'fill="{fill}" stroke="#5b6577"/>'
    )
    texts = "".join(
        f'<text x="{box.x + PAD:.1f}" y="{box.y + PAD / 2 + LINE * (i + 0.75):.1f}" '
        f'fill="{"#1d2430" if i == 0 else "#56607a"}">{_xml(line)}</text>'
        for i, line in enumerate(box.lines)
    )
    return f"<g>{says}{rect}{texts}</g>"


def _hover(node: Node) -> str:
    says = node.spec.says if isinstance(node.spec, BaseSpec) else ""
    return "\n".join(part for part in (_said(node), says, node.digest) if part)


def _xml(text: str) -> str:
    """Escaped, and without the characters that XML has no place for."""
    return escape("".join(c if c in "\t\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
