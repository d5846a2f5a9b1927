"""What depends on what, and the three renderings."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import strategies as my
from golden import samples
from hypothesis import given
from hypothesis import strategies as st

from slipway.compiler.graph import dependants, render_mermaid, render_svg, render_text
from slipway.compiler.lower import compile
from slipway.compiler.nodes import BundleSpec, Graph, Node, RouteSpec, ScheduleSpec
from slipway.dsl.declaration import EndpointDecl, PeriodDecl
from slipway.dsl.errors import NotFoundError

APP = compile(samples.APP, samples.FACTS)


@given(my.dags())
def test_dependants_are_the_users_and_theirs(graph: Graph) -> None:
    users = {node.address: {n.address for n in graph.nodes if node.address in n.inputs} for node in graph.nodes}
    for node in graph.nodes:
        above = set(users[node.address]).union(*(dependants(graph, user) for user in users[node.address]))
        assert set(dependants(graph, node.address)) == above


def test_a_schedule_is_felt_though_its_function_is_no_input() -> None:
    assert "schedule index" in dependants(APP, "image search/0")


def test_an_unknown_address_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match='Did you mean "function index"'):
        dependants(APP, "function indx")


def test_as_text() -> None:
    assert render_text(APP).splitlines() == [
        "search · native · 8 nodes",
        "├─ image search",
        "│  ├─ 0  debian_slim 3.11",
        "│  ├─ 1  apt_install git",
        "│  ├─ 2  pip_install numpy<2 scikit-learn",
        "│  └─ 3  env HF_HOME",
        "├─ bundle app.py/search  (2 files)",
        "├─ volume models",
        "└─ function index  ← image search/3, bundle app.py/search, volume models",
        "   └─ schedule index  0 3 * * 1 Europe/Berlin",
    ]


def test_as_mermaid() -> None:
    text = render_mermaid(APP)
    assert text.startswith("flowchart LR\n")
    assert '  n2["image search/2<br/>pip_install numpy#60;2 scikit-learn"]' in text
    assert "  n2 --> n3" in text
    assert "  n6 -.-> n7" in text


SVG = "{http://www.w3.org/2000/svg}"


def test_as_svg() -> None:
    root = ElementTree.fromstring(render_svg(APP))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "pip_install numpy<2 scikit-learn" in texts
    assert len(list(root.iter(f"{SVG}rect"))) == 8
    assert len(list(root.iter(f"{SVG}path"))) == 3 + 3 + 1


def nasty(text: str) -> Graph:
    schedule = ScheduleSpec(function=text, schedule=PeriodDecl(days=1))
    route = RouteSpec(function="gone", endpoint=EndpointDecl(style="asgi"))
    return Graph(
        app=text,
        runtime="native",
        nodes=(
            Node(address=f"function {text}", spec=BundleSpec(files=())),
            Node(address=f"schedule {text}", spec=schedule),
            Node(address="route gone", spec=route),
        ),
    )


@given(st.text(max_size=8))
def test_renderings_stand_any_text(text: str) -> None:
    graph = nasty(text)
    ElementTree.fromstring(render_svg(graph))
    assert "script" not in render_mermaid(nasty("<script>")).replace("#60;script#62;", "")
    assert "every 1 days" in render_text(graph)


@given(my.dags())
def test_drawings_do_not_overlap(graph: Graph) -> None:
    root = ElementTree.fromstring(render_svg(graph))
    boxes = [tuple(float(rect.get(k, "0")) for k in ("x", "y", "width", "height")) for rect in root.iter(f"{SVG}rect")]
    for i, (x, y, width, height) in enumerate(boxes):
        for x2, y2, width2, height2 in boxes[:i]:
            apart = x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y
            assert apart
