"""What may be typed."""

from __future__ import annotations

import argparse
from textwrap import fill
from typing import Any, NoReturn

import sparsefm

from ..quickstart import quickstart
from .fitting import fit
from .roles import ROLES
from .tables import LAYOUTS
from .using import explain, info, predict, recommend

__all__ = ["make_parser"]

_EXAMPLES = {
    "": """\
  sparsefm quickstart                                                see it work, on ratings that are made up
  sparsefm fit ratings.csv --target rating -o model.sfm              fit a model to a table of your own
  sparsefm predict model.sfm new.csv -o predictions.csv              use it
  sparsefm recommend model.sfm --user 42 -k 10                       the best items for a user
  sparsefm COMMAND --help                                            examples of each command
""",
    "quickstart": """\
  sparsefm quickstart --data ml-100k.zip            four models on MovieLens 100K, and ten films for a user
  sparsefm quickstart --data ml-1m --user 42        any MovieLens folder, zip or wheel; recommend to user 42
  sparsefm quickstart --generated --out /tmp/trial  ratings made up in the same layout
""",
    "fit": """\
  sparsefm fit ratings.csv --target rating -o model.sfm
  sparsefm fit ratings.csv --join movies.csv --target rating --by-time timestamp --solver mcmc -o model.sfm
  sparsefm fit train.txt --format criteo --early-stopping --metric auc --model ffm -o clicks.sfm
  sparsefm fit train.parquet --target label --id user --id item --number price --ignore note -o model.sfm
  sparsefm fit train.libsvm --task classification --holdout test.libsvm -o model.sfm
  sparsefm fit events.csv --task ranking --by-time timestamp -o ranker.sfm
""",
    "predict": """\
  sparsefm predict model.sfm new.csv                               a table in a terminal, tab-separated to a pipe
  sparsefm predict model.sfm new.csv --keep user_id,item_id -o predictions.csv
  sparsefm predict model.sfm test.csv --target rating -o out.csv   and how good they are, on stderr
  sparsefm predict posterior.sfm new.csv --std                     with standard deviations, of a model fitted by mcmc
""",
    "recommend": """\
  sparsefm recommend model.sfm --user 42 --user 7 -k 5
  sparsefm recommend model.sfm --user 42 --items movies.csv --show title --exclude ratings.csv
  sparsefm recommend model.sfm --users users.csv --items movies.csv -o lists.parquet
  sparsefm recommend ranker.sfm --user 42 --json
""",
    "explain": """\
  sparsefm explain model.sfm new.csv                      what the first row's score is made of
  sparsefm explain model.sfm new.csv --row 0 --row 17 --top 5
  sparsefm explain model.sfm test.csv --fields            how much each field makes scores differ
  sparsefm explain model.sfm new.csv --plot why.png       as a picture
""",
    "info": """\
  sparsefm info model.sfm
  sparsefm info model.sfm --json | python -m json.tool
""",
}


class _Parser(argparse.ArgumentParser):
    """argparse, without the usage in front of each error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The whole command line; what it parses has `run`, a function of itself."""
    parser = _Parser(prog="sparsefm", description="Factorization machines on sparse data.", **_shape(""))
    parser.add_argument("--version", action="version", version=f"sparsefm {sparsefm.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, help: str, description: str, run: Any) -> argparse.ArgumentParser:
        command = subparsers.add_parser(name, help=help, description=fill(description), **_shape(name))
        command.set_defaults(run=run)
        return command

    _quickstart(
        add(
            "quickstart",
            "compare models on MovieLens, save one and recommend with it",
            "Compare four models on MovieLens over five folds, save the last and recommend with it.",
            lambda args: quickstart(args.data, out=args.out, user=args.user),
        )
    )
    _fit(
        add(
            "fit",
            "fit a model to a table and save it",
            "Fit a model to a table and save it. What the columns are is guessed and printed; a tenth of the rows is "
            "held out to say how good the model is.",
            fit,
        )
    )
    _predict(add("predict", "predict rows of a table", "Predict each row of a table.", predict))
    _recommend(
        add(
            "recommend",
            "the best items for users",
            "The items with the highest scores for each user, exactly: by tables of users and items, or by ids.",
            recommend,
        )
    )
    _explain(
        add(
            "explain",
            "what a score is made of",
            "The parts that add up to the score of a row, by field, or how much each field makes scores differ.",
            explain,
        )
    )
    described = add("info", "what is in a model file", "What is in a model file.", info)
    described.add_argument("model", metavar="MODEL", help="file that fit wrote")
    described.add_argument("--json", action="store_true", help="as one JSON object")
    return parser


def _shape(command: str) -> dict[str, Any]:
    epilog = f"examples:\n{_EXAMPLES[command]}"
    return {"epilog": epilog, "formatter_class": argparse.RawDescriptionHelpFormatter}


def _quickstart(command: argparse.ArgumentParser) -> None:
    source = command.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="PATH", help="folder, zip or wheel that holds MovieLens, in any layout")
    source.add_argument("--generated", action="store_true", help="make ratings up (the default without --data)")
    command.add_argument("--out", metavar="DIR", default="out", help="folder for model and picture (default: out)")
    command.add_argument("--user", metavar="ID", help="whom to recommend to (default: the first user in the data)")


