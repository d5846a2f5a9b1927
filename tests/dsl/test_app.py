"""Declaring apps: what is taken, what is refused at once, what is left for the plan to say."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import slipway
from slipway.dsl import context
from slipway.dsl.declaration import Autoscaling, Resources
from slipway.dsl.errors import InvalidError
from slipway.dsl.options import CLS, FUNCTION

from .conftest import LocalRunner


def plain(x: int = 0) -> int:
    return x


class Holder:
    def method(self) -> None: ...


def declared(**options: Any) -> Any:
    return slipway.App("a").function(serialized=True, **options)(plain)


EVERY_PARAMETER: dict[str, Any] = {
    "image": slipway.Image.debian_slim(),
    "schedule": slipway.Cron("0 3 * * *"),
    "env": {"A": "1", "B": None},
    "secrets": [slipway.Secret.from_dict({"T": "t"})],
    "gpu": ["H100:2", "a100"],
    "serialized": False,
    "network_file_systems": {},
    "volumes": {"/data": slipway.Volume.from_name("data")},
    "cpu": (0.5, 2.0),
    "memory": (128, 512),
    "ephemeral_disk": 1024,
    "min_containers": 1,
    "max_containers": 3,
    "buffer_containers": 1,
    "scaledown_window": 120,
    "proxy": "p",
    "retries": slipway.Retries(max_retries=2),
    "timeout": 60,
    "startup_timeout": 30,
    "name": "other-name",
    "is_generator": False,
    "cloud": "aws",
    "region": ["eu-west"],
    "routing_region": "us-east",
    "nonpreemptible": True,
    "enable_memory_snapshot": True,
    "block_network": True,
    "restrict_modal_access": True,
    "single_use_containers": True,
    "i6pn": True,
    "include_source": False,
    "experimental_options": {"x": 1},
    "_experimental_restrict_output": True,
}
OLDER_NAMES = {"max_inputs", "concurrency_limit", "keep_warm", "container_idle_timeout", "allow_concurrent_inputs"}


def test_every_parameter_of_the_model_is_taken() -> None:
    assert set(EVERY_PARAMETER) | OLDER_NAMES == FUNCTION
    assert {"schedule", "name", "is_generator"} == FUNCTION - CLS
    app = slipway.App("all")
    function = app.function(**EVERY_PARAMETER)(plain)
    settings = function.settings
    assert settings is not None and app.functions == {"other-name": function}
    assert settings.resources == Resources(
        cpu_milli=500,
        cpu_limit_milli=2000,
        memory_mib=128,
        memory_limit_mib=512,
        gpus=("H100:2", "A100"),
        ephemeral_disk_mib=1024,
    )
    assert settings.autoscaling == Autoscaling(
        min_containers=1,
        max_containers=3,
        buffer_containers=1,
        scaledown_window_ms=120_000,
        single_use_containers=True,
    )
    assert [s.keys for s in settings.secrets] == [("T",), ("A",)]
    assert (settings.timeout_ms, settings.startup_timeout_ms, settings.block_network) == (60_000, 30_000, True)
    assert settings.retries is not None and settings.retries.max_retries == 2
    assert dict(settings.plain)["region"] == "['eu-west']"
    assert app.faults == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": None}, "timeout=None: a function always has a timeout"),
        ({"timeout": 0}, "timeout=0: it takes seconds, from 1 to 2592000"),
        ({"min_containers": 3, "max_containers": 2}, "min_containers=3 is above max_containers=2"),
        ({"max_containers": 0}, "max_containers=0: it takes a whole number from 1 on"),
        ({"scaledown_window": 1}, "scaledown_window=1: it takes seconds, from 2 to 3600"),
        ({"scaledown_window": 3601}, "from 2 to 3600"),
        ({"retries": -1}, "retries=-1"),
        ({"retries": True}, "retries=True"),
        ({"gpu": 1}, "gpu= takes a string or a list of them, not int"),
        ({"gpu": "A100:"}, "gpu='A100:' isn't a GPU"),
        ({"gpu": "A100:0"}, "the count must be from 1 to 64"),
        ({"gpu": []}, "names no GPU"),
        ({"cpu": (2, 1)}, r"cpu=\(2, 1\): the limit is below the request"),
        ({"cpu": 0}, "cpu=0: it takes a number of cores above 0"),
        ({"cpu": (1, 2, 3)}, "a pair"),
        ({"memory": (512, 256)}, "the limit is below the request"),
        ({"memory": 0.5}, "memory=0.5: it takes a whole number of MiB above 0"),
        ({"memory": "1G"}, "whole number of MiB"),
        ({"ephemeral_disk": (1, 2)}, "ephemeral_disk"),
        ({"volumes": ["/data"]}, "volumes= takes a dict"),
        ({"volumes": {"/data": "data"}}, "must be a slipway.Volume, not str"),
        ({"volumes": {1: slipway.Volume.from_name("d")}}, "a path in volumes= must be a string"),
        ({"secrets": slipway.Secret.from_dict({})}, "secrets= takes a list"),
        ({"secrets": ["TOKEN"]}, "takes slipway.Secret objects, not str"),
        ({"env": {"A": 1}}, "the value of A must be a string, not int"),
        ({"env": {"1A": "x"}}, "'1A' can't be the name of an environment value"),
        ({"image": "debian"}, "image= takes a slipway.Image, not str"),
        ({"schedule": "0 3 * * *"}, "schedule='0 3"),
        ({"name": "a.b"}, "'a.b' can't be the name of a function"),
        ({"name": "x" * 65}, "can't be the name of a function"),
        ({"name": "é"}, "must be ASCII"),
        ({"max_inputs": 2}, "max_inputs=2: only 1 is possible"),
        ({"allow_concurrent_inputs": 0}, "allow_concurrent_inputs=0"),
        ({"concurrency_limit": 2, "max_containers": 2}, "are the same parameter"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message) as caught:
        declared(**options)
    assert f"{__file__}:" in str(caught.value)


def test_unknown_parameters() -> None:
    with pytest.raises(
        TypeError, match=r"@app.function\(\) has no parameter 'max_container'. Did you mean 'max_containers'"
    ):
        declared(max_container=3)
    with pytest.raises(TypeError, match=r"@app.cls\(\) has no parameter 'schedule'"):
        slipway.App("a").cls(schedule=slipway.Cron("* * * * *"))  # type: ignore[call-arg]


def nested() -> Callable[[], None]:
    def inside() -> None: ...

    return inside


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        (Holder, TypeError, "Holder is a class: use @app.cls"),
        (Holder.method, InvalidError, "Holder.method is a method"),
        (nested(), InvalidError, "defined inside of a function, so a worker can't import it"),
        (lambda: 1, InvalidError, "defined inside of a function"),
        (math.sqrt, InvalidError, "decorates Python functions, not builtin"),
        (functools.partial(plain), InvalidError, "decorates Python functions, not partial"),
        (slipway.method()(plain), InvalidError, "is a method"),
    ],
)
def test_what_cannot_be_a_function(target: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        slipway.App("a").function()(target)


def test_serialized_functions_may_be_nested() -> None:
    app = slipway.App("a")
    assert app.function(serialized=True)(nested()).name == "inside"
    with pytest.raises(InvalidError, match="'<lambda>' can't be the name of a function"):
        app.function(serialized=True)(lambda: 1)
    assert app.function(serialized=True, name="one")(lambda: 1).local() == 1


def test_forgotten_parentheses() -> None:
    app = slipway.App("a")
    decorator: Any
    for decorator in (app.function, app.cls, app.local_entrypoint):
        with pytest.raises(InvalidError, match=r"with parentheses"):
            decorator(plain)
    for decorator in (slipway.method, slipway.enter, slipway.exit, slipway.fastapi_endpoint, slipway.asgi_app):
        with pytest.raises(InvalidError, match=r"with parentheses"):
            decorator(plain)
    with pytest.raises(InvalidError, match=r"with parentheses"):
        slipway.web_server(plain)  # type: ignore[arg-type]


def test_function_twice_decorated() -> None:
    app = slipway.App("a")
    with pytest.raises(InvalidError, match="plain is part of an app already"):
        app.function()(app.function()(plain))


def generate() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("options", "target", "message"),
    [
        ({"retries": 1}, generate, "retries= can't be on generate, it is a generator"),
        ({"retries": 1}, slipway.fastapi_endpoint()(plain), "it is a web endpoint"),
        ({}, slipway.asgi_app()(plain), "makes a web app, so it can't have parameters"),
        ({"is_generator": True, "retries": 2}, plain, "it is a generator"),
    ],
)
def test_parameters_that_do_not_fit_the_function(options: dict[str, Any], target: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        slipway.App("a").function(**options)(target)


def test_decorators_stack_in_one_order() -> None:
    app = slipway.App("a")
    function = app.function()(plain)
    for decorate in (slipway.fastapi_endpoint(), slipway.concurrent(max_inputs=2), slipway.web_endpoint()):
        with pytest.raises(InvalidError, match=r"stands above @app.function\(...\) of plain"):
            decorate(function)
    with pytest.raises(InvalidError, match="both 'method' and 'enter'"):
        slipway.enter()(slipway.method()(plain))
    with pytest.raises(InvalidError, match="for a whole class, not for one method"):
        slipway.concurrent(max_inputs=2)(slipway.method()(plain))
    with pytest.raises(InvalidError, match="decorates functions and classes, not int"):
        slipway.concurrent(max_inputs=2)(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="Holder is a class"):
        slipway.method()(Holder)


def single(x: int) -> int:
    return x


def test_batched_and_concurrent() -> None:
    app = slipway.App("a")
    function = app.function()(slipway.batched(max_batch_size=4, wait_ms=10)(single))
    assert function.batching is not None and function.batching.max_batch_size == 4
    with pytest.raises(InvalidError, match="its parameters can't have defaults"):
        slipway.batched(max_batch_size=4, wait_ms=10)(plain)
    with pytest.raises(InvalidError, match="can't be a generator"):
        slipway.batched(max_batch_size=4, wait_ms=10)(generate)
    with pytest.raises(InvalidError, match="max_batch_size=0: it takes a whole number from 1 to 1000"):
        slipway.batched(max_batch_size=0, wait_ms=10)
    with pytest.raises(InvalidError, match="target_inputs=3 is above max_inputs=2"):
        slipway.concurrent(max_inputs=2, target_inputs=3)
    both = slipway.concurrent(max_inputs=2)
    with pytest.raises(InvalidError, match="not both"):
        both(slipway.batched(max_batch_size=4, wait_ms=10)(single))
    with pytest.raises(InvalidError, match="not both"):
        slipway.batched(max_batch_size=4, wait_ms=10)(both(single))
    with pytest.raises(TypeError, match="max_inputs"):
        slipway.concurrent()  # type: ignore[call-arg]


def test_older_names_are_noted_once_each() -> None:
    app = slipway.App("a")
    function = app.function(
        concurrency_limit=4, keep_warm=1, container_idle_timeout=30, allow_concurrent_inputs=8, max_inputs=1
    )(plain)
    assert function.settings is not None and function.concurrency is not None
    scaling = function.settings.autoscaling
    assert (scaling.max_containers, scaling.min_containers, scaling.scaledown_window_ms) == (4, 1, 30_000)
    assert scaling.single_use_containers and function.concurrency.max_inputs == 8
    assert {fault.severity for fault in app.faults} == {"note"}
    assert [fault.summary for fault in app.faults] == [
        "concurrency_limit= is called max_containers= now",
        "keep_warm= is called min_containers= now",
        "container_idle_timeout= is called scaledown_window= now",
        "max_inputs=1 is called single_use_containers=True now",
        "allow_concurrent_inputs=8 is @slipway.concurrent(max_inputs=8) now",
    ]


def test_two_functions_of_one_name_are_a_fault() -> None:
    app = slipway.App("a")
    app.function(name="f")(plain)
    app.function(name="f")(single)
    (fault,) = app.faults
    assert fault.severity == "error" and fault.address == "function f"
    lines = [f"{__file__}:{f.__code__.co_firstlineno}" for f in (plain, single)]
    assert fault.summary == f"the app has two of this name, at {lines[0]} and at {lines[1]}"


def test_at_a_prompt_saying_it_again_replaces_it() -> None:
    app = slipway.App("a")
    namespace: dict[str, Any] = {"app": app}
    for _ in range(2):
        exec(compile("@app.function()\ndef f(): ...\n", "<ipython-input-1>", "exec"), namespace)
    assert app.faults == [] and list(app.functions) == ["f"]


def test_network_file_systems_are_a_fault() -> None:
    app = slipway.App("a")
    app.function(network_file_systems={"/nfs": object()})(plain)
    assert [(f.severity, f.summary) for f in app.faults] == [("error", "there are no network file systems here")]


def test_entrypoints() -> None:
    app = slipway.App("a")

    @app.local_entrypoint()
    def main(x: int = 1) -> int:
        """Say it."""
        return x

    @app.local_entrypoint(name="second")
    async def other() -> int:
        return 2

    assert list(app.entrypoints) == ["main", "second"]
    assert main(3) == 3 and asyncio.run(other()) == 2
    assert main.__doc__ == "Say it." and repr(other) == "<LocalEntrypoint second>"
    with pytest.raises(InvalidError, match="two local entrypoints called main"):
        app.local_entrypoint(name="main")(plain)
    with pytest.raises(InvalidError, match="decorates plain functions"):
        app.local_entrypoint()(app.function()(plain))


def test_include() -> None:
    common, app = slipway.App("common", tags={"team": "a", "x": "1"}), slipway.App("app", tags={"team": "b"})
    function = common.function()(plain)
    common.local_entrypoint()(plain)
    app.function(name="plain")(single)
    app.include(common)
    assert app.functions == {"plain": function} and app.entrypoints == {}
    assert app.tags == (("team", "b"), ("x", "1"))
    assert [(f.severity, f.address) for f in app.faults] == [("warning", "function plain")]
    assert app.include(common).faults == app.faults[:1]
    with pytest.raises(InvalidError, match="takes an App, not str"):
        app.include("common")  # type: ignore[arg-type]


def test_app_without_a_name() -> None:
    app = slipway.App()
    assert app.name is None and repr(app) == "App()" and app.description
    assert slipway.App("named").description == "named"


# --- running and deploying ----------------------------------------------------------------------------

SCRIPT = """
import slipway
app = slipway.App("script")
seen = []

