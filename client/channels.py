"""The functions that a session has opened with the engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from slipway.dsl.calls import a_class, a_generator, no_generator
from slipway.dsl.session import FunctionRef

from .packing import calling_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from slipway.dsl.secret import Secret

    from .connection import Connection

Key = tuple[str, ...]
ITEMS = "remote_gen"  # the way to call a generator


class Together(NamedTuple):
    """A channel on which everything that is sent is one function call."""

    channel: int
    call: str  # "fc-…"


class Channels:
    """Opened when first needed and kept, for functions that return once and for generators apart."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._returning: dict[Key, int] = {}
        self._generators: dict[Key, int] = {}

    def of(self, function: FunctionRef, verb: str) -> int:
        """The channel for calls of this kind. Raises `InvalidError` where the function is not called so."""
        key = _key(function)
        channel = (self._generators if verb == ITEMS else self._returning).get(key)
        if channel is None:
            reply = self._connection.request("function.open", opening(function))
            channel = self._keep(key, function, reply, verb)
        return channel

    async def of_aio(self, function: FunctionRef, verb: str) -> int:
        key = _key(function)
        channel = (self._generators if verb == ITEMS else self._returning).get(key)
        if channel is None:
            reply = await self._connection.request_aio("function.open", opening(function))
            channel = self._keep(key, function, reply, verb)
        return channel

    def _keep(self, key: Key, function: FunctionRef, reply: Mapping[str, Any], verb: str) -> int:
        if reply.get("is_class") and verb:
            raise a_class(function.title)
        channel = int(reply["channel"])
        generator = bool(reply.get("is_generator"))
        (self._generators if generator else self._returning)[key] = channel
        if generator and verb not in {ITEMS, ""}:
            raise a_generator(function.title, verb)
        if not generator and verb == ITEMS:
            raise no_generator(function.title)
        return channel

    def any_of(self, function: FunctionRef) -> int:
        """The channel for requests about a function, of whatever kind it is."""
        key = _key(function)
        channel = self._returning.get(key) or self._generators.get(key)
        return channel or self.of(function, "")

    async def any_of_aio(self, function: FunctionRef) -> int:
        key = _key(function)
        channel = self._returning.get(key) or self._generators.get(key)
        return channel or await self.of_aio(function, "")

    def together(self, function: FunctionRef, verb: str) -> Together:
        """A channel for one function call with many inputs; it is closed when they are sent, or all answered."""
        return _together(function, self._connection.request("function.open", _opening_together(function)), verb)

    async def together_aio(self, function: FunctionRef, verb: str) -> Together:
        reply = await self._connection.request_aio("function.open", _opening_together(function))
        return _together(function, reply, verb)

    def close(self, channel: int) -> None:
        """Let go of a channel for one function call: no more inputs come."""
        self._connection.tell("function.close", {"channel": channel})


def _together(function: FunctionRef, reply: Mapping[str, Any], verb: str) -> Together:
    if reply.get("is_class"):
        raise a_class(function.title)
    if reply.get("is_generator"):
        raise a_generator(function.title, verb)
    return Together(int(reply["channel"]), str(reply.get("call", "")))


def _key(function: FunctionRef) -> Key:
    if function.variant is None:
        return function[:3]
    return (*function[:3], json.dumps(opening(function), sort_keys=True))


def opening(function: FunctionRef) -> dict[str, Any]:
    """The parameters of "function.open", with the values of the secrets that a variant names, as they are here now."""
    return function.opening(_values_of)


def _values_of(secret: Secret) -> Mapping[str, str]:
    from .values import values_of  # most programs have no use for it

    return values_of(secret)


def _opening_together(function: FunctionRef) -> dict[str, Any]:
    return {**opening(function), "together": True, "parent": calling_input()}
