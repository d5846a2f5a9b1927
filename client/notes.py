"""What is to be said about a declaration: errors as faults, and what it asks for that isn't in effect."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve

from slipway.compiler.titles import function_address
from slipway.dsl.declaration import Fault, FunctionDecl, Origin
from slipway.dsl.errors import Error

# The parameter, and what it would do. They are kept in the declaration, and come into effect with later releases.
NOT_YET = {
    "schedule": "the function doesn't run by itself",
    "restrict_modal_access": "workers may call other functions of the home",
    "endpoint": "the function has no URL",
}
NO_EFFECT = {
    "cloud": "your own machines are the cloud",
    "region": "your own machines are where they are",
    "routing_region": "your own machines are where they are",
    "proxy": "workers use the network of their machine",
    "nonpreemptible": "nothing preempts a worker",
    "i6pn": "workers of one machine reach each other",
    "experimental_options": "there are no experiments here",
    "_experimental_restrict_output": "there are no experiments here",
}
SPOKEN = {"endpoint": "a web endpoint"}


def fault_of(error: Error, address: str, origin: Origin) -> Fault:
    """An error as a fault. Where its message starts with a place, that is the fault's.

    >>> fault_of(Error("app.py:7: there is no module 'x'"), "image search", Origin(file="app.py", line=3)).origin.line
    7
    """
    message = error.message
    place, colon, rest = message.partition(": ")
    file, _, line = place.rpartition(":")
    if colon and file and line.isdigit():
        origin, message = evolve(origin, file=file, line=int(line)), rest
    return Fault(severity="error", address=address, summary=message, hint=error.hint, origin=origin)


def notes(used: Iterable[tuple[str, FunctionDecl]]) -> tuple[Fault, ...]:
    """A note for each parameter that is used and not in effect, with the functions that use it."""
    users: dict[str, list[FunctionDecl]] = {}
    for name, function in used:
        if name in NOT_YET or name in NO_EFFECT:
            users.setdefault(name, []).append(function)
    return tuple(_note(name, functions) for name, functions in sorted(users.items()))


def _note(name: str, functions: list[FunctionDecl]) -> Fault:
    said = SPOKEN.get(name, f"{name}=")
    if name in NOT_YET:
        summary = f"{said} is not in effect yet: {NOT_YET[name]}"
    else:
        summary = f"{said} has no effect here: {NO_EFFECT[name]}"
    names = list(dict.fromkeys(function.name for function in functions))  # an alias may be used beside its name
    origin = functions[0].origin if functions else Origin()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    found = f"on {', '.join(names[:3])}{more}" if len(names) > 1 else ""
    return Fault(severity="note", address=function_address(functions[0]), summary=summary, found=found, origin=origin)
