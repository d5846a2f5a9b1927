"""What an image says of how processes start, seen from inside of workers."""

from __future__ import annotations

import pytest
from machine import Machine

pytestmark = pytest.mark.slow

STARTS = """\
import os
import slipway

def note():
    import helper
    open("/opt/note", "w").write(f"{os.getcwd()} {helper.WORD} {slipway.is_local()}")

source = slipway.Image.debian_slim().add_local_python_source("helper", copy=True)
elsewhere = source.workdir("/srv/new").run_function(note)
through = source.entrypoint(["/usr/bin/env", "THROUGH=1"])
app = slipway.App("starts")

@app.function(image=elsewhere)
def folder() -> str:
    import helper
    return f"{os.getcwd()}, {open('/opt/note').read()}, {helper.WORD}"

@app.function(image=through)
def entered() -> str:
    return os.environ.get("THROUGH", "not at all")

@app.local_entrypoint()
def main():
    print(folder.remote())
    print(entered.remote())
"""


def test_a_worker_starts_in_the_workdir_and_through_the_entrypoint(machine: Machine) -> None:
    machine.write("app.py", STARTS)
    machine.write("helper.py", "WORD = 'hello'\n")
    ran = machine.run("run", "app.py")
    assert ran.out.splitlines() == ["/srv/new, /srv/new hello False, hello", "1"]
