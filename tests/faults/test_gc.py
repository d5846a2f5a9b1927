"""`slipway gc` killed at any point: the next engine finds whole things only, and frees what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from assembly import our_code
from faults.test_build import native_works

PROGRAM = Path(__file__).with_name("gc_app.py")


@pytest.fixture(autouse=True)
def _native(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not native_works(tmp_path_factory.getbasetemp() / "ask"):
        pytest.skip("the native runtime can't make containers here")


def run(home: Path, *what: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(home), *what],
        env={**os.environ, "SLIPWAY_FAULT": fault},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def whole(home: Path, *what: str) -> dict[str, Any]:
    """To the end, with nothing half left behind."""
    ended = run(home, *what)
    assert ended.returncode == 0, ended.stderr
    for folder in ("layers", "bundles", "cache", "containers"):
        left = [path.name for path in (home / folder).iterdir() if "." in path.name and path.name != ".lock"]
        assert left == [], folder
    for link in (path for path in (home / "layers").iterdir() if path.is_symlink()):
        assert (link / "layer.json").exists(), "a second name of a layer that is there"
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "fault"),
    [
        ("", "gc-removed:1"),
        ("", "gc-removed:8"),
        ("", "gc-renamed:1"),
        ("", "gc-renamed:2"),
        ("", "layer-gone:1"),
        ("", "layer-forgotten:3"),
        ("one", "gc-removed:2"),
        ("one", "layer-gone:1"),
        ("two", "layer-forgotten:1"),
        ("two", "layer-forgotten:2"),
        ("two", "gc-removed:2"),
    ],
)
def test_killed_at_a_point(tmp_path: Path, kept: str, fault: str) -> None:
    """With nothing deployed, and with the one and the other name of a layer in use."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "runtime").symlink_to(our_code().parent)  # making one takes half a second
    assert whole(home, "make")["layers"] == 6
    what = ("free", kept) if kept else ("free",)
    killed = run(home, *what, fault=fault)
    assert killed.returncode == -9, killed.stderr
    done = whole(home, *what)
    assert done["executed"] == 0, "what is needed was not freed"
    assert done["free"] == {"number": 0, "size": 0}
    assert [done["layers"], done["bundles"], done["blobs"]] == ([3, 1, 1] if kept else [0, 0, 0])
    assert done["uses"] == (4 if kept else 0)
    assert whole(home, "free", "one")["executed"] == {"": 3, "one": 0, "two": 2}[kept]
