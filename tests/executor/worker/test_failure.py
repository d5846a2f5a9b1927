"""Exceptions come back as they were raised, and say where."""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from slipway.dsl.errors import DeclarationError, ExecutionError, InvalidError, SerializationError
from slipway.executor.worker import failure

Group: Any = vars(builtins).get("ExceptionGroup")  # new in Python 3.11


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


# --- where it was raised ------------------------------------------------------------------------------


@pytest.fixture
def in_worker() -> Iterator[None]:
    failure.say_where("w3-77")
    yield
    failure.say_where("")


def trace_of(error: BaseException) -> str:
    return failure.trace(failure.pack(error))


@pytest.mark.usefixtures("in_worker")
def test_files_are_said_to_be_the_workers_and_source_lines_come_along() -> None:
    said = trace_of(raised(ValueError("outer"), raised(KeyError("inner"))))
    assert said.count(f'File "<w3-77>:{__file__}"') == 2 and said.count("raise error") >= 2
    assert f'File "{__file__}"' not in said


@pytest.mark.usefixtures("in_worker")
def test_the_log_has_the_traceback_under_the_files_own_names(capsys: pytest.CaptureFixture[str]) -> None:
    failure.pack(raised(ValueError("bad")), printed=True)
    said = capsys.readouterr().err
    assert f'File "{__file__}"' in said and said.endswith("ValueError: bad\n") and "w3-77" not in said


def test_frames_of_ours_are_left_out_also_between_those_of_the_user() -> None:
    from slipway.dsl.variant import Variant

    try:
        Variant(parameters=Items()).opening()
    except LookupError as error:
        said = trace_of(error)
    assert "dsl/variant.py" not in said and said.count("test_failure.py") == 2


class Items(tuple[Any, ...]):
    __slots__ = ()

    def __bool__(self) -> bool:
        raise LookupError("mine")


def test_what_we_say_on_purpose_ends_at_the_users_line_and_a_bug_of_ours_does_not() -> None:
    from slipway.dsl.origin import checked_name
    from slipway.executor.worker.frames import Decoder

    try:
        checked_name("..", "a thing")
    except InvalidError as error:
        assert "dsl/origin.py" not in trace_of(error)
    try:
        Decoder().feed(7)  # type: ignore[arg-type]
    except TypeError as error:
        assert "frames.py" not in trace_of(error)
    try:
        failure.trace(b"")
    except Exception as error:  # noqa: BLE001 - struct.error has no public name
        assert "worker/failure.py" in trace_of(error)


# --- groups and chains --------------------------------------------------------------------------------


@pytest.mark.skipif(Group is None, reason="exception groups came with Python 3.11")
def test_groups_come_back_with_their_members_and_these_with_their_causes() -> None:
    inner = raised(Picky(7, why="because"), KeyError("root"))
    group = Group("several", [inner, Group("more", [ValueError("b")])])
    group.add_note("noted")
    got = there_and_back(group)
    assert type(got) is Group and str(got) == str(group) and got.__notes__ == ["noted"]
    picky, more = got.exceptions
    assert type(picky) is Picky and picky.code == 7 and isinstance(picky.__cause__, KeyError)
    assert isinstance(more, Group) and str(more.exceptions[0]) == "b"
    said = trace_of(raised(group))
    assert "Picky: 7: because" in said and "ValueError: b" in said


@pytest.mark.skipif(Group is None, reason="exception groups came with Python 3.11")
def test_a_group_with_a_member_that_cannot_be_pickled() -> None:
    import threading

    bad = ValueError("holds a lock")
    bad.lock = threading.Lock()  # type: ignore[attr-defined]
    got = there_and_back(Group("several", [bad]))
    assert isinstance(got, SerializationError) and "several" in str(got)


def test_what_came_from_another_worker_is_told_once() -> None:
    first = failure.unpack(failure.pack(raised(ValueError("bad"))))
    second = failure.unpack(failure.pack(raised(first)))
    assert type(second) is ValueError
    assert isinstance(second.__cause__, failure.RemoteTraceback) and second.__cause__.__cause__ is None
    assert second.__cause__.text.count("ValueError: bad") == 2, "there, and where it was called from"
    assert second.__cause__.text.startswith("Traceback") and "RemoteTraceback" not in second.__cause__.text


def test_a_cancellation_is_known() -> None:
    import asyncio

    from slipway.dsl.errors import InputCancellation

    assert failure.is_cancellation(InputCancellation("x")) and failure.is_cancellation(asyncio.CancelledError())
    assert not failure.is_cancellation(KeyboardInterrupt())
