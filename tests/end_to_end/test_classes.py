"""Classes from the user's file to their workers and back, with the real command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machine import Machine

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["native", "docker"])
def either_machine(request: pytest.FixtureRequest) -> Machine:
    found: Machine = request.getfixturevalue("machine" if request.param == "native" else "docker_machine")
    return found


def test_the_example_corrects_what_was_written(either_machine: Machine) -> None:
    """One object a set of parameters, whose workers learn before they work; what they print is on the terminal."""
    machine = either_machine
    shutil.copy(ROOT / "examples" / "model.py", machine.folder)
    ran = machine.run("run", "model.py", "--text", "the interpretr retuns a lst of evaulatoin")
    assert ran.out.splitlines()[-1] == "evaulatoin: perhaps evaluation?"
    assert "the interpreter returns a" in ran.out
    assert "and looks 1 letters far" in ran.out + ran.err and "and looks 2 letters far" in ran.out + ran.err


APP = """
import os
import slipway

image = slipway.Image.debian_slim().run_commands("echo built > /built")
app = slipway.App("shop", image=image)


@app.cls({options})
class Model:
    size: str = slipway.parameter(default="{size}")

    @slipway.enter()
    def load(self) -> None:
        self.entered = {entered}

    @slipway.method()
    def say(self, text: str) -> str:
        return f"{{self.size}} {{self.entered}} {{text}}"

    @slipway.method()
    def mark(self) -> str:
        return os.environ.get("MARK", "none")

    @slipway.method()
    def marks(self) -> str:
        return f"{{self.mark.local()}} {{self.mark.remote()}}"
{more}

@app.function()
def use(model, text: str) -> str:
    return model.say.remote(text)
"""
CALLER = """
import slipway
model = slipway.Cls.from_name("shop", "Model")
print(model().say.remote("a"), "|", *model(size="large").say.map(["b", "c"]), sep=" ")
quick = model.with_options(timeout=60)(size="large")
print(slipway.Function.from_name("shop", "use").remote(quick, "d"))
print(model().marks.remote(), model.with_options(env={"MARK": "x"})(size="large").marks.remote())
"""
MORE = "    @slipway.method()\n    def more(self) -> int:\n        return 1\n"


def call_from_elsewhere(machine: Machine) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CALLER], capture_output=True, text=True, check=True, env=machine.env, cwd=machine.folder
    )
    return done.stdout.splitlines()


def write(machine: Machine, **said: str) -> None:
    text = APP.format(**{"options": "", "size": "small", "entered": "1", "more": "", **said})
    machine.write("shop.py", text)


def test_a_deployed_class_is_called_from_another_program_and_planned_by_what_it_says(machine: Machine) -> None:
    write(machine)
    machine.run("apply", "shop.py", "--yes")
    assert call_from_elsewhere(machine) == ["small 1 a | large 1 b large 1 c", "large 1 d", "none none x x"]

    write(machine, size="tiny", entered="2", more=MORE, options="timeout=120")
    plan = machine.run("plan", "shop.py").out
    assert "class Model" in plan and "method added: more" in plan
    assert 'parameter size: default: "small" → "tiny"' in plan and "timeout: 300 s → 120 s" in plan
    assert "layer" not in plan, "no code of a class is part of an image"
    done = json.loads(machine.run("apply", "shop.py", "--yes", "--json").out.splitlines()[-1])
    assert done["executed"] == 0
    assert call_from_elsewhere(machine) == ["tiny 2 a | large 2 b large 2 c", "large 2 d", "none none x x"]


def test_what_a_deployed_class_does_not_have_is_said_when_it_is_used(machine: Machine) -> None:
    write(machine)
    machine.run("apply", "shop.py", "--yes")
    uses = {
        "Cls.from_name('shop', 'Modell')().say": "the app shop has no function Modell",
        "Cls.from_name('shop', 'Model')().sey": "Model has no method sey",
        "Cls.from_name('shop', 'Model')(sise='x').say": "Model() has no parameter 'sise'",
        "Cls.from_name('shop', 'Model')(size=3).say": "the parameter is of type str, this is of type int",
        "Cls.from_name('nowhere', 'Model')().say": "no app nowhere",
        "Function.from_name('shop', 'Model')": "Model is a class, not a function",
    }
    for use, said in uses.items():
        program = (
            f"import slipway\ntry:\n    slipway.{use}.remote('x')\nexcept slipway.Error as error:\n    print(error)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=machine.env)
        assert said in done.stdout, (use, done.stdout, done.stderr)
