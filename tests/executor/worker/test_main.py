"""The worker program in images of all kinds: each Python that it may meet, odd environments, packages of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from small_engine import APP, EngineThread, pool_spec, small_engine

from slipway.connection import Connection
from slipway.dsl.session import FunctionRef
from slipway.executor.ports import ContainerSpec, Prepared
from slipway.executor.runtime.pythons import Pythons
from slipway.executor.scaling import PoolLimits
from slipway.session import EngineSession

CODE = """
import functools, os, sys
import slipway

image = slipway.Image.debian_slim().pip_install("attrs==19.3.0")
app = slipway.App("example", image=image)

@app.function(volumes={"/data": slipway.Volume.from_name("data")})
def facts():
    found = []
    for name in ("attr", "attrs", "cloudpickle"):
        try:
            found.append(__import__(name).__version__)
        except ImportError:
            found.append(None)
    ours = [name for name in sys.path if "fallback" in name]
    return "%d.%d" % sys.version_info[:2], found, ours, os.environ.get("HOME"), os.getcwd()

@app.function()
@slipway.concurrent(max_inputs=2)
async def slow():
    return functools.partial(int, base=2)

@app.function()
def outer():
    return facts.remote()[0]
"""


def pythons() -> dict[str, str]:
    """One interpreter for each version that this machine has."""
    found: dict[str, str] = {}
    for python in Pythons().all():
        found.setdefault(python.minor, python.executable)
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    (root / "root").mkdir()
    (root / "root" / "app.py").write_text(CODE)
    return root


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineThread]:
    async def prepare(spec: ContainerSpec) -> Prepared:
        return Prepared(python=dict(spec.labels).get("python", "python"))

    with small_engine() as engine:
        engine.engine.runtime.prepare = prepare  # type: ignore[method-assign] # each pool with a Python of its own
        yield engine


@pytest.fixture(scope="module")
def session(engine: EngineThread) -> Iterator[EngineSession]:
    session = EngineSession(Connection.connect(engine.engine.socket_path))
    yield session
    session.connection.close()


def declare(engine: EngineThread, root: Path, name: str, *, label: str, **more: Any) -> FunctionRef:
    spec = pool_spec(root, name, PoolLimits(max_workers=1, give_up_after=1), is_async=name == "slow")
    container = evolve(spec.worker.container, **more)
    called = f"{name} {label}"
    spec = evolve(spec, key=f"app {called}", function=called, worker=evolve(spec.worker, container=container))
    engine.on_loop(lambda: engine.add(spec))
    return FunctionRef(app=APP, name=called)


@pytest.mark.parametrize("version", pythons())
def test_it_runs_on_every_python(engine: EngineThread, session: EngineSession, root: Path, version: str) -> None:
    labels = (("python", pythons()[version]),)
    facts = declare(engine, root, "facts", label=version, labels=labels)
    assert session.call(facts, (), {})[0] == version
    slow = declare(engine, root, "slow", label=version, labels=labels)
    result = session.call(slow, (), {})
    assert isinstance(result, partial) and result("101") == 5


def test_a_function_calls_another_from_there(engine: EngineThread, session: EngineSession, root: Path) -> None:
    spec = pool_spec(root, "facts", PoolLimits(max_workers=1))
    engine.on_loop(lambda: engine.add(spec))
    outer = declare(engine, root, "outer", label="nested")
    assert session.call(outer, (), {}) == "{}.{}".format(*sys.version_info[:2])


def test_an_image_has_its_own_packages_or_none(
    engine: EngineThread, session: EngineSession, root: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    for name, version in (("attr", "19.3.0"), ("cloudpickle", "1.2.2")):
        (bare / name).mkdir(parents=True)
        (bare / name / "__init__.py").write_text(f"__version__ = {version!r}\n")
    old = (("PYTHONPATH", str(bare)), ("PYTHONNOUSERSITE", "1"))
    for which in ("facts", "slow"):
        called = declare(engine, root, which, label="old", env=old)
        result = session.call(called, (), {})
        if which == "facts":
            assert result[1:4] == (["19.3.0", None, "1.2.2"], [], None)
        else:
            assert result("11") == 3
