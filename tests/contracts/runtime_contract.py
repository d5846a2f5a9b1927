"""What every runtime promises. A subclass gives `runtime`, a fixture that makes one not yet started.

Programs are shell scripts with a name, so that the fake, which runs no shell, can do the same by the name.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import AlreadyExistsError, InvalidError, NotFoundError, RuntimeUnavailable
from slipway.executor.ports import Container, ContainerSpec, Exit, Limits, Mount, Process, Runtime

DEADLINE = 30.0
WAIT = (
    'import signal as s; s.pthread_sigmask(s.SIG_BLOCK, {15}); print("ready", flush=True); s.sigwait({15}); '
    "s.pthread_sigmask(s.SIG_UNBLOCK, {15})"
)
SCRIPTS = {
    "write": 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"',
    "read": 'cat "$1"',
    "remove": 'rm -r "$1"',
    "list": 'ls -A "$1"',
    "env": 'eval "printf %s \\"\\$$1\\""',
    "cwd": 'printf %s "$(pwd)"',
    "cat": "cat",
    "say": 'printf %s "$1"; printf %s "$2" >&2',
    "exit": 'exit "$1"',
    "wait": "echo ready; exec sleep 1000",
    "trap": f"exec python3 -c '{WAIT}; print(\"ended\"); raise SystemExit(7)'",
    "late": f'exec python3 -c \'{WAIT}; import subprocess; subprocess.Popen(["sleep", "1000"]); raise SystemExit(7)\'',
    "stubborn": 'trap "" TERM; echo ready; while :; do sleep 1000; done',
    "orphan": "sleep 1000 & echo left",
    "size": "trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 1000 & wait; done",
    "greet": 'printf "who? "; read -r name; echo "hello $name"',
    "controls": 'test -t 0 && test -t 1 && test -t 2 && tty && echo >/dev/tty "mine"',
    "before": 'printf "before "; exec "$@"',
    "hog": "exec python3 -c 'x = bytearray(400 << 20); x[::4096] = bytes(len(x[::4096]))'",
    # Waits to be told, starts a session of its own that stays, takes a lot.
    "meet": "exec python3 -c 'import socket as k, subprocess, sys; s = k.socket(k.AF_UNIX); s.connect(sys.argv[1]); "
    's.recv(1); subprocess.Popen(["sleep", "1000"], start_new_session=True); '
    'x = bytearray(400 << 20); x[::4096] = bytes(len(x[::4096]))\' "$1"',
}


def sh(name: str, *args: str) -> tuple[str, ...]:
    """The argv of one of the contract's programs."""
    return ("sh", "-c", SCRIPTS[name], name, *args)


