"""Changes and their because: what is rebuilt, what is not, and what the user is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import strategies as my
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from slipway.compiler.diff import diff, plan
from slipway.compiler.facts import BaseFact, BaseNeed, Facts, FileEntry, SecretFact, SecretNeed, TreeFact, TreeNeed
from slipway.compiler.lower import compile
from slipway.compiler.nodes import Graph, LayerSpec
from slipway.compiler.plan import Change, Plan, Verb
from slipway.compiler.titles import image_of
from slipway.compiler.world import needs
from slipway.dsl.declaration import (
    AddLocal,
    AppDecl,
    AptInstall,
    CronDecl,
    DebianSlim,
    EndpointDecl,
    FunctionDecl,
    ImageDecl,
    LocalSource,
    MethodDecl,
    Origin,
    ParameterDecl,
    PipInstall,
    Resources,
    RunCommands,
    RunFunction,
    SecretDecl,
    Setting,
    SourceDecl,
    Step,
    StepOptions,
    VolumeDecl,
)
from slipway.dsl.errors import DeclarationError

SCRIPT = LocalSource(local="/p/app.py", remote="/root/app.py")
GIT, RICH, MODE = AptInstall(packages=("git",)), PipInstall(packages=("rich",)), Setting(what="env", env=(("A", "1"),))

CURL = AptInstall(packages=("curl",))


def function(name: str = "index", **fields: Any) -> FunctionDecl:
    code = fields.pop("code", SourceDecl(sources=(SCRIPT,)))
    origin = Origin(file="/p/app.py", line=41)
    return FunctionDecl(
        name=name, module="app", qualname=name, image=fields.pop("image", 0), code=code, origin=origin, **fields
    )


def image(*steps: Step, name: str = "search", base: Any = None) -> ImageDecl:
    return ImageDecl(name=name, base=base or DebianSlim(), steps=steps)


def app(*steps: Step, functions: tuple[FunctionDecl, ...] = (), images: tuple[ImageDecl, ...] = ()) -> AppDecl:
    return AppDecl(
        name="search",
        images=images or (image(*steps),),
        functions=functions or (function(),),
        python="3.11",
        file="/p/app.py",
    )


def facts(decl: AppDecl, change: Callable[[Any], Any] = lambda need: None) -> Facts:
    return Facts(runtime="native", found=tuple((need, change(need) or my.fact_for(need)) for need in needs(decl)))


def graph(decl: AppDecl, change: Callable[[Any], Any] = lambda need: None) -> Graph:
    return compile(decl, facts(decl, change))


def layers(*graphs: Graph) -> frozenset[str]:
    """The digests of what is in the store: a setting never is."""
    return frozenset(n.digest for g in graphs for n in g.nodes if n.address in running(g))


def running(of: Graph) -> set[str]:
    """The layers whose step runs something."""
    specs = ((n.address, n.spec) for n in of.nodes)
    return {address for address, spec in specs if isinstance(spec, LayerSpec) and not isinstance(spec.step, Setting)}


def changes(old: AppDecl, new: AppDecl, change: Callable[[Any], Any] = lambda need: None) -> dict[str, Change]:
    """What happens where everything old is built; what is kept is left out."""
    before, after = graph(old), graph(new, change)
    listed = diff(before, after, built=layers(before))
    assert len({c.address for c in listed}) == len(listed)
    return {c.address: c for c in listed if c.verb is not Verb.KEEP or c.build or c.was}


def because(
    old: AppDecl, new: AppDecl, address: str, change: Callable[[Any], Any] = lambda need: None
) -> tuple[str, ...]:
    return changes(old, new, change)[address].because


# --- properties ---------------------------------------------------------------------------------------


@given(my.declarations())
@pytest.mark.slow
def test_a_first_plan_creates_everything(decl: AppDecl) -> None:
    new = compile(decl, my.facts_for(decl))
    listed, runs = diff(None, new), running(new)
    assert {c.verb for c in listed} == {Verb.CREATE}
    assert all(c.build == (c.address in runs) for c in listed)


@given(my.declarations())
@pytest.mark.slow
def test_a_plan_of_what_is_deployed_is_empty(decl: AppDecl) -> None:
    world = my.facts_for(decl)
    first = plan(decl, world, engine_version="1")
    again = plan(decl, world, engine_version="1", deployed=first.graph, built=layers(first.graph))
    assert again.is_empty
    assert all(not c.because for c in again.changes)
    assert again.graph == first.graph


@pytest.mark.slow
@given(my.declarations(), st.data())
def test_changing_one_step_rebuilds_exactly_the_layers_from_it_up(decl: AppDecl, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(decl.images) - 1))
    before = decl.images[number]
    layered = [i for i, step in enumerate(before.steps) if not (isinstance(step, AddLocal) and not step.copy)]
    if not layered:
        return
    position = data.draw(st.sampled_from(layered))
    changed = RunCommands(commands=("something else",))
    steps = (*before.steps[:position], changed, *before.steps[position + 1 :])
    images = (*decl.images[:number], evolve(before, steps=steps), *decl.images[number + 1 :])
    new = evolve(decl, images=images)
    old_graph = compile(decl, my.facts_for(decl))
    new_graph = compile(new, my.facts_for(new))
    listed = diff(old_graph, new_graph, built=layers(old_graph))
    expected = {f"image {before.name}/{i + 1}" for i in layered if i >= position}
    runs = running(new_graph)
    assert {c.address for c in listed if c.build} == expected & runs
    for change in listed:
        place = image_of(change.address)
        if place is not None and change.verb is not Verb.REMOVE and change.address not in expected:
            assert change.verb is Verb.KEEP


@pytest.mark.slow
@given(my.declarations(), my.declarations())
def test_between_any_two_declarations_every_node_has_one_change(one: AppDecl, other: AppDecl) -> None:
    old, new = compile(one, my.facts_for(one)), compile(other, my.facts_for(other))
    listed = diff(old, new, built=layers(old))
    going = [c for c in listed if c.verb is Verb.REMOVE]
    assert [c.address for c in listed[: len(new.nodes)]] == [n.address for n in new.nodes]
    assert len({c.address for c in listed}) == len(listed)
    digests = {n.address: n.digest for n in new.nodes}
    for change in listed:
        if change.verb is Verb.KEEP:
            assert change.before == digests[change.address]
        if change.verb in (Verb.UPDATE, Verb.REPLACE):
            assert change.because, change
            assert change.before != digests[change.address]
    continued = {c.was or c.address for c in listed if c.verb not in (Verb.CREATE, Verb.REMOVE)}
    removed = {c.was or c.address for c in going}
    assert continued | removed == {n.address for n in old.nodes}
    assert not continued & removed


# --- layers -------------------------------------------------------------------------------------------


def test_a_package_more_rebuilds_its_layer_and_those_above() -> None:
    numpy = PipInstall(packages=("numpy<2", "rich"))
    found = changes(app(GIT, RICH, MODE, CURL), app(GIT, numpy, MODE, CURL))
    assert found["image search/2"].because == ('packages: + "numpy<2"',)
    assert found["image search/3"].because == ("because the layer below changes",)
    assert found["function index"].because == ("image search changes",)
    assert [(c.address, c.verb, c.build) for c in found.values()] == [
        ("image search/2", Verb.REPLACE, True),
        ("image search/3", Verb.REPLACE, False),  # a setting: nothing runs
        ("image search/4", Verb.REPLACE, True),
        ("function index", Verb.UPDATE, False),
    ]


def test_a_step_put_in_the_middle_is_one_new_layer_and_moves_the_rest() -> None:
    found = changes(app(GIT, MODE), app(GIT, RICH, MODE))
    assert [(c.address, c.verb, c.was) for c in found.values()] == [
        ("image search/2", Verb.CREATE, ""),
        ("image search/3", Verb.REPLACE, "image search/2"),
        ("function index", Verb.UPDATE, ""),
    ]
    assert found["image search/3"].because == ("because the layer below changes",)


def test_a_step_taken_out_is_removed_under_an_address_of_its_own() -> None:
    found = changes(app(GIT, RICH, MODE), app(GIT, MODE))
    assert [(c.address, c.verb, c.was, c.title) for c in found.values()] == [
        ("image search/2", Verb.REPLACE, "image search/3", "env A"),
        ("function index", Verb.UPDATE, "", "function index"),
        ("image search/2 (removed)", Verb.REMOVE, "image search/2", "pip_install rich"),
    ]
    at_the_end = changes(app(GIT, RICH), app(GIT))
    assert at_the_end["image search/2"].verb is Verb.REMOVE


def test_a_step_of_another_kind_is_a_new_step() -> None:
    found = changes(app(GIT), app(MODE))
    assert found["image search/1"].verb is Verb.CREATE
    assert found["image search/1 (removed)"].verb is Verb.REMOVE


def test_a_layer_that_is_lost_is_built_again() -> None:
    one = graph(app(GIT, RICH))
    (lost,) = [c for c in diff(one, one, built=layers(one) - {one.nodes[2].digest}) if c.build]
    assert (lost.address, lost.verb, lost.because) == (
        "image search/2",
        Verb.KEEP,
        ("missing from the store, will be rebuilt",),
    )


def test_a_layer_that_another_image_has_built_is_not_built_again() -> None:
    new = app(images=(image(GIT), image(GIT, name="other")))
    found = changes(app(GIT), new)
    assert (found["image other/1"].verb, found["image other/1"].build) == (Verb.CREATE, False)


def test_force_build_builds_from_there_up_each_time() -> None:
    forced = evolve(GIT, options=StepOptions(force_build=True))
    decl = app(MODE, forced, RICH)
    found = changes(app(MODE, GIT, RICH), decl)
    assert [(c.address, c.verb, c.because) for c in found.values()] == [
        ("image search/2", Verb.KEEP, ("force_build=True",)),
        ("image search/3", Verb.KEEP, ("because force_build=True is set below",)),
    ]
    base = changes(app(GIT), app(images=(image(GIT, base=DebianSlim(force_build=True)),)))
    assert base["image search/1"].because == ("force_build=True",)


def test_a_setting_is_never_built() -> None:
    forced = evolve(MODE, options=StepOptions(force_build=True))
    assert not any(c.build or c.because for c in diff(None, graph(app(forced))))


def test_a_base_that_moved_replaces_all_above_and_says_what_moved() -> None:
    def newer(need: Any) -> Any:
        return BaseFact(identity=(("os", "debian 12"), ("python", "3.11.9"))) if isinstance(need, BaseNeed) else None

    found = changes(app(GIT), app(GIT), newer)
    assert found["image search/0"].because == ('python: "3.11" → "3.11.9"',)
    assert found["image search/0"].verb is Verb.REPLACE
    assert found["image search/1"].because == ("because the layer below changes",)


def test_an_app_on_another_runtime_says_so_where_it_stands() -> None:
    manifest = BaseFact(identity=(("manifest", "sha256:1"),))
    found = facts(app(GIT), lambda need: manifest if isinstance(need, BaseNeed) else None)
    base, layer, *_ = diff(graph(app(GIT)), compile(app(GIT), evolve(found, runtime="docker")))
    assert base.because == ("runtime: native → docker",) and layer.because == ("because the layer below changes",)


def test_a_renamed_image_is_the_same_image() -> None:
    found = changes(app(GIT), app(images=(image(GIT, name="other"),)))
    assert [(c.address, c.verb, c.was) for c in found.values()] == [
        ("image other/0", Verb.KEEP, "image search/0"),
        ("image other/1", Verb.KEEP, "image search/1"),
    ]


def test_how_long_it_took_last_time_is_known_by_the_layer_that_it_continues() -> None:
    old, new = graph(app(GIT, RICH)), graph(app(GIT, PipInstall(packages=("numpy",))))
    took = {old.nodes[1].digest: 10, old.nodes[2].digest: 14_000}
    listed = diff(old, new, built=layers(old), last_ms=took)
    assert [c.last_ms for c in listed if c.kind == "layer"] == [10, 14_000]


STEPS: list[tuple[Step, Step, tuple[str, ...]]] = [
    (GIT, AptInstall(packages=("curl",)), ('packages: - "git"', 'packages: + "curl"')),
    (AptInstall(packages=("a", "b")), AptInstall(packages=("b", "a")), ("packages: the order changed",)),
    (RICH, evolve(RICH, pre=True), ("pre: no → yes",)),
    (RICH, evolve(RICH, index_url="https://x"), ('index_url: none → "https://x"',)),
    (RunCommands(commands=("a", "b")), RunCommands(commands=("a", "c")), ('commands: - "b"', 'commands: + "c"')),
    (MODE, Setting(what="env", env=(("A", "2"),)), ('A: "1" → "2"',)),
    (MODE, Setting(what="env", env=(("A", "1"), ("B", "2"))), ('env: + B = "2"',)),
    (Setting(what="env", env=(("A", "1"), ("B", "2"))), MODE, ("env: - B",)),
    (
        Setting(what="env", env=(("A", "1"), ("B", "2"))),
        Setting(what="env", env=(("B", "2"), ("A", "1"))),
        ("env: the order changed",),
    ),
    (
        RunFunction(module="m", qualname="f", source="def f():\n    a()\n"),
        RunFunction(module="m", qualname="f", source="def f():\n    b()\n"),
        ('source: line 2: "a()" → "b()"',),
    ),
    (
        RunFunction(module="m", qualname="f", source="def f():\n    a()\n"),
        RunFunction(module="m", qualname="f", source="def f():\n    a()\n    b()\n"),
        ('source: line 3: + "b()"',),
    ),
    (
        RunFunction(module="m", qualname="f", source="def f():\n    a()\n"),
        RunFunction(module="m", qualname="f", source="def f():\r\n    a()\n"),
        ("source: the end of a line changed",),
    ),
    (
        GIT,
        evolve(GIT, options=StepOptions(secrets=(SecretDecl(slot="dict:A#0", keys=("A",)),))),
        ('secrets: + secret (slot "dict:A#0", keys ("A"))',),
    ),
    (
        evolve(GIT, options=StepOptions(secrets=(SecretDecl(slot="dict:A#0", keys=("A",)),))),
        evolve(GIT, options=StepOptions(secrets=(SecretDecl(slot="dict:A#0", keys=("A", "B")),))),
        ('keys: + "B"',),
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), STEPS, ids=[str(i) for i in range(len(STEPS))])
def test_the_because_of_a_step_goes_down_to_the_field(old: Step, new: Step, said: tuple[str, ...]) -> None:
    assert because(app(old), app(new), "image search/1") == said


def test_files_and_secrets_of_a_step() -> None:
    def newer(need: Any) -> Any:
        if isinstance(need, SecretNeed):
            return SecretFact(version=2)
        return my.fact_for(need, lambda path: "new") if isinstance(need, TreeNeed) and need.source.is_dir else None

    secret = StepOptions(secrets=(SecretDecl(slot="dict:A#0"),))
    data = LocalSource(local="/p/data", remote="/srv/data", is_dir=True)
    decl = app(AddLocal(sources=(data,), copy=True, options=secret))
    assert because(decl, decl, "image search/1", newer) == (
        "/srv/data/a.py changed",
        "/srv/data/b/c.py changed",
        "secret dict:A#0: version 1 → 2",
    )


# --- functions and the rest ---------------------------------------------------------------------------


def edited(need: Any) -> Any:
    """The script changed; the line of a function is told only where it stands in the file that changed."""
    if isinstance(need, TreeNeed) and need.source == SCRIPT:
        return TreeFact(files=(FileEntry(path="", mode=0o644, digest=my.content("new"), source="/p/app.py"),))
    return None


def test_an_edit_of_the_script_names_file_function_and_line_and_builds_nothing() -> None:
    decl = app(GIT, functions=(function(schedule=CronDecl(expression="0 3 * * 1")),))
    found = changes(decl, decl, edited)
    assert found["bundle app.py"].because == ("app.py changed",)
    assert found["function index"].because == ("bundle: app.py changed (index, line 41)",)
    assert list(found) == ["bundle app.py", "function index"]


def tree(*entries: tuple[str, int, str]) -> Callable[[Any], Any]:
    files = tuple(FileEntry(path=path, mode=mode, digest=digest) for path, mode, digest in entries)
    return lambda need: TreeFact(files=files) if isinstance(need, TreeNeed) else None


def test_files_that_come_go_or_change_their_mode() -> None:
    package = SourceDecl(sources=(LocalSource(local="/p/pkg", remote="/root/pkg", is_dir=True),))
    decl = app(functions=(function(code=package),))
    old = graph(decl, tree(("a.py", 0o644, "1"), ("b.py", 0o644, "1"), ("c.py", 0o644, "1")))
    new = graph(decl, tree(("b.py", 0o755, "1"), ("c.py", 0o644, "1"), ("d.py", 0o644, "1")))
    found = {c.address: c for c in diff(old, new)}
    assert found["bundle pkg"].because == ("- pkg/a.py", "pkg/b.py: mode 644 → 755", "+ pkg/d.py")
    assert found["function index"].because == tuple(f"bundle: {line}" for line in found["bundle pkg"].because)
    many = graph(decl, tree(*((f"{i}.py", 0o644, "1") for i in range(20))))
    assert {c.address: c for c in diff(new, many)}["bundle pkg"].because[-1] == "and 18 more files"


def test_fields_of_a_function() -> None:
    old = app(functions=(function(timeout_ms=300_000),))
    new = app(
        functions=(
            function(
                timeout_ms=600_000,
                resources=Resources(memory_mib=512, cpu_milli=500, gpus=("A100",)),
                volumes=(("/m", VolumeDecl(name="m")),),
                secrets=(SecretDecl(slot="dict:A#0"),),
            ),
        )
    )
    assert because(old, new, "function index") == (
        'secrets: + "dict:A#0"',
        'volumes: + ("/m", "m", no, none)',
        "cpu: none → 0.5",
        "memory: none → 512 MiB",
        'gpus: + "A100"',
        "timeout: 300 s → 600 s",
    )


def test_methods_and_parameters_of_a_class() -> None:
    size = ParameterDecl(name="size", type="str", default="small")
    old = app(functions=(function("Model", methods=(MethodDecl(name="embed"),), parameters=(size,)),))

    def after(**said: Any) -> tuple[str, ...]:
        new = function("Model", **{"methods": (MethodDecl(name="embed"),), "parameters": (size,), **said})
        return because(old, app(functions=(new,)), "class Model")

    embed, items = MethodDecl(name="embed", is_async=True), MethodDecl(name="items", is_generator=True)
    assert after(methods=(embed, items)) == ("method added: items", "method embed: is_async: no → yes")
    assert after(methods=(items,)) == ("method removed: embed", "method added: items")
    assert after(parameters=(evolve(size, default="large"),)) == ('parameter size: default: "small" → "large"',)
    assert after(parameters=()) == ("parameter removed: size",)
    assert after(memory_snapshot=True) == ("memory_snapshot: no → yes",)
    first, second = (app(functions=(function("Model", methods=m),)) for m in ((items, embed), (embed, items)))
    (change,) = (c for c in diff(graph(first), graph(second)) if c.because)
    assert change.because == ("the order of its methods changed",)
    there = changes(app(functions=(function("Model"),)), old)
    assert {address: c.verb for address, c in there.items()} == {
        "class Model": Verb.CREATE,
        "function Model": Verb.REMOVE,
    }


def test_a_secret_with_another_value_updates_who_uses_it() -> None:
    decl = app(functions=(function(secrets=(SecretDecl(slot="dict:A#0"),)),))
    found = changes(decl, decl, lambda n: SecretFact(version=2) if isinstance(n, SecretNeed) else None)
    assert found["secret dict:A#0"].because == ("version: 1 → 2",)
    assert found["function index"].because == ("secret dict:A#0: version: 1 → 2",)


def test_a_function_that_moves_to_another_image() -> None:
    images = (image(GIT), image(RICH, name="other"))
    old, new = (app(images=images, functions=(function(), function("query", image=i))) for i in (0, 1))
    assert because(old, new, "function query") == ("image: search → other",)


def test_code_that_comes_and_goes() -> None:
    with_code, without = app(), app(functions=(function(code=SourceDecl()),))
    assert because(without, with_code, "function index") == ("bundle: it has files now",)
    found = changes(with_code, without)
    assert found["function index"].because == ("bundle: it has no files any more",)
    assert found["bundle app.py"].verb is Verb.REMOVE


def test_schedules_and_routes() -> None:
    old = app(functions=(function(schedule=CronDecl(expression="0 3 * * 1"), endpoint=EndpointDecl(style="asgi")),))
    new = app(
        functions=(function(schedule=CronDecl(expression="0 4 * * 1"), endpoint=EndpointDecl(style="asgi", label="x")),)
    )
    found = changes(old, new)
    assert found["schedule index"].because == ('expression: "0 3 * * 1" → "0 4 * * 1"',)
    assert found["route index"].because == ('label: none → "x"',)
    assert "function index" not in found
    assert because(old, app(), "schedule index") == ()


def test_a_volume_that_nothing_uses_keeps_its_data() -> None:
    old = app(functions=(function(volumes=(("/m", VolumeDecl(name="m")),)),))
    found = changes(old, app())
    assert (found["volume m"].verb, found["volume m"].because) == (Verb.REMOVE, ("no longer used; its data stays",))


def test_a_bundle_under_another_name_is_the_same() -> None:
    mounts = AddLocal(sources=(LocalSource(local="/p/x.txt", remote="/x.txt"),))
    found = changes(app(mounts), app(images=(image(mounts, name="other"),)))
    assert found["bundle app.py/other"].was == "bundle app.py/search"
    assert {c.verb for c in found.values()} == {Verb.KEEP}


# --- the plan -----------------------------------------------------------------------------------------


def planned(decl: AppDecl, **fields: Any) -> Plan:
    return plan(decl, facts(decl), engine_version="0.1.0", **fields)


def test_a_plan_says_where_it_was_made_and_against_what() -> None:
    made = planned(app(GIT), lineage="abc", serial=3, folder="/p")
    assert (made.lineage, made.serial, made.app_file, made.folder) == ("abc", 3, "/p/app.py", "/p")
    assert not made.is_empty


def test_a_plan_with_errors_is_not_made_and_warnings_are_in_it() -> None:
    with pytest.raises(DeclarationError, match="timeout"):
        planned(app(functions=(function(timeout_ms=1),)))
    assert [f.severity for f in planned(evolve(app(), functions=())).faults] == ["warning"]


def test_an_app_without_anything_is_an_empty_plan() -> None:
    assert planned(AppDecl(name="a")).is_empty


def calls_of(count: int) -> int:
    """How many Python functions planning an app of this size calls."""
    decl = app(GIT, functions=tuple(function(f"f{i}") for i in range(count)))
    world = facts(decl)
    deployed = compile(decl, world)
    seen = 0

    def tick(*_: object) -> None:
        nonlocal seen
        seen += 1

    before = sys.getprofile()
    sys.setprofile(tick)
    try:
        plan(decl, world, engine_version="1", deployed=deployed)
    finally:
        sys.setprofile(before)
    return seen


def test_the_work_of_a_plan_grows_with_its_size_and_no_faster() -> None:
    calls_of(10)  # tables that are made once
    assert calls_of(400) < 2.1 * calls_of(200)
