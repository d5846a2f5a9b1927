"""The group: what it lists, how quick it is to say so, what it makes of a slip of the keyboard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_engine import Slipway

from slipway.cli.commands import COMMANDS


def test_help_lists_every_command(slipway: Slipway) -> None:
    out = slipway("--help").out
    for name, (_, text) in COMMANDS.items():
        assert f"  {name}" in out and text in out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_does_with_an_example(slipway: Slipway, name: str) -> None:
    out = slipway(name, "--help").out
    assert out.startswith(f"Usage: slipway {name}")
    assert "Example" in out and f"slipway {name}" in out.partition("Example")[2]


def test_version(slipway: Slipway) -> None:
    assert slipway("--version").out.startswith("slipway 0.")


def test_did_you_mean(slipway: Slipway) -> None:
    assert "Did you mean 'plan'?" in slipway("plna", code=2).err
    assert "--json" in slipway("plan", "app.py", "--jsn", code=2).err
    assert "Missing argument 'APP'" in slipway("plan", code=2).err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(slipway: Slipway, shell: str) -> None:
    assert "_SLIPWAY_COMPLETE" in slipway("completion", shell).out


def test_completing_commands() -> None:
    env = {**os.environ, "_SLIPWAY_COMPLETE": "bash_complete", "COMP_WORDS": "slipway d", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("slipway")
    done = subprocess.run([program], env=env, capture_output=True, text=True)
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == {"destroy", "down", "doctor"}


def test_whoever_reads_may_stop(tmp_path: Path) -> None:
    """`slipway --help | head -1` ends without a word about a broken pipe."""
    program = Path(sys.executable).with_name("slipway")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run([program, "--help"], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("completion bash >&-", 0, ""),
        ("completion bash <&- >&- 2>&-", 0, ""),
        ("status >/dev/full", 1, "error: nothing more can be written: No space left on device\n"),
    ],
)
def test_streams_that_are_closed_or_full(line: str, code: int, said: str) -> None:
    command = Path(sys.executable).with_name("slipway")
    ran = subprocess.run(["/bin/sh", "-c", f"{command} {line}"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, "", said)


def test_in_a_folder_that_was_removed_it_says_so(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-c", f"import os; os.rmdir({str(gone)!r}); from slipway.cli.main import main; main()"]
    done = subprocess.run(command, cwd=gone, capture_output=True, text=True, check=False)
    assert done.stderr == "error: the folder that you are in was removed\nGo to one that is there: cd\n"
