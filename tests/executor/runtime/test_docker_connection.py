"""Which engine a connection leads to while the settings change, and what it says of one that isn't there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from docker_engine import DockerTestEngine

from slipway.dsl.errors import RuntimeUnavailable
from slipway.executor.config import DockerSettings
from slipway.executor.runtime.docker import Connection


@pytest.mark.slow
def test_settings_that_name_another_engine_count_once_nothing_runs_here(
    docker_engine: DockerTestEngine, tmp_path: Path
) -> None:
    """The second address is the same engine's, by another name of its socket."""
    other = tmp_path / "other.sock"
    other.symlink_to(docker_engine.url.removeprefix("unix://"))
    settings = [DockerSettings(host=docker_engine.url)]
    running = [True]

    async def main() -> None:
        connection = Connection(lambda: settings[0], tmp_path, busy=lambda: running[0])
        first = await connection.facts()
        assert first.here and first.address == f"{docker_engine.url} (host in config.toml)"
        settings[0] = DockerSettings(host=f"unix://{other}")
        assert await connection.facts() is first
        await connection.ping()
        assert connection.address == first.address
        running[0] = False
        await connection.ping()
        assert connection.address == f"unix://{other} (host in config.toml)"
        assert (await connection.facts()).address == connection.address
        connection.close()

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["other.sock"]


def told(host: str) -> RuntimeUnavailable:
    async def main() -> None:
        connection = Connection(lambda: DockerSettings(host=host))
        await connection.ping()

    with pytest.raises(RuntimeUnavailable) as said:
        asyncio.run(main())
    return said.value


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    said = told(f"unix://{tmp_path}/none.sock")
    where = f"unix://{tmp_path}/none.sock (host in config.toml)"
    assert said.message == f"no Docker Engine answers at {where}: No such file or directory"
    assert "DOCKER_HOST" in said.hint
    assert "reached through ssh" in told("ssh://far").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_an_engine_that_one_may_not_use(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o000)
    said = told(f"unix://{tmp_path}/locked/docker.sock")
    assert "Permission denied" in said.message and "group docker" in said.hint
