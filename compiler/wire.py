"""Values as JSON, all fields of them, and back: strict, by KIND, from one explicit list of classes.

Nothing here waits, sleeps, opens or spawns. A field at its default is left out, so a new field with a default is read
by older data and changes none of it; for the same reason a default never changes (`tests/golden/classes.json`).
What comes in is not trusted: anything off is a `PlanFormatError` that names the place.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, overload

import attrs

from slipway.dsl import declaration
from slipway.dsl.errors import InvalidError, PlanFormatError

from . import facts, nodes, plan

T = TypeVar("T")
Reader = Callable[[Any], Any]

CLASSES: tuple[type[Any], ...] = (
    *(declaration.Origin, declaration.SecretDecl, declaration.VolumeDecl, declaration.LocalSource),
    *(declaration.DebianSlim, declaration.FromRegistry, declaration.FromDockerfile, declaration.Micromamba),
    *(declaration.StepOptions, declaration.PipInstall, declaration.UvSync, declaration.AptInstall),
    *(declaration.MicromambaInstall, declaration.RunCommands, declaration.RunFunction, declaration.DockerfileCommands),
    *(declaration.BuildDockerfile, declaration.AddPython),
    *(declaration.Setting, declaration.AddLocal, declaration.ImageDecl, declaration.SourceDecl, declaration.Resources),
    *(declaration.Retries, declaration.Autoscaling, declaration.CronDecl, declaration.PeriodDecl),
    *(declaration.EndpointDecl, declaration.Concurrency, declaration.Batching, declaration.FunctionDecl),
    *(declaration.MethodDecl, declaration.ParameterDecl),
    *(declaration.Fault, declaration.AppDecl),
    *(facts.BaseNeed, facts.TreeNeed, facts.TextNeed, facts.SecretNeed, facts.VolumeNeed, facts.PythonNeed),
    *(facts.BaseFact, facts.FileEntry, facts.TreeFact, facts.TextFact, facts.SecretFact, facts.VolumeFact),
    *(facts.PythonFact, facts.Missing, facts.Facts),
    *(nodes.BaseSpec, nodes.LayerSpec, nodes.BundleSpec, nodes.VolumeSpec, nodes.SecretSpec, nodes.FunctionSpec),
    *(nodes.ScheduleSpec, nodes.RouteSpec, nodes.Node, nodes.Graph, plan.Change, plan.Plan),
)
ENUMS: dict[type[Enum], str] = {plan.Verb: "verb"}

BY_KIND: dict[str, type[Any]] = {cls.KIND: cls for cls in CLASSES}
ATOMS = frozenset({type(None), bool, int, str})
WORDS = {
    type(None): "null",
    bool: "true or false",
    int: "a whole number",
    str: "text",
    list: "a list",
    dict: "an object",
}
HINT = "It was damaged, or written by another version of Slipway. Make it again: slipway plan APP"
NO_DEFAULT = object()


class Off(Exception):
    """Something is not as it must be; the place is gathered on the way up, innermost first."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path: list[str] = []

    def within(self, part: str) -> Off:
        self.path.append(part)
        return self

    def where(self, root: str) -> str:
        return root + "".join(reversed(self.path))


# --- out ----------------------------------------------------------------------------------------------


class Plainer:
    """Turns values into JSON-able ones, with the fields that `chosen` picks of each class, in its order."""

    def __init__(self, chosen: Callable[[type[Any]], list[attrs.Attribute[Any]]]) -> None:
        self._chosen = chosen
        self._tables: dict[type[Any], tuple[str, tuple[tuple[str, Any], ...]]] = {}

    def plain(self, value: Any) -> Any:
        kind = type(value)
        if kind in ATOMS:
            return value
        if kind is tuple:
            return self._list(value)
        table = self._tables.get(kind)
        if table is None:
            if kind in ENUMS:
                return {"": ENUMS[kind], "is": value.value}
            table = self._table(kind, value)
        name, fields = table
        out = {"": name}
        part = ""
        try:
            for part, default in fields:
                item = getattr(value, part)
                if type(item) not in ATOMS:
                    item = self.plain(item)
                # The type is compared too, because 1 == True.
                if item != default or type(item) is not type(default):
                    out[part] = item
        except Off as off:
            raise off.within(f".{part}") from None
        return out

    def _list(self, items: tuple[Any, ...]) -> list[Any]:
        out: list[Any] = []
        try:
            for item in items:
                out.append(item if type(item) in ATOMS else self.plain(item))  # noqa: PERF401 - see the index below
        except Off as off:
            raise off.within(f"[{len(out)}]") from None
        return out

    def _table(self, cls: type[Any], value: object) -> tuple[str, tuple[tuple[str, Any], ...]]:
        name = vars(cls).get("KIND") if attrs.has(cls) else None
        if type(name) is not str:
            raise Off(f"is a {cls.__qualname__}, which a plan cannot hold: {repr(value)[:200]}")
        table = self._tables[cls] = (name, tuple((a.name, self._default(a)) for a in self._chosen(cls)))
        return table

    def _default(self, attribute: attrs.Attribute[Any]) -> Any:
        return NO_DEFAULT if attribute.default is attrs.NOTHING else self.plain(attribute.default)


