"""What nodes and steps are called on screen.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from posixpath import basename

from slipway.dsl.declaration import (
    AddLocal,
    AddPython,
    AptInstall,
    BuildDockerfile,
    DockerfileCommands,
    FunctionDecl,
    MicromambaInstall,
    PipInstall,
    RunCommands,
    RunFunction,
    Setting,
    Step,
    UvSync,
)

from .nodes import BaseSpec, FunctionSpec, LayerSpec, Node

WIDTH = 60


def step_title(step: Step) -> str:
    """The step as the user would recognise it, on one short line.

    >>> step_title(AptInstall(packages=("git", "curl")))
    'apt_install git curl'
    """
    name, words = _parts(step)
    return shorten(" ".join((name, *words)))


def _parts(step: Step) -> tuple[str, tuple[str, ...]]:
    match step:
        case PipInstall(method=method, packages=packages, requirements=files, pyproject=project):
            from_files = tuple(basename(source.local) for source in (*files, *([project] if project else [])))
            return method, (*from_files, *(() if project else packages))
        case UvSync(groups=groups, extras=extras):
            return "uv_sync", (*groups, *extras)
        case AptInstall(packages=packages):
            return "apt_install", packages
        case MicromambaInstall(packages=packages, spec_file=spec):
            return "micromamba_install", (*packages, *([basename(spec.local)] if spec else []))
        case RunFunction(qualname=qualname):
            return "run_function", (qualname,)
        case RunCommands(commands=commands) | DockerfileCommands(commands=commands):
            return step.KIND, commands[:1] + (("…",) if len(commands) > 1 else ())
        case BuildDockerfile(path=path):
            return "from_dockerfile", (basename(path),)
        case AddPython(version=version):
            return "add_python", (version,)
        case Setting(what=what, values=values, env=env):
            return what, (*(name for name, _ in env), *values)
        case AddLocal(method=method, sources=sources):
            return method, tuple(source.remote for source in sources)


def shorten(text: str, width: int = WIDTH) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def node_title(node: Node) -> str:
    """A node's own name: a step's title, or its address."""
    if isinstance(node.spec, LayerSpec):
        return node.spec.title or step_title(node.spec.step)
    if isinstance(node.spec, BaseSpec):
        return node.spec.ref or node.address
    return node.address


def function_address(function: FunctionDecl | FunctionSpec) -> str:
    """The address of a function's node; a class is one of its own kind for whoever reads it.

    >>> from slipway.dsl.declaration import MethodDecl
    >>> said = FunctionSpec(name="Model", module="app", qualname="Model", methods=(MethodDecl(name="embed"),))
    >>> function_address(said)
    'class Model'
    """
    return f"{'class' if function.methods else 'function'} {function.name}"


def image_of(address: str) -> tuple[str, int] | None:
    """The image and the position that an address names; None for a node of another kind.

    >>> image_of("image search/2"), image_of("function index")
    (('search', 2), None)
    """
    kind, _, rest = address.partition(" ")
    name, _, position = rest.rpartition("/")
    return (name, int(position)) if kind == "image" and name and position.isdecimal() else None
