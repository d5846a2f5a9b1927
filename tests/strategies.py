"""Hypothesis strategies that the tests share: values of every class, valid declarations with their facts, DAGs."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
from hypothesis import strategies as st

from slipway.compiler.encode import node_digest
from slipway.compiler.facts import (
    BaseFact,
    BaseNeed,
    Fact,
    Facts,
    FileEntry,
    Need,
    PythonFact,
    PythonNeed,
    SecretFact,
    SecretNeed,
    TextFact,
    TextNeed,
    TreeFact,
    TreeNeed,
    VolumeFact,
)
from slipway.compiler.nodes import BundleSpec, Graph, Node
from slipway.compiler.world import needs
from slipway.dsl.declaration import (
    AddLocal,
    AppDecl,
    AptInstall,
    CronDecl,
    DebianSlim,
    FunctionDecl,
    ImageDecl,
    LocalSource,
    MethodDecl,
    Origin,
    ParameterDecl,
    PipInstall,
    Resources,
    RunCommands,
    SecretDecl,
    Setting,
    SourceDecl,
    Step,
    StepOptions,
    VolumeDecl,
)

# --- values -------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=6)
integers = st.integers(min_value=-(2**70), max_value=2**70)
ATOMS: dict[Any, st.SearchStrategy[Any]] = {str: texts, int: integers, bool: st.booleans(), type(None): st.none()}
_made: dict[Any, st.SearchStrategy[Any]] = {}


def of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type that a plan can hold: every field of every class, small."""
    if hint in ATOMS:
        return ATOMS[hint]
    if hint not in _made:
        _made[hint] = st.deferred(lambda: _of(hint))
    return _made[hint]


def _of(hint: Any) -> st.SearchStrategy[Any]:
    parts = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return st.one_of(*(of(part) for part in parts))
    if get_origin(hint) is tuple:
        return st.lists(of(parts[0]), max_size=2).map(tuple) if parts[1:] == (...,) else st.tuples(*map(of, parts))
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    hints = get_type_hints(hint)
    required = {a.name: of(hints[a.name]) for a in attrs.fields(hint) if a.default is attrs.NOTHING}
    given_ = {a.name: of(hints[a.name]) for a in attrs.fields(hint) if a.default is not attrs.NOTHING}
    return st.fixed_dictionaries(required, optional=given_).map(lambda fields: hint(**fields))


words = st.text("ab", max_size=2)
# Small on purpose, so that equal and nearly equal values come up.
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | words,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.builds(LocalSource, local=words, remote=words, only=st.none() | st.lists(words, max_size=2).map(tuple))
        | st.builds(AptInstall, packages=st.lists(words, max_size=2).map(tuple))
        | st.builds(RunCommands, commands=st.lists(words, max_size=2).map(tuple))
    ),
    max_leaves=6,
)


# --- declarations -------------------------------------------------------------------------------------

HERE = "/home/user/project"


def at(line: int) -> Origin:
    return Origin(file=f"{HERE}/app.py", line=line)


packages = st.lists(st.sampled_from(["attrs", "numpy<2", "rich", "torch==2.1"]), min_size=1, max_size=3, unique=True)
names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
secrets = st.sampled_from(["dict:TOKEN#0", "dict:A,B#1", "dotenv#2"]).map(
    lambda slot: SecretDecl(slot=slot, origin=at(1))
)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    origin = at(draw(st.integers(1, 99)))
    options = StepOptions(secrets=tuple(draw(st.lists(secrets, max_size=1))))
    listed = draw(packages)
    choices: list[Step] = [
        PipInstall(packages=tuple(sorted(listed)), options=options, origin=origin),
        AptInstall(packages=tuple(p.split("<")[0].split("=")[0] for p in listed), options=options, origin=origin),
        RunCommands(commands=(f"echo {listed[0]}", "true"), options=options, origin=origin),
        Setting(what="env", env=(("MODE", listed[0]),), origin=origin),
        Setting(what="workdir", values=("/srv",), origin=origin),
        AddLocal(
            sources=(LocalSource(local=f"{HERE}/data", remote="/srv/data", is_dir=True),),
            copy=True,
            origin=origin,
        ),
    ]
    return draw(st.sampled_from(choices))


@st.composite
def images(draw: st.DrawFn, name: str) -> ImageDecl:
    chain: list[Step] = draw(st.lists(steps(), max_size=4))
    if draw(st.booleans()):
        source = LocalSource(local=f"{HERE}/{name}", remote=f"/root/{name}", is_dir=True)
        chain.append(AddLocal(sources=(source,), origin=at(7)))
    return ImageDecl(name=name, base=DebianSlim(python_version="3.11", origin=at(1)), steps=tuple(chain), origin=at(1))


