"""Exceptions: as themselves, with where they come from; and the classes that programs catch."""

from __future__ import annotations

import builtins
import threading
import traceback

import pytest
from model_home import ModelHome

import slipway
from slipway import exception
from slipway.dsl.errors import DeserializationError, ExecutionError, InvalidError, SerializationError

rule = pytest.mark.rule


@rule("3.5 types", "8.20")
def test_an_exception_comes_as_itself_with_all_that_it_holds(home: ModelHome) -> None:
    errors = home.app("errors")
    with pytest.raises(errors.Trouble) as caught:
        errors.trouble.remote(7)
    assert (type(caught.value), caught.value.code, caught.value.why) == (errors.Trouble, 7, "deep inside")
    text = "".join(traceback.format_exception(caught.value))
    assert 'raise Trouble(code, why="deep inside")' in text and "in deeper" in text  # there …
    assert "errors.trouble.remote(7)" in text  # … and here
    assert "executor/worker" not in text.partition("The above exception was the direct cause")[0]


@rule("3.5 types", "8.20")
def test_what_led_to_an_exception_comes_along(home: ModelHome) -> None:
    with pytest.raises(ValueError, match="after a KeyError") as caught:
        home.app("errors").chained.remote()
    assert type(caught.value.__cause__) is KeyError


@rule("3.5 types", "8.20", "8.19")
def test_an_exception_comes_through_several_workers(home: ModelHome) -> None:
    errors = home.app("errors")
    with pytest.raises(errors.Trouble) as caught:
        errors.caller.remote()
    text = "".join(traceback.format_exception(caught.value))
    assert "in deeper" in text and "in caller" in text


@rule("3.5 types", "8.20")
def test_an_exception_that_can_not_be_pickled(home: ModelHome) -> None:
    with pytest.raises(SerializationError, match=r"Locked: it holds a lock"):
        home.app("errors").unpicklable.remote()


@rule("3.5 types", "8.20")
def test_an_exception_whose_class_is_not_here(home: ModelHome) -> None:
    with pytest.raises(ExecutionError, match=r"Strange") as caught:
        home.app("errors").only_there.remote()
    assert "from elsewhere" in str(caught.value) and 'module.Strange("from elsewhere")' in str(caught.value)


@rule("3.5 types", "8.20")
def test_a_result_that_can_not_travel(home: ModelHome) -> None:
    errors = home.app("errors")
    with pytest.raises(SerializationError, match="returns_a_lock"):
        errors.returns_a_lock.remote()
    with pytest.raises(ExecutionError, match="only_in_the_worker"):
        errors.thing_of_there.remote()
    with pytest.raises(SerializationError, match="echo"):
        errors.echo.remote(threading.Lock())


@rule("3.4 type checks")
def test_a_plain_function_returns_no_coroutine(home: ModelHome) -> None:
    with pytest.raises(InvalidError, match="async def"):
        home.app("errors").returns_a_coroutine.remote()


@rule("1.17 classes", "1.17 TimeoutError")
def test_the_tree_of_errors(home: ModelHome) -> None:
    tree = {
        "Error": Exception,
        "InvalidError": exception.Error,
        "NotFoundError": exception.Error,
        "AlreadyExistsError": exception.Error,
        "ExecutionError": exception.Error,
        "SerializationError": exception.Error,
        "DeserializationError": exception.Error,
        "ConnectionError": exception.Error,
        "VersionError": exception.Error,
        "InternalError": exception.Error,
        "RemoteError": exception.Error,
        "ImageBuildError": exception.RemoteError,
        "TimeoutError": exception.Error,
        "FunctionTimeoutError": exception.TimeoutError,
        "OutputExpiredError": exception.TimeoutError,
        "InputCancellation": BaseException,
        "AsyncUsageWarning": UserWarning,
        "DeprecationError": UserWarning,
    }
    assert [name for name, base in tree.items() if not issubclass(getattr(exception, name), base)] == []
    assert not issubclass(exception.TimeoutError, builtins.TimeoutError)
    assert not issubclass(exception.ConnectionError, builtins.ConnectionError)
    assert slipway.Error is exception.Error and issubclass(DeserializationError, ExecutionError)
