"""Values survive the way, big buffers without being copied along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.errors import SerializationError
from slipway.executor.worker import payload

plain: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@given(plain)
def test_values_survive(value: Any) -> None:
    packed = payload.dump(value)
    assert packed.size == len(packed.bytes())
    assert payload.load(packed.bytes()) == value


@pytest.mark.parametrize("size", [10, 20_000, 400_000])
def test_arrays_survive_inline_and_by_descriptor(size: int) -> None:
    value: dict[str, Any] = {"a": np.arange(size), "b": (np.ones((3, size)), "text"), "c": np.arange(2 * size)[::2]}
    packed = payload.dump(value)
    for got in (payload.load(packed.bytes()), payload.load_fd(packed.memfd(), packed.size)):
        assert np.array_equal(got["a"], value["a"]) and np.array_equal(got["c"], value["c"])
        assert np.array_equal(got["b"][0], value["b"][0])


def test_a_big_array_by_descriptor_is_mapped_aligned_and_writable() -> None:
    packed = payload.dump(np.zeros(1 << 20))
    assert len(packed.parts) > 1 and packed.size < (1 << 23) + 4096
    fd = packed.memfd()
    first, second = payload.load_fd(os.dup(fd), packed.size), payload.load_fd(fd, packed.size)
    first[0] = 1  # a page of its own: nobody else sees it
    assert first.ctypes.data % 64 == 0 and second[0] == 0


def test_the_memfd_can_no_longer_be_changed() -> None:
    fd = payload.dump(np.zeros(1 << 18)).memfd()
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    os.close(fd)


def test_functions_without_a_module_go_by_value() -> None:
    assert payload.load(payload.dump(lambda x: x + 1).bytes())(1) == 2


def test_what_cannot_be_pickled_is_named() -> None:
    import threading

    with pytest.raises(SerializationError, match=r"the result of f can't be pickled: TypeError"):
        payload.dump_or_refuse(threading.Lock(), "the result of f")


def test_a_payload_cut_short_is_an_error() -> None:
    data = payload.dump(np.zeros(100_000)).bytes()
    with pytest.raises(Exception, match="cut short"):
        payload.load(data[:-100])


def test_classes_of_the_main_file_are_found_in_main(tmp_path: Path) -> None:
    """A worker knows the script as `script`; the program that runs it has its classes in `__main__`."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from slipway.executor.worker import payload\n"
        "class Point: pass\n"
        "if __name__ == '__main__':\n"
        "    payload.look_into_main()\n"
        "    data = b'\\x80\\x05cscript\\nPoint\\n)\\x81.'\n"
        "    assert type(payload.load(data)) is Point and 'script' not in sys.modules\n"
    )
    subprocess.run([sys.executable, str(script)], check=True)
