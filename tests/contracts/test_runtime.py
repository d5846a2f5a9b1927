"""The runtime contract on the fake and on the native runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.executor.ports import Runtime
from slipway.executor.runtime.native import NativeRuntime
from tests.contracts.runtime_contract import RuntimeContract, home_with
from tests.fakes import FakeRuntime


class TestFake(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime()


@pytest.mark.slow
class TestNative(RuntimeContract):
    @pytest.fixture
    def runtime(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Runtime:
        return NativeRuntime(home_with(tmp_path_factory.getbasetemp() / "skeletons", tmp_path / "home"))
