"""A call's result on the screen."""

from __future__ import annotations

import json
from typing import Any

import click


def show_result(result: Any) -> None:
    """Text as it is, what JSON can say as JSON, anything else by its repr."""
    click.echo(shown(result))


def shown(result: Any) -> str:
    """
    >>> shown("plain"), shown([1, "a"]), shown({1, 2})
    ('plain', '[1, "a"]', '{1, 2}')
    """
    if isinstance(result, str):
        return result
    try:
        return json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(result)
