"""What of a home is needed, and what of the rest goes first. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from attrs import evolve, field, frozen

from slipway.compiler.nodes import BundleSpec, FunctionSpec, Graph, LayerSpec

from .bundle import bundle_digest, folder_name
from .images import Nodes, below, image_parts, is_setting, nodes_of, short
from .ports import ContainerSpec

KINDS = ("image", "layer", "bundle", "blob", "log", "code", "cache")


@frozen(kw_only=True)
class Thing:
    """Something on disk that can be made again.

    `on` are the keys of what it stands on: that stays for as long as this does. Those of one `content` share what they
    take on disk, whichever of them it is counted with: the last that goes gives it back.
    """

    kind: str  # one of KINDS
    key: str  # what `layer_key` and the others say
    ident: str  # what whoever removes it knows it by
    runtime: str = ""
    title: str = ""
    size: int = 0
    used_ms: int | None = None  # when it was last used, since the epoch; None: not known
    on: tuple[str, ...] = field(default=(), repr=False)
    content: str = ""


@frozen(kw_only=True)
class Choice:
    """What goes, in this order; what may stay though nothing needs it; and what is needed. A `size` is what the disk
    gets back when all of what nothing needs goes in its order."""

    free: tuple[Thing, ...] = ()
    spare: tuple[Thing, ...] = ()
    needed: tuple[Thing, ...] = ()


# --- keys ---------------------------------------------------------------------------------------------


def layer_key(runtime: str, layer: str) -> str:
    return f"layer {runtime} {layer}"


def image_key(runtime: str, layer: str, trees: Iterable[str]) -> str:
    """A layer with trees laid over it. `trees` are the paths of bundles' folders: only their names tell them apart.

    >>> image_key("docker", "sha256:ab", ("/home/me/.slipway/bundles/cdef",))
    'image docker sha256:ab cdef'
    """
    return " ".join(("image", runtime, layer, *(tree.rstrip("/").rpartition("/")[2] for tree in trees)))


def bundle_key(folder: str) -> str:
    return f"bundle {folder}"


def blob_key(digest: str) -> str:
    return f"blob {digest}"


def log_key(name: str) -> str:
    return f"log {name}"


# --- what is needed -----------------------------------------------------------------------------------


def chain_of(graph: Graph) -> Iterator[tuple[str, str]]:
    """Every layer that is built, with the one that it stands on ("": a base)."""
    nodes = nodes_of(graph)
    for node in graph.nodes:
        if isinstance(node.spec, LayerSpec) and not is_setting(node):
            under = below(nodes, node)
            while under is not None and is_setting(under):
                under = below(nodes, under)
            yield node.digest, under.digest if under is not None and isinstance(under.spec, LayerSpec) else ""


def bundles_of(graph: Graph) -> Iterator[str]:
    """The folders of the bundles that workers get."""
    return (folder_name(node.digest) for node in graph.nodes if isinstance(node.spec, BundleSpec))


def needed_by(graph: Graph, *, there: Collection[str] = (), building: bool = False) -> frozenset[str]:
    """The keys of what a graph needs. What the build of a layer reads is needed as long as that is not `there` (keys),
    and while something is `building`."""
    nodes = nodes_of(graph)
    keys: set[str] = set()
    for node in graph.nodes:
        if isinstance(node.spec, BundleSpec):
            keys.add(bundle_key(folder_name(node.digest)))
            keys |= {blob_key(entry.digest) for entry in node.spec.files}
        elif isinstance(node.spec, LayerSpec) and not is_setting(node):
            layer = layer_key(graph.runtime, node.digest)
            keys |= {layer, log_key(short(node.digest))}
            if building or layer not in there:
                for files in (files for files in (node.spec.files, node.spec.code) if files):
                    keys.add(bundle_key(folder_name(bundle_digest(files))))
                    keys |= {blob_key(entry.digest) for entry in files}
        elif isinstance(node.spec, FunctionSpec):
            keys.add(_image_of(graph.runtime, nodes, node.address))
    return frozenset(keys)


def _image_of(runtime: str, nodes: Nodes, function: str) -> str:
    layers = image_parts(nodes, function).layers
    inputs = (nodes[address] for address in nodes[function].inputs)
    trees = [folder_name(node.digest) for node in inputs if isinstance(node.spec, BundleSpec)]
    return image_key(runtime, layers[-1] if layers else "", trees)


def needed_by_container(runtime: str, spec: ContainerSpec) -> frozenset[str]:
    """The keys of what a container stands on."""
    trees = {bundle_key(tree.rstrip("/").rpartition("/")[2]) for tree in spec.trees}
    layers = {key for layer in spec.layers for key in (layer_key(runtime, layer), log_key(short(layer)))}
    return frozenset(trees | layers | {image_key(runtime, spec.layers[-1] if spec.layers else "", spec.trees)})


def with_what_is_below(needed: Collection[str], on: Mapping[str, Collection[str]]) -> frozenset[str]:
    """These keys, and those of everything that they stand on.

    >>> sorted(with_what_is_below({"c"}, {"c": ("b",), "b": ("a",), "x": ("y",)}))
    ['a', 'b', 'c']
    """
    found = set(needed)
    waiting = list(found)
    while waiting:
        lower = set(on.get(waiting.pop(), ())) - found
        found |= lower
        waiting += lower
    return frozenset(found)


# --- what goes ----------------------------------------------------------------------------------------


def decide(things: Iterable[Thing], needed: Collection[str], *, keep: int | None = None) -> Choice:
    """Everything that is not needed goes; with `keep` the least recently used first, until the rest of it takes at most
    so many bytes. What stands on something counts as a use of it, and goes before it.

    >>> old = Thing(kind="layer", key="a", ident="a", size=5, used_ms=1)
    >>> new = Thing(kind="layer", key="b", ident="b", size=5, used_ms=2)
    >>> [thing.ident for thing in decide((new, old), {"b"}).free], decide((new, old), (), keep=5).free == (old,)
    (['a'], True)
    """
    all_ = tuple(things)
    on = {thing.key: thing.on for thing in all_}
    keys = with_what_is_below(needed, on)
    kept = tuple(thing for thing in all_ if thing.key in keys)
    order = _given_back(_oldest_first([thing for thing in all_ if thing.key not in keys]), kept)
    left = sum(thing.size for thing in order)
    number = len(order)
    if keep is not None:
        number = 0
        while left > keep:
            left -= order[number].size
            number += 1
    return Choice(free=order[:number], spare=order[number:], needed=kept)


def _oldest_first(things: Collection[Thing]) -> tuple[Thing, ...]:
    """By last use, what stands on something before it. `used_ms` becomes the last use of all that stands on it."""
    there = {thing.key for thing in things}
    above: dict[str, int] = defaultdict(int)  # how many stand on it and were not come to yet
    for thing in things:
        for lower in thing.on:
            above[lower] += lower in there
    used: dict[str, int | None] = {}
    height: dict[str, int] = defaultdict(int)
    by_key: dict[str, list[Thing]] = defaultdict(list)
    for thing in things:
        by_key[thing.key].append(thing)
        used[thing.key] = _later(used.get(thing.key), thing.used_ms)
    ready = [key for key in by_key if not above[key]]
    placed: list[Thing] = []
    for key in ready:  # grows while it is walked: from the top down
        for thing in by_key[key]:
            placed.append(evolve(thing, used_ms=used[key]))
            for lower in thing.on:
                if lower not in there:
                    continue
                used[lower] = _later(used[lower], used[key])
                height[lower] = max(height[lower], height[key] + 1)
                above[lower] -= 1
                if not above[lower]:
                    ready.append(lower)
    return tuple(
        sorted(placed, key=lambda thing: (thing.used_ms or 0, height[thing.key], KINDS.index(thing.kind), thing.ident))
    )


def _later(one: int | None, other: int | None) -> int | None:
    return max((when for when in (one, other) if when is not None), default=None)


def _given_back(order: tuple[Thing, ...], kept: tuple[Thing, ...]) -> tuple[Thing, ...]:
    """With the sizes that the disk gets back: nothing for what shares its content with something that stays, all of
    it for the last of those that share one."""
    whole: dict[str, int] = defaultdict(int)
    last: dict[str, int] = {}
    for number, thing in enumerate(order):
        whole[thing.content] += thing.size
        last[thing.content] = number
    shared = {thing.content for thing in kept}
    return tuple(
        evolve(thing, size=0 if thing.content in shared or number != last[thing.content] else whole[thing.content])
        if thing.content
        else thing
        for number, thing in enumerate(order)
    )
