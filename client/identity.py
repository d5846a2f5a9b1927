"""What a piece of the user's Python *is*, as text that is the same on every machine and in every process.

Nothing here waits, sleeps, opens or spawns, but Python reads a function's source text from its file.
"""

from __future__ import annotations

import builtins
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any

import attrs

from slipway.dsl.app import App, LocalEntrypoint
from slipway.dsl.cls import Cls
from slipway.dsl.function import Function
from slipway.dsl.hooks import Parameter, Partial
from slipway.dsl.image import Image
from slipway.dsl.secret import Secret
from slipway.dsl.volume import Volume


class NoText(Exception):
    """The value has no text that is the same everywhere; `what` says which part of it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def canonical_text(value: Any) -> str:
    """The one text of a plain value. Raises `NoText` for everything else.

    >>> canonical_text({"b": (1, 2.5), "a": {"y", "x"}})
    "{'a': {'x', 'y'}, 'b': (1, 2.5)}"
    """
    return _text(value, ())


def _text(value: Any, above: tuple[int, ...]) -> str:
    if value is None or type(value) in {bool, int, float, complex, str, bytes}:
        return repr(value)
    if id(value) in above:
        raise NoText("a value that contains itself")
    inside = (*above, id(value))
    if isinstance(value, Enum):
        return f"{_class(value)}.{value.name}"
    if type(value) in {list, tuple}:
        items = [_text(item, inside) for item in value]
        return f"[{', '.join(items)}]" if isinstance(value, list) else f"({', '.join(items)}{',' * (len(items) == 1)})"
    if type(value) in {set, frozenset}:
        return "{" + ", ".join(sorted(_text(item, inside) for item in value)) + "}"
    if type(value) is dict:
        pairs = sorted((_text(k, inside), _text(v, inside)) for k, v in value.items())
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    if isinstance(value, PurePath):
        return f"Path({value.as_posix()!r})"  # where its class lives differs between versions of Python
    if isinstance(value, Volume):
        return repr(value)
    fields = _fields(value)
    if fields is None:
        raise NoText(f"a {_class(value)}")
    return f"{_class(value)}({', '.join(f'{k}={_text(v, inside)}' for k, v in fields.items())})"


def _class(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of an attrs class or dataclass, by name."""
    if isinstance(value, type | Secret | Image | App | Function | Cls):
        return None
    if attrs.has(type(value)):
        return {a.name: getattr(value, a.name) for a in attrs.fields(type(value))}
    known: Mapping[str, Any] | None = getattr(type(value), "__dataclass_fields__", None)
    return None if known is None else {name: getattr(value, name) for name in known}


def source_text(function: Callable[..., Any]) -> str:
    """The text of a function as it is written, without its place; where there is none, that of its instructions.

    >>> def double(x):
    ...     return 2 * x
    >>> print(source_text(double), end="")
    def double(x):
        return 2 * x
    """
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return _code_text(function.__code__)
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if line.startswith(("def ", "async def "))), 0)
    return "".join(lines[start:])  # its decorators say what is kept elsewhere


def _code_text(code: CodeType) -> str:
    constants = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_name} {code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"


def named_globals(function: Callable[..., Any]) -> dict[str, Any]:
    """The globals that a function (or one written within it) names, sorted by name; builtins left out."""
    names = sorted(set(_names(function.__code__)))
    known = getattr(function, "__globals__", {})
    return {name: known[name] for name in names if name in known and not hasattr(builtins, name)}


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def held_by(code: Callable[..., Any] | type) -> tuple[Any, ...]:
    """The values that a function names or closes over; of a class, those of its methods. Handles are left out: they
    travel as names.

    >>> LIMIT = 3
    >>> held_by(eval("lambda: LIMIT", {"LIMIT": 3}))
    (3,)
    """
    members = list(vars(code).values()) if isinstance(code, type) else [code]
    found: list[Any] = []
    for function in (getattr(member, "target", member) for member in members):
        if isinstance(function, FunctionType):
            cells = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
            found += [*named_globals(function).values(), *cells.values()]
    return tuple(value for value in found if not isinstance(value, HANDLES))


# Code and handles: what they hold is found by other ways, or is not for a build to know.
HANDLES = (App, Function, Cls, Image, Secret, Partial, LocalEntrypoint)
NOT_VALUES = (ModuleType, FunctionType, type, *HANDLES)


def plain_globals(function: Callable[..., Any]) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The plain values among a function's globals as (name, text), and the names of those that have no text.

    >>> LIMIT = 3
    >>> def work(): return LIMIT
    >>> plain_globals(eval("lambda: LIMIT", {"LIMIT": 3}))
    ((('LIMIT', '3'),), ())
    """
    found, left_out = [], []
    for name, value in named_globals(function).items():
        if isinstance(value, NOT_VALUES) or callable(value):
            continue
        try:
            found.append((name, canonical_text(value)))
        except NoText:
            left_out.append(name)
    return tuple(found), tuple(left_out)


def whole_identity(thing: Callable[..., Any]) -> str:
    """Text over a function or class that is sent by value: its source, what it closes over, and the globals it names,
    with the functions among them followed. What has no text is named only."""
    return "\n".join(_whole_class(thing, set()) if isinstance(thing, type) else _whole(thing, set()))


OF_PYTHON = {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"}


def _whole_class(user_class: type, seen: set[int]) -> Iterator[str]:
    """A class with its bases, member by member."""
    for kind in user_class.__mro__[:-1]:
        yield f"class {kind.__module__}:{kind.__qualname__}"
        for name, value in sorted(vars(kind).items()):
            if name in OF_PYTHON:
                continue
            if isinstance(value, Partial):
                yield f"{value.role} {name}{' before a snapshot' if value.snap else ''}"
            member = getattr(value, "target", getattr(value, "__func__", getattr(value, "fget", value)))
            if isinstance(member, FunctionType):
                yield from _whole(member, seen)
            else:
                yield f"{name} = {value!r}" if isinstance(value, Parameter) else f"{name} = {_or_name(value)}"


def _whole(function: Any, seen: set[int]) -> Iterator[str]:
    if id(function) in seen:
        return
    seen.add(id(function))
    yield f"def {function.__module__}:{function.__qualname__}"
    yield source_text(function)
    yield f"defaults {_or_name(function.__defaults__)} {_or_name(function.__kwdefaults__)}"
    closed = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    for kind, values in (("closes over", closed), ("global", named_globals(function))):
        for name, value in sorted(values.items()):
            if isinstance(value, FunctionType):
                yield f"{kind} {name}"
                yield from _whole(value, seen)
            else:
                yield f"{kind} {name} = {_or_name(value)}"


def _or_name(value: Any) -> str:
    try:
        return canonical_text(value)
    except NoText as error:
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, type):
            return f"class {value.__module__}.{value.__qualname__}"
        return error.what
