"""A build that is killed at any point: the next one builds only what wasn't finished, and nothing half is ever used."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from slipway.executor.runtime.native import NativeRuntime

PROGRAM = Path(__file__).with_name("build_app.py")
LAYERS = 5  # as there
SEEN = "".join(f"{n}\n" for n in range(LAYERS)) + "".join(
    "".join(f"{n}\n" for n in range(upto + 1)) + "seen\n" for upto in range(LAYERS)
)


@cache
def native_works(folder: Path) -> bool:
    async def ask() -> bool:
        runtime = NativeRuntime(folder)
        await runtime.start()
        try:
            return "debian_slim" not in dict((await runtime.ability()).refusals)
        finally:
            await runtime.close()

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _native(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not native_works(tmp_path_factory.getbasetemp() / "ask"):
        pytest.skip("the native runtime can't make containers here")


def run(home: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(home)],
        env={**os.environ, "SLIPWAY_FAULT": fault},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def whole(home: Path) -> dict[str, Any]:
    """Apply to the end, and look at what must hold after every apply."""
    ended = run(home)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    assert result["failures"] == []
    assert result["serial"] == 1
    assert len(list((home / "volumes").iterdir())) == len(result["volumes"]) == 1
    for folder in ("layers", "bundles", "containers"):
        assert not [path.name for path in (home / folder).iterdir() if "." in path.name and path.name != ".lock"]
    assert not list((home / "blobs" / "sha256" / "making").iterdir())
    assert sum(str(home) in line for line in Path("/proc/mounts").read_text().splitlines()) == 0
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("layer-before-commit:1", LAYERS),
        ("layer-before-commit:3", LAYERS - 2),
        ("layer-committed:1", LAYERS - 1),  # the layer is there, its row is not: it is known by its digest
        ("layer-committed:4", LAYERS - 4),
        ("bundle-made", None),
        ("volume-made", None),
        ("before-flip", 0),
        ("after-flip", 0),
    ],
)
def test_killed_at_a_point(tmp_path: Path, fault: str, left: int | None) -> None:
    home = tmp_path / "home"
    killed = run(home, fault)
    assert killed.returncode == -9, killed.stderr
    result = whole(home)
    if left is not None:
        assert result["executed"] == left
    if fault.startswith("layer-before"):
        assert [what.split()[0] for what in result["cut_short"]].count("build") == 1
    if not fault.startswith(
        "layer-committed"
    ):  # there, what the layer saw below has another name: still the same files
        assert result["seen"] == SEEN
    assert whole(home)["executed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("commit", [2, 5, 9])
@pytest.mark.parametrize("when", ["before-commit", "after-commit"])
def test_killed_around_a_write_of_the_state(tmp_path: Path, when: str, commit: int) -> None:
    home = tmp_path / "home"
    assert run(home, f"{when}:{commit}").returncode == -9
    assert whole(home)["seen"] == SEEN
    assert whole(home)["executed"] == 0
