"""``warmset completion``: prints the script that completes commands, options and live names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .exit_codes import PASSED
from .refused import Refused

_EPILOG = """
\b
Put into the file that your shell reads at its start:
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

    It completes commands, options, files, and the PID or NAME of what is served just now.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise Refused(f"click does not know how to complete in {shell}")
    click.echo(kind(context.find_root().command, {}, "warmset", "_WARMSET_COMPLETE").source())
    return PASSED
