"""Sealing: nothing readable without the key, and a key that is made once and kept private."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.errors import InvalidError
from slipway.executor.store.seal import Seal

SEAL = Seal(b"k" * 32)
VALUES = st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4)


@given(VALUES)
def test_values_come_back_and_are_not_in_the_sealed_bytes(values: dict[str, str]) -> None:
    sealed = SEAL.seal(values)
    assert values == SEAL.unseal(sealed)
    assert not [value for value in values.values() if len(value) > 6 and value.encode() in sealed]


@given(VALUES, VALUES)
def test_macs_are_equal_exactly_where_values_are(one: dict[str, str], other: dict[str, str]) -> None:
    assert (one == other) == (SEAL.mac("slot", one) == SEAL.mac("slot", other))
    assert SEAL.mac("slot", one) == SEAL.mac("slot", dict(reversed(one.items())))
    assert SEAL.mac("slot", one) != SEAL.mac("other slot", one)
    assert SEAL.mac("slot", one) != Seal(b"l" * 32).mac("slot", one)


def test_another_key_cannot_unseal() -> None:
    with pytest.raises(InvalidError, match="another key"):
        Seal(b"l" * 32).unseal(SEAL.seal({"TOKEN": "t0p"}))


def test_the_key_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    sealed = Seal.open(path).seal({"TOKEN": "t0p"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Seal.open(path).unseal(sealed) == {"TOKEN": "t0p"}
    assert [path] == list(tmp_path.iterdir())


def test_whoever_opens_a_new_home_at_the_same_time_gets_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    macs: list[str] = []
    threads = [threading.Thread(target=lambda: macs.append(Seal.open(path).mac("s", {}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(macs) == 8
    assert len(set(macs)) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    Seal.open(path)
    path.chmod(0o644)
    with pytest.raises(InvalidError, match="mode 644"):
        Seal.open(path)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 44])
def test_a_damaged_key_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secrets.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InvalidError, match="damaged"):
        Seal.open(path)


def test_nothing_of_the_key_is_in_a_repr() -> None:
    assert repr(SEAL) == "<Seal>"
