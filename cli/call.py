"""`slipway call`."""

from __future__ import annotations

import json
from typing import Any

import click

from slipway.dsl.errors import InvalidError

from .result import show_result
from .run import called


@click.command()
@click.argument("function", metavar="APP.FUNCTION")
@click.argument("arguments", metavar="[JSON]", default="[]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def call(function: str, arguments: str, as_json: bool) -> None:
    """Call a function of a deployed app and print its result.

    JSON is a list of arguments, or an object of named ones.

    \b
    Examples:
      slipway call search.search '["compress a file"]'
      slipway call search.search '{"query": "compress a file"}'
    """
    app, dot, name = function.rpartition(".")
    if not dot or not app or not name:
        raise InvalidError(f"{function!r} names no function", hint="Write APP.FUNCTION, for example: search.query")
    args, kwargs = _arguments(arguments)
    from slipway import Function

    result = called(Function.from_name(app, name).remote, args, kwargs)
    if as_json:
        click.echo(_as_json(result))
    elif result is not None:
        show_result(result)


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise InvalidError(
            f"the arguments are not JSON: {error}", hint="""Write a list, '[1, "two"]', or an object, '{"x": 1}'."""
        ) from None
    if isinstance(given, list):
        return tuple(given), {}
    if isinstance(given, dict):
        return (), given
    raise InvalidError(f"the arguments are {text}, neither a list nor an object", hint=f"For one argument: '[{text}]'")


def _as_json(result: Any) -> str:
    try:
        return json.dumps(result)
    except (TypeError, ValueError) as error:
        raise InvalidError(f"the result cannot be said in JSON: {error}", hint="Leave --json out to see it.") from None
