"""What is particular to native containers: what they see of the host, what they leave on it, how they end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import psutil
import pytest
import uvloop
from attrs import evolve
from contracts.runtime_contract import build, finish, home_with, layer, made, opened, play, run, sh, until_ready

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import NotFoundError, RuntimeUnavailable
from slipway.executor.ports import ContainerSpec, Exit, Limits, Mount, Runtime
from slipway.executor.runtime.native import NativeRuntime

pytestmark = pytest.mark.slow

START = f"import site; site.addsitedir({str(Path(attrs.__file__).parents[1])!r})\n"  # finds us in any Python's child


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return home_with(tmp_path_factory.getbasetemp() / "skeletons", tmp_path / "home")


@pytest.fixture
def runtime(home: Path) -> NativeRuntime:
    return NativeRuntime(home)


async def shell(runtime: Runtime, spec: ContainerSpec, script: str) -> str:
    """What a script says on stdout in a container of its own; it must end well."""
    async with made(runtime, spec) as container:
        ran = await finish(container, ("sh", "-c", script))
        assert ran.how == Exit(code=0), ran
        return ran.out.decode()


# --- isolation ----------------------------------------------------------------------------------------


def test_other_processes_of_the_host_are_not_visible(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        script = "cd /proc; for p in [0-9]*; do echo $p $(tr '\\0' ' ' < $p/cmdline); done"
        seen = await shell(runtime, ContainerSpec(name="one", base=base), script)
        lines = [line for line in seen.splitlines() if " " in line]
        assert len(lines) <= 3
        assert "pytest" not in seen

    play(runtime, scenario)


def test_homes_temp_folders_and_the_engine_are_not_visible(runtime: NativeRuntime, home: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base)
        listing = await shell(runtime, spec, "ls -A /home /tmp /run /var/tmp /mnt /srv /var/mail /var/spool /var/log")
        assert set(listing.split()) <= {
            *("/home:", "/tmp:", "/run:", "/var/tmp:", "/mnt:", "/srv:", "/var/mail:", "/var/spool:", "/var/log:"),
            "lock",
        }
        assert set((await shell(runtime, spec, "ls -A /root")).split()) <= {".pyenv", ".local"}
        for path in (tmp_path / "secret", home, home / "containers", Path.home() / ".ssh"):
            assert await shell(runtime, spec, f"test -e {path} && echo there || echo gone") == "gone\n"

    play(runtime, scenario)


def test_what_only_root_may_read_below_etc_is_not_there(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base)
        script = "cat /etc/shadow /etc/gshadow; ls -A /etc; cat /etc/passwd"
        seen = await shell(runtime, spec, script)
        assert re.findall(r"^root:.*", seen, re.M)[0] == "root:*:19000:0:99999:7:::"
        assert "sudoers" not in seen.split()
        assert "ssh" not in seen.split()
        assert "hostname" in seen.split() or "passwd" in seen.split()

    play(runtime, scenario)


def test_nothing_written_reaches_the_host(runtime: NativeRuntime) -> None:
    marks = (
        "/usr/local/bin/slipway-mark",
        "/etc/slipway-mark",
        "/opt/slipway-mark",
        "/slipway-mark",
        "/tmp/slipway-mark",
    )

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base)
        await shell(runtime, spec, "; ".join(f"echo x > {mark}" for mark in marks) + f"; cat {' '.join(marks)} | wc -l")

    play(runtime, scenario)
    assert not any(Path(mark).exists() for mark in marks)


def test_the_kernel_s_switches_are_read_only(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        async with made(runtime, ContainerSpec(name="one", base=base)) as container:
            for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/sys/kernel/profiling"):
                ran = await finish(container, ("sh", "-c", f"echo x > {path}"))
                assert ran.how.code != 0, path
            ran = await finish(container, ("sh", "-c", "mount -t tmpfs none /mnt"))
            assert ran.how.code != 0

    play(runtime, scenario)


def test_a_process_has_no_descriptor_but_its_own(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base)
        code = "import os; print(sorted(n for n in range(100) if os.path.exists(f'/proc/self/fd/{n}') or n < 3))"
        async with made(runtime, spec) as container:
            ran = await finish(container, ("python", "-c", code), stdin=b"x")
            assert json.loads(ran.out) == [0, 1, 2]

    play(runtime, scenario)


def test_values_travel_on_no_command_line(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        async with made(runtime, ContainerSpec(name="one", base=base)) as container:
            said: list[bytes] = []
            argv = ("sh", "-c", "cat /proc/[0-9]*/cmdline")
            process = await container.exec(argv, env=(("TOKEN", "s3cr3t"),), output=lambda _, data: said.append(data))
            await process.wait()
            assert b"s3cr3t" not in b"".join(said)
            assert str(Path(__file__).parents[3]).encode() + b"/executor" not in b"".join(said)

    play(runtime, scenario)


def test_without_network_there_is_loopback_only(runtime: NativeRuntime) -> None:
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "c = socket.create_connection(s.getsockname()); print(sorted(n for _, n in socket.if_nameindex()))"
    )

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        async with made(runtime, ContainerSpec(name="one", base=base, network=False)) as container:
            ran = await finish(container, ("python", "-c", code))
            assert ran.out == b"['lo']\n", ran.err
            reach = "import socket; socket.create_connection(('192.0.2.1', 9), 1)"
            assert b"unreachable" in (await finish(container, ("python", "-c", reach))).err

    play(runtime, scenario)


def test_the_network_is_the_host_s_unless_blocked(runtime: NativeRuntime) -> None:
    code = "import socket; print(sorted(n for _, n in socket.if_nameindex())); print(open('/etc/resolv.conf').read())"
    here = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        async with made(runtime, ContainerSpec(name="one", base=base)) as container:
            assert (await finish(container, ("python", "-c", code))).out == here
            own = "import socket; print(socket.gethostname(), socket.gethostbyname(socket.gethostname()))"
            assert (await finish(container, ("python", "-c", own))).out == b"one 127.0.1.1\n"

    play(runtime, scenario)


def test_devices_work(runtime: NativeRuntime) -> None:
    script = (
        "echo x > /dev/null && head -c 4 /dev/urandom | wc -c && head -c 2 /dev/zero | wc -c && ls /dev "
        "&& python -c 'import os, pty; pty.openpty(); import multiprocessing as m; m.Lock(); print(\"fine\")'"
    )

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        seen = (await shell(runtime, ContainerSpec(name="one", base=base), script)).split()
        assert seen[:2] == ["4", "2"]
        assert seen[-1] == "fine"
        assert not any(name.startswith(("nvidia", "vd", "sd", "loop")) for name in seen)

    play(runtime, scenario)


# --- the Python environment -----------------------------------------------------------------------------


def test_python_is_a_virtual_environment_with_pip_and_nothing_else(runtime: NativeRuntime) -> None:
    code = (
        "import importlib.metadata as m, json, sys; "
        "print(json.dumps([sys.prefix, sys.version_info[:2], sorted({d.name for d in m.distributions()})]))"
    )

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        async with made(runtime, ContainerSpec(name="one", base=base)) as container:
            ran = await finish(container, ("python", "-c", code))
            assert json.loads(ran.out) == ["/venv", list(sys.version_info[:2]), ["pip"]], ran.err
            assert (await finish(container, ("pip", "--version"))).out.startswith(b"pip ")
            assert (await finish(container, ("touch", f"{dict(base.paths)['prefix']}/lib/x"))).how.code != 0

    play(runtime, scenario)


def test_a_package_installed_offline_is_a_layer(runtime: NativeRuntime, tmp_path: Path) -> None:
    wheel = tmp_path / "cache" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    make_wheel(wheel)

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        mount = Mount(source=str(wheel.parent), target="/root/.cache/wheels", read_only=True)
        spec = ContainerSpec(name="one", base=base, mounts=(mount,), privileged_build=True)
        pip = ("pip", "install", "--no-index", f"/root/.cache/wheels/{wheel.name}")
        digests = [await build(runtime, spec, name, pip) for name in ("a", "b")]
        assert digests[0] == digests[1]
        async with made(runtime, ContainerSpec(name="one", base=base, layers=(layer("a"),))) as container:
            assert (await finish(container, ("python", "-c", "import tiny; print(tiny.X)"))).out == b"7\n"

    play(runtime, scenario)


def make_wheel(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny.py", "X = 7\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\n")


def test_sixty_layers_fit(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base)
        for number in range(64):
            below = tuple(layer(f"l{n}") for n in range(number))
            argv = ("sh", "-c", f"echo {number} > /usr/local/f{number}; echo {number} > /etc/last")
            await build(runtime, evolve(spec, layers=below), f"l{number}", argv)
        everything = tuple(layer(f"l{n}") for n in range(64))
        script = "cat /etc/last; ls /usr/local/f* | wc -l"
        assert await shell(runtime, evolve(spec, layers=everything), script) == "63\n64\n"

    play(runtime, scenario)


def test_layers_that_do_not_fit_are_refused_in_words(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base)
        await build(runtime, spec, "a", ("sh", "-c", "echo 1 > /a"))
        with pytest.raises(RuntimeUnavailable, match="more than one overlay takes"):
            await runtime.create(evolve(spec, layers=(layer("a"),) * 400))
        async with made(runtime, spec):
            pass

    play(runtime, scenario)


# --- ability and bases ----------------------------------------------------------------------------------


def test_what_it_cannot_do_names_the_way_out(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        ability = await runtime.ability()
        refused = dict(ability.refusals)
        expected = {"from_registry", "from_dockerfile", "dockerfile_commands", "micromamba", "micromamba_install"}
        assert set(refused) == expected | (set() if os.geteuid() == 0 else {"apt_install"})
        assert all("--runtime docker" in reason for reason in refused.values())
        assert {subject for subject, _ in ability.notes} <= {"memory", "cpu", "pids", "disk"}
        with pytest.raises(NotFoundError, match="not on the native runtime"):
            await runtime.resolve("from_registry", "alpine")

    play(runtime, scenario)


def test_the_base_says_what_the_host_is(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        identity = dict(base.identity)
        version = ".".join(str(number) for number in sys.version_info[:3])
        assert set(identity) == {"os", "python", "arch"}
        assert identity["python"] == version
        assert base.says.startswith("this host: ")
        assert base.says.endswith(f", Python {version}")
        with pytest.raises(NotFoundError, match=r"this host has no Python 3\.97; it has .*3"):
            await runtime.resolve("debian_slim", "3.97")
        gone = evolve(base, paths=(("interpreter", "/nowhere/python3"), ("prefix", "/nowhere")))
        with pytest.raises(NotFoundError, match="/nowhere/python3 of its base is not there"):
            await runtime.create(ContainerSpec(name="one", base=gone))

    play(runtime, scenario)


def test_a_mount_whose_source_is_missing_is_said(runtime: NativeRuntime) -> None:
    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        spec = ContainerSpec(name="one", base=base, mounts=(Mount(source="/nowhere/at/all", target="/mnt/x"),))
        with pytest.raises(RuntimeUnavailable, match=r"binding /nowhere/at/all.*No such file"):
            await runtime.create(spec)
        async with made(runtime, evolve(spec, mounts=())):
            pass

    play(runtime, scenario)


def test_where_namespaces_are_not_to_be_had_it_says_so(tmp_path: Path) -> None:
    code = START + (
        "import asyncio, sys; from pathlib import Path\n"
        "for name in ('user', 'pid'): Path(f'/proc/sys/user/max_{name}_namespaces').write_text('0')\n"
        "from slipway.executor.runtime.native import NativeRuntime\n"
        "async def main():\n"
        "    runtime = NativeRuntime(Path(sys.argv[1])); await runtime.start()\n"
        "    print(dict((await runtime.ability()).refusals)['debian_slim']); await runtime.close()\n"
        "asyncio.run(main())\n"
    )
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code, str(tmp_path / "home")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "namespaces can't be made here: unshare: the limit on namespaces is reached" in done.stdout
    assert "user.max_user_namespaces" in done.stdout


# --- the end --------------------------------------------------------------------------------------------

ENGINE = (
    START
    + """
