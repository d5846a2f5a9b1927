"""Desired against deployed: one change per node, each with its because; and the plan as a whole.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from attrs import evolve, frozen

from slipway.dsl.declaration import AppDecl, Setting

from .align import align
from .facts import Facts, FileEntry
from .fields import differences
from .lower import checked, lower
from .nodes import BaseSpec, BundleSpec, FunctionSpec, Graph, LayerSpec, Node
from .plan import Change, Plan, Verb
from .titles import image_of, node_title
from .world import World

NO_TIMES: Mapping[str, int] = MappingProxyType({})
MOST_FILES = 5  # named in a because; the rest are counted

MISSING = "missing from the store, will be rebuilt"
BELOW = "because the layer below changes"
FORCED = "force_build=True"
FORCED_BELOW = "because force_build=True is set below"
KEPT_DATA = "no longer used; its data stays"


def diff(
    old: Graph | None, new: Graph, *, built: frozenset[str] = frozenset(), last_ms: Mapping[str, int] = NO_TIMES
) -> tuple[Change, ...]:
    """The changes in the order of the new graph, then what goes. `built` holds the digests of the layers that are in
    the store, `last_ms` how long each took; a layer that changes is looked up by the one that it continues.

    >>> diff(None, Graph(app="empty", runtime="native"))
    ()
    """
    return tuple(_Diff(old or Graph(app=new.app, runtime=new.runtime), new, built, last_ms).changes())


def plan(
    decl: AppDecl,
    facts: Facts,
    *,
    deployed: Graph | None = None,
    lineage: str = "",
    serial: int = 0,
    built: frozenset[str] = frozenset(),
    last_ms: Mapping[str, int] = NO_TIMES,
    engine_version: str,
    app_file: str = "",
    folder: str = "",
) -> Plan:
    """The plan for a declaration in this world. Raises `DeclarationError` with every fault that stops it.

    >>> from slipway.dsl.declaration import Origin
    >>> plan(AppDecl(name="empty", origin=Origin(file="app.py", line=1)), Facts(runtime="native"),
    ...      engine_version="0.1.0").is_empty
    True
    """
    faults = checked(decl, facts)
    graph = lower(decl, World(facts=facts))
    return Plan(
        engine_version=engine_version,
        lineage=lineage,
        serial=serial,
        graph=graph,
        changes=diff(deployed, graph, built=built, last_ms=last_ms),
        faults=faults,
        app_file=app_file or decl.file,
        folder=folder,
    )


class _Diff:
    def __init__(self, old: Graph, new: Graph, built: frozenset[str], last_ms: Mapping[str, int]) -> None:
        self.new, self.built, self.last_ms = new, built, last_ms
        self.moved = (f"runtime: {old.runtime} → {new.runtime}",) if old.runtime != new.runtime else ()
        self.old_nodes = {node.address: node for node in old.nodes}
        self.new_nodes = {node.address: node for node in new.nodes}
        self.alignment = align(old, new)
        self.file_lines: dict[tuple[str, str], tuple[FileChange, ...]] = {}
        # A function that moved from one image to another, both still there, is told so.
        places = (image_of(address) for address in self.new_nodes)
        self.images_left = {place[0] for place in places if place is not None}

    def changes(self) -> Iterator[Change]:
        for node in self.new.nodes:
            yield self.change(node, self.alignment.pairs.get(node.address))
        for gone in self.alignment.gone:
            yield self.removal(gone)

    def removal(self, gone: Node) -> Change:
        taken = gone.address in self.new_nodes
        return Change(
            address=f"{gone.address} (removed)" if taken else gone.address,
            verb=Verb.REMOVE,
            because=(KEPT_DATA,) if gone.spec.KIND == "volume" else (),
            was=gone.address if taken else "",
            before=gone.digest,
            kind=gone.spec.KIND,
            title=node_title(gone),
        )

    def change(self, node: Node, old: Node | None) -> Change:
        verb, because = self.verdict(node, old)
        change = Change(
            address=node.address,
            verb=verb,
            because=because,
            was=old.address if old is not None and old.address != node.address else "",
            before=old.digest if old is not None else "",
            kind=node.spec.KIND,
            title=node_title(node),
        )
        return self.as_layer(change, node, node.spec, old) if isinstance(node.spec, LayerSpec) else change

    def verdict(self, node: Node, old: Node | None) -> tuple[Verb, tuple[str, ...]]:
        if old is None:
            return Verb.CREATE, ()
        if old.digest == node.digest:
            return Verb.KEEP, ()
        because = (*self.own(old, node), *self.inherited(old, node))
        return Verb.REPLACE if image_of(node.address) else Verb.UPDATE, because

    def as_layer(self, change: Change, node: Node, spec: LayerSpec, old: Node | None) -> Change:
        if isinstance(spec.step, Setting):  # it says how processes start: nothing runs, nothing is stored
            return change
        because = change.because
        there = node.digest in self.built
        if spec.forced:
            own = spec.step.options.force_build or not self.forced_below(node)
            because = (*because, FORCED if own else FORCED_BELOW)
        elif change.verb is Verb.KEEP and not there:
            because = (MISSING,)
        took = self.last_ms.get(node.digest)
        if took is None and old is not None:
            took = self.last_ms.get(old.digest)
        return evolve(change, because=because, build=spec.forced or not there, last_ms=took)

    def forced_below(self, node: Node) -> bool:
        spec = self.new_nodes[node.inputs[0]].spec
        return isinstance(spec, LayerSpec) and spec.forced

    # --- because --------------------------------------------------------------------------------------

    def own(self, old: Node, new: Node) -> tuple[str, ...]:
        """What differs in the node itself."""
        if isinstance(old.spec, BundleSpec) and isinstance(new.spec, BundleSpec):
            return tuple(str(change) for change in self.files(old, new))
        if isinstance(old.spec, LayerSpec) and isinstance(new.spec, LayerSpec):
            files = file_changes(old.spec.files, new.spec.files)
            versions = _versions(dict(old.spec.secrets), dict(new.spec.secrets))
            return (*differences(old.spec.step, new.spec.step), *map(str, files), *versions)
        if type(old.spec) is not type(new.spec):
            return (f"it was a {old.spec.KIND}",)
        if self.moved and isinstance(old.spec, BaseSpec):  # what it is made of there has nothing in common with here
            return self.moved
        return differences(old.spec, new.spec)

    def files(self, old: Node, new: Node) -> tuple[FileChange, ...]:
        """Which files of a bundle changed: found once, however many functions share the bundle."""
        key = (old.address, new.address)
        if key not in self.file_lines:
            assert isinstance(old.spec, BundleSpec) and isinstance(new.spec, BundleSpec)
            self.file_lines[key] = file_changes(old.spec.files, new.spec.files)
        return self.file_lines[key]

    def inherited(self, old: Node, new: Node) -> Iterator[str]:
        """Which inputs differ, and why."""
        before = {self.role(node): node for node in (self.old_nodes[address] for address in old.inputs)}
        for address in new.inputs:
            node = self.new_nodes[address]
            was = before.get(self.role(node))
            if was is None:
                # That a volume or secret is new here shows in the function's own fields; a bundle has no field.
                if node.spec.KIND == "bundle":
                    yield "bundle: it has files now"
            elif was.digest != node.digest:
                yield from self.cause(was, node, new)
        if not any(self.new_nodes[address].spec.KIND == "bundle" for address in new.inputs) and "bundle" in before:
            yield "bundle: it has no files any more"

    @staticmethod
    def role(node: Node) -> str:
        """What an input is to its node, the same in both graphs though the address may not be."""
        if image_of(node.address):
            return "image"
        return "bundle" if node.spec.KIND == "bundle" else node.address

    def cause(self, was: Node, node: Node, user: Node) -> Iterator[str]:
        place = image_of(node.address)
        if place is not None:
            old_place = image_of(was.address)
            if isinstance(user.spec, LayerSpec):
                yield BELOW
            elif old_place is not None and old_place[0] != place[0] and old_place[0] in self.images_left:
                yield f"image: {old_place[0]} → {place[0]}"
            else:
                yield f"image {place[0]} changes"
        elif node.spec.KIND == "bundle":
            for change in self.files(was, node):
                yield f"bundle: {change}{_spot(change, user)}"
        elif was.address == node.address:
            yield from (f"{node.address}: {line}" for line in self.own(was, node))


@frozen(kw_only=True)
class FileChange:
    """One line about files: `app.py changed`, `+ data/new.csv`, `and 12 more files`."""

    text: str
    entry: FileEntry | None = None  # the file as it is now, where it is there and there was one

    def __str__(self) -> str:
        return self.text


def file_changes(old: tuple[FileEntry, ...], new: tuple[FileEntry, ...]) -> tuple[FileChange, ...]:
    before, after = {entry.path: entry for entry in old}, {entry.path: entry for entry in new}
    found: list[FileChange] = []
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path), after.get(path)
        name = path.removeprefix("/root/")
        if was == now:
            continue
        if was is None or now is None:
            found.append(FileChange(text=f"{'+' if was is None else '-'} {name}"))
        elif was.digest != now.digest:
            found.append(FileChange(text=f"{name} changed", entry=now))
        else:
            found.append(FileChange(text=f"{name}: mode {was.mode:o} → {now.mode:o}", entry=now))
    rest = len(found) - MOST_FILES
    return tuple(found) if rest <= 1 else (*found[:MOST_FILES], FileChange(text=f"and {rest} more files"))


def _spot(change: FileChange, user: Node) -> str:
    """Where in the changed file the function is: ` (index, line 41)`."""
    if change.entry is None or not isinstance(user.spec, FunctionSpec) or not user.origin.line:
        return ""
    return f" ({user.spec.name}, line {user.origin.line})" if change.entry.source == user.origin.file else ""


def _versions(old: dict[str, int], new: dict[str, int]) -> Iterator[str]:
    """Secrets whose values changed; that one came or went shows in the step itself."""
    for slot in sorted(old.keys() & new.keys()):
        if old[slot] != new[slot]:
            yield f"secret {slot}: version {old[slot]} → {new[slot]}"
