"""Bad input: one screen that says what, where and the way out; exit code 1, and never a traceback of ours."""

from __future__ import annotations

import pytest
from machine import Machine, Ran

HEAD = "import slipway\napp = slipway.App('shop')\n"


def refuse(machine: Machine, *argv: str, code: int = 1) -> str:
    ran: Ran = machine.run(*argv, code=code)
    text = ran.out + ran.err
    assert "Traceback (most recent call last)" not in ran.err or "app.py" in ran.err
    assert "slipway/" not in text.replace("slipway/app", "") or "bug" not in text
    assert len(text.splitlines()) <= 40
    assert "this is a bug" not in text
    return text


PLAN_FAULTS = {
    "syntax": (HEAD + "def f(:\n    pass\n", ["app.py:3"]),
    "import": (HEAD + "import nothing_of_the_kind\n", ["app.py:3", "nothing_of_the_kind"]),
    "no app": ("import slipway\nx = 1\n", ["app.py", "App"]),
    "two apps": (HEAD + "other = slipway.App('other')\n", ["app.py", "shop", "other", "::"]),
    "direct call": (HEAD + "@app.function()\ndef f(): pass\nf()\n", ["app.py:5", ".remote", ".local"]),
    "duplicate": (
        HEAD + "@app.function(name='f')\ndef f(): pass\n@app.function(name='f')\ndef g(): pass\n",
        ["app.py:3", "app.py:5", "f"],
    ),
    "schedule with arguments": (
        HEAD + "@app.function(schedule=slipway.Cron('* * * * *'))\ndef f(x): pass\n",
        ["app.py:3", "x"],
    ),
    "volume at /": (
        HEAD + "@app.function(volumes={'/': slipway.Volume.from_name('v')})\ndef f(): pass\n",
        ["app.py:3"],
    ),
    "volume at /root": (
        HEAD + "@app.function(volumes={'/root': slipway.Volume.from_name('v')})\ndef f(): pass\n",
        ["app.py:3", "/root"],
    ),
    "volume at /tmp": (
        HEAD + "@app.function(volumes={'/tmp': slipway.Volume.from_name('v')})\ndef f(): pass\n",
        ["app.py:3", "/tmp"],
    ),
    "step after mount": (
        HEAD
        + "image = slipway.Image.debian_slim().add_local_file('app.py', '/x').run_commands('true')\n"
        + "@app.function(image=image)\ndef f(): pass\n",
        ["app.py:3", "copy=True"],
    ),
    "absent python": (
        HEAD + "@app.function(image=slipway.Image.debian_slim('3.4'))\ndef f(): pass\n",
        ["3.4", "--runtime docker"],
    ),
    "from_registry": (
        HEAD + "@app.function(image=slipway.Image.from_registry('debian'))\ndef f(): pass\n",
        ["app.py:3", "--runtime docker"],
    ),
    "absent file": (
        HEAD + "@app.function(image=slipway.Image.debian_slim().add_local_file('ap.py', '/x'))\ndef f(): pass\n",
        ["ap.py", "app.py"],
    ),
}


@pytest.mark.parametrize("name", PLAN_FAULTS)
def test_faults_at_plan(machine: Machine, name: str) -> None:
    text, said = PLAN_FAULTS[name]
    machine.write("app.py", text)
    shown = refuse(machine, "plan", "app.py")
    for part in said:
        assert part in shown, shown


def test_a_volume_that_is_not_there(machine: Machine) -> None:
    """It may be there when the plan is applied, so the plan warns and apply refuses."""
    text = HEAD + "@app.function(volumes={'/v': slipway.Volume.from_name('nowhere')})\ndef f(): pass\n"
    machine.write("app.py", text)
    for ran in (machine.run("plan", "app.py"), machine.run("apply", "--yes", code=1)):
        assert "nowhere" in ran.out + ran.err and "create_if_missing" in ran.out + ran.err


def test_all_faults_at_once(machine: Machine) -> None:
    machine.write(
        "app.py",
        HEAD
        + "@app.function(volumes={'/tmp': slipway.Volume.from_name('v', create_if_missing=True)})\ndef f(): pass\n"
        + "@app.function(schedule=slipway.Cron('* * * * *'))\ndef g(x): pass\n",
    )
    shown = refuse(machine, "plan", "app.py")
    assert "app.py:3" in shown and "app.py:5" in shown


def test_usage(machine: Machine) -> None:
    assert "app.py" in refuse(machine, "plan", "app.py")  # no such file
    refuse(machine, "plan", "--no-such-option", code=2)
    assert "plan" in refuse(machine, "plna", code=2)
    machine.write("app.py", HEAD + "@app.function()\ndef f(x: int): pass\n")
    assert "--x" in refuse(machine, "run", "app.py", code=2)
    assert "app.py::f?" in refuse(machine, "run", "app.py::ff")


RUN = (
    HEAD
    + """
class Odd(Exception):
    def __init__(self, a, b):
        super().__init__("odd")

@app.function()
def f(x=None):
    if x == "lock":
        import threading
        return threading.Lock()
    if x == "raise":
        raise ValueError("told you so")
    if x == "exit":
        import os
        os._exit(3)
    if x == "class":
        Local = type("OnlyThere", (Exception,), {"__module__": "only_there"})
        raise Local("who am I")
    return x

@app.local_entrypoint()
def main(what: str):
    if what == "count":
        f.remote(1, 2, 3)
    elif what == "generator":
        f.remote(x for x in [])
    else:
        f.remote(what)
"""
)


@pytest.mark.parametrize(
    ("what", "said"),
    {
        "count": ["f(x=None)"],
        "generator": ["pickle"],
        "lock": ["pickle"],
        "raise": ["ValueError", "told you so", "app.py"],
        "exit": ["exited with code 3"],
        "class": ["OnlyThere", "who am I"],
    }.items(),
)
def test_faults_at_run(machine: Machine, what: str, said: list[str]) -> None:
    machine.write("app.py", RUN)
    ran = machine.run("run", "app.py", "--what", what, code=1)
    for part in said:
        assert part in ran.err, ran.err
    assert "slipway/connection" not in ran.err and "this is a bug" not in ran.err


def test_a_failing_step(machine: Machine) -> None:
    machine.write(
        "app.py",
        HEAD
        + "image = slipway.Image.debian_slim().run_commands('echo before; echo the reason >&2; exit 7')\n"
        + "@app.function(image=image)\ndef f(): pass\n",
    )
    machine.run("plan", "app.py")
    shown = refuse(machine, "apply", "--yes")
    assert "the reason" in shown and "app.py:3" in shown and "7" in shown


def test_a_missing_package(machine: Machine, index: str) -> None:
    machine.write(
        "app.py",
        HEAD
        + f"image = slipway.Image.debian_slim().pip_install('no-such-fruit', index_url='{index}')\n"
        + "@app.function(image=image)\ndef f(): pass\n",
    )
    machine.run("plan", "app.py")
    shown = refuse(machine, "apply", "--yes")
    assert "no-such-fruit" in shown and "app.py:3" in shown
