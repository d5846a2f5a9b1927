"""From app files to declarations: what ends up in them, what never does."""

from __future__ import annotations

import base64
import doctest
import importlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import slipway
from slipway.compiler.check import check
from slipway.compiler.encode import digest_of, to_wire
from slipway.declare import declare
from slipway.dsl.declaration import (
    AddLocal,
    AppDecl,
    DockerfileCommands,
    FromDockerfile,
    FunctionDecl,
    ImageDecl,
    LocalSource,
    MethodDecl,
    ParameterDecl,
    RunFunction,
)
from slipway.dsl.hooks import hooks
from slipway.dsl.instance import loaded, make
from slipway.dsl.own import cloudpickle
from slipway.identity import NoText, canonical_text
from slipway.values import parse_dotenv

Load = Callable[..., tuple[Any, Path]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Write files, import one of them as a module, and stand in their folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file may be written twice within one tick of its clock
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def load(module: str, **files: str) -> tuple[Any, Path]:
        for name, text in files.items():
            path = tmp_path / (name.replace("__init__", "*").replace("__", "/").replace("*", "__init__") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("import slipway\n" + text)
        importlib.invalidate_caches()
        sys.modules.pop(module, None)
        found = importlib.import_module(module)
        return found, Path(str(found.__file__))

    yield load
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def only_function(decl: AppDecl) -> FunctionDecl:
    assert [f.summary for f in decl.faults if f.severity == "error"] == []
    (function,) = decl.functions
    return function


def only_image(decl: AppDecl) -> ImageDecl:
    (image,) = decl.images
    return image


def test_a_script(load: Load, tmp_path: Path) -> None:
    module, file = load(
        "app",
        app="""
app = slipway.App("search", tags={"b": "2", "a": "1"})
@app.function(memory=512, cpu=0.5, timeout=7)
async def query(q, *more, k=3, strict, **rest): ...
""",
    )
    decl, secrets = declare(module.app, file=file)
    function = only_function(decl)
    assert secrets == {} and decl.tags == (("a", "1"), ("b", "2"))
    assert (decl.name, decl.file, decl.python) == ("search", str(file), "{}.{}".format(*sys.version_info))
    assert (function.module, function.qualname, function.is_async) == ("app", "query", True)
    assert function.required_args == ("q", "strict")
    assert (function.resources.memory_mib, function.resources.cpu_milli, function.timeout_ms) == (512, 500, 7000)
    (source,) = function.code.sources
    assert (source.local, source.remote, source.is_dir) == (str(file), "/root/app.py", False)
    assert only_image(decl).name == "default" and only_image(decl).base.python_version == decl.python  # type: ignore[union-attr]
    assert function.origin.line == 4
    json.dumps(to_wire(decl))


def test_a_package(load: Load, tmp_path: Path) -> None:
    module, file = load(
        "shop.jobs.night",
        shop____init__="",
        shop__jobs____init__="",
        shop__jobs__night="""
app = slipway.App()
@app.function()
def clean(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    function = only_function(decl)
    assert (decl.name, function.module) == ("night", "shop.jobs.night")
    (source,) = function.code.sources
    assert (source.local, source.remote, source.is_dir) == (str(tmp_path / "shop"), "/root/shop", True)
    assert source.ignore == ("**/__pycache__", "**/*.pyc", "**/.*/**")


def test_included_apps_bring_their_files(load: Load) -> None:
    module, file = load(
        "app",
        common='app = slipway.App("common")\n@app.function()\ndef fetch(): ...\n',
        app="""
import common
app = slipway.App("whole")
app.include(common.app)
@app.function()
def main(): ...
@app.function(include_source=False)
def bare(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    code = {f.name: [s.remote for s in f.code.sources] for f in decl.functions}
    assert code == {
        "fetch": ["/root/common.py", "/root/app.py"],
        "main": ["/root/common.py", "/root/app.py"],
        "bare": [],
    }
    assert {f.name: f.module for f in decl.functions} == {"fetch": "common", "main": "app", "bare": "app"}


def test_images_are_called_by_their_variables(load: Load) -> None:
    module, file = load(
        "app",
        app="""
base = slipway.Image.debian_slim("3.12")
gpu = base.pip_install("torch")
same = gpu
app = slipway.App("a", image=base)
@app.function()
def one(): ...
@app.function(image=gpu)
def two(): ...
@app.function(image=slipway.Image.debian_slim().env({"A": "1"}))
def three(): ...
@app.function(image=gpu)
def four(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    assert [image.name for image in decl.images] == ["base", "gpu", "image-3"]
    assert [f.image for f in decl.functions] == [0, 1, 2, 1]
    assert decl.images[0].base.python_version == "3.12"  # type: ignore[union-attr]


def test_secrets_are_slots_and_their_values_travel_beside(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FROM_HERE", "value-environ")
    (tmp_path / ".env").write_text("DOT=value-dotenv\n")
    module, file = load(
        "app",
        app="""
S = slipway.Secret
step = S.from_dict({"T": "value-step"})
image = slipway.Image.debian_slim().pip_install("x", secrets=[step], env={"E": "value-build"})
app = slipway.App("a", image=image, secrets=[S.from_dict({"T": "value-app"})])
@app.function(secrets=[S.from_local_environ(["FROM_HERE"]), S.from_dotenv(), S.from_dict({"T": "value-app"})],
              env={"E": "value-env", "B": None})
def f(): ...
@app.function(secrets=[S.from_name("kept", required_keys=["K"])])
def g(): ...
""",
    )
    decl, secrets = declare(module.app, file=file)
    assert secrets == {
        "dict:T#0": {"T": "value-step"},
        "env:E#0": {"E": "value-build"},
        "dict:T#1": {"T": "value-app"},
        "environ:FROM_HERE#0": {"FROM_HERE": "value-environ"},
        "dotenv:DOT#0": {"DOT": "value-dotenv"},
        "env:E#1": {"E": "value-env"},
    }
    f, g = decl.functions
    assert [s.slot for s in f.secrets] == ["dict:T#1", "environ:FROM_HERE#0", "dotenv:DOT#0", "dict:T#1", "env:E#1"]
    assert [(s.slot, s.named, s.keys) for s in g.secrets][-1] == ("name:kept", True, ("K",))
    assert [s.slot for s in only_image(decl).steps[0].options.secrets] == ["dict:T#0", "env:E#0"]
    assert "value-" not in json.dumps(to_wire(decl)) + repr(decl)


def test_secrets_that_cannot_be_read_are_faults_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    module, file = load(
        "app",
        app="""
missing = slipway.Secret.from_local_environ(["NOT_SET"])
app = slipway.App("a", secrets=[missing, slipway.Secret.from_dotenv(filename="no.env")])
@app.function()
def f(): ...
@app.function(secrets=[missing])
def g(): ...
""",
    )
    decl, secrets = declare(module.app, file=file)
    assert [(f.severity, f.summary.partition(" in ")[0], f.origin.line) for f in decl.faults] == [
        ("error", "Secret.from_local_environ: NOT_SET is not set", 3),
        ("error", "Secret.from_dotenv: there is no no.env", 4),
    ]
    assert secrets == {} and len(decl.functions) == 2


def test_volumes_of_the_function_win(load: Load) -> None:
    module, file = load(
        "app",
        app="""
V = slipway.Volume.from_name
app = slipway.App("a", volumes={"/z": V("app"), "/d": V("app-data")})
@app.function(volumes={"/d": V("own", create_if_missing=True).read_only(), "/tmp": V("bad")})
def f(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    (f,) = decl.functions
    assert [(path, v.name, v.read_only) for path, v in f.volumes] == [
        ("/d", "own", True),
        ("/tmp", "bad", False),
        ("/z", "app", False),
    ]


def test_local_files_get_absolute_paths(load: Load, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.csv", "b.txt", ".hidden"):
        (tmp_path / "data" / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("*.txt\n")
    module, file = load(
        "app",
        app="""
I = slipway.Image.debian_slim()
app = slipway.App("a", image=(
    I.pip_install_from_requirements("sub/../r.txt")
    .pip_install_from_pyproject("pyproject.toml")
    .uv_sync("proj")
    .add_local_file("~/x", "/x", copy=True)
    .add_local_dir("data", "/d1", copy=True, ignore=slipway.FilePatternMatcher.from_file(".dockerignore"))
    .add_local_dir("data", "/d2", copy=True, ignore=lambda path: path.suffix == ".txt")
    .add_local_dir("data", "/d3", ignore=["*.csv"])))
@app.function()
def f(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    r, p, u, x, d1, d2, d3 = only_image(decl).steps
    assert r.requirements[0].local == str(tmp_path / "r.txt")  # type: ignore[union-attr]
    assert p.pyproject.local == str(tmp_path / "pyproject.toml")  # type: ignore[union-attr]
    assert u.project.local == str(tmp_path / "proj") and u.project.only == ("pyproject.toml", "uv.lock")  # type: ignore[union-attr]
    sources: list[LocalSource] = [step.sources[0] for step in (x, d1, d2, d3) if isinstance(step, AddLocal)]
    assert sources[0].local == str(Path("~/x").expanduser())
    assert [(s.ignore, s.only) for s in sources[1:]] == [
        (("*.txt",), None),
        ((), (".hidden", "a.csv")),
        (("*.csv",), None),
    ]


def test_python_sources_are_found_by_name(load: Load, tmp_path: Path) -> None:
    (tmp_path / "space" / "part").mkdir(parents=True)
    module, file = load(
        "app",
        helpers="",
        pack____init__="",
        pack__deep="",
        app="""
image = slipway.Image.debian_slim().add_local_python_source("helpers", "pack", "pack.deep", "space")
app = slipway.App("a", image=image)
@app.function()
def f(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    (step,) = only_image(decl).steps
    assert isinstance(step, AddLocal) and not step.copy
    assert [(Path(s.local).name, s.remote, s.is_dir) for s in step.sources] == [
        ("helpers.py", "/root/helpers.py", False),
        ("pack", "/root/pack", True),
        ("deep.py", "/root/pack/deep.py", False),
        ("space", "/root/space", True),
    ]
    assert step.sources[1].ignore == ("**", "!**/*.py", "**/__pycache__", "**/*.pyc", "**/.*/**")


def test_modules_that_stay_behind_are_named(load: Load) -> None:
    module, file = load(
        "app",
        helpers="def help(): ...",
        tools__deep="X = 1",
        packed="",
        app="""
import json, packed, tools.deep
from helpers import help
app = slipway.App("a", image=slipway.Image.debian_slim().add_local_python_source("packed"))
@app.function()
def f(): ...
@app.function()
def g(): ...
@app.function(include_source=False)
def h(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    assert [(f.severity, f.address, f.summary, f.hint) for f in decl.faults] == [
        (
            "warning",
            "function f",
            f"app.py uses the module {name}, which its workers don't have",
            f'Add it to the image: .add_local_python_source("{name}")',
        )
        for name in ("helpers", "tools")
    ]


def test_modules_that_a_function_by_value_lacks_are_named(load: Load) -> None:
    """Of those that it uses itself; what handles stand for travels as a name."""
    module, file = load(
        "app",
        helpers="def help(): ...",
        unused="",
        other='app = slipway.App("other")\n@app.function()\ndef there(): ...\n',
        app="""
import helpers, unused
from other import there
app = slipway.App("a")
@app.function(serialized=True)
def plain(): return helpers.help()
@app.function(serialized=True)
def calls(): return there.remote()
@app.cls(serialized=True)
class Model:
    @slipway.method()
    def work(self): return helpers.help()
""",
    )
    decl, _ = declare(module.app, file=file)
    assert [(f.address, f.summary) for f in decl.faults] == [
        ("function plain", "plain uses the module helpers, which its workers don't have"),
        ("class Model", "Model uses the module helpers, which its workers don't have"),
    ]


def test_all_that_cannot_be_found_is_said_at_once(load: Load) -> None:
    module, file = load(
        "app",
        app="""
def broken(path): raise KeyError(path)
image = (slipway.Image.debian_slim()
    .add_local_python_source("nowhere_to_be_found", copy=True)
    .add_local_dir(".", "/x", copy=True, ignore=broken)
    .add_local_python_source("_struct"))
app = slipway.App("a", image=image)
@app.function()
def f(): ...
@app.function()
def g(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    errors = [(f.address, f.summary.split(" (")[0], f.origin.line) for f in decl.faults]
    assert errors[0] == ("image image, step 1", "add_local_python_source: there is no module 'nowhere_to_be_found'", 5)
    assert errors[1][0] == "image image, step 2" and "ignore= failed: KeyError" in errors[1][1]
    assert errors[2] == ("image image, step 3", "add_local_python_source: the module '_struct' isn't Python source", 7)
    assert len(errors) == 3 and len(decl.functions) == 2


BUILD = """
import math
LIMIT = 3
TABLE = {{"b": 1, "a": (2, 3)}}
LOCK = __import__("threading").Lock()
def helper(): return LIMIT
def fetch(name, *, size=1):
    {body}
    return LIMIT, TABLE, LOCK, math, helper
image = slipway.Image.debian_slim().run_function(fetch, args=("m",), kwargs={{"size": 2}})
app = slipway.App("a", image=image)
@app.function()
def f(): ...
"""


def test_run_function(load: Load, tmp_path: Path) -> None:
    module, file = load("app", app=BUILD.format(body="# fetch it"))
    decl, _ = declare(module.app, file=file)
    (step,) = only_image(decl).steps
    assert isinstance(step, RunFunction)
    assert (step.module, step.qualname) == ("app", "fetch") and step.source.startswith("def fetch(name, *, size=1):\n")
    assert step.globals == (("LIMIT", "3"), ("TABLE", "{'a': (2, 3), 'b': 1}"))
    assert step.arguments == "(('m',), {'size': 2})"
    assert pickle.loads(base64.b64decode(step.payload)) == (("m",), {"size": 2})
    assert step.code is not None and step.code.sources[0].remote == "/root/app.py"
    (note,) = decl.faults
    assert note.severity == "note" and "a change of LOCK won't rebuild the layer of fetch" in note.summary


def test_run_function_refuses_what_has_no_identity(load: Load) -> None:
    module, file = load(
        "app",
        app="""
def fetch(x): ...
slim = slipway.Image.debian_slim()
app = slipway.App("a", image=slim.run_function(fetch, args=(object(),)).run_function(fetch, args=("x" * 3_000_000,)))
@app.function()
def f(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    first, second = (fault.summary for fault in decl.faults)
    assert "an argument is a builtins.object, and only plain values have an identity" in first
    assert "the arguments take 2 MiB, and at most 2 are allowed" in second


SERIALIZED = """
FACTOR = {factor}
def helper(x): return x * FACTOR
app = slipway.App("a")
def make():
    offset = {offset}
    @app.function(serialized=True, timeout={timeout})
    def scale(x):
        return helper(x) + offset
make()
"""


def test_serialized_functions(load: Load, tmp_path: Path) -> None:
    module, file = load("app", app=SERIALIZED.format(factor=2, offset=1, timeout=5))
    function = only_function(declare(module.app, file=file)[0])
    assert function.serialized is not None and function.code.sources == ()
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import base64, pickle; print(pickle.loads(base64.b64decode({function.serialized!r}))(4))",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    ).stdout
    assert out == "9\n", "its module's code comes along: the module is nowhere to be imported"


def test_the_identity_of_a_serialized_function(load: Load) -> None:
    def identity(**values: int) -> str | None:
        text = SERIALIZED.format(**({"factor": 2, "offset": 1, "timeout": 5} | values))
        module, file = load("app", app=text)
        return only_function(declare(module.app, file=file)[0]).serialized_identity

    first = identity()
    assert first == identity(timeout=9)
    assert len({first, identity(factor=3), identity(offset=2)}) == 3


def test_functions_that_cannot_be_sent_by_value(load: Load) -> None:
    module, file = load(
        "app",
        app="""
import threading
app = slipway.App("a")
def make():
    lock = threading.Lock()
    @app.function(serialized=True)
    def f(): return lock
make()
""",
    )
    decl, _ = declare(module.app, file=file)
    (fault,) = decl.faults
    assert decl.functions == () and fault.severity == "error"
    assert fault.summary.startswith("f can't be sent by value: TypeError") and fault.origin.line == 7


def test_parameters_not_in_effect_are_named_once(load: Load) -> None:
    module, file = load(
        "app",
        app="""
app = slipway.App("a")
@app.function(schedule=slipway.Cron("0 3 * * *"), region="eu", max_containers=3, timeout=3)
def a(): ...
@app.function(min_containers=1, buffer_containers=1, scaledown_window=5, single_use_containers=True)
@slipway.concurrent(max_inputs=3)
async def in_effect(): ...
@app.function(retries=2, region="us", gpu="T4")
def b(): ...
@app.function()
@slipway.concurrent(max_inputs=3)
def c(): ...
@app.function(region="us", image=slipway.Image.from_registry("x", cpu=3).uv_pip_install("y", uv_version="1"))
@slipway.asgi_app()
def d(): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    said = {(f.address, f.summary.split(":")[0], f.found) for f in decl.faults}
    assert said == {
        ("function a", "schedule= is not in effect yet", ""),
        ("function a", "region= has no effect here", "on a, b, d"),
        ("function d", "a web endpoint is not in effect yet", ""),
        ("image image-2", "cpu= of from_registry has no effect here", ""),
        ("image image-2", "uv_version= of uv_pip_install has no effect here", ""),
    }
    assert {f.severity for f in decl.faults} == {"note"}
    assert dict(decl.functions[0].options) == {"region": "'eu'"}


def test_classes_and_faults_of_the_app(load: Load) -> None:
    module, file = load(
        "app",
        app="""
app = slipway.App("a")
@app.function(name="f")
def one(): ...
@app.function(name="f")
def two(): ...
@app.cls()
class Model:
    @slipway.method()
    def predict(self): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    assert [f.address for f in decl.faults] == ["function f"]
    assert [f.qualname for f in decl.functions] == ["two", "Model"]


def test_a_class_is_a_function_with_methods(load: Load) -> None:
    (module, file) = load(
        "app",
        base="""
import slipway
class Base:
    level: int = slipway.parameter(default=3)
    @slipway.method()
    def first(self): ...
""",
        app="""
from base import Base
image = slipway.Image.debian_slim().env({"A": "1"})
app = slipway.App("a", image=image)
@app.cls(enable_memory_snapshot=True, timeout=60, retries=2)
@slipway.concurrent(max_inputs=4)
class Model(Base):
    size: str = slipway.parameter(default="small")
    key: bytes = slipway.parameter()
    @slipway.enter(snap=True)
    def load(self): ...
    @slipway.method()
    async def predict(self, x): ...
    @slipway.method()
    def items(self): yield 1
    @slipway.fastapi_endpoint()
    def page(self): ...
@app.cls()
class Batches:
    @slipway.batched(max_batch_size=4, wait_ms=10)
    def embed(self, xs): ...
@app.function(enable_memory_snapshot=True)
def plain(): ...
@app.cls()
class Nothing: ...
@app.cls()
class Pages:
    @slipway.asgi_app()
    def page(self): ...
""",
    )
    decl, _ = declare(module.app, file=file)
    plain, model, batches = decl.functions
    assert plain.memory_snapshot and plain.methods == ()
    assert (model.name, model.module, model.qualname, model.timeout_ms) == ("Model", "app", "Model", 60_000)
    assert model.methods == (
        MethodDecl(name="first"),
        MethodDecl(name="predict", is_async=True),
        MethodDecl(name="items", is_generator=True),
    )
    assert model.parameters == (
        ParameterDecl(name="key", type="bytes"),
        ParameterDecl(name="level", type="int", default="3"),
        ParameterDecl(name="size", type="str", default="small"),
    )
    assert model.memory_snapshot and model.concurrency.max_inputs == 4 and model.retries is not None
    assert [s.remote for s in model.code.sources] == ["/root/app.py"] and decl.images[model.image].name == "image"
    assert batches.batching is not None and batches.batching.max_batch_size == 4
    assert {(f.severity, f.address, f.summary) for f in decl.faults} == {
        ("warning", "function plain", "app.py uses the module base, which its workers don't have"),
        ("warning", "class Nothing", "the class has no methods that can be called, so it is left out"),
        ("note", "class Model", "a web endpoint is not in effect yet: the function has no URL"),
    }
    assert not [fault for fault in check(decl) if fault.severity == "error"]


BY_VALUE = """
app = slipway.App("a")
WIDTH = 3
def helper(): return WIDTH
@app.cls(serialized=True)
class Model:
    size: str = slipway.parameter(default="small")
    limit = 7
    @slipway.enter()
    def load(self):
        self.width = helper()
    @slipway.method()
    def predict(self, x):
        return x * self.width
"""


def test_a_class_by_value_is_told_apart_by_what_it_says(load: Load) -> None:
    (module, file) = load("app", app=BY_VALUE)
    decl, _ = declare(module.app, file=file)
    (model,) = decl.functions
    assert model.serialized and model.code.sources == ()
    found = cloudpickle.loads(base64.b64decode(model.serialized))
    made, cls = loaded(found, "Model")
    assert list(cls.methods) == ["predict"] and list(cls.parameters) == ["size"]
    instance = make(made, {}, cls)
    for hook in hooks(made, "enter"):
        hook(instance)
    assert instance.predict.local(2) == 6
    identity = model.serialized_identity or ""
    assert declare(module.app, file=file)[0].functions[0].serialized_identity == identity
    changes = (("limit = 7", "limit = 8"), ("return WIDTH", "return 1"), ('"small"', '"big"'), ("x * ", "x + "))
    for number, (old, new) in enumerate(changes):
        other, path = load(f"app{number}", **{f"app{number}": BY_VALUE.replace(old, new)})
        (changed,) = declare(other.app, file=path)[0].functions
        assert (changed.serialized_identity or "").replace(f"app{number}", "app") != identity, new


def test_the_program_itself_is_called_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "night-job.py").write_text(
        "import slipway, sys\nfrom pathlib import Path\nfrom slipway.declare import declare\n"
        "app = slipway.App('a')\n@app.function()\ndef f(): ...\n"
        "decl, _ = declare(app, file=Path(__file__))\n"
        "print(decl.functions[0].module, decl.functions[0].code.sources[0].remote)\n"
    )
    done = subprocess.run([sys.executable, "night-job.py"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "night-job /root/night-job.py\n"


MANY = (
    BUILD.format(body="pass")
    + """
@app.function(secrets=[slipway.Secret.from_dict({"B": "1", "A": "2"})], env={"C": "c"}, serialized=True)
def g(x={3, 1, 2}): return TABLE, helper
"""
)


def test_the_same_file_gives_the_same_digest_anywhere(tmp_path: Path) -> None:
    """Two folders, two hash seeds: the identity of the declaration doesn't know of them."""
    digests = set()
    for folder, seed in (("a", "1"), ("b/c", "2"), ("a", "3")):
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / "app.py").write_text("import slipway\n" + MANY)
        source = (
            "import app; from pathlib import Path; from slipway.declare import declare;"
            "from slipway.compiler.encode import digest_of; from attrs import evolve;"
            "d, _ = declare(app.app, file=Path('app.py'));"
            "print(digest_of(evolve(d, functions=tuple(evolve(f, serialized=None) for f in d.functions))))"
        )
        done = subprocess.run(
            [sys.executable, "-c", source],
            capture_output=True,
            text=True,
            check=True,
            cwd=place,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_what_an_image_is_not(load: Load) -> None:
    """Its digest knows of the build function's text and values, not of the rest of the file."""

    def image(old: str = "", new: str = "") -> str:
        assert old in MANY
        module, file = load("app", app=MANY.replace(old, new) if old else MANY)
        return digest_of(declare(module.app, file=file)[0].images[0])

    first = image()
    assert first == image("def f(): ...", "def f(): return 1  # another body")
    assert first == image("def helper(): return LIMIT", "\n\ndef helper(): return 7")
    assert first == image('LOCK = __import__("threading").Lock()', "LOCK = object()")
    assert first != image("LIMIT = 3", "LIMIT = 4")
    assert first != image("    pass\n", "    pass  # said of it\n")
    assert first != image('args=("m",)', 'args=("n",)')


@pytest.mark.parametrize("name", ["declare", "identity", "images", "notes", "sources", "values"])
def test_examples_run(name: str) -> None:
    module = importlib.import_module(f"slipway.{name}")
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(plain, plain)
def test_canonical_text_tells_values_apart(one: Any, two: Any) -> None:
    same = canonical_text(one) == canonical_text(two)
    if same:
        assert one == two
    elif repr(one) == repr(two):
        pytest.fail("equal values have one text")


def test_canonical_text_refuses_what_differs_from_run_to_run() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (object(), lambda: 1, loop, {"a": [object()]}, slipway.Secret.from_dict({"A": "b"})):
        with pytest.raises(NoText) as caught:
            canonical_text(value)
        assert "0x" not in caught.value.what
    assert canonical_text({"b": {2, 1}, "a": Path("x/y")}) == "{'a': Path('x/y'), 'b': {1, 2}}"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("A=1\n# c\n\nB = two words # c\nexport C=3", {"A": "1", "B": "two words", "C": "3"}),
        ("A='#x $A \\n'", {"A": "#x $A \\n"}),
        ('A="a\\nb\\"c\\$" # c', {"A": 'a\nb"c$'}),
        ('A="one\ntwo"\nB=2', {"A": "one\ntwo", "B": "2"}),
        ("A=1\nB=${A}${HOME_}x${NO:-n}${NO}", {"A": "1", "B": "1hxn"}),
        ("A=\nB", {"A": ""}),
        ("A=a#b", {"A": "a#b"}),
        ("\tA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ],
)
def test_dotenv(text: str, values: dict[str, str]) -> None:
    assert parse_dotenv(text, {"HOME_": "h"}) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\n2B=hidden", "line 2 is not of the form"),
        ("A='hidden", "line 1 opens a ' that nothing closes"),
        ('A="x" hidden', "line 1 goes on after its closing"),
        ("A B=hidden", "line 1 is not of the form"),
    ],
)
def test_dotenv_faults_name_the_line_and_not_what_it_says(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_dotenv(text)
    assert "hidden" not in str(caught.value)


DOCKERED = """
from slipway import Image, Secret

keys = Secret.from_dict({"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "p"})
image = (
    Image.from_dockerfile("docker/Dockerfile", context_dir="ctx", registry_secret=keys, build_args={"V": "3"})
    .dockerfile_commands("COPY extra.txt one.cfg /x/", context_files={"one.cfg": "conf/one"}, context_dir="ctx")
    .dockerfile_commands("COPY here.txt /y")
)
wrong = Image.from_dockerfile("nosuch")
app = slipway.App("a")


@app.function(image=image)
def f(): ...


@app.function(image=wrong)
def g(): ...
"""


def test_dockerfiles_bring_their_text_and_what_they_copy(load: Load, tmp_path: Path) -> None:
    for name, text in (
        ("docker/Dockerfile", "FROM a:1\nCOPY src nosuch /src\nVOLUME /x\n"),
        ("ctx/src/a.py", "a"),
        ("ctx/src/b.tmp", "b"),
        ("ctx/extra.txt", "e"),
        ("ctx/.dockerignore", "**/*.tmp\n"),
        ("conf/one", "1"),
        ("here.txt", "h"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    module, file = load("app", app=DOCKERED)
    decl, secrets = declare(module.app, file=file)
    first, _ = decl.images
    base, (lines, more) = first.base, first.steps
    assert isinstance(base, FromDockerfile)
    assert base.text.startswith("FROM a:1\n") and base.secrets == ()
    assert base.registry_secret is not None and secrets[base.registry_secret.slot]["REGISTRY_PASSWORD"] == "p"
    assert [(source.local, source.only) for source in base.context] == [(str(tmp_path / "ctx"), ("src/a.py",))]
    assert isinstance(lines, DockerfileCommands) and isinstance(more, DockerfileCommands)
    assert [(source.local, source.remote, source.only) for source in lines.context] == [
        (str(tmp_path / "ctx"), "/", ("extra.txt",)),
        (str(tmp_path / "conf/one"), "/one.cfg", None),
    ]
    assert [(source.local, source.only) for source in more.context] == [(str(tmp_path), ("here.txt",))]
    said = {(Path(fault.origin.file).name, fault.origin.line): fault.summary for fault in check(decl)}
    assert said["Dockerfile", 2] == "nothing in the context is called nosuch"
    assert said["Dockerfile", 3] == "VOLUME is not supported"
    assert "nosuch can't be read" in said["app.py", 11]


def test_a_program_that_is_in_no_file_is_told_so() -> None:
    program = (
        "import slipway\nfrom pathlib import Path\nfrom slipway.declare import declare\napp = slipway.App('a')\n"
        "@app.cls()\nclass Model:\n    @slipway.method()\n    def f(self): ...\n"
        "(fault,) = declare(app, file=Path('prompt'))[0].faults\nprint(fault.address, '|', fault.summary)\n"
    )
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("class Model | the code of __main__ is in no file")
