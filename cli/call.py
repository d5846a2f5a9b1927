"""`slipway call`: call a function, and see to function calls."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from slipway.dsl.errors import InvalidError, NotFoundError

from .call_view import FAILED, call_lines, counts, done, exact, input_lines, is_over, list_lines, title, tree_lines
from .commands import close_to
from .log_lines import print_lines, tail_options, wanted
from .output import Line, count, say, show
from .result import show_result
from .source import connect, json_option

if TYPE_CHECKING:
    from slipway.connection import Connection

STATES = ("open", "queued", "running", "returned", "failed", "raised", "timed_out", "lost", "cancelled")
TIMED_OUT = 2


class Calls(click.Group):
    """Commands by name; whatever names a function, APP.FUNCTION, calls it, and the id of a call shows that."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if "." in name:
            return name, call_function, args[1:]
        if name.startswith(("fc-", "in-")):
            return "show", show_call, args
        if name not in self.commands and not name.startswith("-"):
            close = close_to(name, list(self.commands))
            ctx.fail(f"{name!r} names no function: write APP.FUNCTION, for example search.query.{close}")
        return super().resolve_command(ctx, args)


@click.group(cls=Calls, subcommand_metavar="APP.FUNCTION [JSON] | COMMAND [ARGS]...")
def call() -> None:
    """Call a function of a deployed app and print its result; or see to calls that were made.

    JSON is a list of arguments, or an object of named ones. With --json behind it the result is JSON, with --spawn the
    call goes on by itself, and its id is printed. A method, APP.CLASS.METHOD, is called on an object with the defaults
    of its class. A call is named by its id, fc-…; one of its inputs, in-…, will do.

    \b
    Examples:
      slipway call search.search '["compress a file"]'
      slipway call search.search '{"query": "compress a file"}'
      slipway call search.Model.embed '["a text"]'
      slipway call list --state failed
      slipway call show fc-19f1c2b3a40001
    """


