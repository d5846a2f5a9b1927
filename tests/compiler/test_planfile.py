"""Plan files: what was cut, edited, forged or comes from elsewhere is refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import strategies as my
from attrs import evolve
from golden import samples
from hypothesis import given

from slipway.compiler.diff import diff, plan
from slipway.compiler.nodes import LayerSpec
from slipway.compiler.plan import Change, Plan, Verb
from slipway.compiler.planfile import check_fresh, read, write
from slipway.dsl.declaration import AppDecl, Fault, PipInstall
from slipway.dsl.errors import PlanFormatError, StalePlanError

PLAN = plan(samples.APP, samples.FACTS, engine_version="0.1.0", folder="/home/u")
DATA = write(PLAN)


@pytest.mark.slow
@given(my.declarations())
def test_a_plan_comes_back_as_it_was(decl: AppDecl) -> None:
    made = plan(decl, my.facts_for(decl), engine_version="0.1.0", lineage="x", serial=3, folder="/p")
    back = read(write(made))
    assert back == made
    assert write(back) == write(made)
    assert (back.folder, back.app_file) == (made.folder, made.app_file)


def test_a_plan_cut_short_at_any_byte_is_refused() -> None:
    for end in range(len(DATA)):
        with pytest.raises(PlanFormatError):
            read(DATA[:end])
    with pytest.raises(PlanFormatError, match=f"cut short: it ends after {len(DATA) // 2} bytes") as caught:
        read(DATA[: len(DATA) // 2])
    assert "slipway plan APP -o FILE" in caught.value.hint


def test_a_plan_with_any_bit_changed_is_refused() -> None:
    for place in range(0, len(DATA), 7):
        damaged = bytearray(DATA)
        damaged[place] ^= 1
        with pytest.raises(PlanFormatError):
            read(bytes(damaged))
    with pytest.raises(PlanFormatError, match="changed after it was made"):
        read(DATA.replace(b"numpy<2", b"numpy<3"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"import slipway\n", "begins with 'import slipway'"),
        (b"\x7fELF\0\0\0", "binary data"),
        (b"slipway-plan one sha256:0\n{}", "first line of this plan file is damaged"),
        (DATA.replace(b"slipway-plan 1 ", b"slipway-plan 2 ", 1), "format 2 by a newer Slipway"),
        (DATA.replace(b"slipway-plan 1 ", b"slipway-plan 0 ", 1), "format 0; this Slipway reads format 1"),
        (DATA + b"more\n", "changed after it was made"),
    ],
)
def test_other_files(data: bytes, said: str) -> None:
    with pytest.raises(PlanFormatError, match=said) as caught:
        read(data)
    assert caught.value.hint


def forged(edit: Callable[[dict[str, Any]], object]) -> bytes:
    """A plan that someone edited, with the sum made anew."""
    body = json.loads(DATA.partition(b"\n")[2])
    edit(body)
    data = json.dumps(body).encode()
    return b"slipway-plan 1 sha256:" + hashlib.sha256(data).hexdigest().encode() + b"\n" + data + b"\n"


def test_an_edited_plan_is_refused_though_its_sum_is_right() -> None:
    """Digests that come in are made anew, never trusted."""
    with pytest.raises(PlanFormatError, match="image search/2 is not what its digest says"):
        read(forged(lambda body: body["graph"]["nodes"][2]["spec"]["step"].update(packages=["evil"])))
    with pytest.raises(PlanFormatError, match="image search/1 is not what its digest says"):
        read(forged(lambda body: body["graph"]["nodes"][1].update(digest="sha256:" + "0" * 64)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda body: body["graph"]["nodes"].reverse(), "before it is there"),
        (lambda body: body["graph"]["nodes"].append(body["graph"]["nodes"][0]), "there twice"),
        (lambda body: body["changes"].pop(), "not those of its nodes: schedule index"),
        (lambda body: body["changes"].append(body["changes"][0]), "not those of its nodes"),
        (lambda body: body.update(format=2), "within says format 2"),
        (
            lambda body: body.update(faults=[{"": "fault", "severity": "error", "address": "", "summary": "x"}]),
            "errors",
        ),
        (lambda body: body.update(colour="red"), "has a field 'colour'"),
        (lambda body: body.pop("graph"), "lacks graph"),
        (lambda body: body.update({"": "graph"}), "is a 'graph', expected a 'plan'"),
    ],
)
def test_forgeries(edit: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(PlanFormatError, match=said):
        read(forged(edit))


def test_warnings_travel_with_the_plan() -> None:
    fault = Fault(severity="warning", address="", summary="x", hint="y")
    assert read(write(evolve(PLAN, faults=(fault,)))).faults == (fault,)


# --- fresh or stale -----------------------------------------------------------------------------------

BUILT = frozenset(n.digest for n in PLAN.graph.nodes if isinstance(n.spec, LayerSpec))


def fresh(
    made: Plan, changes_now: tuple[Change, ...], lineage: str = "", serial: int = 0, version: str = "0.1.0"
) -> None:
    check_fresh(made, lineage=lineage, serial=serial, engine_version=version, changes_now=changes_now)


def edited() -> Plan:
    image = samples.APP.images[0]
    steps = (image.steps[0], PipInstall(packages=("rich",)), *image.steps[2:])
    decl = evolve(samples.APP, images=(evolve(image, steps=steps),))
    return plan(
        decl,
        samples.FACTS,
        engine_version="0.1.0",
        lineage="a",
        serial=3,
        deployed=PLAN.graph,
        built=BUILT,
        app_file="app.py",
    )


def test_a_plan_against_what_is_in_force_is_fresh() -> None:
    fresh(PLAN, PLAN.changes)
    fresh(edited(), edited().changes, "a", 3)


def test_a_plan_is_fresh_where_only_the_store_changed() -> None:
    """Layers that were built meanwhile change no decision."""
    fresh(edited(), diff(PLAN.graph, edited().graph), "a", 4)


def test_a_plan_whose_changes_would_come_out_the_same_goes_on() -> None:
    fresh(edited(), edited().changes, "a", 4)
    fresh(edited(), edited().changes, "b", 1, "0.2.0")


def test_a_plan_that_was_applied_already_is_stale_and_says_so() -> None:
    made = edited()
    with pytest.raises(StalePlanError) as caught:
        fresh(made, diff(made.graph, made.graph, built=BUILT), "a", 4)
    assert caught.value.message.splitlines()[:2] == [
        "the plan for search is out of date: it was made against serial 3; now serial 4 is in force",
        '  image search/2: was to be replaced (packages: - "numpy<2"), is unchanged now',
    ]
    assert caught.value.hint == "Look at the plan as it would be now: slipway plan app.py"


@pytest.mark.parametrize(
    ("made", "lineage", "serial", "version", "said"),
    [
        (PLAN, "a", 1, "0.1.0", "before anything was deployed; now serial 1 is in force"),
        (edited(), "b", 3, "0.1.0", "against another deployment; now serial 3 is in force"),
        (edited(), "", 0, "0.1.0", "against another deployment; now nothing is deployed"),
        (edited(), "a", 3, "0.2.0", "made by Slipway 0.1.0, this is 0.2.0"),
    ],
)
def test_what_moved_is_named(made: Plan, lineage: str, serial: int, version: str, said: str) -> None:
    gone = Change(address="function old", verb=Verb.REMOVE)
    with pytest.raises(StalePlanError, match=said) as caught:
        fresh(made, (*made.changes, gone), lineage, serial, version)
    assert "function old: was not there, is to be removed now" in caught.value.message


def test_a_long_list_of_what_moved_is_cut() -> None:
    more = tuple(Change(address=f"function f{i}", verb=Verb.REMOVE) for i in range(30))
    with pytest.raises(StalePlanError, match="and 20 more"):
        fresh(PLAN, (*PLAN.changes, *more), "a", 1)
