"""Collecting faults: each with a place, what was found, and the way out.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Protocol

from attrs import Factory, define, evolve

from slipway.dsl.declaration import AppDecl, Fault, Origin


class Say(Protocol):
    """Says one fault; of what, and where, is settled."""

    def __call__(self, summary: str, *, found: object = "", hint: str) -> None: ...


UNKNOWN = Origin()
NOWHERE = ("", UNKNOWN.file)
ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@define
class Faults:
    """The faults of one declaration, in the order in which they were found, each once."""

    decl: AppDecl
    found: list[Fault] = Factory(list)

    def error(self, address: str, summary: str, *, found: object = "", hint: str, origin: Origin = UNKNOWN) -> None:
        self.add(Fault(severity="error", address=address, summary=summary, found=str(found), hint=hint, origin=origin))

    def warning(self, address: str, summary: str, *, found: object = "", hint: str, origin: Origin = UNKNOWN) -> None:
        self.add(
            Fault(severity="warning", address=address, summary=summary, found=str(found), hint=hint, origin=origin)
        )

    def env_key(self, key: str, address: str, origin: Origin) -> None:
        if not ENV_KEY.fullmatch(key):
            hint = "Such names are letters, digits and '_', and don't start with a digit."
            summary = "this is not the name of an environment variable"
            self.error(address, summary, found=f"{key!r:.80}", hint=hint, origin=origin)

    def add(self, fault: Fault) -> None:
        """Keep it; a fault that knows no place gets the app file's."""
        if fault.origin.file in NOWHERE:
            fault = evolve(fault, origin=self.top())
        self.found.append(fault)

    def top(self) -> Origin:
        if self.decl.origin.file not in NOWHERE:
            return self.decl.origin
        return Origin(file=self.decl.file or UNKNOWN.file, line=1)

    def all(self) -> tuple[Fault, ...]:
        # Keyed with the place, which equality leaves out: the same mistake twice is two faults.
        return tuple({(fault, str(fault.origin)): fault for fault in self.found}.values())


def place(origin: Origin, otherwise: Origin) -> Origin:
    """Where something was said, or else where what holds it was said."""
    return origin if origin.line else otherwise


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """A hint that names the closest of the known words, or says something else.

    >>> did_you_mean("H10O", ["A100", "H100"], "")
    'Did you mean "H100"?'
    """
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'Did you mean "{close[0]}"?' if close else otherwise
