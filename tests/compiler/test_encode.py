"""Identity: canonical, injective, the same everywhere, and refusing what it cannot hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import attrs
import pytest
import strategies as my
from golden import samples
from hypothesis import example, given

from slipway.compiler.encode import digest_of, encode, node_digest
from slipway.compiler.facts import FileEntry
from slipway.compiler.lower import compile
from slipway.compiler.nodes import BundleSpec, VolumeSpec
from slipway.dsl.declaration import AppDecl, AptInstall, LocalSource, Origin, RunCommands, StepOptions
from slipway.dsl.errors import InvalidError


def identity(value: object) -> object:
    """What a value is, written down independently of the encoder: types beside everything."""
    if isinstance(value, tuple):
        return ("tuple", *(identity(item) for item in value))
    cls: Any = type(value)
    if attrs.has(cls):
        return (cls.__name__, *((a.name, identity(getattr(value, a.name))) for a in attrs.fields(cls) if a.eq))
    return (cls.__name__, value)


@given(my.plain_values, my.plain_values)
@example(("ab", "c"), ("a", "bc"))
@example((1,), (True,))
@example((), None)
@example(("",), ())
def test_two_values_have_the_same_bytes_only_where_they_are_the_same(one: object, other: object) -> None:
    assert (encode(one) == encode(other)) == (identity(one) == identity(other))


def test_a_kind_of_step_is_part_of_what_it_is() -> None:
    assert encode(AptInstall(packages=("a",))) != encode(RunCommands(commands=("a",)))


def test_labels_and_places_are_not() -> None:
    one = LocalSource(local="/home/a/x", remote="/root/x", origin=Origin(file="a.py", line=1))
    other = LocalSource(local="/srv/b/x", remote="/root/x", origin=Origin(file="b.py", line=2))
    assert encode(one) == encode(other)
    assert encode(StepOptions(force_build=True)) == encode(StepOptions())


def test_a_field_at_its_default_is_left_out() -> None:
    """Otherwise every new option would build every layer of every home again."""
    assert encode(RunCommands(commands=("make",), volumes=())) == b'{"":"run_commands","commands":["make"]}'


def test_halves_of_characters_are_refused_because_they_would_collide() -> None:
    with pytest.raises(InvalidError, match="not valid Unicode"):
        encode(("\ud83d\ude00",))


class Colour(Enum):
    RED = 1


@attrs.frozen
class NoKind:
    x: int = 1


@pytest.mark.parametrize(
    "value", [1.5, {"a": 1}, {1}, b"bytes", [1], Path("x"), Colour.RED, NoKind(), range(3), encode, 1j]
)
def test_what_is_not_closed_is_refused_with_its_place(value: object) -> None:
    entry = FileEntry(path="/x", mode=0o644, digest=value)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidError, match=r"value\[1\]\.files\[0\]\.digest is a .*which a plan cannot hold") as caught:
        encode(("x", BundleSpec(files=(entry,))))
    assert caught.value.hint


def test_golden_digests() -> None:
    kept = json.loads(samples.DIGESTS.read_text())
    assert samples.digests() == kept, "a digest changed: read the first lines of tests/golden/samples.py"


def test_no_default_changed() -> None:
    """A default is left out of an identity, so it is as lasting as a digest."""
    kept = json.loads(samples.DEFAULTS.read_text())
    assert samples.classes() == kept, "if a class or field was only added: python tests/golden/samples.py"


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from golden import samples
print(samples.digests())
"""


def test_digests_do_not_depend_on_the_hash_seed_or_the_folder(tmp_path: Path) -> None:
    tests = str(Path(samples.__file__).parent.parent)
    said = set()
    for seed, folder in (("1", str(tmp_path)), ("2", "/")):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        program = [sys.executable, "-c", PROGRAM, tests]
        said.add(subprocess.run(program, env=env, cwd=folder, check=True, capture_output=True, text=True).stdout)
    assert said == {f"{samples.digests()}\n"}


def test_a_node_is_what_it_is_made_of() -> None:
    spec = VolumeSpec(name="x")
    assert len({node_digest(spec, ()), node_digest(spec, ("a", "b")), node_digest(spec, ("ab",)), digest_of(spec)}) == 4


@pytest.mark.slow
@given(my.declarations())
def test_a_declaration_compiles_to_the_same_digests_wherever_it_lies(decl: AppDecl) -> None:
    """Two homes, two folders, two users: where files lie and what lines they are declared on is no identity."""
    here = compile(decl, my.facts_for(decl, lambda path: path.rsplit("/", 1)[-1]))
    moved = elsewhere(decl)
    there = compile(moved, my.facts_for(moved, lambda path: path.rsplit("/", 1)[-1]))
    assert [n.digest for n in here.nodes] == [n.digest for n in there.nodes]


def elsewhere(value: Any) -> Any:
    """The same value with every local path and origin moved."""
    if isinstance(value, tuple):
        return tuple(elsewhere(item) for item in value)
    if not attrs.has(type(value)):
        return value
    fields = {a.name: elsewhere(getattr(value, a.name)) for a in attrs.fields(type(value))}
    if isinstance(value, LocalSource):
        fields["local"] = value.local.replace(my.HERE, "/srv/other")
    if isinstance(value, Origin):
        fields["line"] = value.line + 100
    return type(value)(**fields)
