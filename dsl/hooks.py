"""What the decorators in a class's body mean, found over its bases: its methods, its hooks, its parameters.

Nothing here waits, sleeps, opens or spawns. Workers look here too, so it imports next to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .origin import invalid

if TYPE_CHECKING:
    from .declaration import Batching, Concurrency, EndpointDecl
    from .variant import Value

METHODS = ("method", "batched", "endpoint")  # the roles of what can be called from outside
TYPES: dict[str, type[str | int | bool | bytes]] = {"str": str, "int": int, "bool": bool, "bytes": bytes}
MOST_PARAMETERS = 16 << 10  # bytes, of names and values together


class Partial:
    """A function or class with what was said about it so far. `@app.function` or `@app.cls` makes a handle of it.

    On an instance of the class that it stands in it is the method: of an object whose methods can be called in
    workers, a handle (`self.embed.remote(x)`), and else the function itself.
    """

    __slots__ = ("batching", "concurrency", "endpoint", "hints", "is_generator", "role", "snap", "target")

    def __init__(
        self,
        *,
        target: Any,
        role: str = "",  # "method" | "enter" | "exit" | "endpoint" | "batched"
        endpoint: EndpointDecl | None = None,
        concurrency: Concurrency | None = None,
        batching: Batching | None = None,
        is_generator: bool | None = None,
        snap: bool = False,
        hints: tuple[str, ...] = (),  # older names that were used
    ) -> None:
        self.target = target
        self.role = role
        self.endpoint = endpoint
        self.concurrency = concurrency
        self.batching = batching
        self.is_generator = is_generator
        self.snap = snap
        self.hints = hints

    def but(self, **changes: Any) -> Partial:
        """The same with changes."""
        return Partial(**{name: getattr(self, name) for name in self.__slots__} | changes)

    @property
    def yields(self) -> bool:
        """Whether it is a generator: as it was said, or else as it is written."""
        import inspect  # no worker asks

        written = inspect.isgeneratorfunction(self.target) or inspect.isasyncgenfunction(self.target)
        return written if self.is_generator is None else self.is_generator

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        handles = instance.__dict__.get(HANDLES)
        handle = None if handles is None else handles.of(self)  # not of a base's method, as `super()` finds it
        return self.target.__get__(instance, owner) if handle is None else handle

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, ({name: getattr(self, name) for name in self.__slots__},)

    def __repr__(self) -> str:
        return f"<{self.role or 'decorated'} {getattr(self.target, '__name__', self.target)}>"


def _restore(said: dict[str, Any]) -> Partial:
    return Partial(**said)


HANDLES = "_slipway_handles"  # the attribute of an instance that holds the handles of its methods


class Parameter:
    """A parameter of a class, as `slipway.parameter` says it."""

    __slots__ = ("default", "init", "name", "required")

    def __init__(self, *, default: Any = None, required: bool = True, init: bool = True) -> None:
        self.default = default
        self.required = required
        self.init = init
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.required:
            raise AttributeError(f"{type(instance).__name__}.{self.name} has not been set")
        return self.default

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_parameter, (self.default, self.required, self.init, self.name)

    def __repr__(self) -> str:
        return f"parameter({'' if self.required else f'default={self.default!r}'})"


def _restore_parameter(default: Any, required: bool, init: bool, name: str) -> Parameter:
    made = Parameter(default=default, required=required, init=init)
    made.name = name
    return made


def partials(user_class: type) -> dict[str, Partial]:
    """The decorated functions of a class by name: a base's before its own, each where the first of its name stood.

    >>> class Base:
    ...     load = Partial(target=print, role="enter")
    ...     embed = Partial(target=print, role="method")
    >>> class Model(Base):
    ...     close = Partial(target=print, role="exit")
    ...     load = Partial(target=len, role="enter")
    >>> partials(Model)
    {'load': <enter len>, 'embed': <method print>, 'close': <exit print>}
    """
    return {name: value for name, value in _members(user_class).items() if isinstance(value, Partial)}


def _members(user_class: type) -> dict[str, Any]:
    """What the bodies of a class and of its bases say, as Python finds it."""
    found: dict[str, Any] = {}
    for kind in reversed(user_class.__mro__):
        if kind is not object:
            found.update(vars(kind))
    return found


def methods(user_class: type) -> dict[str, Partial]:
    """What of a class can be called from outside."""
    return {name: partial for name, partial in partials(user_class).items() if partial.role in METHODS}


def hooks(user_class: type, role: str, *, snap: bool | None = None) -> tuple[Callable[..., Any], ...]:
    """The functions of a class that run at a worker's start ("enter", with `snap` before the snapshot or after it) or
    end ("exit"), in the order in which they run. They take the instance.

    >>> class Model:
    ...     load = Partial(target=print, role="enter", snap=True)
    >>> hooks(Model, "enter", snap=True), hooks(Model, "enter", snap=False)
    ((<built-in function print>,), ())
    """
    found = (p for p in partials(user_class).values() if p.role == role)
    return tuple(p.target for p in found if snap is None or p.snap is snap)


def parameters(user_class: type) -> dict[str, tuple[type, Parameter]]:
    """The parameters that an object of the class is made with, by name, each with its type.

    >>> class Model:
    ...     size: str = Parameter(default="small", required=False)
    >>> parameters(Model)
    {'size': (<class 'str'>, parameter(default='small'))}
    """
    members = _members(user_class)
    return {
        name: (_type_of(user_class, name, value), value)
        for name, value in members.items()
        if isinstance(value, Parameter) and value.init
    }


def size_of(parameters: Mapping[str, Value]) -> int:
    """How much parameters take, in bytes.

    >>> size_of({"size": "small", "level": 12, "key": b"abc"})
    22
    """
    total = 0
    for name, value in parameters.items():
        text = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        total += len(name.encode()) + len(text)
    return total


def _type_of(user_class: type, name: str, parameter: Parameter) -> type:
    """What a parameter's annotation says."""
    said = f"{user_class.__name__}.{name}"
    owner = next(kind for kind in user_class.__mro__ if name in vars(kind))
    annotations = getattr(owner, "__annotations__", {})
    if name not in annotations:
        raise invalid(f"the parameter {said} has no annotation", hint=f"Write {name}: str = slipway.parameter(...).")
    annotation = annotations[name]
    found = _evaluated(annotation, owner) if isinstance(annotation, str) else annotation
    if not isinstance(found, type) or found not in TYPES.values():
        shown = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", annotation)
        raise invalid(f"the parameter {said} is of type {shown}", hint="A parameter is a str, an int, a bool or bytes.")
    if not parameter.required and type(parameter.default) is not found:
        raise invalid(f"the default of the parameter {said} is {parameter.default!r}, which is no {found.__name__}")
    return found


def _evaluated(annotation: str, owner: type) -> Any:
    """The type that the text of an annotation stands for; where none is found, the text."""
    if annotation in TYPES:
        return TYPES[annotation]
    module = sys.modules.get(owner.__module__)
    try:
        return eval(annotation, dict(vars(module)) if module else {}, dict(vars(owner)))  # noqa: S307 - the user's own
    except Exception:  # noqa: BLE001 - it is the user's, and may name what only a type checker sees
        return annotation
