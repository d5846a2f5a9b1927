"""Declaration to graph: which nodes there are, what they are made of, and what is no part of what they are."""

from __future__ import annotations

from typing import Any

import pytest
import strategies as my
from attrs import evolve
from hypothesis import given

from slipway.compiler.facts import BaseFact, BaseNeed, Facts, FileEntry, Need, TextFact, TextNeed, TreeFact, TreeNeed
from slipway.compiler.lower import compile
from slipway.compiler.nodes import BaseSpec, BundleSpec, FunctionSpec, Graph, LayerSpec, Node, SecretSpec
from slipway.compiler.planfile import verify_graph
from slipway.compiler.world import needs
from slipway.dsl.declaration import (
    AddLocal,
    AddPython,
    AppDecl,
    AptInstall,
    BuildDockerfile,
    CronDecl,
    DebianSlim,
    DockerfileCommands,
    EndpointDecl,
    FromDockerfile,
    FromRegistry,
    FunctionDecl,
    ImageDecl,
    LocalSource,
    Micromamba,
    MicromambaInstall,
    PipInstall,
    RunCommands,
    RunFunction,
    SecretDecl,
    Setting,
    SourceDecl,
    Step,
    StepOptions,
    UvSync,
    VolumeDecl,
)
from slipway.dsl.errors import DeclarationError, InternalError

SCRIPT = LocalSource(local="/p/app.py", remote="/root/app.py")
DATA = LocalSource(local="/p/data", remote="/srv/data", is_dir=True)


def app(*steps: Step, base: Any = None, functions: tuple[FunctionDecl, ...] = (), **fields: Any) -> AppDecl:
    image = ImageDecl(name="search", base=base or DebianSlim(), steps=steps)
    one = FunctionDecl(
        name="index", module="app", qualname="index", image=0, code=SourceDecl(sources=(SCRIPT,)), **fields
    )
    return AppDecl(name="search", images=(image,), functions=functions or (one,), python="3.11", file="/p/app.py")


def graph(decl: AppDecl, **texts: str) -> Graph:
    facts = Facts(runtime="native", found=tuple((need, fact(need, texts)) for need in needs(decl)))
    return compile(decl, facts)


def fact(need: Need, texts: dict[str, str]) -> Any:
    if isinstance(need, TextNeed) and "pyproject" in texts:
        return TextFact(text=texts["pyproject"])
    return my.fact_for(need, lambda path: texts.get(path.rsplit("/", 1)[-1].replace(".", "_"), path))


def node(of: Graph, address: str) -> Node:
    return next(n for n in of.nodes if n.address == address)


def layer(decl: AppDecl, position: int = 1, **texts: str) -> LayerSpec:
    spec = node(graph(decl, **texts), f"image search/{position}").spec
    assert isinstance(spec, LayerSpec)
    return spec


def digest(decl: AppDecl, position: int = 1, **texts: str) -> str:
    return node(graph(decl, **texts), f"image search/{position}").digest


def test_the_nodes_of_an_app() -> None:
    decl = app(
        AptInstall(packages=("git",)),
        Setting(what="env", env=(("A", "1"),)),
        AddLocal(sources=(DATA,)),
        secrets=(SecretDecl(slot="dict:TOKEN#0", keys=("TOKEN",)),),
        volumes=(("/models", VolumeDecl(name="models")),),
        schedule=CronDecl(expression="0 3 * * 1"),
        endpoint=EndpointDecl(style="fastapi"),
    )
    found = graph(decl)
    assert [(n.address, n.inputs) for n in found.nodes] == [
        ("image search/0", ()),
        ("image search/1", ("image search/0",)),
        ("image search/2", ("image search/1",)),
        ("bundle app.py/search", ()),
        ("secret dict:TOKEN#0", ()),
        ("volume models", ()),
        ("function index", ("image search/2", "bundle app.py/search", "secret dict:TOKEN#0", "volume models")),
        ("schedule index", ()),
        ("route index", ()),
    ]
    assert node(found, "secret dict:TOKEN#0").spec == SecretSpec(slot="dict:TOKEN#0", keys=("TOKEN",), version=1)
    base = node(found, "image search/0").spec
    assert isinstance(base, BaseSpec)
    assert (base.ref, base.says) == ("debian_slim 3.11", "this host: Python 3.11")
    bundle = node(found, "bundle app.py/search").spec
    assert isinstance(bundle, BundleSpec)
    assert [f.path for f in bundle.files] == ["/root/app.py", "/srv/data/a.py", "/srv/data/b/c.py"]


