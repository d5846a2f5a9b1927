"""From a function's signature to a command's options."""

from __future__ import annotations

import datetime
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

import click

from slipway.dsl.errors import InvalidError

TYPES: dict[Any, click.ParamType[Any]] = {
    str: click.STRING,
    int: click.INT,
    float: click.FLOAT,
    Any: click.STRING,
    inspect.Parameter.empty: click.STRING,
    datetime.datetime: click.DateTime(),
}


class WholeNumbers(click.ParamType):  # type: ignore[type-arg] # generic only in newer versions of click
    """One of some whole numbers, for Literal[1, 2]."""

    name = "integer"

    def __init__(self, values: tuple[int, ...]) -> None:
        self.values = values

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(map(str, self.values))}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value) not in map(str, self.values):
            self.fail(f"{value!r} is not one of {', '.join(map(str, self.values))}.", param, ctx)
        return int(value)


def command_for(
    function: Callable[..., Any],
    name: str,
    run: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    *,
    before: Sequence[inspect.Parameter] = (),
    bound: bool = False,
) -> click.Command:
    """A command whose options are the function's parameters and which calls `run(args, kwargs)`.

    `before`: parameters that come with them, such as those of the class of a method; `bound`: the first one of the
    function is the object, of which nobody is asked.

    >>> def greet(name: str, times: int = 1, loud: bool = False): ...
    >>> command = command_for(greet, "greet", lambda args, kwargs: kwargs)
    >>> command.main(["--name", "Ada", "--loud"], standalone_mode=False)
    {'name': 'Ada', 'times': 1, 'loud': True}
    """
    own = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    hints = _hints(function)
    if [p.kind for p in (*before, *own)] == [inspect.Parameter.VAR_POSITIONAL]:
        return _passthrough(function, name, run)
    _refuse_twice(before, own, name)
    options = [_option(p, p.annotation, name) for p in before]
    options += [_option(p, hints.get(p.name, p.annotation), name) for p in own]
    names = {option.name: p.name for option, p in zip(options, (*before, *own), strict=True)}
    positional = [p.name for p in own if p.kind is inspect.Parameter.POSITIONAL_ONLY]

    def callback(**given: Any) -> Any:
        kwargs = {names[key]: value for key, value in given.items()}
        return run(tuple(kwargs.pop(key) for key in positional), kwargs)

    return click.Command(
        name, params=list(options), callback=callback, help=inspect.getdoc(function), no_args_is_help=False
    )


def _refuse_twice(before: Sequence[inspect.Parameter], own: Sequence[inspect.Parameter], function: str) -> None:
    both = {p.name for p in before} & {p.name for p in own}
    for name in both:
        raise InvalidError(
            f"{function}: the class and the method both have a parameter {name!r}, and a command line has one place",
            hint="Rename one of the two, or call the method from a local entrypoint.",
        )


def _passthrough(
    function: Callable[..., Any], name: str, run: Callable[[tuple[Any, ...], dict[str, Any]], Any]
) -> click.Command:
    """A function of `*args` alone takes what stands on the command line, as it stands."""

    def callback(words: tuple[str, ...]) -> Any:
        return run(words, {})

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        params=[words],
        callback=callback,
        help=inspect.getdoc(function),
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, AttributeError, TypeError) as error:
        raise InvalidError(
            f"{_place(function)}: the annotations of {function.__name__} cannot be read: {error}",
            hint="Options are made from them, so what they name must be there when the file is imported.",
        ) from error


def _option(parameter: inspect.Parameter, annotation: Any, function: str) -> click.Option:
    if parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        stars = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
        raise InvalidError(
            f"{function} takes {stars}{parameter.name}, which has no place on a command line",
            hint="A function of *args alone takes all words as they stand; else name the parameters one by one.",
        )
    dashed = parameter.name.replace("_", "-").strip("-")
    kind = _unwrapped(annotation)
    if kind is inspect.Parameter.empty and type(parameter.default) in TYPES.keys() | {bool}:
        kind = type(parameter.default)
    # Newer versions of click take default=None for a default; so where there is none, nothing is said.
    given: dict[str, Any] = {"required": True}
    if parameter.default is not inspect.Parameter.empty:
        given = {"default": parameter.default, "show_default": parameter.default is not None}
    if kind is bool:
        return click.Option([f"--{dashed}/--no-{dashed}", parameter.name], **given)
    return click.Option([f"--{dashed}", parameter.name], type=_type(kind, parameter.name, function), **given)


def _unwrapped(annotation: Any) -> Any:
    """Optional[X] and X | None are X: leaving the option out says None."""
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(inner) == 1:
            return _unwrapped(inner[0])
    if typing.get_origin(annotation) is typing.Annotated:
        return _unwrapped(typing.get_args(annotation)[0])
    return annotation


def _type(kind: Any, parameter: str, function: str) -> click.ParamType[Any]:
    if kind in TYPES:
        return TYPES[kind]
    if typing.get_origin(kind) is Literal:
        values = typing.get_args(kind)
        if all(isinstance(value, str) for value in values):
            return click.Choice(values)
        if all(type(value) is int for value in values):
            return WholeNumbers(values)
    shown = getattr(kind, "__name__", None) if isinstance(kind, type) else str(kind)
    raise InvalidError(
        f"{function}: the parameter {parameter!r} is of {shown}, which a command line cannot give",
        hint="It can give str, int, float, bool, datetime.datetime, Literal of texts or of whole numbers, and Optional "
        "ones. For anything else take a str and read it in the function.",
    )


def _place(function: Callable[..., Any]) -> str:
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
