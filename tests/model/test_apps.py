"""Apps: including, running, deploying, their secrets, and how they are run from the command line."""

from __future__ import annotations

import json

import pytest
from model_home import ModelHome

import slipway
from slipway.dsl.errors import InvalidError

rule = pytest.mark.rule

COMMON = """
import slipway
app = slipway.App("common")

@app.function()
def fetch(x): return f"fetched {x}"

@app.cls()
class Store:
    @slipway.method()
    def get(self, x): return f"stored {x}"

@app.local_entrypoint()
def common_main(): print("common")
"""
WHOLE = """
import slipway
import common
app = slipway.App("whole").include(common.app)

@app.function()
def both(x): return common.fetch.remote(x), common.Store().get.remote(x)

def make(fetch, store):
    @app.function(serialized=True)
    def by_value(x): return fetch.remote(x), store.get.remote(x)
    return by_value

by_value = make(common.fetch, common.Store())

@app.local_entrypoint()
def main(): print(*both.remote(1), *by_value.remote(2))
"""


@rule("1.1 include", "8.19")
def test_an_app_that_includes_another_has_its_functions_and_not_its_entrypoints(home: ModelHome) -> None:
    folder = home.write({"app.py": WHOLE, "common.py": COMMON})
    assert home.slipway(folder, "run", "app.py").out == "fetched 1 stored 1 fetched 2 stored 2\n"
    assert "common_main" in home.slipway(folder, "run", "app.py::common_main", code=1).err


@rule("1.1 run refused")
def test_an_app_that_runs_is_not_run_again(home: ModelHome) -> None:
    calls = home.app("calls")
    with pytest.raises(InvalidError, match="running already"), calls.app.run():
        pass


AT_THE_TOP = """
import slipway
app = slipway.App("top")

@app.function()
def f(): return 1

def start():
    with app.run():
        print(f.remote())

start()
"""


@rule("1.1 run refused")
def test_an_app_is_not_run_while_its_file_is_imported(home: ModelHome) -> None:
    failed = home.slipway(home.write({"app.py": AT_THE_TOP}), "plan", "app.py", code=1).err
    assert "imported" in failed and "app.py:9" in failed


SECRETS = """
import os
import slipway

S = slipway.Secret
app = slipway.App("secrets", secrets=[S.from_dict({"A": "app", "B": "app", "C": "app", "GONE": None})])
here = S.from_local_environ(["FROM_HERE"] if slipway.is_local() else ["NOT_SET_THERE"])
first, second = S.from_dict({"B": "first", "C": "first"}), S.from_dict({"C": "second"})

@app.function(secrets=[first, second, here], env={"D": "env", "B": "env"})
def read():
    return {name: os.environ.get(name) for name in ("A", "B", "C", "D", "GONE", "FROM_HERE")}

@app.local_entrypoint()
def main():
    import json
    print(json.dumps(read.remote()))
"""


@rule("8.16", "1.9 local environ")
def test_later_secrets_win_and_env_is_the_last(home: ModelHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(home.machine.env, "FROM_HERE", "here")
    said = json.loads(home.slipway(home.write({"app.py": SECRETS}), "run", "app.py").out)
    assert said == {"A": "app", "B": "env", "C": "second", "D": "env", "GONE": None, "FROM_HERE": "here"}


VERSIONED = """
import slipway
app = slipway.App("versioned", image=slipway.Image.debian_slim().run_commands("{command}"))

@app.function()
def version(): return {version}
"""


@rule("8.17")
def test_a_deploy_is_all_or_nothing_and_nothing_where_nothing_changed(home: ModelHome) -> None:
    folder = home.write({"app.py": VERSIONED.format(command="true", version=1)})
    home.slipway(folder, "apply", "app.py", "--yes")
    version = slipway.Function.from_name("versioned", "version")
    assert version.remote() == 1
    assert "Nothing to do" in home.slipway(folder, "apply", "app.py", "--yes").out
    (folder / "app.py").write_text(VERSIONED.format(command="exit 3", version=2))
    home.slipway(folder, "apply", "app.py", "--yes", code=1)
    assert version.remote() == 1
    (folder / "app.py").write_text(VERSIONED.format(command="true", version=3))
    home.slipway(folder, "apply", "app.py", "--yes")
    assert slipway.Function.from_name("versioned", "version").remote() == 3


ENTRY = """
import slipway
from typing import Literal, Optional
app = slipway.App("entry")

@app.function()
def scale(x: int, by: float = 2.0): return x * by

@app.cls()
class Model:
    size: int = slipway.parameter(default=1)
    @slipway.method()
    def times(self, x: int): return x * self.size

@app.function()
def generate():
    yield 1

@app.local_entrypoint()
def main(name: str, times: int = 1, loud: bool = False, end: Optional[str] = None, mode: Literal["a", "b"] = "a"):
    print((name.upper() if loud else name) * times, end, mode)

@app.local_entrypoint()
def raw(*arguments):
    print(arguments)
"""


@rule("8.25")
def test_run_reads_its_arguments_from_the_signature(home: ModelHome) -> None:
    folder = home.write({"app.py": ENTRY})

    def run(*argv: str, code: int = 0) -> str:
        ran = home.slipway(folder, "run", *argv, code=code)
        return ran.err if code else ran.out.strip()

    assert run("app.py::main", "--name", "x", "--times", "3", "--loud", "--end", "!", "--mode", "b") == "XXX ! b"
    assert "--name" in run("app.py::main", code=2)
    assert "mode" in run("app.py::main", "--name", "x", "--mode", "c", code=2)
    assert run("app.py::raw", "-x", "--y=1", "z") == "('-x', '--y=1', 'z')"
    assert run("app.py::scale", "--x", "4") == "8.0"
    assert run("app.py::Model.times", "--x", "4", "--size", "3") == "12"
    assert "::main" in run("app.py", code=1)
    assert "generator" in run("app.py::generate", code=1)
    assert "Did you mean" in run("app.py::scal", "--x", "1", code=1)


@rule("8.25")
def test_a_module_is_run_with_m(home: ModelHome) -> None:
    folder = home.write({"shop/__init__.py": "", "shop/app.py": ENTRY})
    assert home.slipway(folder, "run", "-m", "shop.app::scale", "--x", "1").out.strip() == "2.0"