@pytest.mark.slow
@given(my.declarations())
def test_compiling_gives_a_graph_that_verifies(decl: AppDecl) -> None:
    found = compile(decl, my.facts_for(decl))
    verify_graph(found)
    assert found == compile(decl, my.facts_for(decl))


def test_a_declaration_with_faults_is_not_compiled() -> None:
    decl = app(AptInstall(packages=("-y",)), timeout_ms=1)
    with pytest.raises(DeclarationError) as caught:
        graph(decl)
    assert len(caught.value.faults) == 2


def test_facts_that_were_not_gathered_are_a_bug_and_said_as_one() -> None:
    with pytest.raises(InternalError, match="BaseFact"):
        compile(app(), Facts(runtime="native"))


def test_needs_are_asked_once_and_in_order() -> None:
    other = LocalSource(local="/p/data", remote="/elsewhere", is_dir=True)
    decl = app(AddLocal(sources=(DATA,), copy=True), AddLocal(sources=(other,), copy=True))
    assert needs(decl) == (BaseNeed(kind="debian_slim", ref="3.11"), TreeNeed(source=DATA), TreeNeed(source=SCRIPT))


def test_trees_that_lie_elsewhere_are_two_needs_though_they_are_equal() -> None:
    """Equality leaves `local` out; what is asked of the world does not."""
    two = LocalSource(local="/q/data", remote="/srv/data", is_dir=True)
    assert TreeNeed(source=two) == TreeNeed(source=DATA)
    assert len(needs(app(AddLocal(sources=(DATA, two), copy=True)))) == 4


def test_later_mounts_shadow_earlier_ones_file_by_file() -> None:
    over = LocalSource(local="/p/over.py", remote="/srv/data/a.py")
    spec = node(graph(app(AddLocal(sources=(DATA,)), AddLocal(sources=(over,)))), "bundle app.py/search").spec
    assert isinstance(spec, BundleSpec)
    by_path = {f.path: f.source for f in spec.files}
    assert by_path["/srv/data/a.py"] == "/p/over.py"
    assert by_path["/srv/data/b/c.py"] == "/p/data/b/c.py"


def test_functions_share_a_bundle_where_their_code_and_mounts_are_the_same() -> None:
    code = SourceDecl(sources=(SCRIPT,))
    pkg = SourceDecl(sources=(LocalSource(local="/p/pkg", remote="/root/pkg", is_dir=True),))
    again = SourceDecl(sources=(LocalSource(local="/q/pkg", remote="/root/pkg", is_dir=True),))
    listed = [("a", code), ("b", code), ("c", pkg), ("d", again), ("e", SourceDecl())]
    functions = tuple(FunctionDecl(name=n, module="m", qualname=n, image=0, code=c) for n, c in listed)
    found = graph(app(functions=functions))
    assert [node(found, f"function {n}").inputs[1:] for n in "abcde"] == [
        ("bundle app.py",),
        ("bundle app.py",),
        ("bundle pkg",),
        ("bundle pkg#2",),
        (),
    ]


def test_images_that_are_equal_have_equal_layers() -> None:
    steps = (AptInstall(packages=("git",)), PipInstall(packages=("rich",)))
    images = tuple(ImageDecl(name=n, base=DebianSlim(), steps=steps) for n in ("a", "b"))
    found = graph(evolve(app(), images=images))
    assert [node(found, f"image a/{i}").digest for i in range(3)] == [
        node(found, f"image b/{i}").digest for i in range(3)
    ]


# --- what a layer is ----------------------------------------------------------------------------------