import asyncio, os, sys
from pathlib import Path
from slipway.executor.ports import ContainerSpec, Limits
from slipway.executor.runtime.native import NativeRuntime

async def main():
    runtime = NativeRuntime(Path(sys.argv[1]))
    await runtime.start()
    base = await runtime.resolve("debian_slim", "")
    for name in ("one", "two"):
        container = await runtime.create(ContainerSpec(name=name, base=base, limits=Limits(memory_mib=512)))
        await container.exec(("sh", "-c", "setsid sleep 98765 & mkdir -p /data/a/b; chmod 0 /data; exec sleep 98765"))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
)


def sleepers() -> list[int]:
    return [process.pid for process in psutil.process_iter(["cmdline"]) if "98765" in (process.info["cmdline"] or ())]


@pytest.mark.parametrize("victim", ["engine", "launcher"])
def test_a_kill_leaves_no_process_no_mount_and_the_next_start_no_file(home: Path, victim: str) -> None:
    engine = subprocess.Popen([sys.executable, "-c", ENGINE, str(home)], stdout=subprocess.PIPE)
    said = engine.stdout
    assert said is not None
    try:
        assert said.readline() == b"ready\n"
        if victim == "launcher":
            keeper = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()[0]
            os.kill(int(keeper), signal.SIGKILL)
    finally:
        engine.kill()
        engine.wait()
        said.close()

    async def main() -> None:
        async with opened(NativeRuntime(home)) as (runtime, base):  # its start waits for the old containers' end
            assert sleepers() == []
            assert sorted(path.name for path in (home / "containers").iterdir()) == [".lock"]
            assert [part for part in psutil.disk_partitions(all=True) if str(home) in part.mountpoint] == []
            async with made(runtime, ContainerSpec(name="one", base=base)) as container:
                assert (await finish(container, sh("exit", "0"))).how == Exit(code=0)

    run(main())
    assert [*Path("/sys/fs/cgroup").glob(f"*/slipway-{NativeRuntime(home)._id}")] == []


