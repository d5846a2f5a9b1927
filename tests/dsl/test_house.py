"""What the floor promises those who import it: light, good for older Pythons, and for programs as they stand."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import slipway

from .conftest import LocalRunner

HEAVY = ("networkx", "docker", "apscheduler", "starlette", "uvicorn", "rich", "click", "cryptography", "asyncio")


def run_python(source: str, *, python: str = sys.executable, **env: str) -> str:
    done = subprocess.run(
        [python, "-c", source], capture_output=True, text=True, env={**os.environ, **env}, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_slipway_is_light() -> None:
    out = run_python(
        "import json, sys, slipway\n"
        "def f(): ...\n"
        "app = slipway.App('a', image=slipway.Image.debian_slim().pip_install('x'))\n"
        "app.function(retries=2)(f)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    modules = set(json.loads(out))
    assert modules.isdisjoint(HEAVY)
    ours = {name.split(".")[1] for name in modules if name.startswith("slipway.")}
    assert ours == {"dsl"}, "handles need their own floor alone"


def test_every_public_name_is_there() -> None:
    for name in slipway.__all__:
        assert getattr(slipway, name) is not None
    assert set(slipway.__all__) <= set(dir(slipway))
    assert slipway.exception.InvalidError.__module__ == "slipway.dsl.errors"


@pytest.fixture(scope="session")
def old_python() -> str:
    """A Python 3.10, the oldest that a user's image may have."""
    candidates = [shutil.which("python3.10"), *Path.home().glob(".pyenv/versions/3.10.*/bin/python")]
    for candidate in filter(None, candidates):
        done = subprocess.run([str(candidate), "-c", "import sys; print(sys.version_info[:2])"], capture_output=True)
        if done.stdout.strip() == b"(3, 10)":
            return str(candidate)
    pytest.skip("there is no Python 3.10 on this machine")


def test_runs_on_python_3_10(old_python: str, tmp_path: Path) -> None:
    top = Path(str(slipway.__file__)).parent
    package = tmp_path / "slipway"
    package.mkdir()
    for name in ("__init__.py", "exception.py"):
        (package / name).symlink_to(top / name)
    (package / "dsl").symlink_to(Path(str(sys.modules["slipway.dsl"].__file__)).parent)
    for name in ("attr", "attrs"):  # as the worker brings its own
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        (tmp_path / name).symlink_to(Path(spec.origin).parent)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; assert sys.version_info[:2] == (3, 10)\n"
        "import slipway\n"
        "from slipway.dsl import context\n"
        "for name in slipway.__all__: getattr(slipway, name)\n"
        "app = slipway.App('old')\n"
        "@app.function(retries=slipway.Retries(max_retries=1), schedule=slipway.Period(hours=1))\n"
        "def f(x=1): return x\n"
        "context.importing.set(True)\n"
        "with app.run():\n"
        "    print('not this')\n"
        "with app.run(): print('nor this')\n"
        "print(f.local(2), app.functions)\n"
    )
    done = subprocess.run(
        [old_python, "-B", str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert (done.stdout, done.stderr) == ("2 {'f': <Function f of old>}\n", "")


OVERVIEW = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "modal-overview.txt"


def overview_program() -> str:
    """The Python of the overview, with the indentation that its text lost; its lines as they stand."""
    if not OVERVIEW.is_file():
        pytest.skip("the overview of the model is not beside this checkout")
    text = OVERVIEW.read_text()
    start, end = text.index("import modal\n"), text.index("# Deploy: modal deploy")
    keep, depth, inside = [], 0, False
    for line in text[start:end].splitlines():
        if line.endswith(":") and re.match(r"[A-Z][A-Za-z -]+:$", line):  # a headline between two snippets
            continue
        if re.match(r"@|with |app = |image = |import ", line) and not depth:
            inside = False
        keep.append(("    " if inside and not depth else "") + line)
        depth += (
            line.count("(") + line.count("[") + line.count("{") - line.count(")") - line.count("]") - line.count("}")
        )
        if re.match(r"(async )?def |with ", line):
            inside = True
    keep += [line for line in text[end:].splitlines() if line.startswith("modal.Secret")][:1]
    return "\n".join(keep).replace("import modal", "import slipway as modal")


def test_the_overview_is_accepted_as_it_stands(runner: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    program = overview_program()
    assert program.count("with app.run():") == 2 and "concurrency_limit=20" in program and "web_endpoint" in program
    calls: list[tuple[Any, ...]] = []
    session = runner.session_
    monkeypatch.setattr(session, "call", lambda ref, args, kwargs: calls.append((ref.name, args)))
    namespace: dict[str, Any] = {"__name__": "overview", "documents": ["a", "b"]}
    exec(compile(program, "overview.py", "exec"), namespace)
    assert calls == [
        ("fine_tune", ("s3://bucket/dataset.jsonl", "/cache/model-v2")),
        ("embed_document", ("a",)),
        ("embed_document", ("b",)),
    ]
    app = namespace["app"]
    assert list(app.functions) == ["fine_tune", "embed_document", "generate"]
    assert [fault.summary for fault in app.faults] == [
        "concurrency_limit= is called max_containers= now",
        "@slipway.web_endpoint is called fastapi_endpoint now",
    ]
    assert app.functions["generate"].endpoint.method == "POST"
