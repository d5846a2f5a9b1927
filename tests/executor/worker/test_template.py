"""Workers that are forked from a template, as processes of their own."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from small_engine import SmallEngine, input_of, our_code, pool_spec

from slipway.executor.gpu_shares import GpuShares
from slipway.executor.pool import Pool
from slipway.executor.ports import ContainerSpec, Limits, Prepared
from slipway.executor.runtime.gpus import Found, Gpu
from slipway.executor.scaling import PoolLimits
from slipway.executor.worker import template
from slipway.executor.worker.frames import Frame, Kind, Outcome
from slipway.executor.worker.host import Hooks
from slipway.executor.worker.logs import FROM_ENGINE

CODE = """
import asyncio, logging, os, random, signal, socket, sys
import numpy
import slipway
from slipway.dsl.session import worker_app

LOADED_BY = os.getpid()
logging.basicConfig(stream=sys.stderr, format="%(message)s")
print("importing")

def who():
    return os.getpid(), os.getppid(), LOADED_BY

def meet(fifo, writes):
    "Returns when it runs twice at once."
    with open(fifo, "w" if writes else "r"):
        return who(), slipway.is_local(), os.getsid(0), random.random(), float(numpy.random.rand())

def dies(how):
    if how.startswith("/"):
        with open(how) as fifo:
            return fifo.read(), os.getppid() == LOADED_BY
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGSEGV)

def kills(pid):
    os.kill(pid, signal.SIGKILL)
    os.read(os.pipe()[0], 1)

def says(text):
    print(text)
    logging.warning("logged %s", text)
    os.write(1, b"raw\\n")

async def later():
    await asyncio.sleep(0)
    return who()

def leaves(started):
    import subprocess
    child = subprocess.Popen(["sleep", "1000"])
    return child.pid

"""


class Rig:
    """A small engine whose pools have templates."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.engine = SmallEngine(home, our_code())

    def pool(self, function: str, *, code: str = CODE, most: int = 2, give_up_after: int = 1, **start: Any) -> Pool:
        (self.root / "root").mkdir(exist_ok=True)
        (self.root / "root" / f"{function}_app.py").write_text(code)
        limits = PoolLimits(max_workers=most, give_up_after=give_up_after)
        spec = pool_spec(self.root, function, limits, module=f"{function}_app", snapshot=True, **start)
        return self.engine.dispatcher.open_pool(spec)

    def call(self, pool: Pool, *args: Any) -> asyncio.Future[tuple[Outcome, Any]]:
        """The outcome of a call, with its value or its reason."""
        answer: asyncio.Future[tuple[Outcome, Any]] = asyncio.get_running_loop().create_future()

        def send(frame: Frame, fd: int) -> None:
            data = bytes(frame.payload)
            value = pickle.loads(data) if frame.outcome == Outcome.RETURNED else data.decode(errors="replace")
            answer.set_result((Outcome(frame.outcome), value))

        frame = Frame(Kind.CALL, 1, pickle.dumps((args, {})))
        self.engine.dispatcher.submit(input_of(self.engine.dispatcher, pool, frame, -1, send))
        return answer

    async def returned(self, pool: Pool, *args: Any) -> Any:
        outcome, value = await self.call(pool, *args)
        assert outcome is Outcome.RETURNED, value
        return value

    def said(self, stream: int) -> list[str]:
        return [line.text for _, line in self.engine.lines if line.stream == stream]

    @property
    def from_system(self) -> str:
        return "\n".join(self.said(FROM_ENGINE))


def play(tmp_path: Path, scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="slipway-") as home:
            rig = Rig(tmp_path, Path(home))
            try:
                async with asyncio.timeout(30):
                    await scenario(rig)
            finally:
                await rig.engine.close()

    asyncio.run(main())


def drop(*_: object) -> None:
    """A hook for what nobody wants to know."""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# --- forks --------------------------------------------------------------------------------------------


