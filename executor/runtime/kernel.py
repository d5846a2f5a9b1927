"""The Linux calls that the standard library of Python 3.11 has no names for, by ctypes. Standard library only.

Numbers of system calls from 424 on are the same on every architecture, so they can be called by number.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import socket
import struct
import termios

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_PRIVATE = 1 << 18

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_RENAME_EXCHANGE = 2
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_CAPABILITY_VERSION_3 = 0x20080522

# What Docker leaves to a container's root by default.
CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags`; a new PID namespace begins with the next child."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, flags: int) -> None:
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(kind),
            ctypes.c_ulong(flags),
            os.fsencode(data) or None,
        ),
        target,
    )


def make_private() -> None:
    """No mount of ours reaches the host, and none of the host's reaches us."""
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "/")


def pivot_here() -> None:
    """Make the current folder the root; the old root stays below it, reachable by nothing, until `drop_old_root`."""
    _check(_libc.syscall(ctypes.c_long(_pivot_root_number()), b".", b"."), "pivot_root")


def drop_old_root() -> None:
    _check(_libc.umount2(b".", ctypes.c_int(MNT_DETACH)), "umount2")


def _pivot_root_number() -> int:
    return 155 if os.uname().machine == "x86_64" else 41


def clone_tree(source: str, *, recursive: bool, read_only: bool, devices: bool) -> int:
    """A detached copy of the mount at `source`, as a descriptor for `attach`."""
    more = _AT_RECURSIVE if recursive else 0
    descriptor = _check(
        _libc.syscall(
            ctypes.c_long(_SYS_OPEN_TREE),
            ctypes.c_int(_AT_FDCWD),
            os.fsencode(source),
            ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | more),
        ),
        source,
    )
    wanted = _ATTR_NOSUID | (_ATTR_RDONLY if read_only else 0) | (0 if devices else _ATTR_NODEV)
    attributes = struct.pack("<QQQQ", wanted, 0, 0, 0)
    _check(
        _libc.syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR),
            ctypes.c_int(descriptor),
            b"",
            ctypes.c_uint(_AT_EMPTY_PATH | more),
            attributes,
            ctypes.c_size_t(len(attributes)),
        ),
        source,
    )
    return descriptor


def attach(descriptor: int, target: str) -> None:
    """Mount what `clone_tree` gave at `target`."""
    _check(
        _libc.syscall(
            ctypes.c_long(_SYS_MOVE_MOUNT),
            ctypes.c_int(descriptor),
            b"",
            ctypes.c_int(_AT_FDCWD),
            os.fsencode(target),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        ),
        target,
    )


def die_with_parent() -> None:
    _check(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(9), 0, 0, 0), "prctl")


def keep_capabilities(mask: int) -> None:
    """Give up every capability outside `mask`, for this process and all that it starts."""
    for capability in range(64):
        if not mask >> capability & 1 and _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # the kernel knows no capability from here on
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    sets = struct.pack("<IIIIII", low, low, 0, high, high, 0)
    _check(_libc.capset(header, sets), "capset")


def receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors; b"" at the end. (`socket.recv_fds` of Python 3.11 drops its flags, and without
    this one every descriptor would be inherited by every process.)"""
    descriptors = array.array("i")
    try:
        room = socket.CMSG_LEN(4 * descriptors.itemsize)
        data, ancillary, _, _ = link.recvmsg(65536, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(value[: len(value) - len(value) % descriptors.itemsize])
    return data, list(descriptors)


def sync_file_system(descriptor: int) -> None:
    """Write out everything of the file system that `descriptor` lies on."""
    _check(_libc.syncfs(ctypes.c_int(descriptor)), "syncfs")


def exchange(one: str, other: str) -> None:
    """Give each of two names what the other stands for, at once. Raises `OSError` where a file system can't."""
    here = ctypes.c_int(_AT_FDCWD)
    names = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    _check(_libc.renameat2(here, names[0], here, names[1], ctypes.c_uint(_RENAME_EXCHANGE)), "renameat2")


def loopback_up() -> None:
    """Switch on `lo` in the present network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(control, 0x8914, request)  # SIOCSIFFLAGS


def set_window(terminal: int, rows: int, columns: int) -> None:
    """Give a terminal its size; what runs in its foreground gets SIGWINCH where that is another one."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
