"""Completion of commands and options in shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete potd's commands.

    \b
    Examples:
        potd completion bash > ~/.local/share/bash-completion/completions/potd
        potd completion zsh > "${fpath[1]}/_potd"
        potd completion fish > ~/.config/fish/completions/potd.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, f"click completes no {shell}"
    click.echo(kind(context.find_root().command, {}, "potd", "_POTD_COMPLETE").source())
