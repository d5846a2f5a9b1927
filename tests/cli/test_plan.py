"""`slipway plan` and `slipway apply`, as a person and as a program sees them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fake_engine import FakeEngine, Slipway

APP = """
import slipway

image = slipway.Image.debian_slim().pip_install("scikit-learn").env({"HF_HOME": "/x"})
app = slipway.App("search", image=image)


@app.function()
def index(x): return x


@app.function()
def query(x): return x
"""


PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def write(text: str = APP) -> None:
    Path("app.py").write_text(text)


def test_the_first_plan(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    assert slipway("plan", "app.py").out == (
        "search · native · first time\n"
        "\n"
        "  image image\n"
        f"    +  debian_slim {PYTHON}          this host: Debian 12, Python 3.11.7\n"
        "    +  pip_install scikit-learn\n"
        "    +  env HF_HOME\n"
        "  +  bundle app.py\n"
        "  +  function index\n"
        "  +  function query\n"
        "\n"
        "4 to add, 1 layer to build.\n"
        "Saved. To make it so: slipway apply\n"
    )


def test_a_change_with_its_because_and_its_time(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    slipway("apply", "app.py", "--yes")
    assert engine.deployed is not None
    engine.last_ms = {node.digest: 14_200 for node in engine.deployed.nodes}
    write(
        APP.replace('"scikit-learn"', '"scikit-learn", "numpy<2"').replace("def query(x): return x", "def query(x): 1")
    )
    out = slipway("plan", "app.py").out
    assert out.startswith("search · native · serial 1 → 2\n")
    assert '    ±  pip_install numpy<2 scikit-learn  packages: + "numpy<2"' in out
    assert "14 s last time" in out
    assert "because the layer below changes" in out
    assert "  ~  bundle app.py" in out and "app.py changed" in out
    assert "1 layer to rebuild" in out


def test_nothing_to_do(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    slipway("apply", "app.py", "--yes")
    assert slipway("plan", "app.py").out == "search · native · serial 1\n\nNothing to do: 6 unchanged.\n"
    assert slipway("apply", "app.py").out.endswith("Nothing to do: serial 1 is in force.\n")  # asks nothing


def test_exit_codes(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    slipway("plan", "app.py", "--exit-code", code=2)
    slipway("apply")
    slipway("plan", "app.py", "--exit-code", code=0)
    write("x = = 1\n")
    slipway("plan", "app.py", "--exit-code", code=1)


def test_json_is_all_of_stdout(engine: FakeEngine, slipway: Slipway) -> None:
    write("print('hello from the file')\n" + APP)
    ran = slipway("plan", "app.py", "--json")
    assert json.loads(ran.out)["graph"]["app"] == "search"
    assert "hello from the file" in ran.err
    applied = slipway("apply", "app.py", "--json", "--yes")
    assert json.loads(applied.out.splitlines()[-1])["executed"] == 1


def test_notes_are_shown_with_the_plan(engine: FakeEngine, slipway: Slipway) -> None:
    write("import slipway\napp = slipway.App('old')\n@app.function(keep_warm=1)\ndef f(): pass\n")
    out = slipway("plan", "app.py").out
    assert "note: app.py:3: function f: " in out


def test_all_faults_at_once(engine: FakeEngine, slipway: Slipway) -> None:
    write(
        "import slipway\napp = slipway.App('bad')\nv = slipway.Volume.from_name('v', create_if_missing=True)\n"
        "@app.function(volumes={'/tmp': v})\ndef f(): pass\n"
        "@app.function(schedule=slipway.Cron('* * * * *'))\ndef g(x): pass\n"
    )
    err = slipway("plan", "app.py", code=1).err
    assert "error: app.py:3: function f: " in err and "error: app.py:6: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("ref", ["nothing.py", "app.py:f", "."])
def test_a_wrong_reference_is_an_error(engine: FakeEngine, slipway: Slipway, ref: str) -> None:
    write()
    ran = slipway("plan", ref, code=1)
    assert ran.err.startswith("error: ") and len(ran.err.splitlines()) <= 4


# --- apply --------------------------------------------------------------------------------------------


def test_apply_takes_the_last_plan_of_the_folder(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    assert "no plan was made in this folder" in slipway("apply", code=1).err
    slipway("plan", "app.py")
    assert slipway("apply").out == "Done: 1 build step run, serial 1 is in force.\n"


def test_apply_of_an_app_asks_first(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    ran = slipway("apply", "app.py", code=1)
    assert "image image" in ran.out and "Add --yes" in ran.err
    assert engine.deployed is None
    slipway("apply", "app.py", "--yes")
    assert engine.deployed is not None


def test_a_plan_file(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    out = slipway("plan", "app.py", "-o", "release.plan").out
    assert out.endswith("Saved to release.plan. To make it so: slipway apply release.plan\n")
    slipway("apply", "release.plan")
    assert engine.serial == 1


def test_a_damaged_plan_file_is_refused_by_name(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    slipway("plan", "app.py", "-o", "release.plan")
    path = Path("release.plan")
    path.write_bytes(path.read_bytes()[:-20])
    assert slipway("apply", "release.plan", code=1).err.startswith("error: release.plan: ")
    assert "there is no file" in slipway("apply", "other.plan", code=1).err
    assert engine.serial == 0


def test_a_plan_file_that_cannot_be_written(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    assert "cannot be written to no/such/dir" in slipway("plan", "app.py", "-o", "no/such/dir", code=1).err


def test_what_is_built_is_told_line_by_line(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    title = "pip_install scikit-learn"
    engine.events["apply"] = [
        {"event": "node", "address": "image image/1", "title": title, "state": "running"},
        {"event": "log", "address": "image image/1", "text": "Collecting scikit-learn"},
        {"event": "node", "address": "image image/1", "title": title, "state": "done", "ms": 14_200},
    ]
    out = slipway("apply", "app.py", "--yes").out
    assert "building  pip_install scikit-learn\nbuilt     pip_install scikit-learn  14 s\nDone" in out
    function = {"event": "node", "address": "function f", "kind": "function", "title": ""}
    engine.events["apply"] = [function | {"state": "running"}, function | {"state": "done", "ms": 2_200}]
    out = slipway("apply", "app.py", "--yes").out
    assert "starting  function f\nstarted   function f  2.2 s\n" in out


def test_a_failed_apply_says_what_and_ends_with_1(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    reply = {"serial": 3, "done": [], "failed": ["image image/1"], "skipped": ["image image/2"], "executed": 1}
    engine.replies["apply"] = lambda _: reply
    out = slipway("apply", "app.py", "--yes", code=1).out
    assert "Failed: image image/1; skipped: image image/2" in out
    assert "what is in force stays as it was" in out


# --- why and graph ------------------------------------------------------------------------------------


def test_why_and_graph(engine: FakeEngine, slipway: Slipway) -> None:
    write()
    slipway("apply", "app.py", "--yes")
    write(APP.replace("def index(x): return x", "def index(x): return 2"))
    out = slipway("why", "app.py", "function index").out
    assert "app.py" in out and "will be updated" in out
    assert "Did you mean" in slipway("why", "app.py", "function indx", code=1).err
    assert "function index" in slipway("graph", "app.py").out
    assert slipway("graph", "app.py", "--format", "mermaid").out.startswith("flowchart")
    slipway("graph", "app.py", "--format", "svg", "-o", "graph.svg")
    assert Path("graph.svg").read_text().startswith("<svg")
    assert [params["save"] for method, params in engine.asked if method == "plan"][1:] == [False] * 5
