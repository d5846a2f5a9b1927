"""Exceptions come back as they were raised, and say where."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from slipway.dsl.errors import DeclarationError, ExecutionError, InvalidError, SerializationError
from slipway.executor.worker import failure


class Picky(Exception):
    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code, self.why = code, why


class Unfriendly(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        if cause is not None:
            raise error from cause
        raise error
    except BaseException as caught:  # noqa: BLE001 - whatever it was told to raise
        return caught


def there_and_back(error: BaseException) -> Any:
    return failure.unpack(failure.pack(raised(error)))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3),
        KeyError("k"),
        OSError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(5),
        InvalidError("wrong", hint="do this"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_type_and_arguments_come_back(error: BaseException) -> None:
    got = there_and_back(error)
    assert type(got) is type(error) and got.args == error.args and str(got) == str(error)
    assert got.__dict__ == error.__dict__


def test_an_exception_with_an_init_of_its_own_comes_back() -> None:
    got = there_and_back(Picky(7, why="because"))
    assert type(got) is Picky and (got.code, got.why, str(got)) == (7, "because", "7: because")
    assert type(there_and_back(DeclarationError(()))) is DeclarationError


def test_the_remote_traceback_shows_above_the_callers_own() -> None:
    shown = "".join(traceback.format_exception(there_and_back(ValueError("bad"))))
    assert shown.index("raise error") < shown.index("direct cause") < shown.rindex("ValueError: bad")
    assert "test_failure.py" in shown


def test_notes_and_causes_come_back() -> None:
    error = ValueError("outer")
    error.add_note("while counting")
    got = failure.unpack(failure.pack(raised(error, KeyError("inner"))))
    assert got.__notes__ == ["while counting"]
    assert isinstance(got.__cause__, KeyError) and isinstance(got.__cause__.__cause__, failure.RemoteTraceback)
    assert "inner" in got.__cause__.__cause__.text


def test_a_context_comes_back_as_context() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904
    except ValueError as error:
        got = failure.unpack(failure.pack(error))
    assert got.__cause__ is None and isinstance(got.__context__, KeyError)


def test_an_exception_that_cannot_be_pickled_says_so_with_its_traceback() -> None:
    import threading

    error = ValueError("holds a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    got = there_and_back(error)
    assert isinstance(got, SerializationError) and "ValueError: holds a lock" in str(got)
    assert isinstance(got.__cause__, failure.RemoteTraceback) and "raise error" in got.__cause__.text


def test_a_class_that_exists_only_there_says_so_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    data = failure.pack(raised(Picky(7, why="because")))
    monkeypatch.delitem(globals(), "Picky")
    got = failure.unpack(data)
    assert isinstance(got, ExecutionError)
    assert "Picky" in str(got) and "raise error" in str(got) and "only in the container" in str(got)


def test_the_summary_is_read_without_unpickling() -> None:
    assert failure.summary(failure.pack(ValueError("bad\nsecond line"))) == "ValueError: bad"
    assert "its __str__ raised RuntimeError" in failure.summary(failure.pack(Unfriendly()))


def test_the_traceback_is_read_without_unpickling() -> None:
    said = failure.trace(failure.pack(raised(ValueError("bäd"))))
    assert said.startswith("Traceback") and "raise error" in said and said.endswith("ValueError: bäd\n")


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    assert str(failure.unpack(failure.pack(one))) == "one"
