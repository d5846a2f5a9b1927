"""The runtime contract on the fake and on the native runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.runtime_contract import RuntimeContract, Screen, home_with, made, play, sh
from fakes import FakeRuntime

from slipway.compiler.facts import BaseFact
from slipway.executor.ports import ContainerSpec, Exit, Runtime
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

    def test_a_terminal_controls_its_session_and_has_a_name(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                terminal = await container.open_terminal(sh("controls"))
                with Screen(terminal.fd) as screen:
                    assert await terminal.wait() == Exit(code=0)
                    assert await screen.rest() == b"/dev/pts/0\r\nmine\r\n"

        play(runtime, scenario)
