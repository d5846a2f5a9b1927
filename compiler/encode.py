"""What a value *is*, as canonical bytes, and the digest over them; beside it the JSON form that keeps every field.

Nothing here waits, sleeps, opens or spawns. Types are closed: None, bool, int, str, tuple, a registered Enum, and attrs
classes with a KIND of their own. Fields with `eq=False` are no part of an identity. Golden digests are tests: whoever
changes the bytes of an old value raises FORMAT, and every layer of every home is built again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import attrs

from .wire import Off, Plainer, dump_json, dumps, from_wire, loads, refused, to_wire

__all__ = ["FORMAT", "digest_of", "dumps", "encode", "from_wire", "loads", "node_digest", "to_wire"]

FORMAT = 1


def _identity_fields(cls: type[Any]) -> list[attrs.Attribute[Any]]:
    """Sorted by name, so that the order in which a class lists its fields is free to change."""
    return sorted((a for a in attrs.fields(cls) if a.eq), key=lambda a: a.name)


_identity = Plainer(_identity_fields)


def encode(value: object) -> bytes:
    """The canonical bytes of a value's identity. Raises `InvalidError` naming the place that a plan cannot hold.

    >>> from slipway.dsl.declaration import AptInstall, Origin
    >>> encode(AptInstall(packages=("git",), origin=Origin(file="app.py", line=3)))
    b'{"":"apt_install","packages":["git"]}'
    """
    try:
        return dump_json(_identity.plain(value))
    except Off as off:
        raise refused(off, "value") from None


def digest_of(value: object) -> str:
    """The digest of a value's identity.

    >>> digest_of(("a", "bc")) == digest_of(("ab", "c"))
    False
    """
    return "sha256:" + hashlib.sha256(b"slipway.%d\0" % FORMAT + encode(value)).hexdigest()


def node_digest(spec: object, inputs: Iterable[str]) -> str:
    """The digest of a graph's node: over its spec (its KIND within) and the digests of its inputs in order."""
    return digest_of(("node", spec, tuple(inputs)))
