"""The main job as a user without root sees it: a fresh copy, an ordinary home, nothing installed by hand."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine

ROOT = Path(__file__).parents[2]
USER = "slipway-demo"


def system_python() -> str | None:
    """A Python that every user may run: the one of these tests may lie in root's own home."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable):
        try:
            probe = [path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            fine = subprocess.run(probe, check=False, user="nobody", capture_output=True).returncode == 0
        except OSError:
            continue
        if fine:
            return path
    return None


needs_users = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make a user")


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Path]:
    """A user with a copy of this checkout in a home of its own; gone afterwards."""
    if system_python() is None:
        pytest.skip("no Python 3.11 here that other users may run")
    home = Path("/home") / USER
    subprocess.run(["useradd", "--create-home", "--home-dir", str(home), USER], check=True)
    try:
        skipped = shutil.ignore_patterns(
            ".venv*", ".git", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
        )
        shutil.copytree(ROOT, home / "slipway", ignore=skipped)
        subprocess.run(["chown", "-R", f"{USER}:", str(home)], check=True)
        yield home / "slipway"
    finally:
        subprocess.run(["userdel", "--remove", USER], check=True, capture_output=True)


def run_as_user(folder: Path, *argv: str) -> str:
    account = pwd.getpwnam(USER)
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLIPWAY_", "VIRTUAL_ENV", "XDG_"))
    }
    env |= {"HOME": account.pw_dir, "USER": USER, "PATH": "/usr/local/bin:/usr/bin:/bin", "NO_COLOR": "1"}
    ran = subprocess.run(
        argv, cwd=folder, env=env, user=USER, group=account.pw_gid, extra_groups=[],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@needs_users
def test_make_demo_without_root(user: Path, tmp_path: Path) -> None:
    """`make demo` ends with the hits; and what is planned there has the digests that it has for root elsewhere."""
    try:
        shown = run_as_user(user, "make", "demo", f"PYTHON={system_python()}")
        hits = shown.partition("The five best for")[2]
        assert any(name in hits for name in ("argparse", "optparse", "getopt")), shown
        theirs = json.loads(run_as_user(user, ".venv/bin/slipway", "plan", "examples/search.py", "--json"))
    finally:
        run_as_user(user, ".venv/bin/slipway", "down")

    machine = Machine(tmp_path)  # root's: another home, folder and hash seed, the same interpreter
    shutil.copy(ROOT / "examples" / "search.py", machine.folder / "search.py")
    try:
        env = {**machine.env, "PYTHONHASHSEED": "7"}
        argv = [str(user / ".venv/bin/slipway"), "plan", "search.py", "--json"]
        ran = subprocess.run(argv, cwd=machine.folder, env=env, check=True, capture_output=True, text=True, timeout=120)
        subprocess.run([user / ".venv/bin/slipway", "down"], env=env, check=True, capture_output=True, timeout=60)
    finally:
        machine.close()
    ours = json.loads(ran.stdout)
    digests = [[(node["address"], node["digest"]) for node in plan["graph"]["nodes"]] for plan in (theirs, ours)]
    assert len(digests[0]) >= 6
    assert digests[0] == digests[1]