def refused(off: Off, root: str) -> InvalidError:
    hint = "A plan holds None, bool, int, str, tuples, and the classes of a declaration; times are whole milliseconds."
    return InvalidError(f"{off.where(root)} {off.message}", hint=hint)


_transport = Plainer(lambda cls: list(attrs.fields(cls)))


def to_wire(value: object) -> Any:
    """A JSON-able form of a value with all its fields. Raises `InvalidError` for what a plan cannot hold.

    >>> from slipway.dsl.declaration import Origin
    >>> to_wire(Origin(file="app.py", line=3))
    {'': 'origin', 'file': 'app.py', 'line': 3}
    """
    try:
        return _transport.plain(value)
    except Off as off:
        raise refused(off, "value") from None


def dumps(value: object) -> bytes:
    """A value as UTF-8 JSON, all fields kept; the same value gives the same bytes.

    >>> dumps((1, None))
    b'[1,null]'
    """
    return dump_json(to_wire(value))


def dump_json(plain: Any) -> bytes:
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 40) : error.start + 10]
        hint = "Rename the file or change the text: names that are not valid UTF-8 cannot be part of a plan."
        raise InvalidError(f"a text is not valid Unicode, near {near!r}", hint=hint) from None


# --- in -----------------------------------------------------------------------------------------------


@overload
def from_wire(cls: type[T], plain: object) -> T: ...
@overload
def from_wire(cls: None, plain: object) -> Any: ...
def from_wire(cls: type[T] | None, plain: object) -> Any:
    """The value that `to_wire` made `plain` of: a `cls`, or whatever its KIND says. Raises `PlanFormatError`.

    >>> from_wire(None, {"": "origin", "file": "app.py", "line": 3})
    Origin(file='app.py', line=3)
    """
    name = "value" if cls is None else str(getattr(cls, "KIND", cls.__name__))
    try:
        return (_anything if cls is None else _reader(cls))(plain)
    except Off as off:
        raise PlanFormatError(f"{off.where(name)} {off.message}", hint=HINT) from None
    except RecursionError:
        raise PlanFormatError(f"{name} is nested too deeply", hint=HINT) from None


@overload
def loads(data: bytes) -> Any: ...
@overload
def loads(data: bytes, cls: type[T]) -> T: ...
def loads(data: bytes, cls: type[T] | None = None) -> Any:
    """The value that `dumps` made these bytes of. Raises `PlanFormatError`.

    >>> loads(b'[1,null]')
    (1, None)
    """
    try:
        plain = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PlanFormatError(f"this is not JSON: {error}", hint=HINT) from None
    if b"\\u" in data:  # escapes can smuggle in halves of characters, which no encoder of ours would take
        try:
            dump_json(plain)
        except InvalidError as error:
            raise PlanFormatError(error.message, hint=HINT) from None
    return from_wire(cls, plain)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a value here")


def _anything(plain: Any) -> Any:
    kind = type(plain)
    if kind in ATOMS:
        return plain
    if kind is list:
        return _many(_anything)(plain)
    if kind is not dict:
        raise Off(f"is a {kind.__name__}, expected JSON")
    found = plain.get("")
    for enum, name in ENUMS.items():
        if found == name:
            return _reader(enum)(plain)
    cls = BY_KIND.get(found) if type(found) is str else None
    if cls is None:
        raise Off(f"is of an unknown kind: {found!r:.80}")
    return _reader(cls)(plain)


def _said(plain: object) -> str:
    if type(plain) is dict and type(plain.get("")) is str:
        return f"a {plain['']!r:.60}"
    return WORDS.get(type(plain), f"a {type(plain).__name__}")


_readers: dict[Any, Reader] = {}


def _reader(hint: Any) -> Reader:
    """The function that reads a value of this type; made once per type."""
    reader = _readers.get(hint)
    if reader is None:
        reader = _readers[hint] = _make_reader(hint)
    return reader