def test_the_order_of_pip_packages_is_nothing_that_of_apt_packages_is() -> None:
    pip = [digest(app(PipInstall(packages=names))) for names in (("a", "b"), ("b", "a"))]
    apt = [digest(app(AptInstall(packages=names))) for names in (("a", "b"), ("b", "a"))]
    assert pip[0] == pip[1]
    assert apt[0] != apt[1]


def test_what_a_function_asks_for_is_no_part_of_its_image() -> None:
    plain = graph(app(AptInstall(packages=("git",))))
    changed = graph(app(AptInstall(packages=("git",)), timeout_ms=5000, volumes=(("/m", VolumeDecl(name="m")),)))
    assert node(plain, "image search/1").digest == node(changed, "image search/1").digest
    assert node(plain, "function index").digest != node(changed, "function index").digest


def test_an_edit_of_the_code_is_felt_by_the_bundle_and_its_functions_only() -> None:
    decl = app(AptInstall(packages=("git",)), schedule=CronDecl(expression="0 3 * * 1"))
    one, two = graph(decl, app_py="old"), graph(decl, app_py="new")
    differ = [a.address for a, b in zip(one.nodes, two.nodes, strict=True) if a.digest != b.digest]
    assert differ == ["bundle app.py", "function index"]


def test_copied_files_count_by_content_not_by_how_they_were_chosen() -> None:
    chosen = evolve(DATA, local="/q/data", ignore=("*.pyc",))
    texts = {"a_py": "same", "c_py": "same"}
    copies = [app(AddLocal(sources=(source,), copy=True)) for source in (DATA, chosen)]
    assert digest(copies[0], 1, **texts) == digest(copies[1], 1, **texts)
    assert digest(copies[0], 1, **texts) != digest(copies[0], a_py="other", c_py="same")
    spec = layer(copies[0])
    assert [f.path for f in spec.files] == ["/srv/data/a.py", "/srv/data/b/c.py"]


def test_requirements_count_by_content() -> None:
    decl = app(PipInstall(requirements=(LocalSource(local="/p/requirements.txt", remote="/.reqs/r.txt"),)))
    assert digest(decl, requirements_txt="a") != digest(decl, requirements_txt="b")
    assert [f.path for f in layer(decl).files] == ["/.reqs/r.txt"]


PROJECT = '[project]\nname = "x"\ndependencies = ["b", "a"]\noptional-dependencies.dev = ["c"]\n'


def test_of_a_pyproject_only_the_lists_that_are_used_count() -> None:
    source = LocalSource(local="/p/pyproject.toml", remote="/x/pyproject.toml")
    plain = app(PipInstall(pyproject=source, method="pip_install_from_pyproject"))
    extra = app(PipInstall(pyproject=source, optional_dependencies=("dev",), packages=("d",)))
    spec = layer(plain, pyproject=PROJECT)
    assert isinstance(spec.step, PipInstall)
    assert (spec.step.packages, spec.step.pyproject, spec.files) == (("a", "b"), None, ())
    assert spec.title == "pip_install_from_pyproject pyproject.toml"
    both = layer(extra, pyproject=PROJECT).step
    assert isinstance(both, PipInstall)
    assert both.packages == ("a", "b", "c", "d")
    edited = PROJECT.replace('"x"', '"y"').replace('["c"]', '["z"]') + "[tool.ruff]\n"
    assert digest(plain, pyproject=PROJECT) == digest(plain, pyproject=edited)
    assert digest(extra, pyproject=PROJECT) != digest(extra, pyproject=edited)


def test_of_a_uv_project_two_files_count() -> None:
    decl = app(UvSync(project=LocalSource(local="/p", remote="/.uv", is_dir=True, ignore=("x",)), frozen=False))
    (need,) = [n for n in needs(decl) if isinstance(n, TreeNeed) and n.source.is_dir]
    assert (need.source.only, need.source.ignore) == (("pyproject.toml", "uv.lock"), ())
    entry = FileEntry(path="pyproject.toml", mode=0o644, digest=my.content("x"))
    found = tuple((n, TreeFact(files=(entry,)) if n == need else my.fact_for(n)) for n in needs(decl))
    spec = node(compile(decl, Facts(runtime="native", found=found)), "image search/1").spec
    assert isinstance(spec, LayerSpec)
    assert [f.path for f in spec.files] == ["/.uv/pyproject.toml"]


