"""Whatever goes wrong fits a screen, and shows no frame of ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from slipway.cli.failure import UserFailure, report
from slipway.dsl.declaration import Fault, Origin
from slipway.dsl.errors import DeclarationError, ImageBuildError, InternalError, NotFoundError, SerializationError
from slipway.executor.worker.failure import pack, unpack


def told(error: BaseException, capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    assert report(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_an_error_and_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    error = NotFoundError(f"{Path.cwd()}/app.py:3: no such thing", hint="Make one.")
    assert told(error, capsys) == "error: app.py:3: no such thing\nMake one.\n"


def test_a_failed_step_shows_the_end_of_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    log = "\n".join(f"line {n}" for n in range(100))
    err = told(ImageBuildError("image a, step 2: run_commands false ended with 1", hint="Mend it.", log=log), capsys)
    assert "  | line 99\n" in err and "line 79" not in err and err.endswith("Mend it.\n")


def test_many_faults_fit_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    origin = Origin(file=f"{Path.cwd()}/app.py", line=4)
    fault = Fault(
        severity="error", address="function f", summary="it is wrong", found="x=1", hint="Mend it.", origin=origin
    )
    err = told(DeclarationError((fault,) * 30), capsys)
    assert err.startswith("error: app.py:4: function f: it is wrong\n  x=1\n  Mend it.\n")
    assert len(err.splitlines()) <= 30 and err.endswith("and 22 more\n")


def test_the_users_exception_is_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    def theirs() -> None:
        from slipway.cli.result import shown

        class Odd:
            def __repr__(self) -> str:
                raise ValueError("told you so")

        shown(Odd())

    try:
        try:
            theirs()
        except ValueError as error:
            raise UserFailure from error
    except UserFailure as failure:
        err = told(failure, capsys)
    assert "ValueError: told you so" in err and "test_failure.py" in err
    assert "cli/result.py" not in err and "UserFailure" not in err


def test_a_bug_is_ours_and_its_traceback_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("what")
    except KeyError as error:
        err = told(error, capsys)
    log = Path(os.environ["SLIPWAY_HOME"]) / "logs" / "bugs.log"
    assert err == f"this is a bug in slipway: KeyError: 'what'\nIts traceback is in {log}\n"
    assert "Traceback (most recent call last)" in log.read_text()
    assert "this is a bug in slipway: broken" in told(InternalError("broken"), capsys)


def test_a_bug_in_a_home_that_cannot_be_written_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_HOME", "/proc/nowhere")
    assert told(KeyError("what"), capsys).endswith("KeyError: 'what'\n")


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(KeyboardInterrupt(), capsys, code=130) == "interrupted\n"


def test_what_a_worker_raised_is_told_once_with_its_causes(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise unpack(pack(_with_a_cause()))
    except KeyError as error:
        failure = UserFailure()
        failure.__cause__ = error
    err = told(failure, capsys)
    assert err.startswith("In the worker:\n") and err.count("ZeroDivisionError") == 1 == err.count("KeyError: 'outer'")
    assert "RemoteTraceback" not in err and "Called from here:" in err


def _with_a_cause() -> KeyError:
    try:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError as error:
            raise KeyError("outer") from error
    except KeyError as error:
        return error
    raise AssertionError("the first line raises")


def test_an_error_of_ours_names_the_users_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.py"
    theirs.write_text("def go(error):\n    raise error\n")
    names: dict[str, Any] = {}
    exec(compile(theirs.read_text(), theirs, "exec"), names)
    with pytest.raises(SerializationError) as raised:
        names["go"](SerializationError("it can't be pickled", hint="Pass plain data."))
    assert told(raised.value, capsys) == (
        f"error: it can't be pickled\n  {theirs}:2 in go: raise error\nPass plain data.\n"
    )
    with pytest.raises(SerializationError) as raised:
        names["go"](SerializationError(f"{theirs}:2: it can't be pickled"))
    assert told(raised.value, capsys) == f"error: {theirs}:2: it can't be pickled\n"
