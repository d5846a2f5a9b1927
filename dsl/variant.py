"""What sets some calls of a function or class apart, so that they have workers of their own."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from attrs import field, frozen

Value = str | int | bool | bytes


@frozen(kw_only=True)
class Variant:
    """The parameters of an object of a class, and options that differ from the deployed ones.

    `options` are (name, value) in the shapes of docs/wire.md, sorted by name, as `with_options` and its like put them
    together; `secrets` are the values of those that it names, by slot.

    >>> Variant(parameters=(("size", "small"),)).opening()
    {'parameters': {'size': 'small'}}
    """

    parameters: tuple[tuple[str, Value], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    secrets: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = field(default=(), repr=False)

    def opening(self) -> dict[str, Any]:
        """Its part of the request "function.open". Bytes go as {"base64": …}."""
        said: dict[str, Any] = {}
        if self.parameters:
            said["parameters"] = {name: _plain(value) for name, value in self.parameters}
        if self.options:
            said["options"] = dict(self.options)
        if self.secrets:
            said["secrets"] = {slot: dict(values) for slot, values in self.secrets}
        return said


def _plain(value: Value) -> Any:
    return {"base64": b64encode(value).decode("ascii")} if isinstance(value, bytes) else value
