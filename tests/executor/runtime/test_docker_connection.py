"""Which engine a connection leads to while the settings change, and what it says of one that isn't there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docker_engine import DockerTestEngine

from slipway.dsl.errors import RuntimeUnavailable
from slipway.executor.config import Config, DockerSettings
from slipway.executor.runtime.docker import Connection
from slipway.executor.runtime.docker_runtime import DockerRuntime


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
def test_a_socket_that_one_may_not_use(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o000)
    said = told(f"unix://{tmp_path}/a/d.sock")
    assert "Permission denied" in said.message and "group docker" in said.hint


@contextmanager
def answering(path: Path, answers: Callable[[str], bytes]) -> Iterator[str]:
    """Something that is no Docker Engine and says what it likes; b"" for nothing, ever."""

    def serve(conversation: socket.socket) -> None:
        with conversation, contextlib.suppress(OSError):
            while asked := conversation.recv(65536).decode():
                body = answers(asked.split()[1].rpartition("/")[2].partition("?")[0])
                if body:
                    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                    conversation.sendall(head.encode() + body)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"unix://{path}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


VERSION = b'{"Version": "20.10.24", "ApiVersion": "1.41", "Os": "linux", "Arch": "amd64"}'


@pytest.mark.parametrize(
    ("info", "says"), [(b'{"DriverStatus": "odd"}', "makes no sense"), (b"{}", "makes no sense"), (b"", "within 0.2 s")]
)
def test_what_is_no_engine_is_said_to_be_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: bytes, says: str
) -> None:
    monkeypatch.setattr("slipway.executor.runtime.docker.ASKED", 0.2)

    async def main(url: str) -> None:
        connection = Connection(lambda: DockerSettings(host=url))
        try:
            with pytest.raises(RuntimeUnavailable) as said:
                await connection.facts()
            assert says in said.value.message
        finally:
            connection.close()

    answers = {"version": VERSION, "info": info, "networks": b"[{}]"}
    with answering(tmp_path / "odd.sock", lambda path: answers[path]) as url:
        asyncio.run(main(url))


def test_an_engine_that_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "used").touch()

    async def main(url: str) -> None:
        runtime = DockerRuntime(tmp_path, lambda: Config(docker=DockerSettings(host=url)))
        await runtime.start()
        async with asyncio.timeout(5):
            await runtime.close()

    with answering(tmp_path / "odd.sock", lambda _: b"") as url:
        asyncio.run(main(url))


def test_an_order_to_give_up_is_not_lost_where_the_answer_comes_with_it() -> None:
    """Else whoever gave the order waits for ever for what goes on; and what was opened would stay open."""
    discarded: list[str] = []

    async def main() -> None:
        connection = Connection(lambda: DockerSettings())
        may_end, threads = threading.Event(), queue.SimpleQueue[threading.Thread]()

        def work() -> str:
            threads.put(threading.current_thread())
            may_end.wait()
            return "an open socket"

        asking = asyncio.create_task(connection._within(60, work, discarded.append))
        thread = await asyncio.to_thread(threads.get)
        may_end.set()
        thread.join()  # its answer lies ready, and the loop hasn't seen it
        asyncio.get_running_loop().call_soon(asking.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(main())
    assert discarded == ["an open socket"]