@app.function()
def f(): ...

with app.run():
    seen.append("ran")
with app.run(): seen.append("ran on one line")

@app.function()
def g(): ...
"""


def imported(path: Path, source: str) -> Any:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_script_that_is_only_imported_leaves_its_run_out(tmp_path: Path, runner: LocalRunner) -> None:
    token = context.importing.set(True)
    before = sys.gettrace()
    try:
        module = imported(tmp_path / "script.py", SCRIPT)
    finally:
        context.importing.reset(token)
    assert module.seen == [] and list(module.app.functions) == ["f", "g"]
    assert runner.seen == [] and sys.gettrace() is before


def test_a_script_that_is_run_runs(tmp_path: Path, runner: LocalRunner) -> None:
    assert imported(tmp_path / "script.py", SCRIPT).seen == ["ran", "ran on one line"]
    assert runner.seen == ["run script", "end script"] * 2


def test_run_in_a_function_during_import_is_refused(tmp_path: Path, runner: LocalRunner) -> None:
    source = "import slipway\napp = slipway.App('s')\ndef main():\n    with app.run():\n        pass\nmain()\n"
    token = context.importing.set(True)
    try:
        with pytest.raises(InvalidError, match=r"script.py:4: app.run\(\) is called while the file is being imported"):
            imported(tmp_path / "script.py", source)
        with pytest.raises(InvalidError, match=r"app.deploy\(\) stands at the top of a file that is being imported"):
            imported(tmp_path / "script.py", "import slipway\nslipway.App('s').deploy()\n")
    finally:
        context.importing.reset(token)


def test_run_twice_at_a_time(runner: LocalRunner) -> None:
    app = slipway.App("a")
    with app.run(), pytest.raises(InvalidError, match="is running already"), app.run():
        pass
    with pytest.raises(InvalidError, match="interactive"):
        app.run(interactive=True)


def test_an_error_in_the_block_ends_the_run(runner: LocalRunner) -> None:
    app = slipway.App("a")
    with pytest.raises(KeyError), app.run():
        raise KeyError("x")
    assert runner.seen == ["run a", "end a"] and app.running is None


def test_deploy(runner: LocalRunner) -> None:
    app = slipway.App("a")
    assert app.deploy(tag="v1") is app
    assert asyncio.run(app.deploy.aio(name="b", strategy="recreate")) is app
    assert runner.seen == ["deploy a v1 rolling", "deploy b  recreate"]
    wrong: Any
    for wrong in ({"strategy": "quick"}, {"tag": "x" * 51}, {"name": "a b"}):
        with pytest.raises(InvalidError):
            app.deploy(**wrong)
    with pytest.raises(InvalidError, match="an app needs a name to be deployed"):
        slipway.App().deploy()


def test_later_parts_of_the_app_say_so() -> None:
    with pytest.raises(InvalidError, match=r"App\.lookup is not in this release"):
        slipway.App.lookup("a")
    with pytest.raises(AttributeError, match=r"slipway\.Dict is not in this release of Slipway\. Keep the values"):
        slipway.Dict  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        slipway.Nothing  # noqa: B018
