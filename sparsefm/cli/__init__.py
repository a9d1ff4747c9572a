"""The command line. Bad input ends in exit code 2 and one line on stderr.

`arguments` says what may be typed; `fitting` fits, `using` is the other commands; `tables` reads and shows, `roles`
turns columns into encoders, `judging` says how good predictions are.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from .arguments import make_parser

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 2 for input that is missing or bad, 130 after Ctrl-C.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process if not given.

    Raises
    ------
    SystemExit
        With code 2 for arguments that cannot be parsed, with 0 after --help and --version.

    Examples
    --------
    >>> from sparsefm.cli import main
    >>> main(["quickstart", "--data", "ml-100k.zip"])  # doctest: +SKIP
    0
    """
    args = make_parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a title the terminal cannot show is no bad input
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say("warning", message)
            args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, TypeError, OSError, ImportError) as error:
        _say("error", error)
        return 2
    except KeyboardInterrupt:
        _say("error", "interrupted; nothing was written")
        return 130
    return 0


def _say(what: str, message: Any) -> None:
    print(f"sparsefm: {what}: {' '.join(str(message).split())}", file=sys.stderr)
