"""Values of secrets: found here, kept beside the declaration and never in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from slipway.dsl import context
from slipway.dsl.declaration import Fault, SecretDecl
from slipway.dsl.errors import Error, InvalidError, NotFoundError
from slipway.dsl.secret import KEY, Secret

from .notes import fault_of

LINE = re.compile(rf"\s*(?:export\s+)?(?P<key>{KEY})\s*(?:=[ \t]*(?P<value>.*))?", re.DOTALL)
REFERENCE = re.compile(rf"\$\{{(?P<name>{KEY})(?::-(?P<otherwise>[^}}]*))?\}}")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


class Slots:
    """Gives each secret of an app its slot, and keeps the values by slot. Equal secrets share one."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, str]] = {}
        self.faults: list[Fault] = []
        self._by_secret: dict[int, SecretDecl] = {}
        self._held: list[Secret] = []  # so that no id is given to another

    def decl(self, secret: Secret) -> SecretDecl:
        """The secret as the declaration names it."""
        known = self._by_secret.get(id(secret))
        if known is None:
            known = self._by_secret[id(secret)] = self._new(secret)
            self._held.append(secret)
        return known

    def all(self, secrets: tuple[Secret, ...]) -> tuple[SecretDecl, ...]:
        return tuple(map(self.decl, secrets))

    def _new(self, secret: Secret) -> SecretDecl:
        if secret.kind == "name":
            return SecretDecl(slot=f"name:{secret.name}", keys=secret.keys, named=True, origin=secret.origin)
        try:
            values = values_of(secret)
        except Error as error:
            self.faults.append(fault_of(error, "secret", secret.origin))
            return SecretDecl(slot=f"{secret.kind}:?#{len(self.faults)}", keys=secret.keys, origin=secret.origin)
        keys = tuple(sorted(values))
        stem = f"{secret.kind}:{','.join(keys)}"
        number = 0
        while self.values.get(f"{stem}#{number}", values) != values:
            number += 1
        slot = f"{stem}#{number}"
        self.values[slot] = values
        return SecretDecl(slot=slot, keys=keys, origin=secret.origin)


def values_of(secret: Secret) -> dict[str, str]:
    """The values of a secret, read now. Errors name keys and places, never a value."""
    if secret.kind == "environ":
        if not context.is_local():
            return {}  # the environment that was meant is that of the program
        missing = [key for key in secret.keys if key not in os.environ]
        if missing:
            raise InvalidError(
                f"{secret.origin}: Secret.from_local_environ: {', '.join(missing)} is not set in this environment",
                hint=f"Set it first: export {missing[0]}=…",
            )
        values = {key: os.environ[key] for key in secret.keys}
        for key, value in values.items():
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise InvalidError(
                    f"{secret.origin}: Secret.from_local_environ: the value of {key} is not UTF-8 text",
                    hint=f"Encode it, as base64 say, and decode it in the function: export {key}=…",
                )
        return values
    if secret.kind == "dotenv":
        return _dotenv_values(secret)
    return dict(secret.values)


def _dotenv_values(secret: Secret) -> dict[str, str]:
    start = Path(secret.path).expanduser() if secret.path else Path.cwd()
    path = _dotenv_file(start, secret.filename)
    if path is None:
        raise NotFoundError(
            f"{secret.origin}: Secret.from_dotenv: there is no {secret.filename} in {start} or above",
            hint=f"Write it there, one NAME=value a line, or say which: Secret.from_dotenv({str(start)!r}).",
        )
    try:
        return parse_dotenv(path.read_text(encoding="utf-8-sig"), os.environ)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
        raise InvalidError(f"{secret.origin}: Secret.from_dotenv: {path} can't be read: {reason}") from error
    except ValueError as error:
        raise InvalidError(f"{secret.origin}: Secret.from_dotenv: {path}: {error}") from error


def _dotenv_file(start: Path, filename: str) -> Path | None:
    """The file itself where a file is named; else the nearest one of that name, in the folder or above it."""
    if start.is_file():
        return start
    start = start.absolute()
    return next((p for folder in (start, *start.parents) if (p := folder / filename).is_file()), None)


def parse_dotenv(text: str, environ: object = None) -> dict[str, str]:
    """The values of a .env file. Raises `ValueError` that names the line, not what it says.

    Lines are `NAME=value`, `export NAME=value` or comments. Single quotes take all as it stands, double quotes know
    `\\n` and the like, both may go over lines; elsewhere a ` #` starts a comment. `${OTHER}` stands for a value above
    or of the environment, `${OTHER:-else}` for another where there is none.

    >>> parse_dotenv('# keys\\nexport A=1 # one\\nB="two\\\\nlines"\\nC=${A}/${D:-x}')
    {'A': '1', 'B': 'two\\nlines', 'C': '1/x'}
    """
    outer = environ if hasattr(environ, "get") else {}
    values: dict[str, str] = {}
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is not of the form NAME=value")
        if match["value"] is None:
            continue  # a bare name declares without a value
        value = match["value"]
        quote = value[:1]
        if quote in {"'", '"'}:
            while _closing(value, quote) is None and at < len(lines):
                value += "\n" + lines[at]
                at += 1
            end = _closing(value, quote)
            if end is None:
                raise ValueError(f"line {number} opens a {quote} that nothing closes")
            rest = value[end + 1 :].strip()
            if rest and not rest.startswith("#"):
                raise ValueError(f"line {number} goes on after its closing {quote}")
            value = value[1:end]
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
        if quote != "'":
            value = _expanded(value, {**dict(outer), **values}, escapes=quote == '"')  # type: ignore[call-overload]
        values[match["key"]] = value
    assert all(re.fullmatch(KEY, key) for key in values)
    return values


def _closing(value: str, quote: str) -> int | None:
    """Where the quoted part ends."""
    at = 1
    while at < len(value):
        if value[at] == "\\" and quote == '"':
            at += 1
        elif value[at] == quote:
            return at
        at += 1
    return None


def _expanded(value: str, known: dict[str, str], *, escapes: bool) -> str:
    out, at = [], 0
    while at < len(value):
        if escapes and value[at] == "\\" and at + 1 < len(value):
            out.append(ESCAPES.get(value[at + 1], value[at : at + 2]))
            at += 2
        elif match := REFERENCE.match(value, at):
            out.append(known.get(match["name"]) or match["otherwise"] or "")
            at = match.end()
        else:
            out.append(value[at])
            at += 1
    return "".join(out)
