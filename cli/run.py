"""`slipway run`."""

from __future__ import annotations

import asyncio
import inspect
import select
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slipway.dsl.errors import Error, InvalidError

from .failure import UserFailure, from_worker
from .log_lines import timestamps_option
from .result import show_result
from .screen import Screen
from .signature import command_for
from .source import as_module_option, connect, load, runtime_option

if TYPE_CHECKING:
    from slipway.loader import Loaded, Target


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@as_module_option
@click.option("-q", "--quiet", is_flag=True, help="Show neither progress nor the workers' output.")
@click.option("-w", "--write-result", metavar="FILE", help="Write the result, text or bytes, to a file.")
@timestamps_option
@click.option("-d", "--detach", is_flag=True, hidden=True)
@runtime_option
@click.argument("ref", metavar="APP[::NAME]")
@click.argument("words", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def run(
    ref: str,
    words: tuple[str, ...],
    as_module: bool,
    quiet: bool,
    write_result: str | None,
    timestamps: bool,
    detach: bool,
    runtime: str | None,
) -> None:
    """Run an entrypoint of APP here, or one of its functions in a worker, with the app running for as long as it takes.

    NAME is a local entrypoint, a function or Class.method; without it the only entrypoint is run, else the only
    function. ARGS are options made from its parameters, and from those of its class: see them with `slipway run
    APP::NAME --help`. What has to be built is built first.

    \b
    Examples:
      slipway run examples/search.py --query "parse command line options"
      slipway run app.py::square --x 7
      slipway run app.py::Model.embed --size large --text hello
      slipway run -m shop.app::main
    """
    if detach:
        raise InvalidError(
            "an app that runs without its command is not in this release",
            hint="Deploy it, then let a call go on by itself: slipway apply app.py; slipway call app.function --spawn",
        )
    loaded = load(ref, as_module=as_module)
    from slipway.dsl.app import LocalEntrypoint
    from slipway.loader import target

    goal = target(loaded)
    if getattr(goal, "is_generator", False):
        raise InvalidError(
            f"{goal.name} is a generator, and what it yields has nowhere to go here",
            hint="Take its items in a local entrypoint: for item in ….remote_gen(...)",
        )
    given = _parsed(goal, words, f"slipway run {ref}")
    if given is None:
        return
    result = _carry_out(loaded, goal, *given, quiet=quiet, timestamps=timestamps, runtime=runtime)
    if write_result is not None:
        _write(result, write_result)
    elif result is not None and not isinstance(goal, LocalEntrypoint):
        show_result(result)  # a local entrypoint prints what it has to say


def _parsed(goal: Target, words: tuple[str, ...], program: str) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments as the words on the command line say them, before anything is built; None after --help."""
    from slipway.loader import MethodTarget

    of_class: list[inspect.Parameter] = []
    if isinstance(goal, MethodTarget):
        of_class = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if parameter.required else parameter.default,
                annotation=kind,
            )
            for name, (kind, parameter) in goal.cls.parameters.items()
        ]
    command = command_for(
        inspect.unwrap(goal.raw),
        goal.name,
        lambda args, kwargs: (args, kwargs),
        before=of_class,
        bound=isinstance(goal, MethodTarget),
    )
    try:
        parsed = command.main(list(words), prog_name=program, standalone_mode=False)
    except click.exceptions.Exit:
        return None
    except click.NoSuchOption as error:
        if not any(error.option_name in own.opts for own in run.params):
            raise
        said = f"{error.format_message()} It is one of `slipway run` itself, and stands before APP."
        raise click.UsageError(said, ctx=error.ctx) from None
    return parsed if isinstance(parsed, tuple) else None


def _carry_out(loaded: Loaded, goal: Target, args: tuple[Any, ...], kwargs: dict[str, Any], **how: Any) -> Any:
    from slipway.dsl.session import set_runner

    from .watch import WatchingRunner

    with connect() as link, Screen(err=True, quiet=how["quiet"]) as screen:
        runner = WatchingRunner(link, screen, file=loaded.path, **how)
        set_runner(lambda: runner)
        try:
            with loaded.app.run():
                return called(_start_of(goal), args, kwargs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(runner.interrupted()) from None


def _start_of(goal: Target) -> Callable[..., Any]:
    """What to call: the entrypoint right here, a function in a worker."""
    from slipway.dsl.app import LocalEntrypoint
    from slipway.loader import MethodTarget

    if isinstance(goal, LocalEntrypoint):
        return goal.raw
    if not isinstance(goal, MethodTarget):
        return goal.remote

    def start(*args: Any, **kwargs: Any) -> Any:
        """Make the object, then call its method: their parameters came as one."""
        obj = goal.cls(**{name: kwargs.pop(name) for name in goal.cls.parameters})
        return getattr(obj, goal.method).remote(*args, **kwargs)

    return start


def called(start: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the user's code. What it raises is theirs, and told as theirs; an `Error` says all there is to say."""
    try:
        result = start(*args, **kwargs)
        return asyncio.run(result) if inspect.iscoroutine(result) else result
    except Error:
        raise
    except BrokenPipeError as error:
        if _reader_is_gone():
            raise  # `slipway run … | head`: the reader has had enough
        raise UserFailure from error
    except Exception as error:  # the user's own: any class, told with their frames alone
        raise UserFailure from error
    except (SystemExit, KeyboardInterrupt) as error:
        if from_worker(error) is None:
            raise  # the entrypoint's own way to end, or Ctrl-C
        raise UserFailure from error


def _reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _write(result: Any, path: str) -> None:
    if not isinstance(result, str | bytes):
        raise InvalidError(
            f"--write-result writes text or bytes, and the result is of {type(result).__name__}",
            hint="Return a str or bytes, or leave --write-result out.",
        )
    try:
        Path(path).write_bytes(result.encode() if isinstance(result, str) else result)
    except OSError as error:
        raise InvalidError(f"the result cannot be written to {path}: {error.strerror}") from error
