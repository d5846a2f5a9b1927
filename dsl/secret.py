"""Secrets: names and sources of environment values. A value is read when the declaration is made, never before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from . import inside
from .declaration import Origin
from .later import Later
from .origin import here, invalid

KEY = r"[A-Za-z_][A-Za-z0-9_]*"
UNKNOWN = Origin()
MAX_KEY, MAX_VALUE = 16_384, 32_768


@frozen(eq=False, kw_only=True)
class Secret:
    """Values that reach a worker as environment variables, and are never in a plan, an argument or a log.

    >>> Secret.from_dict({"TOKEN": "s3cret", "UNSET": None})
    Secret.from_dict(TOKEN)
    """

    kind: str  # "dict" | "env" | "dotenv" | "environ" | "name"
    values: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    keys: tuple[str, ...] = ()
    path: str | None = None
    filename: str = ".env"
    name: str | None = None
    origin: Origin = UNKNOWN

    create = Later("Secret.create", "Secret.from_dict and Secret.from_dotenv work now.")
    update = Later("Secret.update", "Secret.from_dict and Secret.from_dotenv work now.")
    info = Later("Secret.info")

    @classmethod
    def from_dict(cls, env_dict: Mapping[str, str | None]) -> Secret:
        """Values written in the file or computed by it. A key whose value is None is left out.

        >>> Secret.from_dict({"TOKEN": 5})
        Traceback (most recent call last):
        ...
        slipway.dsl.errors.InvalidError: ...: the value of TOKEN must be a string, not int
        Write str(...).
        """
        values = checked_env(env_dict, "Secret.from_dict")
        return cls(kind="dict", values=values, keys=tuple(k for k, _ in values), origin=here())

    @classmethod
    def from_dotenv(cls, path: str | Path | None = None, *, filename: str = ".env") -> Secret:
        """Values of a .env file, looked for from `path` (else the working folder) upward, when the app is planned.

        >>> Secret.from_dotenv("config", filename="prod.env")
        Secret.from_dotenv(config/prod.env)
        """
        return cls(kind="dotenv", path=None if path is None else str(path), filename=filename, origin=here())

    @classmethod
    def from_local_environ(cls, env_keys: Iterable[str]) -> Secret:
        """Values of this machine's environment, taken when the app is planned.

        >>> Secret.from_local_environ(["HF_TOKEN"])
        Secret.from_local_environ(HF_TOKEN)
        """
        if isinstance(env_keys, str):
            raise invalid("from_local_environ takes a list of names", hint=f"Write from_local_environ([{env_keys!r}]).")
        return cls(kind="environ", keys=tuple(checked_key(k) for k in env_keys), origin=here())

    @classmethod
    def from_name(
        cls, name: str, *, environment_name: str | None = None, required_keys: Iterable[str] = (), client: object = None
    ) -> Secret:
        """A secret kept in the home. Declared and checked; using one is refused at plan until its release.

        >>> Secret.from_name("openai-api-key")
        Secret.from_name(openai-api-key)
        """
        return cls(kind="name", name=name, keys=tuple(required_keys), origin=here())

    def __reduce__(self) -> tuple[Any, ...]:
        return inside.Secret, ()  # without its values, which are to be nowhere but in the environment of workers

    def __repr__(self) -> str:
        said = {
            "dotenv": f"{self.path}/{self.filename}" if self.path else self.filename,
            "name": self.name or "",
        }.get(self.kind, ", ".join(self.keys))
        return f"Secret.from_{'local_environ' if self.kind == 'environ' else self.kind}({said})"


def env_secret(env: Mapping[str, str | None]) -> Secret:
    """The unnamed secret that an `env=` parameter stands for."""
    values = checked_env(env, "env")
    return Secret(kind="env", values=values, keys=tuple(k for k, _ in values), origin=here())


def checked_secrets(secrets: object) -> tuple[Secret, ...]:
    """A list of secrets as given to a `secrets=` parameter."""
    if secrets is None:
        return ()
    if isinstance(secrets, Secret) or not isinstance(secrets, Iterable):
        raise invalid("secrets= takes a list", hint="Write secrets=[...].")
    found = tuple(secrets)
    for secret in found:
        if not isinstance(secret, Secret):
            raise invalid(
                f"secrets= takes slipway.Secret objects, not {type(secret).__name__}",
                hint="For example slipway.Secret.from_dict({...}).",
            )
    return found


def checked_secret(secret: object) -> Secret | None:
    """One secret, or none, as given to a parameter that takes one."""
    return None if secret is None else checked_secrets([secret])[0]


def checked_env(env: Mapping[str, str | None], what: str) -> tuple[tuple[str, str], ...]:
    """Environment values with sound keys, None values left out."""
    if not isinstance(env, Mapping):
        raise invalid(f"{what} takes a dict of strings, not {type(env).__name__}")
    pairs = []
    for key, value in env.items():
        checked_key(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise invalid(f"the value of {key} must be a string, not {type(value).__name__}", hint="Write str(...).")
        if len(value) > MAX_VALUE or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            problem = "too long, with a NUL in it, or not UTF-8"
            raise invalid(f"the value of {key} can't be an environment value: {problem}")
        pairs.append((key, value))
    return tuple(pairs)


def checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise invalid(f"the name of an environment value must be a string, not {type(key).__name__}")
    if not re.fullmatch(KEY, key) or len(key) > MAX_KEY:
        raise invalid(f"{key!r} can't be the name of an environment value", hint="Use letters, digits and _.")
    return key