@click.command()
@click.argument("arguments", metavar="[JSON]", default="[]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--spawn", is_flag=True, help="Don't wait: print the id of the call, which goes on.")
@click.pass_context
def call_function(ctx: click.Context, arguments: str, as_json: bool, spawn: bool) -> None:
    """Call this function, or method, of a deployed app and print its result; of a generator, each item as it comes."""
    args, kwargs = _arguments(arguments)
    found, yields = _look_up(ctx.info_name or "")  # the word that stands where a command's name does
    from .run import called

    if spawn and yields:
        raise InvalidError(f"{ctx.info_name} is a generator, whose items nobody keeps", hint="Leave --spawn out.")
    if spawn:
        ident = called(found.spawn, args, kwargs).object_id
        click.echo(json.dumps(ident) if as_json else ident)
        return

    def tell(result: Any) -> None:
        if as_json:
            click.echo(_as_json(result))
        elif result is not None or yields:
            show_result(result)

    def take(*args: Any, **kwargs: Any) -> None:
        for item in found.remote_gen(*args, **kwargs):
            tell(item)

    try:
        result = called(take if yields else found.remote, args, kwargs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the call was given up") from None
    if not yields:
        tell(result)


def _look_up(said: str) -> tuple[Any, bool]:
    """The function or method that APP.FUNCTION or APP.CLASS.METHOD names, and whether it is a generator."""
    app, _, name = said.rpartition(".")
    if not app or not name:
        raise InvalidError(f"{said!r} names no function", hint="Write APP.FUNCTION, for example: search.query")
    from slipway import Cls, Function

    with connect() as link:
        try:
            reply = link.request("function.open", {"app": app, "function": name})
            return Function.from_name(app, name), bool(reply["is_generator"])
        except NotFoundError:
            above, _, cls = app.rpartition(".")
            if not above:
                raise
        reply = link.request("function.open", {"app": above, "function": cls, "member": name})
        return getattr(Cls.from_name(above, cls)(), name), bool(reply["is_generator"])


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


# --- looking ------------------------------------------------------------------------------------------


@call.command("list")
@click.option("--app", metavar="APP", help="Only of this app, by its name or by the id of a run.")
@click.option("--function", metavar="NAME", help="Only of this function, class or Class.method.")
@click.option("--state", type=click.Choice(STATES), help="Only such; open: queued or running.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="At most so many.")
@json_option
def list_calls(as_json: bool, **which: Any) -> None:
    """List function calls, the youngest first. They are remembered for 30 days.

    \b
    Examples:
      slipway call list --app search --state open
      slipway call list --state failed --json
    """
    with connect() as link:
        asked = {name: value for name, value in which.items() if value is not None}
        found: list[dict[str, Any]] = link.request("call.list", asked)["calls"]
    if as_json:
        click.echo(json.dumps(found))
    elif not found:
        say("There is no such call." if len(asked) > 1 else "No function was called yet.")
    else:
        show(list_lines(found, _now_ms()))


@call.command("show")
@click.argument("ident", metavar="CALL")
@click.option("--start", default=0, type=click.IntRange(0), help="Begin with this input.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="At most so many inputs.")
@click.option("--graph", is_flag=True, help="As a tree: its inputs, what they called, and so on.")
@json_option
def show_call(ident: str, start: int, limit: int, graph: bool, as_json: bool) -> None:
    """Show a call: its inputs with their attempts and workers, how they ended and why; or what they called in turn.

    \b
    Examples:
      slipway call show fc-19f1c2b3a40001
      slipway call show fc-19f1c2b3a40001 --graph
    """
    with connect() as link:
        reply = link.request("call.show", {"call": ident, "start": start, "limit": limit})
        if graph:
            reply |= {"graph": link.request("call.graph", {"call": reply["call"]["call"]})["inputs"]}
    if as_json:
        click.echo(json.dumps(reply))
    else:
        show(_view(reply, start))


def _view(reply: dict[str, Any], start: int) -> list[Line]:
    now_ms, about = _now_ms(), reply["call"]
    lines = list(call_lines(about, now_ms, _date))
    if "graph" in reply:
        return [*lines, ("",), *tree_lines(reply["graph"], about["call"], now_ms)]
    inputs = reply["inputs"]
    if inputs:
        lines += [("",), *input_lines(inputs, now_ms)]
    if reply["more"]:
        lines.append(((f"More: slipway call show {about['call']} --start {start + len(inputs)}", "dim"),))
    return lines


@call.command("logs")
@click.argument("ident", metavar="CALL")
@tail_options("the call is over or Ctrl-C")
def logs(ident: str, timestamps: bool, as_json: bool, **which: Any) -> int:
    """Show what a call printed, in whichever workers it ran.

    \b
    Examples:
      slipway call logs fc-19f1c2b3a40001
      slipway call logs fc-19f1c2b3a40001 --follow
    """
    with connect() as link:
        app = link.request("call.show", {"call": ident, "limit": 1})["call"]["app"]
        params = {"app": app, "call": ident} | wanted(**which)
        return print_lines(link, "app.logs", params, timestamps=timestamps, as_json=as_json)


# --- acting -------------------------------------------------------------------------------------------


@call.command("cancel")
@click.argument("idents", metavar="CALL...", nargs=-1, required=True)
@click.option("--terminate", is_flag=True, help="Kill the workers that run it, instead of interrupting the call.")
def cancel(idents: tuple[str, ...], terminate: bool) -> None:
    """Give up calls: what waits is not begun, what runs is interrupted.

    \b
    Examples:
      slipway call cancel fc-19f1c2b3a40001
      slipway call cancel fc-19f1c2b3a40001 --terminate
    """
    with connect() as link:
        for ident in idents:
            reply = link.request("call.cancel", {"call": ident} | ({"terminate": True} if terminate else {}))
            parts = [f"{reply[state]} {state}" for state in ("queued", "running") if reply[state]]
            said = f"given up, {' and '.join(parts)}" if parts else "nothing of it was under way"
            say(f"{ident}: {said}")


@call.command("retry")
@click.argument("idents", metavar="CALL...", nargs=-1, required=True)
def retry(idents: tuple[str, ...]) -> None:
    """Run the failed inputs of spawned calls again, with all the attempts that their function allows.

    \b
    Example:
      slipway call retry fc-19f1c2b3a40001
    """
    with connect() as link:
        for ident in idents:
            waiting = link.request("call.retry", {"call": ident})["inputs"]
            say(f"{ident}: {count(waiting, 'input')} {'waits' if waiting == 1 else 'wait'} to be run again")


@call.command("wait")
@click.argument("ident", metavar="CALL")
@click.option("--timeout", type=click.FloatRange(min=0), help="At most so many seconds.")
@json_option
def wait(ident: str, timeout: float | None, as_json: bool) -> int:
    """Wait until a call is over. Ends with 0 when it returned, 1 when it failed or was cancelled, 2 after the timeout.

    \b
    Examples:
      slipway call wait fc-19f1c2b3a40001
      slipway call wait fc-19f1c2b3a40001 --timeout 60
    """
    with connect() as link:
        about = _outcome(link, ident, timeout)
    if as_json:
        click.echo(json.dumps(about))
    else:
        show(_told(about))
    if not is_over(about):
        return TIMED_OUT
    return 0 if about["state"] == "returned" else 1


def _outcome(link: Connection, ident: str, timeout: float | None) -> dict[str, Any]:
    """The call as it is when it is over, or when the time is."""
    from slipway.replies import Pending

    limit = {} if timeout is None else {"timeout_ms": round(timeout * 1000)}
    try:
        about: dict[str, Any] = link.request("call.wait", {"call": ident} | limit)["call"]
    except Pending:
        about = link.request("call.show", {"call": ident, "limit": 1})["call"]
    return about


def _told(about: dict[str, Any]) -> Sequence[Line]:
    name = f"{about['call']} {title(about)}: "
    if not is_over(about):
        return [(name, (f"not over yet, {done(about)} inputs", "warning"))]
    spent = exact(max(about["finished_ms"] - about["created_ms"], 0))
    style = "error" if about["state"] in FAILED else "add" if about["state"] == "returned" else "warning"
    return [(name, (about["state"].replace("_", " "), style), f", {counts(about)}, in {spent}")]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _date(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))
