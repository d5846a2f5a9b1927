"""What of a graph that came from outside could lead where it must not: names that become paths, paths that lead out.

Nothing here waits, sleeps, opens or spawns. A graph that the compiler made passes; `check` has looked at what it was
made of. This is for one that somebody else may have written, digests and all.
"""

from __future__ import annotations

import re
from functools import partial

from slipway.dsl.declaration import AddLocal, AppDecl, RunCommands, RunFunction, Setting, VolumeDecl
from slipway.dsl.errors import PlanFormatError

from .check import NAME
from .check_function import check_resources, check_volume
from .check_image import check_step
from .facts import FileEntry
from .faults import Faults, Say
from .nodes import BaseSpec, BundleSpec, FunctionSpec, Graph, LayerSpec, Node, SecretSpec, VolumeSpec

MODES = (0o644, 0o755)
CONTENT = re.compile(r"sha256:[0-9a-f]{64}|link:[^\0]+")
HINT = "Make it again: slipway plan APP"


def check_graph(graph: Graph) -> None:
    """Raises `PlanFormatError` with the first thing that no plan of ours holds.

    >>> check_graph(Graph(app="../../a", runtime="native"))
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.PlanFormatError: '../../a' can't be the name of an app
    Make it again: slipway plan APP
    """
    _named(graph.app, "an app")
    faults = Faults(decl=AppDecl(name=graph.app))
    nodes = {node.address: node for node in graph.nodes}
    for node in graph.nodes:
        match node.spec:
            case BundleSpec(files=files):
                _check_files(files, node)
            case LayerSpec() as layer:
                _check_files((*layer.files, *layer.code), node)
                if isinstance(layer.step, AddLocal | RunCommands | RunFunction | Setting):
                    check_step(layer.step, node.address, node.origin, faults)
            case FunctionSpec() as function:
                _check_function(function, node, nodes, faults)
            case VolumeSpec(name=name):
                _named(name, "a volume")
            case _:
                pass
        if isinstance(node.spec, LayerSpec | FunctionSpec) and not _stands(node, nodes):
            raise PlanFormatError(f"{node.address} stands on no image", hint=HINT)
        for fault in faults.found:
            raise PlanFormatError(f"{fault.address}: {fault.summary}: {fault.found}", hint=fault.hint)


def _named(name: str, what: str) -> None:
    if not NAME.fullmatch(name) or (what == "a volume" and name in (".", "..")):
        raise PlanFormatError(f"{name!r:.80} can't be the name of {what}", hint=HINT)


def _stands(node: Node, nodes: dict[str, Node]) -> bool:
    return any(isinstance(nodes[address].spec, BaseSpec | LayerSpec) for address in node.inputs)


def _check_files(files: tuple[FileEntry, ...], node: Node) -> None:
    for entry in files:
        path = entry.path
        if not path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/")[1:]) or "\0" in path:
            raise PlanFormatError(f"{node.address}: {path!r:.80} can't be the place of a file", hint=HINT)
        if entry.mode not in MODES or not CONTENT.fullmatch(entry.digest):
            raise PlanFormatError(f"{node.address}: {path!r:.80} is no file of a plan", hint=HINT)


def _check_function(function: FunctionSpec, node: Node, nodes: dict[str, Node], faults: Faults) -> None:
    _named(function.name, "a function")
    specs = [nodes[address].spec for address in node.inputs]
    slots = {spec.slot for spec in specs if isinstance(spec, SecretSpec)}
    volumes = {spec.name for spec in specs if isinstance(spec, VolumeSpec)}
    say: Say = partial(faults.error, node.address, origin=node.origin)
    check_resources(function.resources, say)
    for path, name, read_only, sub_path in function.volumes:
        check_volume(path, VolumeDecl(name=name, read_only=read_only, sub_path=sub_path), say)
        if name not in volumes:
            say("it mounts a volume that it does not stand on", found=name, hint=HINT)
    for slot in function.secrets:
        if slot not in slots:
            say("it takes a secret that it does not stand on", found=slot, hint=HINT)
    scaling = function.autoscaling
    counts = (function.concurrency.max_inputs, function.timeout_ms, scaling.scaledown_window_ms)
    if min(*counts, scaling.max_containers or 1) < 1 or min(scaling.min_containers, scaling.buffer_containers) < 0:
        say("its limits are less than nothing", found=function.name, hint=HINT)
