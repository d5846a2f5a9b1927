"""What a container's first process is to build, from plain values. Nothing here waits, sleeps, opens or spawns.

The root is an overlay of trees, image layers and two skeletons. Below it `POINTS` are overlays of their own that have
the host's folder of that name at the bottom, because an overlay of the host's whole root is refused without root.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen

from slipway.executor.ports import ContainerSpec

from . import kernel

# The host's folders that a container sees, and those that a build step sees besides: the state of the package manager.
# The rest of /var is other people's data and is not there.
POINTS = ("usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
BUILD_POINTS = (
    "var/lib/dpkg",
    "var/lib/apt",
    "var/lib/aspell",
    "var/lib/binfmts",
    "var/lib/ca-certificates-java",
    "var/lib/dictionaries-common",
    "var/lib/emacsen-common",
    "var/lib/pam",
    "var/lib/python",
    "var/lib/sgml-base",
    "var/lib/systemd/deb-systemd-helper-enabled",
    "var/lib/ucf",
    "var/lib/vim",
    "var/lib/xml-core",
)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)
# Root of a container is root of the host's kernel here, so what it could turn with a write is read-only or gone.
READ_ONLY_PROC = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
HIDDEN_PROC = ("/proc/kcore", "/proc/keys", "/proc/timer_list")

PATH = "/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "USER": "root", "VIRTUAL_ENV": "/venv", "LANG": "C.UTF-8"}

OPTION_PAGE = 4096  # what mount(2) takes, with the byte that ends it
WORKER_DROPS = ("MKNOD", "AUDIT_WRITE", "SETFCAP")


class TooManyLayers(ValueError):
    """The overlay's options don't fit into the page that the kernel takes."""


@frozen(kw_only=True)
class Overlay:
    """One overlay: where, and what lies in it from the bottom up. Paths are relative to the layers' folder."""

    target: str
    lowers: tuple[str, ...]
    upper: str
    work: str

    def options(self) -> str:
        """The mount options. `volatile` because what is kept is synced once, by commit, not at every unmount.

        >>> Overlay(target="usr", lowers=("/usr", "ab:c/fs/usr"), upper="../u", work="../w").options()
        'volatile,userxattr,lowerdir=ab\\\\:c/fs/usr:/usr,upperdir=../u,workdir=../w'
        """
        lowers = ":".join(_escaped(lower) for lower in reversed(self.lowers))
        text = f"volatile,userxattr,lowerdir={lowers},upperdir={self.upper},workdir={self.work}"
        if len(text.encode()) >= OPTION_PAGE:
            raise TooManyLayers(f"{len(self.lowers)} layers")
        return text


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


@frozen(kw_only=True)
class Host:
    """What of the host goes into every container: see `native.py` for how each is found."""

    nested: bool  # below the first user namespace: mounts that lie on each other are locked together
    resolv_conf: str | None
    gpu_devices: tuple[str, ...] = ()  # for this container


def layout(
    spec: ContainerSpec,
    *,
    host: Host,
    folder: str,
    root: str,
    overlays: Iterable[Overlay],
    prefix: str | None,
    hosts_file: str,
    groups: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Everything that `init.py` needs, JSON-able: it carries out and decides nothing."""
    namespaces = kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC
    if not spec.network:
        namespaces |= kernel.CLONE_NEWNET
    return {
        "hostname": spec.name[:63],
        "namespaces": namespaces,
        "groups": groups,
        "folder": folder,
        "root": root,
        "overlays": [(overlay.target, overlay.options()) for overlay in overlays],
        "steps": list(_steps()),
        "binds": list(_binds(spec, host, prefix, hosts_file)),
        "capabilities": capabilities(build=spec.privileged_build),
    }


def capabilities(*, build: bool) -> int:
    """The mask of what a container's root may do.

    >>> hex(capabilities(build=True)), hex(capabilities(build=False))
    ('0xa80425fb', '0x425fb')
    """
    kept = {name: bit for name, bit in kernel.CAPABILITIES.items() if build or name not in WORKER_DROPS}
    return sum(1 << bit for bit in kept.values())


def _steps() -> Iterable[tuple[Any, ...]]:
    plain = kernel.MS_NOSUID | kernel.MS_NODEV
    yield "mount", "/proc", "proc", plain | kernel.MS_NOEXEC, ""
    yield "mount", "/dev", "tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, "mode=755,size=1m"
    yield "folder", "/dev/pts", 0o755
    yield "folder", "/dev/shm", 0o1777  # noqa: S108 - the container's own
    yield "mount", "/dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"
    yield "mount", "/dev/shm", "tmpfs", plain, "mode=1777"  # noqa: S108
    for link, to in DEVICE_LINKS:
        yield "link", link, to
    yield "mount", "/run", "tmpfs", plain, "mode=755"
    yield "folder", "/run/lock", 0o1777


def _bind(
    source: str,
    target: str,
    *,
    read_only: bool,
    devices: bool = False,
    recursive: bool = False,
    optional: bool = False,
    only_over: bool = False,
) -> dict[str, Any]:
    """`optional`: nothing happens where the source is missing; `only_over`: where the target is."""
    return {
        "from": source,
        "to": target,
        "read_only": read_only,
        "devices": devices,
        "recursive": recursive,
        "optional": optional,
        "only_over": only_over,
    }


def _binds(spec: ContainerSpec, host: Host, prefix: str | None, hosts_file: str) -> Iterable[dict[str, Any]]:
    for name in DEVICES:
        yield _bind(f"/dev/{name}", f"/dev/{name}", read_only=False, devices=True)
    for device in host.gpu_devices:
        yield _bind(device, device, read_only=False, devices=True, optional=True)
    # A folder with locked mounts below it can only be taken together with them.
    yield _bind("/sys", "/sys", read_only=True, recursive=host.nested)
    if not host.nested:
        for path in READ_ONLY_PROC:
            yield _bind(path, path, read_only=True, optional=True, only_over=True)
        for path in HIDDEN_PROC:
            yield _bind("/dev/null", path, read_only=True, devices=True, only_over=True)
    if spec.network and host.resolv_conf is not None:
        yield _bind(host.resolv_conf, "/etc/resolv.conf", read_only=True)
    yield _bind(hosts_file, "/etc/hosts", read_only=False)
    if prefix is not None:
        yield _bind(prefix, prefix, read_only=True, recursive=True)
    for mount in spec.mounts:
        yield _bind(mount.source, mount.target, read_only=mount.read_only, recursive=True)