def test_workers_are_forked_from_what_has_imported_the_module(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        pool = rig.pool("meet")
        one, two = await asyncio.gather(rig.returned(pool, str(fifo), True), rig.returned(pool, str(fifo), False))
        (pid1, parent1, loaded1), local1, session1, *random1 = one
        (pid2, parent2, loaded2), local2, session2, *random2 = two
        assert pid1 != pid2
        assert parent1 == parent2 == loaded1 == loaded2
        assert (session1, session2) == (pid1, pid2)
        assert not local1 and not local2
        assert set(random1).isdisjoint(random2)
        assert rig.said(1).count("importing") == 1
        assert rig.from_system == ""

    play(tmp_path, scenario)


def test_the_template_stays_when_the_pool_is_scaled_to_nothing_and_goes_with_the_pool(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        pool = rig.pool("who")
        pid, parent, _ = await rig.returned(pool)
        await rig.engine.dispatcher.end_worker(pool, 1, "not needed", graceful=True)
        assert not is_alive(pid) and is_alive(parent)
        again, same_parent, _ = await rig.returned(pool)
        assert again != pid and same_parent == parent
        await rig.engine.dispatcher.drain_pool(pool.spec.key)
        assert not is_alive(again) and not is_alive(parent)

    play(tmp_path, scenario)


def test_asynchronous_functions_are_forked_too(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        pid, parent, loaded_by = await rig.returned(rig.pool("later", is_async=True))
        assert pid != parent == loaded_by

    play(tmp_path, scenario)


def test_what_a_fork_prints_is_its_calls(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        pool = rig.pool("says")
        await rig.returned(pool, "one")
        lines = sorted((line.stream, line.call is not None, line.text) for _, line in rig.engine.lines)
        assert lines == [(1, False, "importing"), (1, True, "one"), (1, True, "raw"), (2, True, "logged one")]

    play(tmp_path, scenario)


@pytest.mark.parametrize(("how", "why"), [("exit", "exited with code 3"), ("signal", "killed by signal 11 (SIGSEGV)")])
def test_how_a_fork_dies_is_known_and_its_siblings_live(tmp_path: Path, how: str, why: str) -> None:
    async def scenario(rig: Rig) -> None:
        pool = rig.pool("dies")
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        sibling = rig.call(pool, str(fifo))
        with await asyncio.to_thread(fifo.open, "w") as pipe:  # until the sibling has opened it, too
            outcome, reason = await rig.call(pool, how)
            assert outcome is Outcome.LOST
            assert why in reason
            pipe.write("alive")
        assert await sibling == (Outcome.RETURNED, ("alive", True))

    play(tmp_path, scenario)


def test_what_a_fork_leaves_running_ends_with_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        pool = rig.pool("leaves")
        child = await rig.returned(pool, "")
        assert is_alive(child)
        await rig.engine.dispatcher.end_worker(pool, 1, "not needed", graceful=False)
        ended = os.pidfd_open(child) if is_alive(child) else -1
        if ended >= 0:  # killed, and not dead yet
            done = asyncio.Event()
            asyncio.get_running_loop().add_reader(ended, done.set)
            await done.wait()
            asyncio.get_running_loop().remove_reader(ended)
            os.close(ended)

    play(tmp_path, scenario)


CONNECTED = """
PEER = socket.create_connection(("127.0.0.1", {port}))
LISTENER = socket.create_server(("127.0.0.1", 0))

def connections():
    return PEER.recv(10), LISTENER.getsockname()[1] > 0
"""


def test_connections_are_dead_ends_in_a_fork(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            pool = rig.pool("connections", code=CODE + CONNECTED.format(port=server.getsockname()[1]))
            value = asyncio.ensure_future(rig.returned(pool))
            server.setblocking(False)
            sock, _ = await asyncio.get_running_loop().sock_accept(server)
            with sock:
                sock.send(b"for one")
                assert await value == (b"", True)  # the template's own connection stands

    play(tmp_path, scenario)


GPUS = """
def visible(fifo, writes):
    with open(fifo, "w" if writes else "r"):
        return os.environ["CUDA_VISIBLE_DEVICES"]
"""


def test_each_fork_has_gpus_of_its_own_and_their_container_has_all(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        found = Found(gpus=tuple(Gpu(uuid=f"GPU-{name}", name="Tesla T4", memory_mib=1) for name in "ab"))
        dispatcher = rig.engine.dispatcher
        dispatcher._place = evolve(dispatcher._place, gpus=GpuShares(lambda: found))
        plain = rig.pool("visible", code=CODE + GPUS)
        pool = dispatcher.open_pool(evolve(plain.spec, key="gpus", worker=evolve(plain.spec.worker, gpus=("T4",))))
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        seen = await asyncio.gather(rig.returned(pool, str(fifo), True), rig.returned(pool, str(fifo), False))
        assert sorted(seen) == ["GPU-a", "GPU-b"]
        (container,) = rig.engine.runtime.containers
        assert container.spec.gpus == ("GPU-a", "GPU-b")
        await dispatcher.close_pool("gpus", "over")
        assert not any(dispatcher._place.gpus._used.values())

    play(tmp_path, scenario)


WAITS = """
with open({said!r}, "w") as fifo:
    fifo.write(str(os.getpid()))
open({told!r}).close()
"""


@pytest.mark.parametrize("what", ["safe", "unsafe"])
def test_a_worker_that_is_given_up_while_the_template_starts_leaves_nothing_of_its_own(
    tmp_path: Path, what: str
) -> None:
    async def scenario(rig: Rig) -> None:
        said, told = tmp_path / "said", tmp_path / "told"
        for fifo in (said, told):
            os.mkfifo(fifo)
        code = CODE + WAITS.format(said=str(said), told=str(told))
        starts = rig.pool("who", code=code + (UNSAFE["thread"][0] if what == "unsafe" else "")).template
        assert starts is not None
        hooks = Hooks(on_result=drop, on_recalled=drop, on_line=drop, on_client=drop)
        asked = asyncio.ensure_future(starts.start_worker("w1", hooks))
        loading = int(await asyncio.to_thread(said.read_text))
        asked.cancel()
        await asyncio.wait((asked,))
        if what == "safe":
            await starts.close()
        else:
            start = starts._starting
            assert start is not None
            await asyncio.to_thread(told.write_text, "")
            await start
        assert not is_alive(loading)

    play(tmp_path, scenario)


# --- deaths of the template ---------------------------------------------------------------------------


def test_with_the_template_its_forks_are_lost_and_the_next_is_made(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        pool = rig.pool("who", most=1)
        _, parent, _ = await rig.returned(pool)
        task = pool.tasks[1]
        os.kill(parent, signal.SIGKILL)
        assert "its template has died" in await task
        _, other_parent, _ = await rig.returned(pool)
        assert other_parent != parent
        assert "the template was killed by signal 9 (SIGKILL); 1 worker is lost with it" in rig.from_system

    play(tmp_path, scenario)


def test_after_several_deaths_workers_start_by_themselves_for_a_while(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        pool = rig.pool("who", most=1, give_up_after=9)
        for number in (1, 2):
            pid, parent, loaded_by = await rig.returned(pool)
            assert parent == loaded_by
            task = pool.tasks[number]
            os.kill(parent, signal.SIGKILL)
            await task
        pid, _, loaded_by = await rig.returned(pool)
        assert pid == loaded_by
        assert "without its memory snapshot: 2 templates have died" in rig.from_system

    play(tmp_path, scenario)


# --- what can't be forked -----------------------------------------------------------------------------

UNSAFE = {
    "thread": (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True, name='poller').start()",
        "other threads are alive in it: poller",
    ),
    "child": ("import subprocess; CHILD = subprocess.Popen(['sleep', '1000'])", "it has child processes: sleep ("),
    "epoll": ("import select; EPOLL = select.epoll()", "an event loop or selector is open (epoll)"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_what_cannot_be_forked_is_the_worker_itself_and_says_why(tmp_path: Path, what: str) -> None:
    async def scenario(rig: Rig) -> None:
        code, why = UNSAFE[what]
        pool = rig.pool("meet", code=CODE + code)
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        one, two = await asyncio.gather(rig.returned(pool, str(fifo), True), rig.returned(pool, str(fifo), False))
        for (pid, _, loaded_by), *_ in (one, two):
            assert pid == loaded_by
        assert rig.from_system.count("no memory snapshot, each worker starts by itself: ") == 1
        assert why in rig.from_system

    play(tmp_path, scenario)


def test_limits_of_forks_that_the_runtime_cannot_divide_stand_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(rig: Rig) -> None:
        async def prepare(spec: ContainerSpec) -> Prepared:
            return Prepared(undivided="containers are whole here")

        monkeypatch.setattr(rig.engine.runtime, "prepare", prepare)
        free = rig.pool("who")
        pid, _, loaded_by = await rig.returned(free)
        assert pid != loaded_by
        worker = evolve(free.spec.worker, container=evolve(free.spec.worker.container, limits=Limits(memory_mib=512)))
        limited = rig.engine.dispatcher.open_pool(evolve(free.spec, key="limited", worker=worker))
        pid, _, loaded_by = await rig.returned(limited)
        assert pid == loaded_by
        assert "containers are whole here" in rig.from_system

    play(tmp_path, scenario)


def test_a_module_that_fails_fails_the_calls_as_it_does_without_a_template(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        outcome, reason = await rig.call(rig.pool("who", code=CODE + "raise ValueError('no model')"))
        assert outcome is Outcome.RAISED
        assert "no model" in reason

    play(tmp_path, scenario)


# --- the checks, each in a process of its own ---------------------------------------------------------


def reason_for(code: str) -> str:
    program = f"{code}\nfrom slipway.executor.worker.template import unsafe\nprint(unsafe())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "",
        "import numpy; numpy.ones((300, 300)) @ numpy.ones((300, 300))",  # its threads come and go
        "import asyncio; asyncio.run(asyncio.sleep(0))",
        "import subprocess; subprocess.run(['true'])",
        "import socket; s = socket.create_server(('127.0.0.1', 0))",
        "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    ],
)
def test_what_may_be_forked(code: str) -> None:
    assert reason_for(code) == ""


def test_a_gpu_in_use_stands_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        template, "_descriptors", lambda: [(3, "/dev/nvidiactl"), (4, "/dev/nvidia0"), (5, "/dev/null")]
    )
    assert template.unsafe() == (
        "a GPU is in use (/dev/nvidia0, /dev/nvidiactl): move what touches it to enter(snap=False)"
    )