def test_a_secret_counts_by_name_and_version() -> None:
    step = RunCommands(commands=("make",), options=StepOptions(secrets=(SecretDecl(slot="dict:TOKEN#0"),)))
    assert layer(app(step)).secrets == (("dict:TOKEN#0", 1),)
    assert digest(app(step)) != digest(app(evolve(step, options=StepOptions())))


def test_a_function_step_counts_by_its_source_and_carries_the_code_beside() -> None:
    step = RunFunction(module="app", qualname="get", source="def get(): ...", code=SourceDecl(sources=(SCRIPT,)))
    assert [f.path for f in layer(app(step)).code] == ["/root/app.py"]
    assert digest(app(step), app_py="old") == digest(app(step), app_py="new")
    assert digest(app(step)) != digest(app(evolve(step, source="def get(): return 1")))
    assert digest(app(step)) == digest(app(evolve(step, timeout_ms=1, payload="xyz", code=None)))


def test_volumes_of_steps_are_there_before_the_layer() -> None:
    volumes = (("/cache", VolumeDecl(name="cache", create_if_missing=True)),)
    found = graph(app(RunCommands(commands=("make",), volumes=volumes)))
    assert node(found, "image search/1").inputs == ("image search/0", "volume cache")
    function = RunFunction(module="app", qualname="get", source="x", volumes=volumes)
    assert node(graph(app(function)), "image search/1").inputs == ("image search/0", "volume cache")
    plain = ((volumes[0][0], evolve(volumes[0][1], create_if_missing=False)),)
    assert digest(app(RunCommands(commands=("x",), volumes=volumes))) == digest(
        app(RunCommands(commands=("x",), volumes=plain))
    )


def test_other_steps_with_files() -> None:
    spec = LocalSource(local="/p/env.yml", remote="/x/env.yml")
    assert [f.path for f in layer(app(MicromambaInstall(spec_file=spec))).files] == ["/x/env.yml"]
    assert [f.path for f in layer(app(DockerfileCommands(commands=("RUN x",), context=(spec,)))).files] == [
        "/x/env.yml"
    ]


def test_force_build_is_no_identity_and_goes_up_the_chain() -> None:
    forced = StepOptions(force_build=True)
    steps = (AptInstall(packages=("a",)), AptInstall(packages=("b",), options=forced), AptInstall(packages=("c",)))
    found = graph(app(*steps))
    assert [layer(app(*steps), i).forced for i in (1, 2, 3)] == [False, True, True]
    assert layer(app(AptInstall(packages=("a",)), base=DebianSlim(force_build=True))).forced
    plain = graph(app(*(evolve(step, options=StepOptions()) for step in steps)))
    assert [n.digest for n in found.nodes] == [n.digest for n in plain.nodes]


KEYS = SecretDecl(slot="dict:REGISTRY_PASSWORD,REGISTRY_USERNAME#0", keys=("REGISTRY_PASSWORD", "REGISTRY_USERNAME"))
DOCKERFILE = """# comment
ARG V=3.12
FROM python:${V} AS base
COPY src /src
FROM scratch
COPY --from=base / /
COPY --from=alpine:3 /bin /bin
"""


def addresses(decl: Any) -> dict[str, tuple[str, ...]]:
    return {n.address: n.inputs for n in graph(decl).nodes if n.address.startswith(("image", "base"))}


