"""What a node stands on: its base, its layers, how its processes start. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from attrs import evolve, frozen

from slipway.compiler.dockerfile import Started, started
from slipway.compiler.facts import BaseFact
from slipway.compiler.nodes import BaseSpec, Graph, LayerSpec, Node
from slipway.dsl.declaration import BuildDockerfile, DockerfileCommands, Setting
from slipway.dsl.errors import InternalError, InvalidError

Nodes = Mapping[str, Node]


@frozen(kw_only=True)
class ImageConfig:
    """How processes start in containers of an image, as its settings say."""

    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    entrypoint: tuple[str, ...] | None = None  # None: what the base says
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    cmd: tuple[str, ...] = ()


@frozen(kw_only=True)
class ImageParts:
    """What a container of an image is made of: `layers` are digests from the bottom up, without those that only set."""

    base: BaseFact
    layers: tuple[str, ...] = ()
    config: ImageConfig = ImageConfig()


def nodes_of(graph: Graph) -> dict[str, Node]:
    """The nodes by address."""
    return {node.address: node for node in graph.nodes}


def short(layer: str) -> str:
    """A layer's digest as names of files and containers have it.

    >>> short("sha256:" + "ab" * 32)
    'abababababababab'
    """
    return layer.partition(":")[2][:16]


def is_setting(node: Node) -> bool:
    """Whether a layer changes only how processes start, so that nothing is built for it."""
    return isinstance(node.spec, LayerSpec) and isinstance(node.spec.step, Setting)


def below(nodes: Nodes, node: Node) -> Node | None:
    """The layer or the base that a layer, or a function, stands on; None for what stands on none."""
    for address in node.inputs:
        if isinstance(nodes[address].spec, BaseSpec | LayerSpec):
            return nodes[address]
    return None


def chain(nodes: Nodes, address: str) -> tuple[Node, ...]:
    """The base and the layers up to a node of an image, or up to what a function stands on, from the bottom up."""
    node: Node | None = nodes[address]
    found: list[Node] = []
    while node is not None:
        if isinstance(node.spec, BaseSpec | LayerSpec):
            found.append(node)
        node = below(nodes, node)
    if not found or not isinstance(found[-1].spec, BaseSpec):
        raise InternalError(f"{address} stands on no base")
    return tuple(reversed(found))


def fact_of(spec: BaseSpec) -> BaseFact:
    """A base as runtimes know it."""
    return BaseFact(identity=spec.identity, says=spec.says, paths=spec.paths)


def image_parts(nodes: Nodes, address: str) -> ImageParts:
    """What containers of a layer, or of a function, are made of."""
    base, *layers = chain(nodes, address)
    assert isinstance(base.spec, BaseSpec)
    return ImageParts(
        base=fact_of(base.spec),
        layers=tuple(node.digest for node in layers if not is_setting(node)),
        config=_config(layers),
    )


def _config(layers: list[Node]) -> ImageConfig:
    config = ImageConfig()
    for node in layers:
        step = node.spec.step if isinstance(node.spec, LayerSpec) else None
        if isinstance(step, Setting):
            config = with_setting(config, step)
        elif isinstance(step, BuildDockerfile):
            config = _from_lines(ImageConfig(), step.text)
        elif isinstance(step, DockerfileCommands):
            config = _from_lines(config, "\n".join(step.commands))
    return config


def _from_lines(config: ImageConfig, text: str) -> ImageConfig:
    """After lines of a Dockerfile, which were told all settings so far: the image has them now, and what they say."""
    found = started(text, Started(shell=config.shell, workdir=config.workdir))
    return ImageConfig(shell=found.shell or ImageConfig().shell, workdir=found.workdir)


def setting_lines(config: ImageConfig) -> tuple[str, ...]:
    """Settings as lines of a Dockerfile. Raises `InvalidError` for one that can't be said in it.

    >>> setting_lines(ImageConfig(env=(("A", "$1 \\"x\\""),), workdir="/srv", entrypoint=("/e", "-x")))
    ('ENV A="\\\\$1 \\\\"x\\\\""', 'WORKDIR /srv', 'ENTRYPOINT ["/e", "-x"]')
    """
    lines = []
    for name, value in config.env:
        if "\n" in value or "\r" in value:
            raise InvalidError(
                f"the value of {name} goes over several lines, which a Dockerfile's ENV can't",
                hint="Set it after dockerfile_commands: .dockerfile_commands(…).env({…})",
            )
        lines.append('ENV {}="{}"'.format(name, re.sub(r'([\\"$])', r"\\\1", value)))
    if config.workdir is not None:
        lines.append("WORKDIR " + re.sub(r"([\\$])", r"\\\1", config.workdir))
    if config.shell != ImageConfig().shell:
        lines.append(f"SHELL {json.dumps(config.shell)}")
    if config.entrypoint is not None:
        lines.append(f"ENTRYPOINT {json.dumps(config.entrypoint)}")
    if config.cmd:
        lines.append(f"CMD {json.dumps(config.cmd)}")
    return tuple(lines)


def with_setting(config: ImageConfig, setting: Setting) -> ImageConfig:
    """A configuration with one more setting.

    >>> config = with_setting(ImageConfig(), Setting(what="env", env=(("A", "1"), ("B", "2"))))
    >>> with_setting(config, Setting(what="env", env=(("A", "3"),))).env
    (('A', '3'), ('B', '2'))
    """
    match setting.what:
        case "env":
            return evolve(config, env=tuple({**dict(config.env), **dict(setting.env)}.items()))
        case "workdir":
            (path,) = setting.values
            return evolve(config, workdir=path if path.startswith("/") else f"{config.workdir or '/root'}/{path}")
        case "entrypoint":
            return evolve(config, entrypoint=setting.values)
        case "shell":
            return evolve(config, shell=setting.values)
        case "cmd":
            return evolve(config, cmd=setting.values)
    raise InternalError(f"there is no setting {setting.what!r}")
