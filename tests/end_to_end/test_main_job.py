"""Plan, apply, run: what a user does first, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

from machine import Machine

APP = """
import os

import slipway

image = (
    slipway.Image.debian_slim()
    .run_commands("echo one > /one")
    .pip_install("apple", index_url="{index}")
    .env({{"FLAVOUR": "tart"}})
    .run_commands("echo two > /two")
)
app = slipway.App("orchard", image=image)


@app.function()
def pick(n: int) -> str:
    import apple

    print(f"picking {{n}}")
    return f"{{n}} {{os.environ['FLAVOUR']}} apples {{apple.version}}"


@app.function()
async def later(n: int) -> int:
    return n + 1


@app.local_entrypoint()
def main(count: int = 3):
    print("; ".join(pick.map(range(count))))
    print(later.remote(count))
"""


def executed(machine: Machine) -> int:
    """How many build steps this apply ran."""
    reply = json.loads(machine.run("apply", "--yes", "--json").out.splitlines()[-1])
    return int(reply["executed"])


def test_plan_apply_run(machine: Machine, index: str) -> None:
    machine.write("app.py", APP.format(index=index))
    plan = machine.run("plan", "app.py").out
    assert "orchard" in plan and "pip_install apple" in plan and "function pick" in plan
    assert executed(machine) == 3
    ran = machine.run("run", "app.py", "--count", "2").out
    assert "0 tart apples 1.0; 1 tart apples 1.0" in ran
    assert "3" in ran.splitlines()
    assert "picking 1" in ran
    called = machine.run("call", "orchard.pick", "[7]")
    assert "7 tart apples 1.0" in called.out
    assert "picking 7" in machine.run("app", "logs", "orchard").out


def test_exit_codes_of_plan(machine: Machine, index: str) -> None:
    machine.write("app.py", APP.format(index=index))
    machine.run("plan", "app.py", "--exit-code", code=2)
    machine.run("apply", "--yes")
    machine.run("plan", "app.py", "--exit-code", code=0)
    machine.write("app.py", "import slipway\nboom(\n")
    machine.run("plan", "app.py", "--exit-code", code=1)


def test_only_what_changed_is_built(machine: Machine, index: str) -> None:
    text = APP.format(index=index)
    machine.write("app.py", text)
    machine.write("unrelated.py", "# a comment\n")
    machine.run("plan", "app.py")
    assert executed(machine) == 3
    assert "Nothing to do" in machine.run("apply").out  # the same plan once more
    machine.run("plan", "app.py")
    assert executed(machine) == 0

    machine.write("unrelated.py", "# another comment\n")
    machine.run("plan", "app.py", "--exit-code", code=0)

    machine.write("app.py", text.replace("picking", "plucking"))
    assert "app.py changed" in machine.run("plan", "app.py").out
    assert "app.py" in machine.run("why", "app.py", "function pick").out
    assert executed(machine) == 0

    machine.write("app.py", text.replace('"apple",', '"apple", "pear",'))
    assert '+ "pear"' in machine.run("plan", "app.py").out
    assert "pear" in machine.run("why", "app.py", "image image/2").out
    assert executed(machine) == 2  # the package layer and the commands above it; the layer below is kept


def test_a_rebuilt_layer_of_the_same_content_stops_the_rebuild(machine: Machine) -> None:
    text = """
import slipway
image = slipway.Image.debian_slim().run_commands("echo one > /one").run_commands("cat /one > /two")
app = slipway.App("same", image=image)

@app.function()
def f():
    return open("/two").read()
"""
    machine.write("app.py", text)
    machine.run("plan", "app.py")
    assert executed(machine) == 2
    machine.write("app.py", text.replace("echo one > /one", "echo  one > /one"))
    machine.run("plan", "app.py")
    assert executed(machine) == 1


def test_a_stale_plan_is_refused(machine: Machine, index: str) -> None:
    text = APP.format(index=index)
    machine.write("app.py", text)
    machine.run("plan", "app.py", "-o", "first.plan")
    machine.write("app.py", text.replace("picking", "plucking"))
    machine.run("apply", "app.py", "--yes")
    refused = machine.run("apply", "first.plan", "--yes", code=1).err
    assert "function pick" in refused and "slipway plan" in refused


def test_a_damaged_plan_is_refused(machine: Machine, index: str) -> None:
    machine.write("app.py", APP.format(index=index))
    machine.run("plan", "app.py", "-o", "good.plan")
    good = (machine.folder / "good.plan").read_bytes()
    for name, bad in {
        "short": good[: len(good) // 2],
        "edited": good.replace(b"orchard", b"orchids"),
        "foreign": b"\x7fELF" + good,
        "format": good.replace(b"1", b"9", 1),
        "empty": b"",
    }.items():
        path = machine.folder / f"{name}.plan"
        path.write_bytes(bad)
        refused = machine.run("apply", path.name, "--yes", code=1)
        assert path.name in refused.err and "Traceback" not in refused.err
    assert json.loads(machine.run("app", "list", "--json").out) == []


def test_the_same_digests_everywhere(tmp_path: Path, index: str) -> None:
    """Two homes, two folders, two hash seeds."""
    digests = []
    for number in (1, 2):
        machine = Machine(tmp_path / str(number))
        try:
            machine.write("app.py", APP.format(index=index))
            plan = json.loads(machine.run("plan", "app.py", "--json", PYTHONHASHSEED=str(number)).out)
            digests.append([node["digest"] for node in plan["graph"]["nodes"]])
        finally:
            machine.close()
    assert len(digests[0]) >= 7
    assert digests[0] == digests[1]


def test_an_app_of_nothing_and_one_that_became_so(machine: Machine) -> None:
    app = machine.write("app.py", "import slipway\napp = slipway.App('bare')\n")
    assert "Nothing to do" in machine.run("plan", "app.py").out
    app.write_text("import slipway\napp = slipway.App('bare')\n\n@app.function()\ndef f(): pass\n")
    machine.run("apply", "app.py", "--yes")
    app.write_text("import slipway\napp = slipway.App('bare')\n")
    assert "-  function f" in machine.run("plan", "app.py").out
    assert "serial 2" in machine.run("apply", "app.py", "--yes").out
    assert "Nothing to do" in machine.run("plan", "app.py").out
