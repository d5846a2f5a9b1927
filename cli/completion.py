"""`slipway completion`."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete slipway's commands and options.

    \b
    Examples:
      slipway completion bash >> ~/.bashrc
      slipway completion zsh > ~/.zfunc/_slipway
      slipway completion fish > ~/.config/fish/completions/slipway.fish
    """
    from click.shell_completion import get_completion_class

    from .commands import cli

    found = get_completion_class(shell)
    assert found is not None, "click has a class for each of the choices"
    click.echo(found(cli, {}, "slipway", "_SLIPWAY_COMPLETE").source())