def layer(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


@frozen(kw_only=True)
class Ran:
    how: Exit
    out: bytes = b""
    err: bytes = b""


async def finish(container: Container, argv: tuple[str, ...], **more: Any) -> Ran:
    """Run a program to its end and keep what it said."""
    said: dict[int, list[bytes]] = {1: [], 2: []}
    process = await container.exec(argv, output=lambda which, data: said[which].append(data), **more)
    return Ran(how=await process.wait(), out=b"".join(said[1]), err=b"".join(said[2]))


async def until_ready(container: Container, argv: tuple[str, ...], **more: Any) -> tuple[Process, list[bytes]]:
    """Start a program and wait for its first line."""
    said: list[bytes] = []
    ready = asyncio.Event()

    def hear(which: int, data: bytes) -> None:
        said.append(data)
        ready.set()

    process = await container.exec(argv, output=hear, **more)
    await ready.wait()
    return process, said


async def read(container: Container, path: str) -> bytes | None:
    ran = await finish(container, sh("read", path))
    return ran.out if ran.how.code == 0 else None


async def write(container: Container, path: str, text: str) -> None:
    ran = await finish(container, sh("write", path, text))
    assert ran.how == Exit(code=0), ran.err


class Screen:
    """Our end of a terminal, or of a stream to one; closed in the end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._shown = b""
        os.set_blocking(fd, False)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    async def until(self, text: bytes) -> bytes:
        """What is shown up to and with this text."""
        while text not in self._shown and await self._more():
            pass
        end = self._shown.index(text) + len(text)
        shown, self._shown = self._shown[:end], self._shown[end:]
        return shown

    async def rest(self) -> bytes:
        """What is shown until nothing more can come."""
        while await self._more():
            pass
        return self._shown

    async def _more(self) -> bool:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self.fd)
        try:
            data = os.read(self.fd, 65536)
        except OSError as error:
            assert error.errno == errno.EIO, error  # how a terminal ends
            data = b""
        self._shown += data
        return bool(data)


@asynccontextmanager
async def opened(runtime: Runtime) -> AsyncIterator[tuple[Runtime, BaseFact]]:
    await runtime.start()
    try:
        yield runtime, await runtime.resolve("debian_slim", "")
    finally:
        await runtime.close()


@asynccontextmanager
async def made(runtime: Runtime, spec: ContainerSpec) -> AsyncIterator[Container]:
    container = await runtime.create(spec)
    try:
        yield container
    finally:
        await container.kill()


Scenario = Callable[[Runtime, BaseFact], Awaitable[None]]


def play(runtime: Runtime, scenario: Scenario) -> None:
    """Run a scenario on a started runtime, with a deadline instead of a hang."""

    async def main() -> None:
        async with asyncio.timeout(DEADLINE), opened(runtime) as (started, base):
            await scenario(started, base)

    run(main())


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


async def build(runtime: Runtime, spec: ContainerSpec, name: str, *programs: tuple[str, ...]) -> str:
    """Make a layer of what the programs do; its output digest."""
    async with made(runtime, spec) as container:
        for argv in programs:
            assert (await finish(container, argv)).how == Exit(code=0)
        return await container.commit(layer(name))


async def listed(runtime: Runtime) -> set[str]:
    return {name async for name in runtime.layers()}


def home_with(skeletons: Path, home: Path) -> Path:
    """A fresh home that shares the skeletons of others: they never change, and making them takes most of the time."""
    skeletons.mkdir(exist_ok=True)
    home.mkdir()
    (home / "skeletons").symlink_to(skeletons)
    return home


class RuntimeContract:
    """Inherit, and define the fixture `runtime`."""

    # --- processes --------------------------------------------------------------------------------------

    def test_a_process_says_what_it_says_and_ends_with_its_code(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                assert container.name == "one"
                ran = await finish(container, sh("say", "out", "err"))
                assert ran == Ran(how=Exit(code=0), out=b"out", err=b"err")
                assert (await finish(container, sh("exit", "3"))).how == Exit(code=3)

        play(runtime, scenario)

    def test_the_environment_is_that_of_the_image_and_what_is_added(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                assert (await finish(container, sh("env", "HOME"))).out == b"/root"
                assert (await finish(container, sh("env", "A"), env=(("A", "x y\n'ü"),))).out == "x y\n'ü".encode()
                assert (await finish(container, sh("env", "A"))).out == b""
                assert (await finish(container, sh("env", "PYTEST_CURRENT_TEST"))).out == b""

        play(runtime, scenario)

    def test_a_huge_environment_gets_there(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            many = tuple((f"V{number}", "x" * 100_000) for number in range(10))
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                assert (await finish(container, sh("env", "V9"), env=many)).out == b"x" * 100_000

        play(runtime, scenario)

    def test_the_working_folder_is_home_unless_said(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                assert (await finish(container, sh("cwd"))).out == b"/root"
                assert (await finish(container, sh("cwd"), cwd="/tmp")).out == b"/tmp"
            spec = ContainerSpec(name="two", base=base, workdir="/srv/new/deep")
            async with made(runtime, spec) as container:
                assert (await finish(container, sh("cwd"), cwd="/srv/new/deep")).out == b"/srv/new/deep"

        play(runtime, scenario)

    @pytest.mark.parametrize("size", [0, 5, 3_000_000])
    def test_stdin_arrives_whole_and_ends(self, runtime: Runtime, size: int) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                ran = await finish(container, sh("cat"), stdin=b"x" * size)
                assert (ran.how, len(ran.out)) == (Exit(code=0), size)

        play(runtime, scenario)

    def test_output_may_be_thrown_away(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                assert await (await container.exec(sh("cat"), stdin=b"x" * 200_000)).wait() == Exit(code=0)

        play(runtime, scenario)

    def test_a_program_that_is_not_there_ends_with_127_and_says_so(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                ran = await finish(container, ("no-such-program", "x"))
                assert ran.how == Exit(code=127)
                assert b"no-such-program: not found" in ran.err

        play(runtime, scenario)

    def test_a_signal_ends_a_process(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                process, _ = await until_ready(container, sh("wait"))
                process.signal(signal.SIGINT)
                assert await process.wait() == Exit(code=None, signal=signal.SIGINT)
                process.signal(signal.SIGINT)  # nobody is there; nothing happens
                assert await process.wait() == Exit(code=None, signal=signal.SIGINT)

        play(runtime, scenario)

    def test_many_processes_at_once(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                ran = await asyncio.gather(*(finish(container, sh("say", str(n), "")) for n in range(20)))
                assert [one.out for one in ran] == [str(n).encode() for n in range(20)]

        play(runtime, scenario)

    def test_a_child_that_stays_behind_does_not_hold_up_the_end(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                assert await finish(container, sh("orphan")) == Ran(how=Exit(code=0), out=b"left\n")

        play(runtime, scenario)

    def test_drain_hands_over_and_does_not_wait(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                process, said = await until_ready(container, sh("wait"))
                process.drain()
                assert b"".join(said) == b"ready\n"

        play(runtime, scenario)

    # --- terminals --------------------------------------------------------------------------------------

    def test_a_terminal_shows_what_is_said_and_takes_what_is_typed(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                terminal = await container.open_terminal(sh("greet"))
                with Screen(terminal.fd) as screen:
                    assert await screen.until(b"who? ") == b"who? "
                    os.write(screen.fd, b"you\n")
                    assert await terminal.wait() == Exit(code=0)
                    assert await screen.rest() == b"you\r\nhello you\r\n"

        play(runtime, scenario)

    def test_a_terminal_has_a_size_that_changes(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                terminal = await container.open_terminal(sh("size"), rows=33, columns=101)
                with Screen(terminal.fd) as screen:
                    assert await screen.until(b"\n") == b"33 101\r\n"
                    terminal.resize(44, 102)
                    assert await terminal.wait() == Exit(code=5)
                    assert await screen.rest() == b"44 102\r\n"
                terminal.resize(1, 1)  # nobody is there; nothing happens

        play(runtime, scenario)

    def test_a_terminal_ends_with_a_signal_and_with_its_container(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                first, second = [await container.open_terminal(sh("wait")) for _ in range(2)]
                with Screen(first.fd) as one, Screen(second.fd) as two:
                    await one.until(b"ready")
                    await two.until(b"ready")
                    first.signal(signal.SIGTERM)
                    assert await first.wait() == Exit(code=None, signal=signal.SIGTERM)
                    await one.rest()
                    await container.kill()
                    assert await second.wait() == Exit(code=None, signal=signal.SIGKILL)
                    await two.rest()
                with pytest.raises(RuntimeUnavailable, match="container one has ended"):
                    await container.open_terminal(sh("wait"))

        play(runtime, scenario)

    def test_a_terminal_says_what_is_not_there(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                terminal = await container.open_terminal(("no-such-program", "x"))
                with Screen(terminal.fd) as screen:
                    assert await terminal.wait() == Exit(code=127)
                    assert b"no-such-program" in await screen.rest()

        play(runtime, scenario)

    # --- the end of a container -------------------------------------------------------------------------

    def test_stop_lets_processes_end_by_themselves(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                process, said = await until_ready(container, sh("trap"))
                await container.stop(20_000)
                assert await process.wait() == Exit(code=7)
                assert b"".join(said) == b"ready\nended\n"

        play(runtime, scenario)

    def test_stop_tells_children_that_were_born_too_late_too(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                process, _ = await until_ready(container, sh("late"))
                await container.stop(1_000_000)
                assert await process.wait() == Exit(code=7)

        play(runtime, scenario)

    def test_stop_kills_after_the_grace_time(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                process, _ = await until_ready(container, sh("stubborn"))
                await container.stop(10)
                assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)

        play(runtime, scenario)

    def test_kill_ends_everything_and_is_safe_to_call_again(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            container = await runtime.create(ContainerSpec(name="one", base=base))
            process, _ = await until_ready(container, sh("wait"))
            await asyncio.gather(container.kill(), container.kill())
            await container.kill()
            assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)
            with pytest.raises(RuntimeUnavailable, match="container one has ended"):
                await container.exec(sh("exit", "0"))
            await container.stop(0)

        play(runtime, scenario)

    def test_close_ends_containers_that_nobody_killed(self, runtime: Runtime) -> None:
        ended = []

        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            container = await runtime.create(ContainerSpec(name="one", base=base))
            ended.append((await until_ready(container, sh("wait")))[0])

        async def main() -> None:
            async with opened(runtime) as (started, base):
                await scenario(started, base)
            assert await ended[0].wait() == Exit(code=None, signal=signal.SIGKILL)

        run(main())

    def test_a_name_is_taken_until_its_container_is_gone(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            async with made(runtime, spec):
                with pytest.raises(AlreadyExistsError):
                    await runtime.create(spec)
            async with made(runtime, spec):
                pass
            with pytest.raises(InvalidError):
                await runtime.create(evolve(spec, name="../one"))

        play(runtime, scenario)

    def test_stats_count_processes(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                await until_ready(container, sh("wait"))
                assert (await container.stats()).processes == 1

        play(runtime, scenario)

    # --- files ------------------------------------------------------------------------------------------

    def test_what_one_container_writes_no_other_sees(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as one:
                await write(one, "/root/a", "1")
                assert await read(one, "/root/a") == b"1"
                async with made(runtime, ContainerSpec(name="two", base=base)) as two:
                    assert await read(two, "/root/a") is None
            async with made(runtime, ContainerSpec(name="one", base=base)) as again:
                assert await read(again, "/root/a") is None

        play(runtime, scenario)

    def test_a_committed_layer_is_in_the_containers_that_name_it(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            assert not await runtime.has(layer("a"))
            await build(
                runtime, spec, "a", sh("write", "/data/deep/a", "1"), sh("write", "/usr/local/a", "2"),
                sh("write", "/etc/a", "3"), sh("write", "/opt/a/b", "4"),
            )  # fmt: skip
            assert await runtime.has(layer("a"))
            async with made(runtime, evolve(spec, layers=(layer("a"),))) as container:
                found = [await read(container, path) for path in ("/data/deep/a", "/usr/local/a", "/etc/a", "/opt/a/b")]
                assert found == [b"1", b"2", b"3", b"4"]
            async with made(runtime, spec) as container:
                assert await read(container, "/data/deep/a") is None

        play(runtime, scenario)

    def test_layers_lie_on_layers(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            below, two = (layer("a"),), (layer("a"), layer("b"))
            await build(runtime, spec, "a", sh("write", "/data/a", "1"), sh("write", "/data/b", "1"))
            await build(
                runtime, evolve(spec, layers=below), "b",
                sh("write", "/data/a", "2"), sh("remove", "/data/b"), sh("write", "/data/c", "2"),
            )  # fmt: skip
            async with made(runtime, evolve(spec, layers=two)) as container:
                assert await read(container, "/data/a") == b"2"
                assert (await finish(container, sh("list", "/data"))).out == b"a\nc\n"
            async with made(runtime, evolve(spec, layers=below)) as container:
                assert (await finish(container, sh("list", "/data"))).out == b"a\nb\n"

        play(runtime, scenario)

    def test_a_folder_taken_away_and_made_again_is_empty(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            await build(runtime, spec, "a", sh("write", "/data/a", "1"))
            await build(
                runtime, evolve(spec, layers=(layer("a"),)), "b", sh("remove", "/data"), sh("write", "/data/b", "2")
            )
            async with made(runtime, evolve(spec, layers=(layer("a"), layer("b")))) as container:
                assert (await finish(container, sh("list", "/data"))).out == b"b\n"

        play(runtime, scenario)

    def test_the_same_content_has_the_same_digest_and_other_content_another(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            first = await build(runtime, spec, "a", sh("write", "/data/a", "1"))
            again = await build(runtime, spec, "b", sh("write", "/data/a", "1"))
            other = await build(runtime, spec, "c", sh("write", "/data/a", "2"))
            moved = await build(runtime, spec, "d", sh("write", "/data/b", "1"))
            assert first == again
            assert len({first, other, moved}) == 3
            assert first.startswith("sha256:")

        play(runtime, scenario)

    def test_a_layer_that_is_there_is_left_as_it_is(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            first = await build(runtime, spec, "a", sh("write", "/data/a", "1"))
            assert await build(runtime, spec, "a", sh("write", "/data/a", "2")) == first
            async with made(runtime, evolve(spec, layers=(layer("a"),))) as container:
                assert await read(container, "/data/a") == b"1"

        play(runtime, scenario)

    def test_an_alias_names_the_same_content_until_both_are_removed(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            await build(runtime, spec, "a", sh("write", "/data/a", "1"))
            await runtime.alias(layer("b"), layer("a"))
            await runtime.alias(layer("b"), layer("a"))
            assert await listed(runtime) == {layer("a"), layer("b")}
            await runtime.remove(layer("a"))
            assert await listed(runtime) == {layer("b")}
            async with made(runtime, evolve(spec, layers=(layer("b"),))) as container:
                assert await read(container, "/data/a") == b"1"
                with pytest.raises(InvalidError, match="in use by container one"):
                    await runtime.remove(layer("b"))
            await runtime.remove(layer("b"))
            await runtime.remove(layer("b"))
            assert await listed(runtime) == set()

        play(runtime, scenario)

    def test_a_layer_that_is_missing_is_said(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            with pytest.raises(NotFoundError, match="layer sha256:"):
                await runtime.create(ContainerSpec(name="one", base=base, layers=(layer("a"),)))
            with pytest.raises(NotFoundError):
                await runtime.alias(layer("b"), layer("a"))
            async with made(runtime, ContainerSpec(name="one", base=base)):
                pass  # the name was not taken by the failure

        play(runtime, scenario)

    def test_a_step_that_is_killed_leaves_no_layer(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                await write(container, "/data/a", "1")
            assert await listed(runtime) == set()

        play(runtime, scenario)

    def test_mounts_show_the_hosts_folders(self, runtime: Runtime, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a").write_text("1")
        (tmp_path / "out").mkdir()

        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            mounts = (
                Mount(source=str(tmp_path / "in"), target="/mnt/in", read_only=True),
                Mount(source=str(tmp_path / "out"), target="/srv/deep/out"),
                Mount(source=str(tmp_path / "in" / "a"), target="/etc/one-file", read_only=True),
            )
            async with made(runtime, ContainerSpec(name="one", base=base, mounts=mounts)) as container:
                assert await read(container, "/mnt/in/a") == b"1"
                assert await read(container, "/etc/one-file") == b"1"
                await write(container, "/srv/deep/out/b", "2")
                ran = await finish(container, sh("write", "/mnt/in/a", "3"))
                assert ran.how.code != 0
                assert b"Read-only file system" in ran.err

        play(runtime, scenario)
        assert (tmp_path / "in" / "a").read_text() == "1"
        assert (tmp_path / "out" / "b").read_text() == "2"

    def test_what_is_mounted_is_no_part_of_a_layer(self, runtime: Runtime, tmp_path: Path) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            mounted = evolve(spec, mounts=(Mount(source=str(tmp_path), target="/root/.cache/uv"),))
            plain = await build(runtime, spec, "a", sh("write", "/data/a", "1"))
            with_cache = await build(
                runtime, mounted, "b", sh("write", "/data/a", "1"), sh("write", "/root/.cache/uv/x", "2")
            )
            assert plain == with_cache
            assert (tmp_path / "x").read_text() == "2"

        play(runtime, scenario)

    def test_trees_lie_on_top_and_the_last_one_wins(self, runtime: Runtime, tmp_path: Path) -> None:
        for tree, text in (("t1", "1"), ("t2", "2")):
            (tmp_path / tree / "root").mkdir(parents=True)
            (tmp_path / tree / "root" / "app.py").write_text(text)
            (tmp_path / tree / "root" / f"only-{tree}").write_text(text)

        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            await build(runtime, spec, "a", sh("write", "/root/app.py", "0"), sh("write", "/root/below", "0"))
            trees = (str(tmp_path / "t1"), str(tmp_path / "t2"))
            async with made(runtime, evolve(spec, layers=(layer("a"),), trees=trees)) as container:
                assert await read(container, "/root/app.py") == b"2"
                assert await read(container, "/root/only-t1") == b"1"
                assert await read(container, "/root/below") == b"0"
                await write(container, "/root/app.py", "changed")
                assert await read(container, "/root/app.py") == b"changed"

        play(runtime, scenario)
        assert (tmp_path / "t2" / "root" / "app.py").read_text() == "2"

    # --- limits -----------------------------------------------------------------------------------------

    def test_a_process_over_its_memory_ends_as_out_of_memory(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            notes = dict((await runtime.ability()).notes)
            if "memory" in notes:
                assert notes["memory"].startswith("memory limit not enforced: ")
                pytest.skip(notes["memory"])
            spec = ContainerSpec(name="one", base=base, limits=Limits(memory_mib=64, cpu_milli=500))
            async with made(runtime, spec) as container:
                assert (await finish(container, sh("hog"))).how == Exit(code=None, signal=signal.SIGKILL, oom=True)
                assert (await finish(container, sh("exit", "0"))).how == Exit(code=0)

        play(runtime, scenario)

    def test_a_process_is_held_to_limits_of_its_own_with_all_that_it_starts(
        self, runtime: Runtime, tmp_path: Path
    ) -> None:
        tmp_path.chmod(0o755)

        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base, mounts=(Mount(source=str(tmp_path), target="/meet"),))
            limits = Limits(memory_mib=64)
            undivided = (await runtime.prepare(spec)).undivided
            if not undivided and "memory" in (notes := dict((await runtime.ability()).notes)):
                pytest.skip(notes["memory"])
            async with made(runtime, spec) as container:
                if undivided:
                    with pytest.raises(InvalidError, match=undivided):
                        await container.hold("two", 1, limits)
                    return
                other, _ = await until_ready(container, sh("wait"))
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(tmp_path / "s"))
                    (tmp_path / "s").chmod(0o666)
                    listener.listen()
                    listener.setblocking(False)
                    process = await container.exec(sh("meet", "/meet/s"))
                    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                with sock:
                    pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                    held = await container.hold("two", pid, limits)
                    assert not held.ran_out()
                    sock.send(b"!")
                    assert (await process.wait()).signal == signal.SIGKILL
                assert held.ran_out()
                assert (await container.stats()).processes == 2  # the other one, and what it left
                await held.release()
                await held.release()
                assert (await container.stats()).processes == 1
                other.signal(signal.SIGKILL)
                assert (await other.wait()) == Exit(code=None, signal=signal.SIGKILL)

        play(runtime, scenario)

    # --- containers for one process, as workers are -----------------------------------------------------

    def test_plain_settings_reach_every_process(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base, env=(("A", "x 'y'"), ("B", "1")))
            for single in (False, True):
                async with made(runtime, evolve(spec, single=single)) as container:
                    assert (await finish(container, sh("env", "A"))).out == b"x 'y'"
            async with made(runtime, spec) as container:
                assert (await finish(container, sh("env", "B"), env=(("B", "2"),))).out == b"2"
                assert (await finish(container, sh("env", "B"))).out == b"1"

        play(runtime, scenario)

    def test_a_single_container_runs_its_process_as_others_do(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base, single=True)
            async with made(runtime, spec) as container:
                ran = await finish(container, sh("say", "out", "err"))
                assert ran == Ran(how=Exit(code=0), out=b"out", err=b"err")
            async with made(runtime, spec) as container:
                assert (await finish(container, sh("exit", "3"))).how == Exit(code=3)
            async with made(runtime, spec) as container:
                ran = await finish(container, sh("cat"), stdin=b"x" * 300_000)
                assert (ran.how, len(ran.out)) == (Exit(code=0), 300_000)
            async with made(runtime, spec) as container:
                odd = (("A.B", "1"), ("A", "x y\n'ü"))
                assert (await finish(container, sh("env", "A"), env=odd)).out == "x y\n'ü".encode()
            async with made(runtime, spec) as container:
                assert (await finish(container, sh("cwd"))).out == b"/root"
            async with made(runtime, spec) as container:
                ran = await finish(container, ("no-such-program", "x"))
                assert ran.how == Exit(code=127)
                assert b"no-such-program: not found" in ran.err

        play(runtime, scenario)

    def test_a_single_container_ends_as_others_do(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base, single=True)
            async with made(runtime, spec) as container:
                process, _ = await until_ready(container, sh("wait"))
                process.signal(signal.SIGINT)
                assert await process.wait() == Exit(code=None, signal=signal.SIGINT)
            async with made(runtime, spec) as container:
                process, said = await until_ready(container, sh("trap"))
                assert (await container.stats()).processes == 1
                await container.stop(20_000)
                assert await process.wait() == Exit(code=7)
                assert b"".join(said) == b"ready\nended\n"
            async with made(runtime, spec) as container:
                process, _ = await until_ready(container, sh("stubborn"))
                await container.stop(10)
                assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)
            async with made(runtime, spec) as container:
                process, _ = await until_ready(container, sh("wait"))
                await asyncio.gather(container.kill(), container.kill())
                assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)

        play(runtime, scenario)

    def test_a_single_container_takes_more_processes_while_its_first_runs(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base, single=True)) as container:
                first, _ = await until_ready(container, sh("wait"))
                assert await finish(container, sh("say", "2", "")) == Ran(how=Exit(code=0), out=b"2")
                terminal = await container.open_terminal(sh("greet"))
                with Screen(terminal.fd) as screen:
                    await screen.until(b"who? ")
                    os.write(screen.fd, b"you\n")
                    assert await terminal.wait() == Exit(code=0)
                first.signal(signal.SIGKILL)
                assert await first.wait() == Exit(code=None, signal=signal.SIGKILL)

        play(runtime, scenario)

    def test_a_terminal_may_be_the_process_of_a_single_container(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            async with made(runtime, ContainerSpec(name="one", base=base, single=True)) as container:
                terminal = await container.open_terminal(sh("greet"))
                with Screen(terminal.fd) as screen:
                    await screen.until(b"who? ")
                    os.write(screen.fd, b"you\n")
                    assert await terminal.wait() == Exit(code=0)
                    assert await screen.rest() == b"you\r\nhello you\r\n"

        play(runtime, scenario)

    def test_an_entrypoint_goes_before_what_a_single_container_runs(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base, single=True, entrypoint=sh("before"))
            async with made(runtime, spec) as container:
                assert (await finish(container, sh("say", "it", ""))).out == b"before it"

        play(runtime, scenario)

    def test_a_single_container_over_its_memory_ends_as_out_of_memory(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            notes = dict((await runtime.ability()).notes)
            if "memory" in notes:
                pytest.skip(notes["memory"])
            spec = ContainerSpec(name="one", base=base, limits=Limits(memory_mib=64), single=True)
            async with made(runtime, spec) as container:
                assert (await finish(container, sh("hog"))).how == Exit(code=None, signal=signal.SIGKILL, oom=True)

        play(runtime, scenario)

    def test_what_is_prepared_names_the_python_of_its_containers(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base, single=True)
            prepared = await runtime.prepare(spec)
            assert await runtime.prepare(spec) == prepared
            async with made(runtime, spec) as container:
                ran = await finish(container, ("sh", "-c", f"command -v {prepared.python}", "say", "/python", ""))
                assert ran.out.startswith(b"/")

        play(runtime, scenario)

    # --- what it keeps, and how it is -------------------------------------------------------------------

    def test_what_is_stored_can_be_removed(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            spec = ContainerSpec(name="one", base=base)
            await build(runtime, spec, "a", sh("write", "/data/a", "1" * 5000))
            await runtime.alias(layer("b"), layer("a"))
            stored = await runtime.stored()
            assert sorted(one.layer for one in stored) == sorted((layer("a"), layer("b")))
            assert sum(one.size for one in stored) >= 5000
            for one in stored:
                await runtime.remove(one.ident)
            assert await runtime.stored() == ()
            assert await listed(runtime) == set()

        play(runtime, scenario)

    def test_a_runtime_that_makes_containers_is_in_no_trouble(self, runtime: Runtime) -> None:
        async def scenario(runtime: Runtime, base: BaseFact) -> None:
            assert await runtime.trouble() == ""
            assert await runtime.has_base(base)
            said: list[bytes] = []
            await runtime.fetch(base, output=lambda which, data: said.append(data))
            async with made(runtime, ContainerSpec(name="one", base=base)):
                assert await runtime.trouble() == ""

        play(runtime, scenario)
