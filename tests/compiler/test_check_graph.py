"""A graph that somebody wrote by hand, every digest right: what would lead out of its place is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from golden import samples

from slipway.compiler.diff import plan
from slipway.compiler.encode import node_digest
from slipway.compiler.nodes import BundleSpec, FunctionSpec, Graph, LayerSpec, VolumeSpec
from slipway.compiler.planfile import verify_graph
from slipway.dsl.declaration import AddLocal, LocalSource, Resources, RunCommands, Setting, VolumeDecl
from slipway.dsl.errors import PlanFormatError

GRAPH = plan(samples.APP, samples.FACTS, engine_version="0.1.0").graph


def forged(kind: type[Any], edit: Callable[[Any], Any], **more: Any) -> Graph:
    """The graph with every spec of a kind edited, and all digests made anew."""
    digests: dict[str, str] = {}
    nodes = []
    for node in GRAPH.nodes:
        spec = edit(node.spec) if isinstance(node.spec, kind) else node.spec
        digests[node.address] = node_digest(spec, [digests[address] for address in node.inputs])
        nodes.append(evolve(node, spec=spec, digest=digests[node.address]))
    return evolve(GRAPH, nodes=tuple(nodes), **more)


def same(spec: Any) -> Any:
    return spec


def mounted(path: str, name: str, sub_path: str | None = None) -> Callable[[FunctionSpec], FunctionSpec]:
    return lambda spec: evolve(spec, volumes=((path, name, False, sub_path),))


def step(step: Any) -> Callable[[LayerSpec], LayerSpec]:
    return lambda spec: evolve(spec, step=step)


def files(**change: Any) -> Callable[[BundleSpec], BundleSpec]:
    return lambda spec: evolve(spec, files=tuple(evolve(entry, **change) for entry in spec.files))


VOLUME = next(node.spec.name for node in GRAPH.nodes if isinstance(node.spec, VolumeSpec))
OUTSIDE = AddLocal(sources=(LocalSource(local="/etc/passwd", remote="/../x"),), copy=True, method="add_local_file")
STEP_VOLUME = RunCommands(commands=("true",), volumes=(("/data", VolumeDecl(name="v", sub_path="../..")),))


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        *((forged(Graph, same, app=name), "the name of an app") for name in ("../x", "a\0b", "a\nb", "a\x1b[2J", "")),
        (forged(FunctionSpec, lambda spec: evolve(spec, name="../f")), "the name of a function"),
        (forged(VolumeSpec, lambda spec: evolve(spec, name="..")), "the name of a volume"),
        (forged(FunctionSpec, mounted("/", VOLUME)), "can't be mounted there"),
        (forged(FunctionSpec, mounted("/.slipway/run", VOLUME)), "can't be mounted there"),
        (forged(FunctionSpec, mounted("/data/../../etc", VOLUME)), "not written plainly"),
        (forged(FunctionSpec, mounted("/data", VOLUME, "../../etc")), "sub_path is not a folder"),
        (forged(FunctionSpec, mounted("/data", "another-apps")), "a volume that it does not stand on"),
        (forged(FunctionSpec, lambda spec: evolve(spec, secrets=("nope",))), "a secret that it does not stand on"),
        (forged(FunctionSpec, lambda spec: evolve(spec, timeout_ms=-1)), "less than nothing"),
        (forged(FunctionSpec, lambda spec: evolve(spec, resources=Resources(memory_mib=-1))), "memory must be more"),
        (forged(BundleSpec, files(path="/root/../../etc/x")), "can't be the place of a file"),
        (forged(BundleSpec, files(path="root/x")), "can't be the place of a file"),
        (forged(BundleSpec, files(digest="sha256:../../x")), "is no file of a plan"),
        (forged(BundleSpec, files(mode=0o4755)), "is no file of a plan"),
        (forged(LayerSpec, step(Setting(what="workdir"))), "not a folder to work in"),
        (forged(LayerSpec, step(Setting(what="bogus"))), "no such setting"),
        (forged(LayerSpec, step(OUTSIDE)), "remote path is not written plainly"),
        (forged(LayerSpec, step(STEP_VOLUME)), "sub_path is not a folder"),
    ],
)
def test_what_leads_out_is_refused(graph: Graph, says: str) -> None:
    with pytest.raises(PlanFormatError, match=says):
        verify_graph(graph)


def test_a_layer_stands_on_an_image() -> None:
    first = next(node for node in GRAPH.nodes if isinstance(node.spec, LayerSpec))
    alone = evolve(first, inputs=(), digest=node_digest(first.spec, []))
    with pytest.raises(PlanFormatError, match="stands on no image"):
        verify_graph(evolve(GRAPH, nodes=(alone,)))


def test_what_the_compiler_made_passes() -> None:
    verify_graph(GRAPH)
