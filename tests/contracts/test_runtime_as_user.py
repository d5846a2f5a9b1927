"""The native runtime's promises once more for an ordinary user without root: made for the test, gone after it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = "import site, sys; site.addsitedir(sys.argv[1]); import pytest; sys.exit(pytest.main(sys.argv[2:]))"

TESTS = ("tests/contracts/test_runtime.py::TestNative", "tests/executor/runtime")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, so it needs root; without it the contract ran as you"),
]


@pytest.fixture
def user() -> Iterator[pwd.struct_passwd]:
    if shutil.which("useradd") is None:
        pytest.skip("this system has no useradd")
    name = f"slipway-{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def run_as(user: pwd.struct_passwd, argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd=ROOT,
        env={
            "HOME": user.pw_dir,
            "PATH": "/usr/bin:/bin",
            "TMPDIR": user.pw_dir,
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": f"{user.pw_dir}/hypothesis",
        },
        capture_output=True,
        text=True,
    )


def interpreter_for(user: pwd.struct_passwd) -> str:
    """A Python of this very minor version that the user may run with our packages."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = sysconfig.get_path("purelib")
    tried = [sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"]
    ask = f"import site, sys; assert sys.version_info[:2] == {sys.version_info[:2]}; site.addsitedir({packages!r})"
    for path in tried:
        if Path(path).exists():
            try:
                done = run_as(user, [path, "-c", ask + "; import slipway.executor.runtime.native, pytest"])
            except PermissionError:
                continue
            if done.returncode == 0:
                return path
    pytest.skip(f"no Python {version} that an ordinary user may run together with this checkout")


def test_the_same_holds_without_root(user: pwd.struct_passwd) -> None:
    python = interpreter_for(user)
    packages = sysconfig.get_path("purelib")
    tests = [f"{ROOT}/{name}" for name in TESTS]
    done = run_as(user, [python, "-c", RUN, packages, "-q", "-p", "no:cacheprovider", *tests])
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