def test_two_engines_cannot_have_one_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.executor.runtime.native.LOCK_SECONDS", 0)

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        second = NativeRuntime(home)
        with pytest.raises(RuntimeUnavailable, match="belong to another engine"):
            await second.start()
        await second.close()

    play(NativeRuntime(home), scenario)


def test_half_layers_are_removed_at_start(home: Path) -> None:
    half = home / "layers" / "0123456789abcdef.tmp-1"
    (half / "fs" / "locked").mkdir(parents=True)
    (half / "fs" / "locked").chmod(0)
    gone = home / "skeletons" / "python-3.tmp-1"
    gone.mkdir(parents=True)

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        assert not half.exists()
        assert not gone.exists()
        assert [name async for name in runtime.layers()] == []

    play(NativeRuntime(home), scenario)


def test_when_the_launcher_is_lost_containers_end_and_the_next_one_works(runtime: NativeRuntime) -> None:
    async def scenario(started: Runtime, base: BaseFact) -> None:
        container = await started.create(ContainerSpec(name="one", base=base))
        process, _ = await until_ready(container, sh("wait"))
        assert runtime._link._keeper is not None
        runtime._link._keeper.kill()
        assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)
        await container.kill()
        async with made(started, ContainerSpec(name="one", base=base)) as again:
            assert (await finish(again, sh("exit", "0"))).how == Exit(code=0)

    play(runtime, scenario)


