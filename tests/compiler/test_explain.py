"""`slipway why`: from the node down to what began it."""

from __future__ import annotations

import pytest
import strategies as my
from attrs import evolve
from golden import samples
from hypothesis import given

from slipway.compiler.diff import plan
from slipway.compiler.explain import explain
from slipway.compiler.nodes import LayerSpec
from slipway.compiler.plan import Plan
from slipway.dsl.declaration import AppDecl, Origin, PipInstall, Setting
from slipway.dsl.errors import NotFoundError

FIRST = plan(samples.APP, samples.FACTS, engine_version="0.1.0")
BUILT = frozenset(n.digest for n in FIRST.graph.nodes if isinstance(n.spec, LayerSpec))


def edited() -> Plan:
    image = samples.APP.images[0]
    pip = PipInstall(packages=("numpy<2", "rich", "scikit-learn"), origin=Origin(file="app.py", line=9))
    steps = (image.steps[0], pip, *image.steps[2:])
    decl = evolve(samples.APP, images=(evolve(image, steps=steps),))
    return plan(
        decl,
        samples.FACTS,
        engine_version="0.1.0",
        deployed=FIRST.graph,
        built=BUILT,
        last_ms={FIRST.graph.nodes[2].digest: 14_000},
    )


def test_a_function_is_traced_to_the_field() -> None:
    made = edited()
    digests = {n.address: n.digest for n in made.graph.nodes}
    before = {n.address: n.digest for n in FIRST.graph.nodes}
    assert explain(made, "function index") == (
        "~ function index will be updated",
        "  because image search changes",
        "    ± image search/3 (env HF_HOME)",
        "      because the layer below changes",
        "      ± image search/2 (pip_install numpy<2 rich scikit-learn)",
        '        because packages: + "rich"',
        "        this is where it begins (app.py:9)",
        "  made of: image search/3, bundle app.py/search, volume models",
        "  depends on it: schedule index",
        f"  digest: {digests['function index']}",
        f"  deployed: {before['function index']}",
    )


def test_a_layer_says_whether_its_step_runs_and_how_long_it_took() -> None:
    made = edited()
    head = explain(made, "image search/2")[0]
    assert head.startswith("± image search/2 (pip_install numpy<2 rich scikit-learn) will be replaced")
    assert head.endswith("; its step will run (14.0 s last time)")
    assert "; nothing to build" in explain(made, "image search/1")[0]
    assert "  declared at app.py:9" in explain(made, "image search/2")


def test_what_stays_and_what_is_new() -> None:
    assert explain(edited(), "volume models")[:2] == (
        "= volume models stays as it is",
        "  nothing that it is made of has changed",
    )
    assert explain(FIRST, "function index")[1] == "  it is new: nothing that is deployed goes by this name"


def test_what_is_removed_says_that_it_is_no_longer_asked_for() -> None:
    gone = plan(
        evolve(samples.APP, functions=(evolve(samples.APP.functions[0], schedule=None, volumes=()),)),
        samples.FACTS,
        engine_version="0.1.0",
        deployed=FIRST.graph,
        built=BUILT,
    )
    lines = explain(gone, "schedule index")
    assert lines[:2] == (
        "- schedule index will be removed",
        "  it is deployed, but the app file does not ask for it any more",
    )
    assert lines[2].startswith("  deployed: sha256:")
    assert "  no longer used; its data stays" in explain(gone, "volume models")


def test_a_lost_layer() -> None:
    lost = plan(samples.APP, samples.FACTS, engine_version="0.1.0", deployed=FIRST.graph)
    lines = explain(lost, "image search/1")
    assert lines[0] == "= image search/1 (apt_install git) stays as it is; its step will run"
    assert lines[1:3] == ("  because missing from the store, will be rebuilt", "  this is where it begins")
    known = plan(samples.APP, samples.FACTS, engine_version="0.1.0", built=BUILT)
    assert explain(known, "image search/1")[0].endswith("will be made; it is in the store already")


def test_a_step_that_moved_says_what_it_was() -> None:
    image = samples.APP.images[0]
    steps = (Setting(what="workdir", values=("/srv",)), *image.steps)
    moved = plan(
        evolve(samples.APP, images=(evolve(image, steps=steps),)),
        samples.FACTS,
        engine_version="0.1.0",
        deployed=FIRST.graph,
        built=BUILT,
    )
    lines = explain(moved, "image search/2")
    assert "  was called image search/1" in lines
    assert "    + image search/1 (workdir /srv): new" in lines


@pytest.mark.parametrize(
    ("wanted", "address"),
    [
        ("image search", "image search/3"),
        ("search", "image search/3"),
        ("search/2", "image search/2"),
        ("models", "volume models"),
        ("function index", "function index"),
    ],
)
def test_a_part_of_an_address_will_do(wanted: str, address: str) -> None:
    assert address in explain(FIRST, wanted)[0]


def test_an_unknown_node_is_answered_with_what_there_is() -> None:
    with pytest.raises(NotFoundError, match='Did you mean "models"'):
        explain(FIRST, "modells")
    with pytest.raises(NotFoundError, match="It has: image search/0, image search/1"):
        explain(FIRST, "zzzzzzzz")
    with pytest.raises(NotFoundError, match="2 nodes called 'index'") as caught:
        explain(FIRST, "index")
    assert "'function index', 'schedule index'" in caught.value.hint


@pytest.mark.slow
@given(my.declarations(), my.declarations())
def test_everything_can_be_explained(one: AppDecl, other: AppDecl) -> None:
    first = plan(one, my.facts_for(one), engine_version="1")
    second = plan(other, my.facts_for(other), engine_version="1", deployed=first.graph)
    for change in second.changes:
        lines = explain(second, change.address)
        assert lines[0].startswith(change.verb.value)
        assert len(lines) >= 3
