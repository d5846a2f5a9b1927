"""Arguments and results as bytes: pickles whose big buffers lie beside them, in a memfd from 1 MiB on.

A payload without buffers is a plain pickle. One with buffers starts with `BUFFERS`, then their count, the size of the
pickle, their sizes, the pickle, and the buffers, each on a 64-byte boundary.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import pickle
import struct
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from slipway.dsl.errors import SerializationError

BUFFERS = b"\x01SB1"
ALIGN = 64
OUT_OF_BAND = 16 * 1024  # smaller buffers stay within the pickle
IN_MEMFD = 1 << 20
_COUNT = struct.Struct("<4sIQ")
_ATOMS = frozenset({int, float, str, bytes, bool, complex, type(None)})
_BOXES = frozenset({tuple, list, dict})
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Part = Any  # bytes, bytearray, memoryview: what os.writev takes


class Packed:
    """A value as parts to be written one after the other; `size` is all of them together."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.size = len(parts[0]) if len(parts) == 1 else sum(memoryview(part).nbytes for part in parts)

    def bytes(self) -> bytes:
        return b"".join(self.parts) if len(self.parts) > 1 else bytes(self.parts[0])

    def memfd(self) -> int:
        """The parts in a sealed memfd, copied once; whoever gets the descriptor closes it."""
        fd = os.memfd_create("slipway-payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            for part in self.parts:
                view = memoryview(part).cast("B")
                while view.nbytes:
                    view = view[os.write(fd, view) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        return fd


def _is_plain(value: Any, depth: int = 3) -> bool:
    """Whether a value is small and of built-in types alone, so that the plain pickler does what cloudpickle would."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if not depth or kind not in _BOXES or len(value) > 16:
        return False
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        value = value.values()
    for item in value:  # noqa: SIM110 - a loop, not all(...): this is done for every call
        if type(item) not in _ATOMS and not _is_plain(item, depth - 1):
            return False
    return True


def dump(value: Any) -> Packed:
    """Pickle a value. Raises whatever the value's own pickling raises.

    >>> load(dump(([1, 2], {"a": b"x"})).bytes())
    ([1, 2], {'a': b'x'})
    """
    if _is_plain(value):
        return Packed([pickle.dumps(value, 5)])
    from slipway.dsl.own import cloudpickle  # takes milliseconds that a call with plain values need not spend

    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: goes within the pickle
            return True
        if raw.nbytes < OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    stream = io.BytesIO()
    pickler = cloudpickle.Pickler(stream, protocol=5, buffer_callback=keep)
    if _main_name:
        pickler.reducer_override = _MainReducer(_main_name, pickler.reducer_override)
    pickler.dump(value)
    pickled = stream.getbuffer()
    if not buffers:
        return Packed([pickled])
    head = _COUNT.pack(BUFFERS, len(buffers), len(pickled))
    head += struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers))
    parts: list[Part] = [head, pickled]
    at = len(head) + len(pickled)
    for buffer in buffers:
        padding = -at % ALIGN
        parts += [bytes(padding), buffer]
        at += padding + buffer.nbytes
    return Packed(parts)


def dump_or_refuse(value: Any, what: str) -> Packed:
    """Like `dump`, but raises `SerializationError` that says `what` could not be pickled, and why."""
    try:
        return dump(value)
    except Exception as error:  # pickling runs the value's own code, which may raise anything
        raise SerializationError(
            f"{what} can't be pickled: {type(error).__name__}: {error}",
            hint="Pass plain data, or make what it holds (a lock, a file, a connection) inside of the function.",
        ) from error


def load(data: bytes | bytearray | memoryview) -> Any:
    """The value of a payload. Its big buffers are not copied: they live in `data`."""
    view = memoryview(data)
    if view[:4] != BUFFERS:
        return _unpickle(view, None)
    _, count, size = _COUNT.unpack_from(view)
    sizes = struct.unpack_from(f"<{count}Q", view, _COUNT.size)
    start = _COUNT.size + 8 * count
    at = start + size
    buffers = []
    for length in sizes:
        at += -at % ALIGN
        buffers.append(view[at : at + length])
        at += length
    if at > view.nbytes:
        raise pickle.UnpicklingError("the payload is cut short")
    return _unpickle(view[start : start + size], buffers)


def load_fd(fd: int, length: int) -> Any:
    """The value of a payload that lies in a memfd; closes it. Arrays come out writable, on pages of their own once
    written to, and share the memory of the sender's copy until then."""
    try:
        mapped = mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(fd)
    return load(memoryview(mapped))


def discard(fd: int) -> None:
    """Let go of a payload that nobody wants (-1: it was not in a descriptor)."""
    if fd >= 0:
        os.close(fd)


# --- classes of the program's main file ---------------------------------------------------------------


def main_module_name() -> str:
    """What a worker calls the file that runs as `__main__` here; "" where there is none."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(file))[0] if file else ""  # noqa: PTH119, PTH122 - pathlib is imported for nothing else


class _MainUnpickler(pickle.Unpickler):
    """Finds what a worker knows as `app.Point` in `__main__`, where this program runs app.py itself, so that
    `isinstance` and `except` hold and the file is not imported a second time."""

    def __init__(self, data: memoryview, buffers: list[memoryview] | None, name: str) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if module == self._name and module not in sys.modules:
            module = "__main__"
        return super().find_class(module, name)


class _MainReducer:
    """Sends what the main file defines as a name in the module that it is in a worker, where that has it; so that
    `isinstance` holds there too. Its value goes along for a worker that has no such module."""

    def __init__(self, name: str, otherwise: Callable[[Any], Any]) -> None:
        self._name = name
        self._otherwise = otherwise

    def __call__(self, value: Any) -> Any:
        kind = type(value)
        if (kind is FunctionType or issubclass(kind, type)) and value.__module__ == "__main__":
            name = value.__qualname__
            try:
                if _attribute(sys.modules["__main__"], name) is value:
                    return _of_main, (self._name, name, _by_value(value))
            except AttributeError:
                pass  # it is made within a function
        return self._otherwise(value)


def _attribute(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part)
    return module


def _by_value(value: Any) -> bytes:
    from slipway.dsl.own import cloudpickle

    data: bytes = cloudpickle.dumps(value, 5)
    return data


def _of_main(module: str, name: str, data: bytes) -> Any:
    """What the caller's main file defines, as it is known here."""
    try:
        return _attribute(sys.modules["__main__" if module == _main_name else module], name)
    except (KeyError, AttributeError):
        return pickle.loads(data)  # noqa: S301 - as all of the payload


_main_name = ""
_unpickle: Callable[[memoryview, list[memoryview] | None], Any]


def _unpickle_plain(data: memoryview, buffers: list[memoryview] | None) -> Any:
    return pickle.loads(data, buffers=buffers)  # noqa: S301 - the two ends trust each other; the engine never does this


_unpickle = _unpickle_plain


def look_into_main() -> None:
    """From now on find the classes of the main file in `__main__`, and send them by the name that they have in a
    worker (a user's program does this, a worker does not)."""
    import re

    global _main_name, _unpickle
    name = main_module_name()
    if not name or name == "__main__":
        return
    _main_name = name
    mark = re.compile(re.escape(name.encode()))  # searches without copying

    def unpickle(data: memoryview, buffers: list[memoryview] | None) -> Any:
        if mark.search(data):
            return _MainUnpickler(data, buffers, name).load()
        return _unpickle_plain(data, buffers)

    _unpickle = unpickle
