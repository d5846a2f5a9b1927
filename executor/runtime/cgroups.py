"""Limits and counters by control groups, version 1 or 2, where this user may write them.

The groups of one home lie in a folder of their own, so that what a killed engine left behind can be told apart and
removed. As root that folder is made at the top of each hierarchy, as Docker does; without root in the nearest group
above our own that is ours (systemd delegates one to each user's session manager).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

from attrs import frozen

from slipway.executor.ports import Limits, Stats

CONTROLLERS = ("memory", "cpu", "pids")
MAX_PROCESSES = 8192  # of one container: enough for any real work, and a fork bomb stays in its container
PERIOD_US = 100_000
MOST_ROUNDS = 100
HOW = {
    "memory": "memory limit not enforced",
    "cpu": "CPU limit not enforced",
    "pids": "number of processes not limited",
}


@frozen(kw_only=True)
class Hierarchy:
    """Where groups can be made for these controllers; `unified` is version 2."""

    folder: Path
    controllers: tuple[str, ...]
    unified: bool


@frozen(kw_only=True)
class Cgroups:
    """What was found: the hierarchies that can be used, and for every controller that cannot the reason."""

    hierarchies: tuple[Hierarchy, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()  # (controller, reason and way out)

    def notes(self) -> tuple[tuple[str, str], ...]:
        return tuple((name, f"{HOW[name]}: {reason}") for name, reason in self.missing)

    def folders(self) -> tuple[str, ...]:
        return tuple(str(hierarchy.folder) for hierarchy in self.hierarchies)

    def make(self, name: str, limits: Limits) -> Group:
        """A group with these limits in force, in the hierarchies that have something to do: an idle memory group costs
        several milliseconds at its end."""
        group = Group(
            parts=tuple(
                (hierarchy, hierarchy.folder / name) for hierarchy in self.hierarchies if _limits(hierarchy, limits)
            )
        )
        try:
            for hierarchy, folder in group.parts:
                folder.mkdir(exist_ok=True)
                for file, value in _limits(hierarchy, limits):
                    with contextlib.suppress(FileNotFoundError):  # swap accounting may be switched off
                        (folder / file).write_text(value)
        except BaseException:
            group.remove()
            raise
        return group

    def sweep(self) -> None:
        """Remove every group of this home; there is nothing in them any more."""
        for hierarchy in self.hierarchies:
            for folder in hierarchy.folder.iterdir():
                if folder.is_dir():
                    with contextlib.suppress(OSError):
                        folder.rmdir()

    def close(self) -> None:
        for hierarchy in self.hierarchies:
            with contextlib.suppress(OSError):
                hierarchy.folder.rmdir()


def _limits(hierarchy: Hierarchy, limits: Limits) -> list[tuple[str, str]]:
    """The files to write and their values, in the order that the kernel wants."""
    found: list[tuple[str, str]] = []
    if "memory" in hierarchy.controllers and limits.memory_mib is not None:
        amount = str(limits.memory_mib << 20)
        if hierarchy.unified:
            found += [("memory.max", amount), ("memory.swap.max", "0")]
        else:
            found += [("memory.limit_in_bytes", amount), ("memory.memsw.limit_in_bytes", amount)]
    if "cpu" in hierarchy.controllers and limits.cpu_milli is not None:
        quota = max(1000, limits.cpu_milli * PERIOD_US // 1000)
        if hierarchy.unified:
            found.append(("cpu.max", f"{quota} {PERIOD_US}"))
        else:
            found += [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]
    if "pids" in hierarchy.controllers:
        found.append(("pids.max", str(MAX_PROCESSES)))
    return found


@frozen(kw_only=True)
class Group:
    """The groups of one container, one in each hierarchy."""

    parts: tuple[tuple[Hierarchy, Path], ...] = ()

    def procs(self) -> tuple[str, ...]:
        """The files that a process of one thread joins them by. (`tasks` of version 1 takes no lock of the whole
        system for that: 0.2 ms instead of 10.)"""
        return tuple(str(folder / ("cgroup.procs" if way.unified else "tasks")) for way, folder in self.parts)

    def add(self, pid: int) -> None:
        """Put a process of one thread in. Raises OSError."""
        for path in self.procs():
            Path(path).write_text(str(pid))

    def oom_kills(self) -> int:
        """How many processes the memory limit has killed so far."""
        for hierarchy, folder in self.parts:
            if "memory" in hierarchy.controllers:
                text = _read(folder / ("memory.events" if hierarchy.unified else "memory.oom_control"))
                return _field(text, "oom_kill") or 0
        return 0

    def stats(self, *, first: bool = True) -> Stats:
        """`first`: the first process of a container is in it, which is ours and does not count."""
        memory = cpu = processes = None
        for hierarchy, folder in self.parts:
            if "memory" in hierarchy.controllers:
                memory = _number(folder / ("memory.current" if hierarchy.unified else "memory.usage_in_bytes"))
            if hierarchy.unified:
                microseconds = _field(_read(folder / "cpu.stat"), "usage_usec")
                cpu = None if microseconds is None else microseconds // 1000
            if "pids" in hierarchy.controllers:
                count = _number(folder / "pids.current")
                processes = None if count is None else max(0, count - first)
        return Stats(memory_bytes=memory, cpu_ms=cpu, processes=processes)

    def end(self) -> None:
        """Kill what is in it, wait until that is dead, and remove it."""
        for _, folder in self.parts:
            for _ in range(MOST_ROUNDS):  # what is killed may just have started another
                pids = [int(pid) for pid in _read(folder / "cgroup.procs").split()]
                if not pids:
                    break
                for pid in pids:
                    _kill(pid)
        self.remove()

    def remove(self) -> None:
        for _, folder in self.parts:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _kill(pid: int) -> None:
    """Kill a process, and wait until it is dead; a descriptor names it and no later one of the same number."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            ended.poll()
        finally:
            os.close(descriptor)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None


