"""
The command ``warmset``; the rest of the package does not import it.

`click` and `rich` belong to the ``cli`` extra, so this module must be importable without them and
report that they are missing.
"""

from __future__ import annotations

import sys

from .exit_codes import BAD_INPUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_EXTRA_PACKAGES = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: The arguments after the command's name; None for those of the process.

    Returns:
        The exit status; `exit_codes` lists them.
    """
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ModuleNotFoundError as error:
        # Any other missing module means a broken installation, which the extra would not repair.
        if error.name is None or error.name.partition(".")[0] not in _EXTRA_PACKAGES:
            raise
        print(
            "warmset: the command line needs the 'cli' extra: pip install \"warmset[cli]\"",
            file=sys.stderr,
        )
        return BAD_INPUT
    from .app import run_app

    return run_app(arguments)
