"""A small load under `kill -9` of everything; `chaos.py` itself does it with ten thousand calls."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from faults import chaos
from faults.test_build import native_works


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_call_has_its_outcome_whatever_is_killed(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native_works(tmp_path / "ask"):
        pytest.skip("the native runtime can't make containers here")
    monkeypatch.setenv("SLIPWAY_HOME", "")  # `run` sets it, for this test alone
    folder = Path(tempfile.mkdtemp(prefix="slipway-chaos-"))
    try:
        ended, found = chaos.run(folder, calls=240, rounds=3, seed=seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert ended.killed.total() > 0
    assert found.total() == 240