def test_a_base_of_a_registry_is_its_manifest_whoever_may_fetch_it() -> None:
    decl = app(base=FromRegistry(tag="python:3.12", secret=KEYS))
    (need,) = [n for n in needs(decl) if isinstance(n, BaseNeed)]
    assert (need.kind, need.ref, need.secret, need.fresh) == ("from_registry", "python:3.12", KEYS.slot, False)
    with_keys, without = node(graph(decl), "image search/0"), FromRegistry(tag="python:3.12")
    assert isinstance(with_keys.spec, BaseSpec)
    assert with_keys.spec.auth == ((KEYS.slot, 1),)
    fact = my.fact_for(need)
    assert isinstance(fact, BaseFact) and with_keys.spec.identity == fact.identity
    assert with_keys.digest == node(graph(app(base=without)), "image search/0").digest


def test_what_a_base_brings_along_are_layers() -> None:
    base = FromRegistry(tag="cuda:12", setup_commands=("RUN true",), add_python="3.12", force_build=True)
    decl = app(AptInstall(packages=("git",)), base=base)
    steps = [spec.step for n in graph(decl).nodes if isinstance(spec := n.spec, LayerSpec)]
    assert [step.KIND for step in steps] == ["dockerfile_commands", "add_python", "apt_install"]
    assert isinstance(steps[1], AddPython) and steps[1].resolved == "cpython-3.12.1-linux-x86_64-gnu"
    assert all(n.spec.forced for n in graph(decl).nodes if isinstance(n.spec, LayerSpec))
    assert [n.fresh for n in needs(decl) if isinstance(n, BaseNeed)] == [True]
    (step,) = [
        spec.step
        for n in graph(app(base=Micromamba(python_version="3.12"))).nodes
        if isinstance(spec := n.spec, LayerSpec)
    ]
    assert isinstance(step, MicromambaInstall) and step.packages == ("python=3.12",)


def test_a_dockerfile_is_a_layer_on_nothing_and_on_what_it_names() -> None:
    source = LocalSource(local="/p", remote="/", is_dir=True, only=("a.py", "b/c.py"))
    base = FromDockerfile(
        path="/p/Dockerfile", text=DOCKERFILE, context=(source,), build_args=(("V", "3.13"),), registry_secret=KEYS
    )
    found = addresses(app(AptInstall(packages=("git",)), base=base))
    assert found == {
        "image search/0": (),
        "base python:3.13": (),
        "base alpine:3": (),
        "image search/1": ("image search/0", "base python:3.13", "base alpine:3"),
        "image search/2": ("image search/1",),
    }
    spec = layer(app(base=base))
    assert isinstance(spec.step, BuildDockerfile)
    assert [entry.path for entry in spec.files] == ["/a.py", "/b/c.py"]
    assert spec.title == "from_dockerfile Dockerfile"
    tip = node(graph(app(base=base)), "image search/1").digest
    for same in (evolve(base, text=DOCKERFILE.replace("comment", "words")), evolve(base, path="/elsewhere")):
        assert node(graph(app(base=same)), "image search/1").digest == tip
    for other in (
        evolve(base, text=DOCKERFILE.replace("/src", "/to")),
        evolve(base, build_args=()),
        evolve(base, text=DOCKERFILE.replace("alpine:3", "alpine:4")),
    ):
        assert node(graph(app(base=other)), "image search/1").digest != tip


def test_two_images_share_what_their_dockerfiles_name() -> None:
    lines = DockerfileCommands(commands=("COPY --from=alpine:3 /bin /bin",))
    decl = app(lines)
    both = evolve(decl, images=(*decl.images, evolve(decl.images[0], name="other")))
    assert [n.address for n in graph(both).nodes if n.address.startswith("base ")] == ["base alpine:3"]


def test_a_functions_volumes_and_secrets() -> None:
    volume = VolumeDecl(name="m", read_only=True, sub_path="x")
    secret = SecretDecl(slot="dict:A#0")
    decl = app(volumes=(("/b", volume), ("/a", VolumeDecl(name="n"))), secrets=(secret, secret))
    spec = node(graph(decl), "function index")
    assert isinstance(spec.spec, FunctionSpec)
    assert spec.spec.volumes == (("/a", "n", False, None), ("/b", "m", True, "x"))
    assert spec.spec.secrets == ("dict:A#0", "dict:A#0")
    assert spec.inputs.count("secret dict:A#0") == 1
