"""``warmset completion``: prints a shell's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .command_error import CommandError
from .exit_codes import PASSED
from .output import echo_own

_EPILOG = """
\b
Add the line for your shell to its startup file:
  bash  eval "$(warmset completion bash)"     ~/.bashrc
  zsh   eval "$(warmset completion zsh)"      ~/.zshrc
  fish  warmset completion fish | source      ~/.config/fish/config.fish
"""


@click.command(epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """
    Print the completion script of a shell.

    It completes commands, options, files, and the PID or NAME of registries that are being served.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandError(f"click has no completion for {shell}")
    source = kind(context.find_root().command, {}, "warmset", "_WARMSET_COMPLETE").source()
    echo_own(f"{source}\n")
    return PASSED
