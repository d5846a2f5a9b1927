"""The runtime contract on the fake and on the native runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.executor.ports import Runtime
from slipway.executor.runtime.native import NativeRuntime
from tests.contracts.runtime_contract import RuntimeContract
from tests.fakes import FakeRuntime


class TestFake(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime()


@pytest.mark.slow
class TestNative(RuntimeContract):
    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Runtime:
        return NativeRuntime(tmp_path / "home")