def _make_reader(hint: Any) -> Reader:
    if hint in ATOMS:
        return _atom(frozenset({hint}))
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _either(get_args(hint))
    if origin is tuple:
        parts = get_args(hint)
        return _many(_reader(parts[0])) if parts[1:] == (...,) else _row(tuple(map(_reader, parts)))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum(hint)
    if hint in CLASSES:
        return _object(hint)
    raise TypeError(f"{hint!r} is not a type that a plan can hold")


def _atom(allowed: frozenset[type]) -> Reader:
    expected = " or ".join(sorted(WORDS[kind] for kind in allowed))

    def read(plain: Any) -> Any:
        if type(plain) in allowed:
            return plain
        raise Off(f"is {_said(plain)}, expected {expected}")

    return read


def _many(item: Reader) -> Reader:
    def read(plain: Any) -> Any:
        if type(plain) is not list:
            raise Off(f"is {_said(plain)}, expected a list")
        out: list[Any] = []
        try:
            for entry in plain:
                out.append(item(entry))  # noqa: PERF401 - the length is the index where it goes wrong
        except Off as off:
            raise off.within(f"[{len(out)}]") from None
        return tuple(out)

    return read


def _row(items: tuple[Reader, ...]) -> Reader:
    def read(plain: Any) -> Any:
        if type(plain) is not list or len(plain) != len(items):
            raise Off(f"is {_said(plain)}, expected a list of {len(items)}")
        out: list[Any] = []
        try:
            for item, entry in zip(items, plain, strict=True):
                out.append(item(entry))
        except Off as off:
            raise off.within(f"[{len(out)}]") from None
        return tuple(out)

    return read


def _enum(cls: type[Enum]) -> Reader:
    by_value = {member.value: member for member in cls}
    name = ENUMS[cls]

    def read(plain: Any) -> Any:
        if type(plain) is dict and plain.keys() == {"", "is"} and plain[""] == name and type(plain["is"]) is str:
            member = by_value.get(plain["is"])
            if member is not None:
                return member
        raise Off(f"is {plain!r:.80}, expected a {name}")

    return read


def _either(options: tuple[Any, ...]) -> Reader:
    """A union: what comes in says by its JSON type, and an object by its KIND, which of the options it is."""
    atoms = _atoms_of(Union[options])  # noqa: UP007 - the options are known at run time only
    lists = [_reader(option) for option in options if get_origin(option) is tuple]
    kinds = {option.KIND: _reader(option) for option in options if option in CLASSES}
    expected = " or ".join([*sorted(WORDS[kind] for kind in atoms), *("a list" for _ in lists), *map(repr, kinds)])

    def read(plain: Any) -> Any:
        kind = type(plain)
        if kind in atoms:
            return plain
        if kind is dict and kinds:
            found = plain.get("")
            reader = kinds.get(found) if type(found) is str else None
            if reader is not None:
                return reader(plain)
        if kind is list and lists:
            return lists[0](plain)
        raise Off(f"is {_said(plain)}, expected {expected}")

    return read


def _object(cls: type[Any]) -> Reader:
    hints = get_type_hints(cls)
    kind, required = cls.KIND, {a.name for a in attrs.fields(cls) if a.default is attrs.NOTHING}
    # For each field the types that are taken as they are, and the reader for all else: most fields need no call.
    table: dict[str, tuple[frozenset[type], Reader]] = {}

    def read(plain: Any) -> Any:
        if type(plain) is not dict or plain.get("") != kind:
            raise Off(f"is {_said(plain)}, expected a {kind!r}")
        if not table:  # filled on first use, because classes may hold one another
            table[""] = (frozenset({str}), _atom(frozenset({str})))
            table.update({a.name: (_atoms_of(hints[a.name]), _reader(hints[a.name])) for a in attrs.fields(cls)})
        name = ""
        values = {}
        try:
            for name, item in plain.items():
                direct, reader = table[name]
                values[name] = item if type(item) in direct else reader(item)
        except Off as off:
            raise off.within(f".{name}") from None
        except KeyError:
            if name in table:  # pragma: no cover - a reader's own bug is not the data's
                raise
            raise Off(f"has a field {name!r:.80} that a {kind!r} has not") from None
        del values[""]
        if not required <= values.keys():
            raise Off(f"lacks {', '.join(sorted(required - values.keys()))}")
        return cls(**values)

    return read


def _atoms_of(hint: Any) -> frozenset[type]:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return frozenset(option for option in options if option in ATOMS)
