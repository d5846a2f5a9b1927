"""Secrets at rest: sealed with the home's key, and told apart by a keyed digest so that nobody can guess at values."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from slipway.dsl.errors import InvalidError
from slipway.executor.disk import sync


class Seal:
    """The key of a home. No value and no key is ever in a repr or an error.

    >>> seal = Seal(b"k" * 32)
    >>> seal.unseal(seal.seal({"TOKEN": "t0p"}))
    {'TOKEN': 't0p'}
    >>> seal
    <Seal>
    """

    __slots__ = ("_fernet", "_mac_key")

    def __init__(self, key: bytes) -> None:
        from cryptography.fernet import Fernet  # takes a while to import

        self._fernet = Fernet(base64.urlsafe_b64encode(key))
        self._mac_key = hmac.digest(key, b"slipway: versions of secrets", hashlib.sha256)

    @classmethod
    def open(cls, path: Path) -> Seal:
        """The key in this file, which is made where it isn't there. Blocks.

        Raises `InvalidError` where others can read it, or where it is no key.
        """
        if not path.exists():
            _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise InvalidError(
                f"the key {path} can be read by others (mode {mode:o})",
                hint=f"chmod 600 {path}, and think about whether somebody has read it.",
            )
        try:
            key = base64.urlsafe_b64decode(path.read_bytes())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise InvalidError(
                f"the key {path} is damaged",
                hint="Put it back from a backup. Without it the home's secrets are lost: move it away to start anew.",
            )
        return cls(key)

    def seal(self, values: Mapping[str, str]) -> bytes:
        """The values as bytes that mean nothing without the key."""
        return self._fernet.encrypt(json.dumps(dict(values)).encode())

    def unseal(self, sealed: bytes) -> dict[str, str]:
        """The values. Raises `InvalidError` where another key sealed them."""
        from cryptography.fernet import InvalidToken

        try:
            values: dict[str, str] = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise InvalidError(
                "a secret of this home was sealed with another key",
                hint="secrets.key was replaced: put it back, or apply the app again with the secret's values at hand.",
            ) from None
        return values

    def mac(self, slot: str, values: Mapping[str, str]) -> str:
        """Tells values of a slot from other values of it, to those who hold the key.

        >>> seal = Seal(b"k" * 32)
        >>> seal.mac("dict:A#0", {"A": "1"}) == seal.mac("dict:A#0", {"A": "2"})
        False
        """
        text = json.dumps([slot, sorted(values.items())])
        return hmac.new(self._mac_key, text.encode(), hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return "<Seal>"


def _create(path: Path) -> None:
    """Write a new key whole, then give it its name; where another process was faster, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=".secrets-")  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(base64.urlsafe_b64encode(os.urandom(32)))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    sync(path.parent)
