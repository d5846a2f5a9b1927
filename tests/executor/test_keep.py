"""What goes and what stays: nothing needed goes, nothing is left standing on nothing, and the sizes are the disk's."""

from __future__ import annotations

import asyncio
from pathlib import Path

from assembly import Assembly, app
from fakes import BASE, FakeRuntime
from hypothesis import given
from hypothesis import strategies as st

from slipway.compiler.nodes import BundleSpec, Graph, LayerSpec
from slipway.dsl.declaration import AddLocal, FunctionDecl, LocalSource, RunCommands, Setting, SourceDecl
from slipway.executor.bundle import bundle_digest, folder_name
from slipway.executor.images import short
from slipway.executor.indexes import Indexes
from slipway.executor.keep import (
    KINDS,
    Thing,
    blob_key,
    bundle_key,
    bundles_of,
    chain_of,
    decide,
    image_key,
    layer_key,
    log_key,
    needed_by,
    needed_by_container,
    with_what_is_below,
)
from slipway.executor.ports import ContainerSpec


@st.composite
def worlds(draw: st.DrawFn) -> tuple[tuple[Thing, ...], frozenset[str], int | None]:
    """Things that stand on earlier ones, some sharing their content; what is needed of them; and a budget."""
    things: list[Thing] = []
    for number in range(draw(st.integers(0, 12))):
        lower = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        content = draw(st.sampled_from(("", "", "", "c1", "c2")))
        things.append(
            Thing(
                kind=draw(st.sampled_from(KINDS)),
                key=f"k{number}",
                ident=f"k{number}",
                size=0 if content and any(thing.content == content for thing in things) else draw(st.integers(0, 50)),
                used_ms=draw(st.none() | st.integers(0, 9)),
                on=(*(f"k{other}" for other in sorted(lower)), "not-there"),
                content=content,
            )
        )
    keys = [thing.key for thing in things]
    needed = draw(st.frozensets(st.sampled_from(keys), max_size=4)) if keys else frozenset()
    order = draw(st.permutations(things))
    return tuple(order), needed, draw(st.none() | st.integers(0, 200))


def on_disk(things: tuple[Thing, ...], sizes: dict[str, int]) -> int:
    """What things take: a content that several share is there once."""
    alone = sum(sizes[thing.key] for thing in things if not thing.content)
    return alone + sum(sizes[content] for content in {thing.content for thing in things if thing.content})


@given(worlds())
def test_what_goes(world: tuple[tuple[Thing, ...], frozenset[str], int | None]) -> None:
    things, needed, keep = world
    choice = decide(things, needed, keep=keep)
    keys = {thing.key for thing in choice.free}
    on = {thing.key: thing.on for thing in things}

    assert sorted(t.key for t in (*choice.free, *choice.spare, *choice.needed)) == sorted(t.key for t in things)
    wanted = with_what_is_below(needed, on) & on.keys()
    assert {thing.key for thing in choice.needed} == wanted

    left = sum(thing.size for thing in choice.spare)
    if keep is None:
        assert choice.spare == ()
    else:
        assert left <= keep
        assert not choice.free or left + choice.free[-1].size > keep  # and no more goes than has to

    gone: set[str] = set()
    for thing in choice.free:  # what stands on a thing goes before it, or at least not after it
        gone.add(thing.key)
        assert not [key for key in on if thing.key in on[key] and key not in gone]
    assert not [key for key in keys for other in on.keys() - keys if key in on[other]]

    used = [thing.used_ms or 0 for thing in (*choice.free, *choice.spare)]
    assert used == sorted(used)

    sizes = {thing.key: thing.size for thing in things}
    for thing in things:
        sizes[thing.content] = sizes.get(thing.content, 0) + thing.size
    stays = tuple(thing for thing in things if thing.key not in keys)
    assert sum(thing.size for thing in choice.free) == on_disk(things, sizes) - on_disk(stays, sizes)


