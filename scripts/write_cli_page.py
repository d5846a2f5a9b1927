"""Write docs/guide/cli.md from the commands themselves; a test compares the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from slipway.cli.commands import COMMANDS, cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "guide" / "cli.md"
HEAD = """# The command line

Made from the commands' own help by `make docs`.

Exit codes: 0 when all went well, 1 for an error, 2 for wrong usage (and for changes, with `plan --exit-code`). Errors
are told on stderr. Colours and moving bars are for terminals only, and `NO_COLOR=1` turns colours off. `SLIPWAY_HOME`
says where the engine keeps everything; `~/.slipway` where nothing is said.
"""


def page() -> str:
    context = click.Context(cli, info_name="slipway", help_option_names=["-h", "--help"])
    parts = [HEAD]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None, f"{name} is in the table"
        parts += sections(command, f"slipway {name}", context)
    return "\n".join(parts)


def sections(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    """The help of a command, then those of its sub-commands."""
    context = click.Context(command, info_name=name.split()[-1], parent=parent, max_content_width=100)
    yield f"## {name}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            assert found is not None, f"{sub} is listed"
            yield from sections(found, f"{name} {sub}", context)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
