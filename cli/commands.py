"""The commands of `slipway`: a group whose commands are imported when they are used, so that `--help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

# name -> (module, one line for the list of commands). In the order in which a newcomer meets them.
COMMANDS: dict[str, tuple[str, str]] = {
    "plan": ("plan", "Show what an app would change, and why."),
    "apply": ("apply", "Make a plan so: build what changed, put the app in force."),
    "run": ("run", "Run an app's entrypoint or one of its functions."),
    "call": ("call", "Call a function of a deployed app; see to calls that were made."),
    "why": ("why", "Say why a node of the plan changes, or why it doesn't."),
    "graph": ("graph", "Draw an app's plan graph."),
    "app": ("app", "See the deployed apps and their logs."),
    "shell": ("shell", "Open a shell in a fresh container of a function."),
    "container": ("container", "See the containers that run, look into one, end one."),
    "destroy": ("destroy", "Take an app out of force."),
    "gc": ("gc", "Free what no deployment needs."),
    "status": ("engine", "Show the engine of this home."),
    "up": ("engine", "Run the engine in the foreground."),
    "down": ("engine", "End the engine."),
    "config": ("config", "Show the settings that are in force, and who said each."),
    "doctor": ("doctor", "See what works on this machine, what doesn't, and what to do."),
    "completion": ("completion", "Print the completion script of a shell."),
}


def close_to(word: str, known: Sequence[str]) -> str:
    """' Did you mean …?' where something is close, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


class Commands(click.Group):
    """Commands by name, each imported from its own file when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found = getattr(import_module(f"slipway.cli.{COMMANDS[name][0]}"), name)
        assert isinstance(found, click.Command), f"{name} is a command"
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            ctx.fail(f"There is no command {name!r}.{close_to(name, list(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, from the table instead of from every command's file."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from slipway.dsl.version import VERSION

        python = ".".join(map(str, sys.version_info[:3]))
        click.echo(f"slipway {VERSION}, Python {python}")
        ctx.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Modal's programming model on machines that you own.

    \b
    Declare an app in a Python file, then:
      slipway plan app.py       see what would change
      slipway apply             make it so
      slipway run app.py        run it
    """


def run(argv: list[str] | None) -> int:
    """Run a command; returns its exit code, 0 where it says none."""
    try:
        value = cli.main(args=argv, prog_name="slipway", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    return value if isinstance(value, int) else 0
