"""The command line. Bad input ends in exit code 2 and one line on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import sparsefm

from .quickstart import quickstart

__all__ = ["main"]

_EXAMPLES = """\
examples:
  sparsefm quickstart --data ml-100k.zip            four models on MovieLens 100K, and ten films for a user
  sparsefm quickstart --data ml-1m --user 42        any MovieLens folder, zip or wheel; recommend to user 42
  sparsefm quickstart --generated --out /tmp/trial  ratings made up in the same layout
"""


class _Parser(argparse.ArgumentParser):
    """argparse, without the usage in front of each error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> _Parser:
    shape: dict[str, Any] = {"epilog": _EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = _Parser(prog="sparsefm", description="Factorization machines on sparse data.", **shape)
    parser.add_argument("--version", action="version", version=f"sparsefm {sparsefm.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser(
        "quickstart",
        help="compare models on MovieLens, save one and recommend with it",
        description="Compare four models on MovieLens over five folds, save the last and recommend with it.",
        **shape,
    )
    source = command.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="PATH", help="folder, zip or wheel that holds MovieLens, in any layout")
    source.add_argument("--generated", action="store_true", help="make ratings up (the default without --data)")
    command.add_argument("--out", metavar="DIR", default="out", help="folder for model and picture (default: out)")
    command.add_argument("--user", metavar="ID", help="whom to recommend to (default: the first user in the data)")
    command.set_defaults(run=lambda args: quickstart(args.data, out=args.out, user=args.user))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, or 2 for input that is missing or bad.

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
    args = _parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a title the terminal cannot show is no bad input
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"sparsefm: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
