# mypy: disable-error-code="no-untyped-def"
# The functions here are there for their parameters: what they return is nobody's business.
"""A function's parameters as options."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal, Optional

import click
import pytest

from slipway.cli.signature import command_for
from slipway.dsl.errors import InvalidError


def called(function: Any, *words: str) -> Any:
    """What the function would be called with."""
    return command_for(function, "f", lambda args, kwargs: (args, kwargs)).main(list(words), standalone_mode=False)


def test_types() -> None:
    def f(text: str, number: int, part: float, when: datetime.datetime, anything: Any, bare, flag: bool): ...

    words = "--text=a --number=7 --part=1.5 --when=2026-11-23 --anything=x --bare=y --flag"
    assert called(f, *words.split()) == (
        (),
        {
            "text": "a",
            "number": 7,
            "part": 1.5,
            "when": datetime.datetime(2026, 11, 23),
            "anything": "x",
            "bare": "y",
            "flag": True,
        },
    )


def test_defaults_and_dashes() -> None:
    def f(long_name: int = 3, other: Optional[str] = None, more: int | None = 4, quick: bool = True): ...  # noqa: UP045

    assert called(f)[1] == {"long_name": 3, "other": None, "more": 4, "quick": True}
    assert called(f, "--long-name", "5", "--no-quick", "--more", "1")[1]["long_name"] == 5


def test_a_default_says_the_type_where_no_annotation_does() -> None:
    def f(size=3, name="x", part=0.5, quick=False, more=None): ...

    assert called(f)[1] == {"size": 3, "name": "x", "part": 0.5, "quick": False, "more": None}
    given = called(f, "--size", "4", "--part", "1", "--quick", "--more", "5")[1]
    assert given == {"size": 4, "name": "x", "part": 1.0, "quick": True, "more": "5"}


def test_literals() -> None:
    def f(mode: Literal["fast", "slow"], level: Annotated[Literal[1, 2], "how much"] = 1): ...

    assert called(f, "--mode", "slow", "--level", "2")[1] == {"mode": "slow", "level": 2}
    with pytest.raises(click.UsageError, match="not one of"):
        called(f, "--mode", "quick")
    with pytest.raises(click.UsageError, match="not one of 1, 2"):
        called(f, "--mode", "slow", "--level", "3")


def test_positional_only_and_keyword_only() -> None:
    def f(a: int, /, b: int, *, c: int): ...

    assert called(f, "--a", "1", "--b", "2", "--c", "3") == ((1,), {"b": 2, "c": 3})


def test_args_alone_take_words_as_they_stand() -> None:
    def f(*args: str): ...

    assert called(f, "one", "--two", "-3", "--help") == (("one", "--two", "-3", "--help"), {})


def test_what_is_missing_or_unknown_is_wrong_usage() -> None:
    def f(first: int, second: int = 2): ...

    with pytest.raises(click.UsageError, match="first"):
        called(f)
    with pytest.raises(click.UsageError, match="No such option"):
        called(f, "--first", "1", "--secnd", "2")
    with pytest.raises(click.UsageError, match="not a valid int"):
        called(f, "--first", "one")


def test_what_a_command_line_cannot_give() -> None:
    def a(x: list[int]): ...
    def b(x: dict[str, int]): ...
    def c(x: int, *rest: int): ...
    def d(**rest: int): ...
    def e(x: Literal["a", 1]): ...
    def g(x: Nowhere): ...  # type: ignore[name-defined] # noqa: F821

    for function, said in ((a, "list"), (b, "dict"), (c, "*rest"), (d, "**rest"), (e, "Literal"), (g, "Nowhere")):
        with pytest.raises(InvalidError) as caught:
            called(function)
        assert said in caught.value.message and caught.value.hint


def test_help_is_the_docstring() -> None:
    def f(x: int = 1):
        """Does what it does."""

    shown = command_for(f, "f", lambda *_: None).get_help(click.Context(click.Command("f")))
    assert "Does what it does." in shown
