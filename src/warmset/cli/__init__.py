"""
The command ``warmset``; nothing here is imported by the rest of the package.

`click` and `rich` come with the extra ``cli``, so this module must import without them and say so.
"""

from __future__ import annotations

import sys

from .exit_codes import BAD_FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_EXTRA_PACKAGES = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: The words after the command's name; None takes those of the process.

    Returns:
        The exit status; `exit_codes` lists them.
    """
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ModuleNotFoundError as error:
        # Something else that is missing is a broken installation, which the extra does not mend.
        if error.name is None or error.name.partition(".")[0] not in _EXTRA_PACKAGES:
            raise
        print(
            "warmset: the command line needs the 'cli' extra: pip install \"warmset[cli]\"",
            file=sys.stderr,
        )
        return BAD_FILE
    from .app import run_app

    return run_app(arguments)
