"""The runtime contract on the fake and on the native runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.runtime_contract import RuntimeContract, home_with
from fakes import FakeRuntime

from slipway.executor.ports import Runtime
from slipway.executor.runtime.native import NativeRuntime


class TestFake(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime()


@pytest.mark.slow
class TestNative(RuntimeContract):
    @pytest.fixture
    def runtime(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Runtime:
        return NativeRuntime(home_with(tmp_path_factory.getbasetemp() / "skeletons", tmp_path / "home"))
