"""A plan on the screen."""

from __future__ import annotations

from slipway.cli.output import paint
from slipway.cli.render import PlanView, plan_lines
from slipway.compiler.plan import Change, Verb
from slipway.dsl.declaration import Fault, Origin

SEARCH = PlanView(
    app="search",
    runtime="native",
    serial=3,
    changes=(
        Change(address="image search/0", verb=Verb.KEEP, kind="base", title="debian_slim 3.11", before="a"),
        Change(
            address="image search/1",
            verb=Verb.REPLACE,
            kind="layer",
            title="pip_install scikit-learn",
            because=('packages: + "numpy<2"',),
            build=True,
            last_ms=14_000,
            before="b",
        ),
        Change(
            address="image search/2",
            verb=Verb.REPLACE,
            kind="layer",
            title="env HF_HOME",
            because=("because the layer below changes",),
            build=True,
            last_ms=400,
            before="c",
        ),
        Change(address="image plain/0", verb=Verb.KEEP, kind="base", title="debian_slim 3.12", before="d"),
        Change(
            address="function index",
            verb=Verb.UPDATE,
            kind="function",
            because=("bundle: app.py changed (index, line 41)", "memory: 512 → 1024"),
            before="e",
        ),
        Change(address="schedule refresh", verb=Verb.CREATE, kind="schedule", because=("0 3 * * 1 Europe/Berlin",)),
        Change(address="function old", verb=Verb.REMOVE, kind="function", before="f"),
        *(Change(address=f"function f{n}", verb=Verb.KEEP, kind="function", before="g") for n in range(9)),
    ),
    faults=(Fault(severity="note", address="function f", summary="said", origin=Origin(file="/x/app.py", line=3)),),
    says={"image search/0": "this host: Debian 12, Python 3.11.7"},
)


def text(plan: PlanView, width: int | None = None) -> str:
    return "\n".join(paint(line, colour=False) for line in plan_lines(plan, width=width))


def test_the_whole() -> None:
    assert text(SEARCH) == (
        "search · native · serial 3 → 4\n"
        "\n"
        "  image search\n"
        "    =  debian_slim 3.11          this host: Debian 12, Python 3.11.7\n"
        '    ±  pip_install scikit-learn  packages: + "numpy<2"             14 s last time\n'
        "    ±  env HF_HOME               because the layer below changes   < 1 s\n"
        "  ~  function index              bundle: app.py changed (index, line 41)\n"
        "                                 memory: 512 → 1024\n"
        "  +  schedule refresh            0 3 * * 1 Europe/Berlin\n"
        "  -  function old\n"
        "  =  image plain, function f0, function f1, function f2, 6 more\n"
        "\n"
        "note: /x/app.py:3: function f: said\n"
        "\n"
        "1 to add, 1 to update, 1 to remove, 2 layers to rebuild, 11 unchanged; about 14 s."
    )


def test_a_narrow_terminal_wraps_becauses() -> None:
    lines = text(SEARCH, width=70).splitlines()
    at = next(n for n, line in enumerate(lines) if "env HF_HOME" in line)
    assert lines[at] == "    ±  env HF_HOME               because the layer      < 1 s"
    assert lines[at + 1] == "                                 below changes"
    assert lines[at + 2] == "  ~  function index              bundle: app.py changed (index, line"


def test_a_long_title_keeps_its_line_to_itself() -> None:
    long = Change(
        address="image a/1", verb=Verb.REPLACE, kind="layer", title="run_commands " + "x" * 60, because=("why",)
    )
    lines = text(PlanView(app="a", runtime="native", serial=1, changes=(long,), faults=(), says={})).splitlines()
    assert lines[3].endswith("x" * 60)
    assert lines[4].strip() == "why"


def test_a_layer_that_is_in_the_store_already() -> None:
    kept = Change(address="image a/1", verb=Verb.REPLACE, kind="layer", title="run_commands x", because=("commands",))
    assert "built before: found in the store" in text(
        PlanView(app="a", runtime="native", serial=1, changes=(kept,), faults=(), says={})
    )


def test_a_layer_that_two_images_share_counts_once() -> None:
    layers = tuple(
        Change(address=f"image {name}/1", verb=Verb.CREATE, kind="layer", title="run_commands x", build=True)
        for name in ("a", "b")
    )
    digests = {"image a/1": "sha256:1", "image b/1": "sha256:1"}
    view = PlanView(app="a", runtime="native", serial=0, changes=layers, faults=(), says={}, digests=digests)
    assert text(view).endswith("\n1 layer to build.")