def test_the_least_recently_used_goes_first() -> None:
    things = [Thing(kind="layer", key=str(day), ident=str(day), size=10, used_ms=day) for day in (3, 1, 4, 2, 5)]
    choice = decide(things, {"1"}, keep=20)
    assert [thing.ident for thing in choice.free] == ["2", "3"]
    assert [thing.ident for thing in choice.spare] == ["4", "5"]


def test_a_layer_counts_as_used_when_one_above_it_was_and_goes_after_it() -> None:
    base = Thing(kind="layer", key="base", ident="base", size=10, used_ms=1)
    top = Thing(kind="layer", key="top", ident="top", size=1, used_ms=9, on=("base",))
    other = Thing(kind="layer", key="other", ident="other", size=5, used_ms=5)
    assert [thing.ident for thing in decide((base, top, other), ()).free] == ["other", "top", "base"]


def test_a_name_of_what_stays_gives_nothing_back() -> None:
    """Of two names of one layer only the last one that goes frees anything."""
    first = Thing(kind="layer", key="a", ident="a", size=10, used_ms=1, content="c")
    alias = Thing(kind="layer", key="b", ident="b", size=0, used_ms=2, content="c")
    assert [thing.size for thing in decide((first, alias), {"b"}).free] == [0]
    assert [thing.size for thing in decide((first, alias), ()).free] == [0, 10]


# --- what a graph needs -------------------------------------------------------------------------------


def graph_of(tmp_path: Path) -> Graph:
    code, data = tmp_path / "app.py", tmp_path / "data"
    code.write_bytes(b"def f(): ...\n")
    data.mkdir()
    (data / "x").write_bytes(b"x")
    steps = (
        RunCommands(commands=("one",)),
        Setting(what="env", env=(("A", "1"),)),
        AddLocal(sources=(LocalSource(local=str(data / "x"), remote="/x"),), copy=True),
    )
    source = LocalSource(local=str(code), remote="/root/app.py")
    function = FunctionDecl(name="f", module="app", qualname="f", image=0, code=SourceDecl(sources=(source,)))

    async def main() -> Graph:
        async with Assembly.opened(tmp_path / "home", FakeRuntime(), indexes=Indexes()) as assembly:
            return await assembly.graph(app(steps, functions=(function,)))

    return asyncio.run(main())


def test_what_a_graph_needs(tmp_path: Path) -> None:
    graph = graph_of(tmp_path)
    one, _setting, two = (node for node in graph.nodes if isinstance(node.spec, LayerSpec))
    (bundle,) = (node for node in graph.nodes if isinstance(node.spec, BundleSpec))
    assert isinstance(two.spec, LayerSpec) and isinstance(bundle.spec, BundleSpec)
    assert list(chain_of(graph)) == [(one.digest, ""), (two.digest, one.digest)]
    assert list(bundles_of(graph)) == [folder_name(bundle.digest)]
    layers = {layer_key("native", node.digest) for node in (one, two)}
    workers = {
        *layers,
        *(log_key(short(node.digest)) for node in (one, two)),
        bundle_key(folder_name(bundle.digest)),
        *(blob_key(entry.digest) for entry in bundle.spec.files),
        image_key("native", two.digest, [folder_name(bundle.digest)]),
    }
    inputs = {
        bundle_key(folder_name(bundle_digest(two.spec.files))),
        *(blob_key(entry.digest) for entry in two.spec.files),
    }
    assert needed_by(graph, there=layers) == workers
    assert needed_by(graph) == needed_by(graph, there=layers, building=True) == workers | inputs


def test_what_a_container_needs() -> None:
    spec = ContainerSpec(name="w", base=BASE, layers=("sha256:a", "sha256:b"), trees=("/home/bundles/one",))
    assert needed_by_container("docker", spec) == {
        layer_key("docker", "sha256:a"),
        layer_key("docker", "sha256:b"),
        log_key("a"),
        log_key("b"),
        bundle_key("one"),
        image_key("docker", "sha256:b", ["one"]),
    }
