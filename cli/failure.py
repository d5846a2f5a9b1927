"""Whatever went wrong, told in one screen on stderr: what, where, what was found, what to do. Never our traceback."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import slipway
from slipway.dsl.errors import DeclarationError, Error, ImageBuildError, InternalError

from .output import Line, is_terminal, nearby, show

if TYPE_CHECKING:  # every command imports this file, and few have anything to tell
    import traceback

    from slipway.dsl.declaration import Fault

MOST_FAULTS = 8
MOST_NOTES = 24  # a line or two each, and every parameter that does nothing is to be named
LOG_LINES = 20
FRAME_LINES = 24

FLOORS = Path(__file__).resolve().parent.parent
OURS = frozenset(
    str(folder)
    for folder in (
        Path(slipway.__file__).resolve().parent,
        *(
            FLOORS / name
            for name in ("cli", "dsl", "compiler", "executor", "executor/worker", "schedules", "endpoints")
        ),
    )
)


class UserFailure(Exception):
    """The user's own code raised: `__cause__` is told with the user's frames, ours left out."""


def report(error: BaseException) -> int:
    """Tell what went wrong; returns the exit code."""
    if isinstance(error, click.UsageError):
        error.show()
        return 2
    if isinstance(error, click.ClickException):
        show([(("error: ", "error"), error.format_message())], err=True)
        return 1
    if isinstance(error, KeyboardInterrupt | click.Abort):
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        if cause is error and is_terminal(sys.stderr):
            sys.stderr.write("\n")  # "^C" stands on the line; where click has told of it, it has ended the line
        show([(str(cause or "") or "interrupted",)], err=True)
        return 130
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has had enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        what = f" to {error.filename}" if error.filename else ""
        show([(("error: ", "error"), f"nothing more can be written{what}: {error.strerror}")], err=True)
        if not error.filename:  # it was stdout: what Python still holds for it is not tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    if isinstance(error, UserFailure) and error.__cause__ is not None:
        show(user_traceback(error.__cause__), err=True)
        return 1
    show(_lines(error), err=True)
    return 1


def _lines(error: BaseException) -> list[Line]:
    if isinstance(error, DeclarationError):
        return fault_lines(error.faults)
    if isinstance(error, Error) and not isinstance(error, InternalError):
        log = error.log if isinstance(error, ImageBuildError) else ""
        return build_failure(error.message, error.hint, log, _called_from(error))
    return _bug(error)


def build_failure(message: str, hint: str, log: str, place: str = "") -> list[Line]:
    """An error of ours: what is wrong, where, the end of a build step's log where there is one, what to do."""
    lines = _message("error: ", shorten_paths(message))
    lines += [((f"  {place}", "dim"),)] if place else []
    lines += [(("  | ", "dim"), line) for line in log.splitlines()[-LOG_LINES:]]
    return lines + [(line,) for line in shorten_paths(hint).splitlines()]


def _called_from(error: Error) -> str:
    """The line of the user's that was being carried out, where there was one and the message doesn't name it."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    if not frames or f"{frames[-1].filename}:{frames[-1].lineno}" in error.message:
        return ""
    last = frames[-1]
    return f"{nearby(last.filename)}:{last.lineno} in {last.name}: {last.line}"


def _is_users(filename: str) -> bool:
    import sysconfig

    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return not _is_ours(filename) and not filename.startswith(libraries)


def _message(label: str, text: str) -> list[Line]:
    first, *rest = text.splitlines() or [""]
    return [((label, "error"), first), *((line,) for line in rest)]


def shorten_paths(text: str) -> str:
    """Paths below the folder where the user stands, as they would write them."""
    return text.replace(str(Path.cwd()) + os.sep, "")


def fault_lines(faults: Sequence[Fault]) -> list[Line]:
    """Faults of a declaration, worst first, each with its place and its way out."""
    order = {"error": 0, "warning": 1, "note": 2}
    lines: list[Line] = []
    told = sorted(faults, key=lambda fault: order.get(fault.severity, 3))
    most = MOST_NOTES if all(fault.severity == "note" for fault in told) else MOST_FAULTS
    for fault in told[:most]:
        where = f"{nearby(fault.origin.file)}:{fault.origin.line}" if fault.origin.line else nearby(fault.origin.file)
        address = f"{fault.address}: " if fault.address else ""
        style = fault.severity if fault.severity in order else "error"
        place = "" if fault.origin.file == "<unknown>" else f"{where}: "
        head, *rest = fault.summary.splitlines() or [""]
        lines.append(((f"{fault.severity}: ", style), (place, "bold"), f"{address}{shorten_paths(head)}"))
        lines += [(f"  {shorten_paths(line)}",) for line in rest]
        lines += [((f"  {shorten_paths(line)}", "dim"),) for line in fault.found.splitlines()[-FRAME_LINES:]]
        lines += [(f"  {shorten_paths(line)}",) for line in fault.hint.splitlines()]
    if len(told) > most:
        lines.append((f"and {len(told) - most} more",))
    return lines


# --- the user's own exceptions ------------------------------------------------------------------------


def user_traceback(error: BaseException) -> list[Line]:
    """The traceback of a user's exception, and of what caused it, without our own frames."""
    import traceback

    told = traceback.TracebackException.from_exception(error)
    _only_users(told, set())
    remote = from_worker(error)
    if remote is None:
        return [(line,) for line in "".join(told.format()).rstrip().splitlines()]
    lines = ["In the worker:", *remote.strip().splitlines()]
    if told.stack:
        lines += ["", "Called from here:", *"".join(told.stack.format()).rstrip().splitlines()]
    return [(line,) for line in lines]


def from_worker(error: BaseException) -> str | None:
    """What the worker said of an exception that came from one as it is; None for one that was raised here."""
    from slipway.executor.worker.failure import RemoteTraceback

    seen: set[int] = set()
    below = error.__cause__ or error.__context__
    while below is not None and id(below) not in seen and below.__traceback__ is None:
        if isinstance(below, RemoteTraceback):
            return below.text
        seen.add(id(below))
        below = below.__cause__ or below.__context__
    return None


def _only_users(told: traceback.TracebackException, seen: set[int]) -> None:
    if id(told) in seen:
        return
    seen.add(id(told))
    told.stack[:] = [frame for frame in told.stack if not _is_ours(frame.filename)]
    for inner in (told.__cause__, told.__context__):
        if inner is not None:
            _only_users(inner, seen)


def _is_ours(filename: str) -> bool:
    return filename.startswith(("<frozen ", "/.slipway/")) or os.path.dirname(filename) in OURS  # noqa: PTH120 - text


# --- bugs ---------------------------------------------------------------------------------------------


def _bug(error: BaseException) -> list[Line]:
    """An error that nobody foresaw: say that it is ours, and keep its traceback where it can be sent from."""
    import traceback

    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, InternalError):
        text = error.message
    lines: list[Line] = [(("this is a bug in slipway: ", "error"), text)]
    kept = _keep(error)
    if kept is not None:
        lines.append((f"Its traceback is in {kept}",))
    else:
        lines += [(line,) for line in traceback.format_exception(error)]
    if isinstance(error, InternalError) and error.hint:
        lines.append((error.hint,))
    return lines


def _keep(error: BaseException) -> Path | None:
    import traceback

    from slipway.engine_client import home_path
    from slipway.executor.home import Home

    path = Home(home_path()).logs / "bugs.log"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("a") as file:
            file.write(f"--- {stamp} {' '.join(sys.argv)}\n")
            file.writelines(traceback.format_exception(error))
    except OSError:  # a home that cannot be written to: the traceback goes to the screen instead
        return None
    return path