@st.composite
def functions(draw: st.DrawFn, name: str, image_count: int) -> FunctionDecl:
    files = draw(st.sampled_from([("app.py", False), ("pkg", True)]))
    source = LocalSource(local=f"{HERE}/{files[0]}", remote=f"/root/{files[0]}", is_dir=files[1])
    line = draw(st.integers(1, 99))
    volumes = draw(st.lists(st.sampled_from(["models", "data"]), max_size=2, unique=True))
    methods = draw(st.lists(st.sampled_from(["embed", "close", "items"]), max_size=3, unique=True))
    sizes = draw(st.lists(st.sampled_from(["size", "level"]), max_size=2, unique=True)) if methods else []
    scheduled = not methods and draw(st.booleans())
    return FunctionDecl(
        methods=tuple(MethodDecl(name=method, is_async=draw(st.booleans())) for method in methods),
        parameters=tuple(ParameterDecl(name=size, type="int", default="3") for size in sorted(sizes)),
        memory_snapshot=draw(st.booleans()),
        name=name,
        module="app",
        qualname=name,
        image=draw(st.integers(0, image_count - 1)),
        code=SourceDecl(sources=(source,)),
        secrets=tuple(draw(st.lists(secrets, max_size=2, unique=True))),
        volumes=tuple((f"/{v}", VolumeDecl(name=v, create_if_missing=True, origin=at(2))) for v in sorted(volumes)),
        resources=Resources(cpu_milli=draw(st.none() | st.integers(1, 4000))),
        timeout_ms=draw(st.integers(1, 600)) * 1000,
        schedule=CronDecl(expression="0 3 * * 1", origin=at(line)) if scheduled else None,
        origin=at(line),
    )


@st.composite
def declarations(draw: st.DrawFn) -> AppDecl:
    """Declarations without a fault."""
    image_names = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    function_names = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return AppDecl(
        name=draw(names),
        images=tuple(draw(images(name)) for name in image_names),
        functions=tuple(draw(functions(name, len(image_names))) for name in function_names),
        python="3.11",
        file=f"{HERE}/app.py",
        origin=at(1),
    )


def content(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def fact_for(need: Need, text: Callable[[str], str] = lambda path: path) -> Fact:
    """A world in which everything is there; `text` says what each file holds."""
    match need:
        case BaseNeed(ref=ref):
            return BaseFact(identity=(("os", "debian 12"), ("python", ref)), says=f"this host: Python {ref}")
        case TreeNeed(source=source):
            inner = ("a.py", "b/c.py") if source.is_dir else ("",)
            paths = {path: f"{source.local}/{path}".rstrip("/") for path in inner}
            return TreeFact(
                files=tuple(
                    FileEntry(path=path, mode=0o644, digest=content(text(local)), size=len(text(local)), source=local)
                    for path, local in paths.items()
                )
            )
        case TextNeed():
            return TextFact(text='[project]\ndependencies = ["attrs"]')
        case SecretNeed():
            return SecretFact(version=1)
        case PythonNeed(version=version):
            return PythonFact(resolved=f"cpython-{version}.1-linux-x86_64-gnu")
        case _:
            return VolumeFact(exists=True)


def facts_for(decl: AppDecl, text: Callable[[str], str] = lambda path: path) -> Facts:
    return Facts(runtime="native", found=tuple((need, fact_for(need, text)) for need in needs(decl)))


# --- graphs -------------------------------------------------------------------------------------------


@st.composite
def dags(draw: st.DrawFn, max_nodes: int = 8) -> Graph:
    """Graphs of any shape; every node has inputs among those before it."""
    nodes: list[Node] = []
    for number in range(draw(st.integers(0, max_nodes))):
        inputs = draw(st.lists(st.sampled_from([n.address for n in nodes]), unique=True)) if nodes else []
        digests = {node.address: node.digest for node in nodes}
        spec = BundleSpec(files=(FileEntry(path=f"/{number}", mode=0o644, digest=content(str(number))),))
        digest = node_digest(spec, [digests[a] for a in inputs])
        nodes.append(Node(address=f"bundle {number}", spec=spec, inputs=tuple(inputs), digest=digest))
    return Graph(app="dag", runtime="native", nodes=tuple(nodes))
