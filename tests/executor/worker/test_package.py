"""Our own code, as a worker of another Python can use it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_engine import our_code

from slipway.executor.worker import package


def test_a_copy_is_whole_runs_by_itself_and_knows_whose_copy_it_is() -> None:
    code = our_code()
    program = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "import slipway, slipway.dsl.declaration, slipway.dsl.own.attr as attr, slipway.dsl.own.cloudpickle\n"
        "from slipway.executor.worker import serve, package\n"
        "from slipway.session import EngineSession\n"
        "assert serve.__file__.startswith(sys.argv[1]) and attr.__file__.startswith(sys.argv[2])\n"
        "assert not {'attr', 'attrs', 'cloudpickle'} & set(sys.modules)\n"
        "print(package.code_digest())"
    )
    argv = [sys.executable, "-I", "-S", "-c", program, str(code / "lib"), str(code / "fallback")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == package.code_digest() == code.name


def test_it_is_made_once(tmp_path: Path) -> None:
    home = our_code().parent.parent
    before = (our_code() / "lib").stat().st_ino
    assert package.prepare(home) == our_code() and (our_code() / "lib").stat().st_ino == before
    assert [path.name for path in our_code().parent.iterdir()] == [package.code_digest()]


def test_there_is_byte_code_for_what_workers_import() -> None:
    cached = our_code() / "lib/slipway/executor/worker/__pycache__"
    assert any(path.name.startswith("serve.") for path in cached.iterdir())


def test_the_digest_changes_with_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    top = tmp_path / "slipway"
    top.mkdir()
    file = top / "a.py"
    file.write_text("1\n")
    monkeypatch.setattr(package, "_roots", lambda: {"": top})
    digest = package.code_digest.__wrapped__
    first = digest()
    assert digest() == first
    os.utime(file, (1, 1))
    assert digest() != first


@pytest.mark.slow
def test_the_digest_is_cheap() -> None:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        package.code_digest.__wrapped__()
        times.append(time.perf_counter() - began)
    assert min(times) < 0.004