def test_a_create_that_is_given_up_leaves_nothing(runtime: NativeRuntime, home: Path) -> None:
    async def scenario(started: Runtime, base: BaseFact) -> None:
        async with made(started, ContainerSpec(name="warm", base=base)):
            pass
        task = asyncio.ensure_future(started.create(ContainerSpec(name="one", base=base)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(path.name for path in (home / "containers").iterdir()) == [".lock"]
        async with made(started, ContainerSpec(name="one", base=base)):
            pass

    play(runtime, scenario)


def test_a_fork_bomb_stays_in_its_container(runtime: NativeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.executor.runtime.cgroups.MAX_PROCESSES", 30)
    code = (
        "import os, time\nn = 0\ntry:\n while n < 200:\n  n += 1\n  if os.fork() == 0: time.sleep(1000)\n"
        "except OSError as e: print(n, e)\n"
    )

    async def scenario(runtime: Runtime, base: BaseFact) -> None:
        if "pids" in dict((await runtime.ability()).notes):
            pytest.skip("no control group for pids here")
        async with made(runtime, ContainerSpec(name="one", base=base, limits=Limits())) as container:
            ran = await finish(container, ("python", "-c", code))
            assert b"Resource temporarily unavailable" in ran.out

    play(runtime, scenario)


def test_many_at_once_on_the_daemon_s_loop(runtime: NativeRuntime) -> None:
    async def one(started: Runtime, base: BaseFact, number: int) -> bytes:
        async with made(started, ContainerSpec(name=f"c{number}", base=base, network=number % 2 == 0)) as container:
            return (await finish(container, sh("cat"), stdin=b"%d" % number)).out

    async def main() -> None:
        async with asyncio.timeout(30), opened(runtime) as (started, base):
            said = await asyncio.gather(*(one(started, base, number) for number in range(16)))
            assert said == [b"%d" % number for number in range(16)]

    uvloop.run(main())