# --- finding them -------------------------------------------------------------------------------------


def find(home_id: str, *, proc: Path = Path("/proc"), root: bool | None = None) -> Cgroups:
    """Find where this home's groups can be made, and make its folder there."""
    is_root = os.geteuid() == 0 if root is None else root
    mounts = _mounts(proc)
    own = _own(proc)
    hierarchies: dict[Path, Hierarchy] = {}
    missing: list[tuple[str, str]] = []
    for controller in CONTROLLERS:
        taken = next((hierarchy.folder.parent for hierarchy in hierarchies.values() if hierarchy.unified), None)
        place = _place(controller, mounts, own, is_root, home_id, taken)
        if isinstance(place, str):
            missing.append((controller, place))
            continue
        folder, unified = place
        before = hierarchies.get(folder)
        controllers = (*before.controllers, controller) if before else (controller,)
        hierarchies[folder] = Hierarchy(folder=folder, controllers=controllers, unified=unified)
    return Cgroups(hierarchies=tuple(hierarchies.values()), missing=tuple(missing))


@frozen(kw_only=True)
class _Mounted:
    path: Path
    top: str  # which group of the hierarchy is mounted there
    controllers: tuple[str, ...]
    unified: bool


def _mounts(proc: Path) -> list[_Mounted]:
    found = []
    for line in _read(proc / "self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        path, unified = Path(fields[4]), kind[0] == "cgroup2"
        names = _read(path / "cgroup.controllers").split() if unified else kind[2].split(",")
        found.append(_Mounted(path=path, top=fields[3], controllers=tuple(names), unified=unified))
    return found


def _own(proc: Path) -> dict[str, str]:
    """Our own group by controller; "" is version 2."""
    own = {}
    for line in _read(proc / "self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    return own


def _place(
    controller: str, mounts: list[_Mounted], own: dict[str, str], is_root: bool, home_id: str, taken: Path | None
) -> tuple[Path, bool] | str:
    """The folder for our groups of this controller and whether it is version 2, or why there is none. (Of version 2 a
    process is in one group for all controllers, so where one is `taken` the others must do with it.)"""
    here = [mounted for mounted in mounts if controller in mounted.controllers]
    if not here:
        return f"this system has no control groups for {controller} mounted"
    mounted = here[0]
    path = own.get("" if mounted.unified else controller, "/")
    parents = [taken] if mounted.unified and taken is not None else _candidates(mounted, path, is_root)
    for parent in parents:
        folder = _prepared(parent, f"slipway-{home_id}", controller, mounted.unified)
        if folder is not None:
            return folder, mounted.unified
    if is_root:
        return f"{mounted.path} cannot be written (inside a container, mount it read-write)"
    if mounted.unified:
        return (
            "systemd has delegated no control group to this session; start the engine with "
            "`systemd-run --user --scope slipway up`, or run as root"
        )
    return "control groups of version 1 can be written by root only; run as root, or boot with cgroup v2"


def _candidates(mounted: _Mounted, own: str, is_root: bool) -> list[Path]:
    if is_root:
        return [mounted.path]
    inside = own[len(mounted.top.rstrip("/")) :] if own.startswith(mounted.top.rstrip("/")) else "/"
    group = mounted.path / inside.lstrip("/")
    above = [group, *group.parents]
    return [path for path in above if path.is_relative_to(mounted.path) and os.access(path / "cgroup.procs", os.W_OK)]


def _prepared(parent: Path, name: str, controller: str, unified: bool) -> Path | None:
    """Make `parent/name` so that groups in it have the controller; None where that is not allowed."""
    folder = parent / name
    try:
        folder.mkdir(exist_ok=True)
        if unified:
            for place in (parent, folder):
                control = place / "cgroup.subtree_control"
                if controller not in _read(control).split():
                    control.write_text(f"+{controller}")
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()  # unless it serves another controller already
        return None
    return folder