def _fit(command: argparse.ArgumentParser) -> None:
    _add_table(command, "rows to fit to")
    command.add_argument("-o", "--out", metavar="MODEL", required=True, help="model file to write")
    command.add_argument("--target", metavar="COLUMN", help="what is to be predicted (default: guessed by its name)")
    command.add_argument("--weight", metavar="COLUMN", help="weights of the rows")
    roles = command.add_argument_group("columns", "What is not named here is guessed; several: A,B or the flag again.")
    for role, (_, what) in ROLES.items():
        roles.add_argument(f"--{role}", metavar="COLUMN", action="append", default=[], help=what)
    roles.add_argument("--ignore", metavar="COLUMN", action="append", default=[], help="not read")
    model = command.add_argument_group("model")
    tasks = ("regression", "classification", "ordinal", "ranking")
    model.add_argument("--task", choices=tasks, help="(default: guessed from the target)")
    kinds = ("fm", "linear", "ffm", "fwfm")
    model.add_argument("--model", choices=kinds, default="fm", help="plain, linear, field-aware, field-weighted (fm)")
    model.add_argument("--order", type=int, metavar="M", help="features that meet at once, of an fm (2)")
    model.add_argument("--factors", type=int, metavar="K", help="numbers in a feature's vector (16; 32 of a ranking)")
    model.add_argument("--solver", metavar="NAME", help="adagrad, sgd, adam, ftrl, als, mcmc, auto; warp, bpr, ...")
    model.add_argument("--epochs", type=int, metavar="N", help="passes over the rows, of mcmc draws to keep")
    model.add_argument("--learning-rate", type=float, metavar="X", help="step of a solver that takes steps")
    model.add_argument("--l2", type=float, metavar="X", help="penalty of the factors")
    for side in ("user", "item"):
        what = f"ids of the {side}s, of a ranking (default: by its name)"
        model.add_argument(f"--{side}-column", metavar="COLUMN", help=what)
    judging = command.add_argument_group("judging")
    what = "share of the rows to judge by, or a file of others; 0: none (0.1)"
    judging.add_argument("--holdout", metavar="SHARE|FILE", default="0.1", help=what)
    judging.add_argument("--by-time", metavar="COLUMN", help="hold out the latest rows instead of any")
    judging.add_argument(
        "--early-stopping", action="store_true", help="stop where the held-out rows say, keep the best"
    )
    judging.add_argument("--metric", metavar="NAME", help="that early stopping watches: loss, rmse, mae, auc, log_loss")
    running = command.add_argument_group("running")
    running.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same model (0)")
    running.add_argument("--threads", type=int, metavar="N", help="(default: all cores)")
    running.add_argument("--quiet", action="store_true", help="no progress bar")
    running.add_argument("--json", action="store_true", help="the report as one JSON object")


def _predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="file that fit wrote")
    _add_table(command, "rows to predict")
    command.add_argument("--keep", metavar="COLUMNS", help="columns to repeat beside the predictions, A,B")
    command.add_argument("--std", action="store_true", help="standard deviations too, of a model fitted by mcmc")
    command.add_argument("--target", metavar="COLUMN", help="compare with this column and say how good, on stderr")
    _add_output(command)


def _recommend(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="file that fit wrote")
    whom = command.add_mutually_exclusive_group(required=True)
    whom.add_argument("--user", metavar="ID", action="append", help="a user's id; several: the flag again")
    whom.add_argument("--users", metavar="FILE", help="table with a row a request: the user and context columns")
    command.add_argument("--items", metavar="FILE", help="table with a row an item (default: all the model knows)")
    command.add_argument("--exclude", metavar="FILE", help="table of (user, item) pairs not to show")
    command.add_argument("-k", type=int, default=10, metavar="N", help="length of a list (10)")
    command.add_argument("--show", metavar="COLUMNS", help="columns of --items to show beside, A,B")
    command.add_argument("--user-column", metavar="COLUMN", help="ids of the users (default: by its name)")
    command.add_argument("--item-column", metavar="COLUMN", help="ids of the items (default: by its name)")
    command.add_argument("--label", metavar="CLASS", help="of several classes, the one that is wanted")
    _add_output(command)


def _explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="file that fit wrote")
    _add_table(command, "rows to explain")
    command.add_argument("--row", type=int, action="append", metavar="N", help="which rows, from 0; the flag again (0)")
    command.add_argument("--fields", action="store_true", help="importance of fields and pairs, over all rows")
    command.add_argument("--columns", action="store_true", help="by encoded column instead of by field")
    command.add_argument("--top", type=int, default=10, metavar="N", help="largest parts shown (10)")
    command.add_argument("--label", metavar="CLASS", help="of several classes, the one whose score it is")
    command.add_argument("--plot", metavar="PNG", help="draw it too")
    _add_output(command)


def _add_table(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("data", metavar="DATA", nargs="+", help=f"{what}: files of one layout, read in this order")
    command.add_argument("--format", choices=LAYOUTS, help="(default: by the file's name)")
    what = "table whose columns are added, by the columns both have; the flag again for several"
    command.add_argument("--join", metavar="FILE", action="append", default=[], help=what)


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--out", metavar="FILE", help="write to this .csv, .tsv or .parquet file")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
