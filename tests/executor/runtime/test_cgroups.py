"""Control groups: found and written in trees of files that look like version 1 and 2, and for real where we may."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from slipway.executor.ports import Limits, Stats
from slipway.executor.runtime import cgroups
from slipway.executor.runtime.cgroups import Cgroups, Hierarchy


def machine(top: Path, mountinfo: str, own: str) -> Path:
    proc = top / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text(mountinfo)
    (proc / "cgroup").write_text(own)
    return top / "proc"


def unified(top: Path, groups: dict[str, str], own: str) -> Path:
    """A version 2 tree: groups with what their subtree_control says."""
    mount = top / "cgroup"
    for group, control in groups.items():
        folder = mount / group.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.controllers").write_text("cpu memory pids\n")
        (folder / "cgroup.subtree_control").write_text(control)
        (folder / "cgroup.procs").write_text("")
    return machine(top, f"30 20 0:26 / {mount} rw - cgroup2 cgroup2 rw\n", f"0::{own}\n")


def test_version_2_as_root_makes_its_folder_at_the_top(tmp_path: Path) -> None:
    proc = unified(tmp_path, {"/": "cpu memory pids"}, "/system.slice/x.service")
    found = cgroups.find("home", proc=proc, root=True)
    folder = tmp_path / "cgroup" / "slipway-home"
    assert found.hierarchies == (Hierarchy(folder=folder, controllers=("memory", "cpu", "pids"), unified=True),)
    assert found.missing == ()
    assert found.notes() == ()
    assert (folder / "cgroup.subtree_control").read_text() == "+pids"  # a real one adds them up


def test_version_2_limits_are_written(tmp_path: Path) -> None:
    found = cgroups.find("home", proc=unified(tmp_path, {"/": "cpu memory pids"}, "/"), root=True)
    group = found.make("one", Limits(memory_mib=64, cpu_milli=1500))
    folder = tmp_path / "cgroup" / "slipway-home" / "one"
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "pids.max": str(cgroups.MAX_PROCESSES),
    }
    assert group.procs() == (str(folder / "cgroup.procs"),)


def test_version_2_counters_are_read(tmp_path: Path) -> None:
    found = cgroups.find("home", proc=unified(tmp_path, {"/": "cpu memory pids"}, "/"), root=True)
    group = found.make("one", Limits())
    folder = tmp_path / "cgroup" / "slipway-home" / "one"
    assert group.oom_kills() == 0
    assert group.stats() == Stats(memory_bytes=None, cpu_ms=None, processes=None)
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (folder / "memory.current").write_text("4096\n")
    (folder / "cpu.stat").write_text("usage_usec 2500\nuser_usec 1\n")
    (folder / "pids.current").write_text("3\n")
    assert group.oom_kills() == 2
    assert group.stats() == Stats(memory_bytes=4096, cpu_ms=2, processes=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; the test as a user shows it")
def test_version_2_without_root_takes_the_nearest_group_of_its_own(tmp_path: Path) -> None:
    own = "/user.slice/user@7.service/app.slice/slipway.scope"
    groups = {"/": "", "/user.slice": "", "/user.slice/user@7.service/app.slice": "cpu memory pids", own: ""}
    proc = unified(tmp_path, groups, own)
    (tmp_path / "cgroup" / own.lstrip("/")).chmod(0o555)  # holds processes: nothing can be made in it
    found = cgroups.find("home", proc=proc, root=False)
    parent = tmp_path / "cgroup" / "user.slice/user@7.service/app.slice"
    assert found.folders() == (str(parent / "slipway-home"),)


def test_version_2_has_one_group_for_all_controllers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cgroups._prepared

    def memory_only(parent: Path, name: str, controller: str, unified: bool) -> Path | None:
        return None if parent.name == "near" and controller != "memory" else real(parent, name, controller, unified)

    monkeypatch.setattr(cgroups, "_prepared", memory_only)
    proc = unified(tmp_path, {"/": "cpu memory pids", "/near": "memory"}, "/near")
    found = cgroups.find("home", proc=proc, root=False)
    assert found.folders() == (str(tmp_path / "cgroup" / "near" / "slipway-home"),)
    assert [name for name, _ in found.missing] == ["cpu", "pids"]


def test_version_2_without_a_delegated_group_says_how_to_get_one(tmp_path: Path) -> None:
    found = cgroups.find("home", proc=machine(tmp_path, f"30 20 0:26 / {tmp_path}/cg rw - cgroup2 c rw\n", "0::/\n"))
    assert found.hierarchies == ()
    assert dict(found.notes())["memory"] == (
        "memory limit not enforced: this system has no control groups for memory mounted"
    )
    (tmp_path / "cg").mkdir()
    (tmp_path / "cg" / "cgroup.controllers").write_text("memory cpu pids")
    proc = tmp_path / "proc"
    notes = dict(cgroups.find("home", proc=proc, root=False).notes())
    assert "systemd-run --user --scope slipway up" in notes["memory"]
    assert notes["cpu"].startswith("CPU limit not enforced: ")
    assert notes["pids"].startswith("number of processes not limited: ")


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    for name in ("memory", "cpu,cpuacct", "pids"):
        (tmp_path / name).mkdir()
    lines = [
        f"3{n} 20 0:2{n} / {tmp_path}/{name} rw - cgroup cgroup rw,{name}"
        for n, name in enumerate(("memory", "cpu,cpuacct", "pids"))
    ]
    proc = machine(tmp_path, "\n".join([*lines, "40 1 8:1 / / rw - ext4 /dev/x rw"]), "4:memory:/\n3:cpu,cpuacct:/\n")
    found = cgroups.find("home", proc=proc, root=True)
    assert [(h.controllers, h.unified) for h in found.hierarchies] == [
        (("memory",), False),
        (("cpu",), False),
        (("pids",), False),
    ]
    group = found.make("one", Limits(memory_mib=1, cpu_milli=250))
    assert (tmp_path / "memory/slipway-home/one/memory.limit_in_bytes").read_text() == "1048576"
    assert (tmp_path / "memory/slipway-home/one/memory.memsw.limit_in_bytes").read_text() == "1048576"
    assert (tmp_path / "cpu,cpuacct/slipway-home/one/cpu.cfs_quota_us").read_text() == "25000"
    assert [Path(path).name for path in group.procs()] == ["tasks", "tasks", "tasks"]
    plain = found.make("two", Limits())
    assert [Path(path).parent.parent.parent.name for path in plain.procs()] == ["pids"]


def test_a_group_that_cannot_be_limited_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "one" / "memory.max").mkdir(parents=True)
    hierarchy = Hierarchy(folder=tmp_path, controllers=("memory",), unified=True)
    with pytest.raises(IsADirectoryError):
        Cgroups(hierarchies=(hierarchy,)).make("one", Limits(memory_mib=1))


def test_for_real_where_it_can_be_written(tmp_path: Path) -> None:
    found = cgroups.find("test-of-slipway")
    if found.missing:
        pytest.skip(str(found.missing))
    try:
        group = found.make("one", Limits(memory_mib=32, cpu_milli=100))
        join = "; ".join(f"echo $$ > {path}" for path in group.procs())
        done = subprocess.run(
            ["sh", "-c", f"{join}; cat /proc/self/cgroup"], capture_output=True, text=True, check=True
        )
        assert "slipway-test-of-slipway/one" in done.stdout
        found.sweep()
        assert not any(Path(path).parent.exists() for path in group.procs())
    finally:
        found.close()
    assert not any(Path(folder).exists() for folder in found.folders())
