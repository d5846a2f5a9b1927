"""Faults: all of a file at once, each with its place and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import strategies as my
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.compiler.check import check, check_facts
from slipway.compiler.check_class import read_default
from slipway.compiler.facts import (
    BaseNeed,
    Facts,
    FileEntry,
    Missing,
    SecretNeed,
    TextFact,
    TextNeed,
    TreeFact,
    TreeNeed,
    VolumeFact,
    VolumeNeed,
)
from slipway.compiler.lower import compile
from slipway.compiler.world import needs
from slipway.dsl.declaration import (
    AddLocal,
    AppDecl,
    AptInstall,
    Autoscaling,
    Base,
    Batching,
    Concurrency,
    CronDecl,
    DebianSlim,
    DockerfileCommands,
    EndpointDecl,
    Fault,
    FromDockerfile,
    FromRegistry,
    FunctionDecl,
    ImageDecl,
    LocalSource,
    MethodDecl,
    MicromambaInstall,
    Origin,
    ParameterDecl,
    PeriodDecl,
    PipInstall,
    Resources,
    Retries,
    RunCommands,
    SecretDecl,
    Setting,
    SourceDecl,
    Step,
    StepOptions,
    UvSync,
    VolumeDecl,
)
from slipway.dsl.errors import DeclarationError

SCRIPT = LocalSource(local="/p/app.py", remote="/root/app.py")
HERE = Origin(file="app.py", line=41)


def function(**changes: Any) -> FunctionDecl:
    fields: dict[str, Any] = {
        "name": "index",
        "module": "app",
        "qualname": "index",
        "image": 0,
        "origin": HERE,
    } | changes
    return FunctionDecl(code=SourceDecl(sources=(SCRIPT,)), **fields)


def image(*steps: Step, base: Base | None = None, name: str = "search") -> ImageDecl:
    return ImageDecl(
        name=name,
        base=base or DebianSlim(python_version="3.11", origin=HERE),
        steps=steps,
        origin=Origin(file="app.py", line=3),
    )


def app(*functions: FunctionDecl, images: tuple[ImageDecl, ...] = (), **changes: Any) -> AppDecl:
    return AppDecl(
        name=changes.pop("name", "search"),
        images=images or (image(),),
        functions=functions or (function(),),
        python="3.11",
        file="/p/app.py",
        origin=Origin(file="app.py", line=1),
        **changes,
    )


def with_step(step: Step) -> AppDecl:
    return app(images=(image(step),))


def only(decl: AppDecl) -> Fault:
    (fault,) = check(decl)
    return fault


def test_a_sound_declaration_has_no_faults() -> None:
    assert check(app()) == ()


@pytest.mark.slow
@given(my.declarations())
def test_declarations_of_the_strategy_are_sound(decl: AppDecl) -> None:
    assert check(decl) == ()
    assert check_facts(decl, my.facts_for(decl)) == ()


@pytest.mark.slow
@given(my.of(AppDecl))
@settings(suppress_health_check=list(HealthCheck))
def test_every_fault_has_a_place_and_a_hint(decl: AppDecl) -> None:
    """Whatever a file declares: checking it ends, and says of each fault where and what to do."""
    decl = evolve(decl, faults=(), file="/p/app.py")
    facts = Facts(
        runtime="native",
        found=tuple((need, Missing(summary="it is not there")) for need in needs(decl)),
        refusals=(("apt_install", "needs root"),),
    )
    for fault in (*check(decl), *check_facts(decl, facts)):
        assert fault.hint
        assert fault.summary
        assert fault.severity in ("error", "warning", "note")
        assert fault.origin.file


OF_FUNCTION: list[tuple[dict[str, Any], str, str]] = [
    (
        {"schedule": CronDecl(expression="0 3 * * 1"), "required_args": ("day",)},
        "without arguments",
        "Give day a default",
    ),
    ({"schedule": CronDecl(expression="0 3 * *")}, "five fields, this one 4", "minute hour day month weekday"),
    ({"schedule": CronDecl(expression="0 3 * * mon;")}, "not a field", "numbers, names"),
    ({"schedule": CronDecl(expression="@daily")}, "cron words", '"0 0 * * *"'),
    ({"schedule": CronDecl(expression="0 3 * * 1", timezone="Europe/")}, "time zone", "Europe/Berlin"),
    ({"schedule": PeriodDecl()}, "longer than nothing", "Period(minutes=5)"),
    ({"schedule": PeriodDecl(days=-1)}, "longer than nothing", "Period(minutes=5)"),
    ({"schedule": PeriodDecl(ms=10)}, "at least one second", "Period(seconds=1)"),
    ({"image": 4}, "not in the declaration", "bug"),
    ({"qualname": "make.<locals>.index"}, "not at the top level", "serialized=True"),
    ({"name": "in dex"}, "name is not one", 'name="in-dex"'),
    ({"name": "x" * 65}, "name is not one", "1 to 64"),
    ({"timeout_ms": 10}, "timeout is out of range", "timeout=600"),
    ({"startup_timeout_ms": 10**12}, "startup_timeout is out of range", "startup_timeout=600"),
    ({"retries": Retries(max_retries=-1)}, "negative", "0 or more"),
    ({"retries": Retries(max_retries=1, backoff_milli=10)}, "backoff_coefficient", "1.0 to 10.0"),
    ({"retries": Retries(max_retries=1, initial_delay_ms=61_000)}, "initial_delay", "60 s"),
    ({"retries": Retries(max_retries=1, max_delay_ms=1)}, "max_delay", "60 s"),
    ({"retries": Retries(max_retries=1), "is_generator": True}, "generator can't be retried", "list"),
    ({"retries": Retries(max_retries=1), "endpoint": EndpointDecl(style="asgi")}, "web function", "retries="),
    ({"batching": Batching(max_batch_size=2, wait_ms=5), "is_generator": True}, "batched", "list"),
    ({"batching": Batching(max_batch_size=0, wait_ms=5)}, "max_batch_size", "1"),
    ({"batching": Batching(max_batch_size=1, wait_ms=-5)}, "wait_ms", "0 or more"),
    ({"autoscaling": Autoscaling(min_containers=3, max_containers=2)}, "more than max_containers", "max_containers=3"),
    ({"autoscaling": Autoscaling(max_containers=0)}, "less than 1", "max_containers=1"),
    ({"autoscaling": Autoscaling(buffer_containers=-1)}, "buffer_containers is negative", "0 or more"),
    ({"autoscaling": Autoscaling(scaledown_window_ms=1000)}, "scaledown_window", "2 to 3600"),
    ({"concurrency": Concurrency(max_inputs=0)}, "max_inputs", "1"),
    ({"concurrency": Concurrency(max_inputs=2, target_inputs=3)}, "target_inputs", "1 to max_inputs"),
    ({"resources": Resources(cpu_milli=0)}, "more than nothing", "Leave it out"),
    ({"resources": Resources(memory_mib=1024, memory_limit_mib=512)}, "limit of memory is below", "limit last"),
    ({"resources": Resources(ephemeral_disk_mib=0)}, "ephemeral_disk", "Leave it out"),
    ({"resources": Resources(gpus=("A100:0",))}, "not a GPU", '"A100:2"'),
    ({"resources": Resources(gpus=("2xA100",))}, "not a GPU", "A100"),
    ({"resources": Resources(gpus=("H1OO",))}, "no GPU is called that", "H100"),
    ({"volumes": (("data", VolumeDecl(name="v")),)}, "relative", '"/data"'),
    ({"volumes": (("/", VolumeDecl(name="v")),)}, "belongs to the container", '"/data"'),
    ({"volumes": (("/root", VolumeDecl(name="v")),)}, "belongs to the container", '"/data"'),
    ({"volumes": (("/tmp", VolumeDecl(name="v")),)}, "belongs to the container", '"/data"'),
    ({"volumes": (("/proc/x", VolumeDecl(name="v")),)}, "belongs to the container", '"/data"'),
    ({"volumes": (("/usr", VolumeDecl(name="v")),)}, "holds the container's programs", '"/data"'),
    ({"volumes": (("/a/../b", VolumeDecl(name="v")),)}, "not written plainly", '"/b"'),
    ({"volumes": (("/a/", VolumeDecl(name="v")),)}, "not written plainly", '"/a"'),
    ({"volumes": (("/a", VolumeDecl(name="v w")),)}, "not the name of a volume", 'from_name("v-w")'),
    ({"volumes": (("/a", VolumeDecl(name="v", sub_path="../x")),)}, "sub_path", "'..'"),
    ({"volumes": (("/a", VolumeDecl(name="v")), ("/b", VolumeDecl(name="v")))}, "mounted twice", "two volumes"),
    ({"secrets": (SecretDecl(slot="name:x", named=True),)}, "secrets by name come with", "from_dotenv"),
    ({"secrets": (SecretDecl(slot="dict:1A#0", keys=("1A",)),)}, "environment variable", "digit"),
    ({"endpoint": EndpointDecl(style="fastapi", method="GTE")}, "not an HTTP method", '"GET"'),
    ({"endpoint": EndpointDecl(style="soap")}, "no such kind", "fastapi"),
    ({"endpoint": EndpointDecl(style="asgi", label="My App")}, "host name", '"my-app"'),
    ({"endpoint": EndpointDecl(style="web_server", port=0)}, "not a port", "65535"),
    ({"endpoint": EndpointDecl(style="asgi"), "required_args": ("x",)}, "takes no arguments", "defaults"),
]


@pytest.mark.parametrize(
    ("changes", "summary", "hint"), OF_FUNCTION, ids=lambda value: value if type(value) is str else ""
)
def test_faults_of_a_function(changes: dict[str, Any], summary: str, hint: str) -> None:
    fault = only(app(function(**changes)))
    assert fault.severity == "error"
    assert summary in fault.summary
    assert hint in fault.hint
    assert fault.origin.file == "app.py"


@pytest.mark.parametrize("gpu", ["any", "t4", "H100!", "h100:8", "A100-80GB:2", "RTX4090", "L40S"])
def test_gpus_that_may_be_there(gpu: str) -> None:
    assert check(app(function(resources=Resources(gpus=(gpu,))))) == ()


def test_one_volume_with_two_sub_paths_is_not_mounted_twice() -> None:
    volumes = (("/a", VolumeDecl(name="v", sub_path="a")), ("/b", VolumeDecl(name="v", sub_path="b")))
    assert check(app(function(volumes=volumes))) == ()


LATE = AddLocal(sources=(SCRIPT,), method="add_local_file", origin=Origin(file="app.py", line=7))


def add(remote: str, *, is_dir: bool = False) -> AddLocal:
    return AddLocal(
        sources=(LocalSource(local="/p/x", remote=remote, is_dir=is_dir),), method="add_local_file", copy=True
    )


OF_STEP: list[tuple[Step, str, str]] = [
    (PipInstall(packages=("-r requirements.txt",)), "option stands among", "pip_install_from_requirements"),
    (PipInstall(packages=("--pre",)), "option stands among", "pre=True"),
    (PipInstall(packages=("--no-deps",)), "option stands among", 'extra_options="--no-deps"'),
    (PipInstall(packages=(" ",)), "no name", "For example"),
    (PipInstall(packages=("a\nb",)), "several lines", "argument of its own"),
    (PipInstall(packages=("requirements.txt",)), "a file stands", "pip_install_from_requirements"),
    (PipInstall(packages=("a",), index_url="example.org/simple"), "index_url is not", "https://example.org/simple"),
    (PipInstall(packages=("a",), find_links="-x"), "find_links is not", "find_links="),
    (PipInstall(packages=("a",), optional_dependencies=("d v",)), "optional dependencies", "dev"),
    (AptInstall(packages=("-y",)), "option stands among", "run_commands"),
    (AptInstall(packages=("git>=2",)), "not the name of a Debian package", 'apt_install("git")'),
    (AptInstall(packages=()), "names no package", 'apt_install("git")'),
    (MicromambaInstall(packages=("-c",)), "option stands among", "run_commands"),
    (RunCommands(commands=("",)), "command is empty", "Leave it out"),
    (DockerfileCommands(commands=(" ",)), "there is no instruction", "RUN true"),
    (DockerfileCommands(commands=("RUN true", "VOLUME /x")), "VOLUME is not supported", "mount a volume"),
    (DockerfileCommands(commands=("FROM x",)), "stand on the image already", "from_dockerfile"),
    (
        DockerfileCommands(commands=("RUN x",), options=StepOptions(secrets=(SecretDecl(slot="s", keys=("TOKEN",)),))),
        "can't have secrets",
        "run_commands(…, secrets=[…])",
    ),
    (DockerfileCommands(commands=("RUN x",), options=StepOptions(gpu="T4")), "can't have a GPU", "run_commands"),
    (RunCommands(commands=("x",), volumes=(("/root", VolumeDecl(name="v")),)), "can't be mounted", "/data"),
    (RunCommands(commands=("x",), options=StepOptions(gpu="?")), "not a GPU", "A100:2"),
    (
        RunCommands(commands=("x",), options=StepOptions(secrets=(SecretDecl(slot="n", named=True),))),
        "by name",
        "dotenv",
    ),
    (Setting(what="env", env=(("A-B", "1"),)), "environment variable", "letters"),
    (Setting(what="env", env=(("A", "\0"),)), "NUL", "without"),
    (Setting(what="workdir", values=("../srv",)), "not a folder to work in", '"/srv"'),
    (Setting(what="workdir"), "not a folder to work in", '"/root"'),
    (Setting(what="entrypoint", values=("\0",)), "NUL", "without"),
    (Setting(what="user", values=("me",)), "no such setting", "workdir"),
    (add("data/x"), "relative", '"/root/data/x"'),
    (add("/a/../b"), "not written plainly", '"/b"'),
    (add("/proc/x"), "nothing can be added there", "container itself"),
    (add("/"), "take the place of /", "keeps its name"),
]


@pytest.mark.parametrize(("step", "summary", "hint"), OF_STEP, ids=lambda value: value if type(value) is str else "")
def test_faults_of_a_step(step: Step, summary: str, hint: str) -> None:
    fault = only(with_step(step))
    assert summary in fault.summary
    assert hint in fault.hint
    assert fault.address == "image search, step 1"
    assert fault.origin.file == "app.py"


def test_a_folder_to_work_in_may_be_relative_to_the_one_before() -> None:
    assert check(with_step(Setting(what="workdir", values=("srv",)))) == ()


def test_a_folder_may_be_laid_over_the_root() -> None:
    assert check(with_step(add("/", is_dir=True))) == ()


@pytest.mark.parametrize("later", [AptInstall(packages=("git",)), add("/x"), Setting(what="workdir", values=("/x",))])
def test_a_build_step_after_files_that_come_at_start(later: Step) -> None:
    fault = only(app(images=(image(LATE, LATE, evolve(later, origin=HERE), AptInstall(packages=("curl",))),)))
    assert fault.address == "image search, step 3"
    assert "build step follows add_local_file" in fault.summary
    assert "app.py:7" in fault.found
    assert "copy=True" in fault.hint
    assert str(fault.origin) == "app.py:41"


@pytest.mark.parametrize(
    ("version", "hint"), [("311", '"3.11"'), ("3", '"3.11"'), ("python3.12", '"3.12"'), ("2.7", '"3.11"')]
)
def test_python_versions(version: str, hint: str) -> None:
    fault = only(app(images=(image(base=DebianSlim(python_version=version, origin=HERE)),)))
    assert "not a version of Python" in fault.summary
    assert hint in fault.hint


@pytest.mark.parametrize("base", [DebianSlim(python_version="3.9"), FromRegistry(tag="x", add_python="3.9.18")])
def test_a_python_that_no_worker_runs_on(base: Base) -> None:
    fault = only(app(images=(image(base=base),)))
    assert (fault.summary, fault.hint) == ("this Python is too old to run functions", "Take 3.10 or later.")


def test_bases() -> None:
    assert "name of an image" in only(app(images=(image(base=FromRegistry(tag="-x")),))).summary
    base = FromDockerfile(path="/p/Dockerfile", build_args=(("a b", "1"),))
    assert "environment variable" in only(app(images=(image(base=base),))).summary


def test_faults_of_the_app() -> None:
    assert "name is not one" in only(app(name="")).summary
    assert "looks like an app's id" in only(app(name="ap-" + "x" * 22)).summary
    empty = check(AppDecl(name="a", file="/p/app.py"))
    assert [(f.severity, str(f.origin)) for f in empty] == [("warning", "/p/app.py:1")]


def test_names_that_are_taken() -> None:
    second = function(origin=Origin(file="app.py", line=60))
    fault = only(app(function(), second))
    assert "two functions are called 'index'" in fault.summary
    assert "app.py:41" in fault.found
    assert "app.py:60" in fault.found
    assert str(fault.origin) == "app.py:60"
    assert "two images" in only(app(images=(image(), image()))).summary


def test_a_dockerfile_is_faulty_once_and_where_it_is() -> None:
    base = FromDockerfile(path="/p/Dockerfile", text="FROM a\nVOLUME /x\nRUM y\n")
    decl = app(images=(image(base=base), evolve(image(base=base), name="other")))
    said = [
        (str(fault.origin), fault.address, fault.summary) for fault in check(decl) if "Dockerfile" in str(fault.origin)
    ]
    assert said == [
        ("/p/Dockerfile:2", "", "VOLUME is not supported"),
        ("/p/Dockerfile:3", "", "there is no such instruction"),
    ]
    secret = SecretDecl(slot="s", keys=("TOKEN",), origin=HERE)
    with_secret = only(app(images=(image(base=evolve(base, text="FROM a", secrets=(secret,), gpu=None)),)))
    assert "can't have secrets" in with_secret.summary and with_secret.found == "TOKEN"


EMBED = MethodDecl(name="embed")


def model(**said: Any) -> FunctionDecl:
    return function(**{"name": "Model", "qualname": "Model", "methods": (EMBED,), **said})


def test_a_class_is_called_one() -> None:
    assert check(app(model(parameters=(ParameterDecl(name="size", type="str", default=""),)))) == ()
    inner = only(app(model(qualname="f.<locals>.Model")))
    assert inner.address == "class Model" and "a class that is not at the top level" in inner.summary
    assert "@app.cls(serialized=True)" in inner.hint
    both = only(app(model(), function(name="Model")))
    assert "two functions or classes are called 'Model'" in both.summary


@pytest.mark.parametrize(
    ("said", "summary"),
    [
        ({"methods": (EMBED, EMBED)}, "its methods are not told apart"),
        ({"methods": (MethodDecl(name="em bed"),)}, "its methods are not told apart"),
        ({"methods": (EMBED, MethodDecl(name="b")), "batching": Batching(max_batch_size=2, wait_ms=1)}, "no other"),
        (
            {"batching": Batching(max_batch_size=2, wait_ms=1), "concurrency": Concurrency(max_inputs=2)},
            "it is concurrent and batched, and can be only one",
        ),
        (
            {
                "methods": (MethodDecl(name="items", is_generator=True),),
                "batching": Batching(max_batch_size=2, wait_ms=1),
            },
            "can't be a generator",
        ),
        (
            {"methods": (MethodDecl(name="items", is_generator=True),), "retries": Retries(max_retries=1)},
            "a generator can't be retried",
        ),
        ({"parameters": (ParameterDecl(name="rate", type="float"),)}, "of a type that parameters can't have"),
        ({"parameters": (ParameterDecl(name="a", type="int", default="x"),)}, "the default of the parameter a is no"),
        ({"parameters": (ParameterDecl(name="a", type="int", default="True"),)}, "the default of the parameter a is"),
        ({"parameters": (ParameterDecl(name="a", type="int"),) * 2}, "two of its parameters have one name"),
    ],
)
def test_what_a_class_can_not_be(said: dict[str, Any], summary: str) -> None:
    fault = only(app(model(**said)))
    assert summary in fault.summary and fault.address == "class Model"


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.binary()))
def test_the_default_of_a_parameter_is_read_as_it_was_written(value: str | int | bool | bytes) -> None:
    text = value if isinstance(value, str) else repr(value)
    read = read_default(ParameterDecl(name="a", type=type(value).__name__, default=text))
    assert (type(read), read) == (type(value), value)


def test_everything_is_said_at_once_and_once() -> None:
    collected = Fault(
        severity="note", address="function index", summary="gpu= is not in effect yet", hint="h", origin=HERE
    )
    wrong = function(name="in dex", timeout_ms=1, image=9)
    faults = check(app(wrong, faults=(collected, collected)))
    assert [f.severity for f in faults] == ["note", "error", "error", "error"]


# --- the world ----------------------------------------------------------------------------------------


def world(decl: AppDecl, change: Callable[[Any], Any] = lambda need: None, **more: Any) -> Facts:
    found = tuple((need, change(need) or my.fact_for(need)) for need in needs(decl))
    return Facts(runtime="native", found=found, **more)


def test_a_base_that_is_not_to_be_had_is_said_with_its_way_out() -> None:
    missing = Missing(summary="this host has no Python 3.11", hint="Install it, or --runtime docker")
    (fault,) = check_facts(app(), world(app(), lambda need: missing if isinstance(need, BaseNeed) else None))
    assert (fault.address, fault.summary, fault.hint) == ("image search", missing.summary, missing.hint)
    assert str(fault.origin) == "app.py:41"


def test_what_the_runtime_refuses() -> None:
    decl = app(
        images=(image(AptInstall(packages=("git",), origin=HERE), base=FromRegistry(tag="python:3.12", origin=HERE)),)
    )
    refusals = (
        ("from_registry", "it has no registries; use `--runtime docker`"),
        ("apt_install", "needs root"),
    )
    absent = Missing(summary="no")
    faults = check_facts(decl, world(decl, lambda n: absent if isinstance(n, BaseNeed) else None, refusals=refusals))
    assert [(f.address, f.summary, f.hint) for f in faults] == [
        (
            "image search",
            "from_registry: it has no registries",
            "Use `--runtime docker`.",
        ),
        (
            "image search, step 1",
            "apt_install: needs root",
            "See what this machine can do: slipway doctor",
        ),
    ]
    with pytest.raises(DeclarationError) as caught:
        compile(decl, world(decl, refusals=refusals))
    assert caught.value.faults == faults


def test_a_gpu_in_a_build_where_there_is_none() -> None:
    decl = with_step(RunCommands(commands=("x",), options=StepOptions(gpu="A100")))
    (fault,) = check_facts(decl, world(decl, refusals=(("gpu", "no GPU is there; run it later"),)))
    assert "gpu='A100' in a build step" in fault.summary


def test_a_volume_that_is_not_there() -> None:
    def absent(need: Any) -> Any:
        return VolumeFact(exists=False) if isinstance(need, VolumeNeed) else None

    decl = app(function(volumes=(("/m", VolumeDecl(name="models", origin=HERE)),)))
    (fault,) = check_facts(decl, world(decl, absent))
    assert "no volume called 'models'" in fault.summary
    assert "create_if_missing=True" in fault.hint and fault.severity == "warning"
    made = function(name="other", volumes=(("/m", VolumeDecl(name="models", create_if_missing=True)),))
    both = app(decl.functions[0], made)
    assert check_facts(both, world(both, absent)) == ()


def test_files_secrets_and_volumes_that_cannot_be_read() -> None:
    decl = app(
        function(
            secrets=(SecretDecl(slot="dotenv#0", origin=HERE),), volumes=(("/m", VolumeDecl(name="m", origin=HERE)),)
        ),
        images=(image(LATE, PipInstall(requirements=(LocalSource(local="/p/r.txt", remote="/r.txt"),))),),
    )

    def absent(need: Any) -> Any:
        return None if isinstance(need, BaseNeed) else Missing(summary=f"no {need.KIND}")

    faults = check_facts(decl, world(decl, absent))
    assert [f.summary for f in faults] == ["no tree_need", "no tree_need", "no secret_need", "no volume_need"]
    assert all("plan again" in f.hint for f in faults)


def test_an_empty_folder_is_worth_a_warning() -> None:
    decl = with_step(add("/data", is_dir=True))
    (fault,) = check_facts(
        decl, world(decl, lambda n: TreeFact(files=()) if isinstance(n, TreeNeed) and n.source.is_dir else None)
    )
    assert fault.severity == "warning"
    assert "/p/x" in fault.summary


def test_limits_are_noted_only_where_they_are_asked_for() -> None:
    notes = (("memory", "memory limit not enforced"), ("cpu", "cpu limit not enforced"), ("general", "kernel is old"))
    asked = app(function(resources=Resources(memory_mib=512)))
    faults = check_facts(asked, world(asked, notes=notes))
    assert [f.summary for f in faults] == ["memory limit not enforced", "kernel is old"]
    assert {f.severity for f in faults} == {"note"}


def test_what_a_runtime_says_of_snapshots_is_for_functions_with_one_and_with_limits() -> None:
    notes = (("snapshot", "no memory snapshot where memory= is set"),)
    for snapshot in (False, True):
        for resources in (Resources(), Resources(gpus=("T4",)), Resources(cpu_milli=500)):
            asked = app(function(resources=resources, memory_snapshot=snapshot))
            faults = check_facts(asked, world(asked, notes=notes))
            assert bool(faults) == (snapshot and resources.cpu_milli is not None)


def uv(frozen: bool = True) -> AppDecl:
    return with_step(UvSync(project=LocalSource(local="/p", remote="/.uv", is_dir=True), frozen=frozen, origin=HERE))


@pytest.mark.parametrize(
    ("there", "frozen", "said"),
    [
        ((), True, "no pyproject.toml"),
        (("pyproject.toml",), True, "no uv.lock"),
        (("pyproject.toml",), False, ""),
        (("pyproject.toml", "uv.lock"), True, ""),
    ],
)
def test_uv_projects(there: tuple[str, ...], frozen: bool, said: str) -> None:
    tree = TreeFact(files=tuple(FileEntry(path=path, mode=0o644, digest="sha256:0") for path in there))
    decl = uv(frozen)
    faults = check_facts(decl, world(decl, lambda n: tree if isinstance(n, TreeNeed) and n.source.is_dir else None))
    errors = [f.summary for f in faults if f.severity == "error"]
    assert [said in summary for summary in errors] == ([True] if said else [])


@pytest.mark.parametrize(
    ("text", "extras", "summary", "hint"),
    [
        ("[project", (), "not valid TOML", "Correct"),
        ("[tool.x]\n", (), "no [project.dependencies]", "dependencies = "),
        ("project = 3", (), "no [project.dependencies]", "dependencies = "),
        ('[project]\ndependencies = "x"', (), "not a list of texts", "numpy"),
        ("[project]\ndependencies = []", ("dev",), "optional dependencies called 'dev'", "add it"),
        (
            "[project]\ndependencies = []\noptional-dependencies.devel = []",
            ("devl",),
            "optional dependencies called 'devl'",
            "'devel'",
        ),
    ],
)
def test_pyprojects(text: str, extras: tuple[str, ...], summary: str, hint: str) -> None:
    step = PipInstall(
        pyproject=LocalSource(local="/p/pyproject.toml", remote="/x"), optional_dependencies=extras, origin=HERE
    )
    decl = with_step(step)
    (fault,) = check_facts(decl, world(decl, lambda n: TextFact(text=text) if isinstance(n, TextNeed) else None))
    assert summary in fault.summary
    assert hint in fault.hint
    assert "/p/pyproject.toml" in fault.found
    (fault,) = check_facts(decl, world(decl, lambda n: Missing(summary="gone") if isinstance(n, TextNeed) else None))
    assert fault.summary == "gone"


def test_secrets_by_name_are_not_looked_for() -> None:
    decl = app(function(secrets=(SecretDecl(slot="name:x", named=True),)))
    facts = world(decl, lambda n: Missing(summary="no") if isinstance(n, SecretNeed) else None)
    assert check_facts(decl, facts) == ()
