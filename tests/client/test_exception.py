"""`slipway.exception`, from where programs import what they catch."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import slipway
from slipway import exception
from slipway.dsl import errors


def test_it_has_all_errors_and_they_are_the_same() -> None:
    here = {name for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__}
    public = {name for name in here if not name.startswith("_")}
    assert {name for name in vars(exception) if not name.startswith("_")} - {
        "annotations",
        "simulate_preemption",
    } == public
    assert all(getattr(exception, name) is getattr(errors, name) for name in public)
    assert slipway.exception is exception


PREEMPTED = """
import threading
from slipway.preemption import begin
begin(0.01, grace=0.05)
try:
    threading.Event().wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
threading.Event().wait()
"""


def test_a_preemption_interrupts_and_then_kills() -> None:
    done = subprocess.run([sys.executable, "-c", PREEMPTED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("interrupted\n", -signal.SIGKILL), done.stderr
    with pytest.raises(errors.InvalidError, match="it takes seconds from now on"):
        exception.simulate_preemption(0)
