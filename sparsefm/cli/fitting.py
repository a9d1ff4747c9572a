"""`sparsefm fit`: a table in, a model file and a report out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from .. import splits
from ..estimators import (
    FFMClassifier,
    FFMRegressor,
    FMClassifier,
    FMOrdinal,
    FMRanker,
    FMRegressor,
    FwFMClassifier,
    FwFMRegressor,
)
from ..evaluation import evaluate_ranking
from ..solvers import RANKERS, SOLVERS, make_solver
from .judging import judge
from .roles import ROLES, Choice, as_dates, choose, encoder_of, guess_side, guess_target, names_in
from .tables import check_output, expect, is_matrix, plain, read_matrix, read_table

__all__ = ["fit"]

_MODELS = {
    ("fm", "regression"): FMRegressor,
    ("fm", "classification"): FMClassifier,
    ("fm", "ordinal"): FMOrdinal,
    ("ffm", "regression"): FFMRegressor,
    ("ffm", "classification"): FFMClassifier,
    ("fwfm", "regression"): FwFMRegressor,
    ("fwfm", "classification"): FwFMClassifier,
}

# ----------------------------------------------------------------------------------------------------- fit


class _Rows(NamedTuple):
    """Rows to fit to, or to judge by."""

    X: Any  # a frame, or CSR
    y: Any
    weight: Any  # None: all alike


def fit(args: argparse.Namespace) -> None:
    """Reads, guesses what the columns are, holds rows out, fits, judges, saves, and says so."""
    check_output(args.out, ())
    report = _fit_ranking(args) if args.task == "ranking" else _fit_rows(args)
    size = Path(args.out).stat().st_size
    if args.json:
        print(json.dumps(report | {"file": args.out, "bytes": size}, default=plain))
    else:
        print(f"Wrote {args.out} ({size / 1e6:.2f} MB).")


def _fit_rows(args: argparse.Namespace) -> dict[str, Any]:
    matrix = is_matrix(args.data, args.format)
    rows, choices, fields = _read_matrix_rows(args) if matrix else _read_table_rows(args)
    task = args.task or _task_of(rows.y)
    if task != "classification" and not pd.api.types.is_numeric_dtype(rows.y):
        raise ValueError(f"the target is text, such as {rows.y.iloc[0]!r}: --task classification, not {task}")
    kept, held = _hold_out(args, rows, None if matrix else choices)
    options = _options(args, task) | ({"fields": fields} if matrix else {"encoder": encoder_of(choices)})
    model = _MODELS[_kind(args, task)](**options)
    if not args.json:
        _print_rows(args, rows, task, choices)

    began = time.perf_counter()
    watched = {} if held is None or not hasattr(model, "early_stopping") else {"eval_set": _watched(held)}
    weights = {} if kept.weight is None else {"sample_weight": kept.weight}
    model.fit(kept.X, kept.y, **weights, **watched)
    seconds = time.perf_counter() - began
    model.save(args.out)
    quality = {} if held is None else judge(model, held.X, held.y, kept.y)
    report = _report(model, choices, len(kept.y), seconds, quality, 0 if held is None else len(held.y))
    if not args.json:
        _print_fit(args, report)
    return {"task": task} | report


def _fit_ranking(args: argparse.Namespace) -> dict[str, Any]:
    if is_matrix(args.data, args.format):
        raise ValueError("a ranking is fitted to a table with a row an interaction; give a .csv or .parquet file")
    if args.model != "fm" or args.order is not None or args.target is not None:
        raise ValueError("--task ranking takes no --model, --order or --target: each row is an interaction")
    frame = read_table(args.data, args.format)
    user = args.user_column or guess_side([*frame.columns], "user")
    item = args.item_column or guess_side([*frame.columns], "item")
    for column in (user, item, *([args.weight] if args.weight else [])):
        expect(frame, column, "--user-column, --item-column and --weight name columns")
    pairs = frame[[user, item]].assign(**({"weight": frame[args.weight]} if args.weight else {}))
    sides, choices, of_items = _sides(args, user, item)
    kept, held = _hold_out_pairs(args, frame, pairs)
    options: dict[str, Any] = {"user": user, "item": item, "early_stopping": args.early_stopping}
    if len(choices) > 2:
        options |= {"encoder": encoder_of(choices), "item_columns": [item, *of_items]}
    model = FMRanker(solver=_solver(args, RANKERS, "warp"), **options, **_typed(args))
    if not args.json:
        print(f"Read {len(frame):,} rows; each is an interaction, whatever else it says.")
        _print_choices(choices)

    began = time.perf_counter()
    model.fit(kept, **sides, eval_set=held if args.early_stopping else None)
    seconds = time.perf_counter() - began
    model.save(args.out)
    quality = {}
    if held is not None:
        found = evaluate_ranking(model, held, k=10, train=kept, user=user, item=item).iloc[0]
        quality = {f"{name}@10": float(found[name]) for name in ("ndcg", "recall", "hit_rate")}
    report = _report(model, choices, len(kept), seconds, quality, 0 if held is None else len(held))
    if not args.json:
        _print_fit(args, report)
    return {"task": "ranking"} | report


def _sides(args: argparse.Namespace, user: str, item: str) -> tuple[dict[str, Any], list[Choice], list[str]]:
    """Tables of users and items among those joined, what their columns are, and which describe items."""
    sides: dict[str, Any] = {"users": None, "items": None}
    for path in args.join:
        table = read_table([path])
        if (user in table.columns) == (item in table.columns):
            raise ValueError(f"--join {path}: a table of users has the column {user}, of items {item}")
        sides["users" if user in table.columns else "items"] = table
    choices = [Choice(column, "id", ROLES["id"][0](), True, "") for column in (user, item)]
    of_items: list[str] = []
    for name, key in (("users", user), ("items", item)):
        table = sides[name]
        if table is None or len(table.columns) == 1:
            continue
        given = {
            role: [flag for flag in names_in(flags) if flag in table.columns or flag.split(":")[0] in table.columns]
            for role, flags in _given(args).items()
        }
        found = choose(table, given, [key])
        sides[name] = as_dates(table, [choice.column for choice in found if choice.role == "date"])
        choices += found
        of_items += [choice.column for choice in found if name == "items" and choice.encoder is not None]
    unknown = {flag.split(":")[0] for flags in _given(args).values() for flag in names_in(flags)}
    unknown -= {choice.column for choice in choices}
    if unknown:
        raise ValueError(f"no table of users or items has a column {min(unknown)!r}; join it by --join FILE")
    return sides, choices, of_items


def _hold_out_pairs(args: argparse.Namespace, frame: pd.DataFrame, pairs: pd.DataFrame) -> tuple[Any, Any]:
    share = _share(args.holdout)
    if share is None:
        held = read_table([args.holdout], args.format)
        for column in pairs.columns[:2]:
            expect(held, column, f"--holdout {args.holdout} needs the ids")
        return pairs, held
    if share == 0:
        return pairs, None
    if args.by_time is None:
        return splits.random(pairs, test_size=share, random_state=args.seed)
    kept, held = splits.by_time(_times(frame, args.by_time), test_size=share)
    return pairs.loc[kept.index], pairs.loc[held.index]


def _read_matrix_rows(args: argparse.Namespace) -> tuple[_Rows, list[Choice], Any]:
    named = [role for role in (*ROLES, "ignore", "join") if getattr(args, role)]
    named += [flag for flag in ("target", "weight", "by_time") if getattr(args, flag) is not None]
    if named:
        raise ValueError(f"--{named[0].replace('_', '-')} names a column, and {args.data[0]} has none with a name")
    X, y, fields = read_matrix(args.data, args.format)
    return _Rows(X, pd.Series(y), None), [], fields


def _read_table_rows(args: argparse.Namespace) -> tuple[_Rows, list[Choice], None]:
    frame = read_table(args.data, args.format, args.join)
    target = args.target or guess_target(frame)
    for column in (target, *([args.weight] if args.weight else [])):
        expect(frame, column, "--target and --weight name columns")
    choices = choose(frame, _given(args), [target, *([args.weight] if args.weight else [])])
    return _split_off(frame, target, args.weight, choices), choices, None


def _given(args: argparse.Namespace) -> dict[str, list[str]]:
    """The columns named for each role."""
    return {role: getattr(args, role) for role in (*ROLES, "ignore")}


def _split_off(frame: pd.DataFrame, target: str, weight: str | None, choices: Sequence[Choice]) -> _Rows:
    gaps = int(frame[target].isna().sum())
    if gaps:
        raise ValueError(f"{gaps:,} of {len(frame):,} rows have no {target}; leave them out, there is nothing to learn")
    y = pd.Series(frame[target].to_numpy(), index=frame.index, name=target)  # without pandas' own dtypes
    frame = as_dates(frame, [choice.column for choice in choices if choice.role == "date"])
    return _Rows(frame, y, None if weight is None else frame[weight].to_numpy())


def _hold_out(args: argparse.Namespace, rows: _Rows, choices: Sequence[Choice] | None) -> tuple[_Rows, _Rows | None]:
    share = _share(args.holdout)
    if share is None and choices is None:
        X, y, _ = read_matrix([args.holdout], args.format, n_features=rows.X.shape[1])
        return rows, _Rows(X, pd.Series(y), None)
    if share is None:
        assert choices is not None
        frame = read_table([args.holdout], args.format, args.join)
        expect(frame, str(rows.y.name), f"--holdout {args.holdout} needs the target")
        return rows, _split_off(frame, str(rows.y.name), args.weight, choices)
    if share == 0:
        return rows, None
    if args.by_time:
        kept, held = splits.by_time(_times(rows.X, args.by_time), test_size=share)
    else:
        kept, held = splits.random(pd.DataFrame(index=range(len(rows.y))), test_size=share, random_state=args.seed)
    return _take(rows, kept.index.to_numpy()), _take(rows, held.index.to_numpy())


def _times(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """When each row was."""
    expect(frame, column, "--by-time names a column")
    numeric = pd.api.types.is_numeric_dtype(frame[column])
    return pd.DataFrame({"timestamp": (frame if numeric else as_dates(frame, [column]))[column].to_numpy()})


def _take(rows: _Rows, which: Any) -> _Rows:
    X = rows.X.iloc[which] if isinstance(rows.X, pd.DataFrame) else rows.X[which]
    return _Rows(X, rows.y.iloc[which], None if rows.weight is None else rows.weight[which])


def _watched(held: _Rows) -> tuple[Any, ...]:
    return (held.X, held.y) if held.weight is None else tuple(held)


def _share(text: str) -> float | None:
    """A share of the rows, or None for the name of a file."""
    try:
        share = float(text)
    except ValueError:
        if not Path(text).exists():
            raise ValueError(f"--holdout must be a share of the rows, 0 to 1, or a file; there is no {text}") from None
        return None
    if not 0 <= share < 1:
        raise ValueError(f"--holdout must be a share of the rows, at least 0 and below 1; got {text}")
    return share


def _task_of(y: Any) -> str:
    numeric = pd.api.types.is_numeric_dtype(y) and not pd.api.types.is_bool_dtype(y)
    return "regression" if numeric and y.nunique() > 2 else "classification"


def _kind(args: argparse.Namespace, task: str) -> tuple[str, str]:
    kind = ("fm" if args.model == "linear" else args.model, task)
    if kind not in _MODELS or (args.model == "linear" and task == "ordinal"):
        raise ValueError(f"--task ordinal is fitted by --model fm alone, got {args.model}")
    return kind


def _typed(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments that every estimator has, of those typed; all else has its default."""
    options: dict[str, Any] = {"random_state": args.seed, "n_threads": args.threads}
    options["verbose"] = int(sys.stderr.isatty() and not args.quiet)
    typed = {"n_factors": args.factors, "l2_factors": args.l2, "eval_metric": args.metric}
    return options | {name: value for name, value in typed.items() if value is not None}


def _options(args: argparse.Namespace, task: str) -> dict[str, Any]:
    if args.order is not None and args.model != "fm":
        raise ValueError(f"--order is of --model fm, got --model {args.model}")
    if task == "ordinal" and (args.order, args.l2, args.metric, args.early_stopping) != (None, None, None, False):
        raise ValueError("--task ordinal draws from its posterior: no --order, --l2, --metric or --early-stopping")
    options = _typed(args) | {"solver": _solver(args, SOLVERS, "mcmc" if task == "ordinal" else "adagrad")}
    if args.model == "linear" or args.order is not None:
        options["order"] = 1 if args.model == "linear" else args.order
    return options | ({"early_stopping": True} if args.early_stopping else {})


def _solver(args: argparse.Namespace, known: dict[str, Any], default: str) -> Any:
    name = args.solver or default
    solver = make_solver(name, known)
    options = solver.get_params()
    if args.epochs is not None:
        options["max_iter" if "max_iter" in options else "n_samples"] = args.epochs
    if args.learning_rate is not None:
        if "learning_rate" not in options:
            raise ValueError(f"--learning-rate: {name} takes no steps of a given length")
        options["learning_rate"] = args.learning_rate
    return type(solver)(**options)


# ------------------------------------------------------------------------------------------------- the report


def _report(
    model: Any, choices: Sequence[Choice], n: int, seconds: float, quality: dict[str, float], n_held: int
) -> dict[str, Any]:
    params = model.params_[0] if isinstance(model.params_, tuple) else model.params_
    return {
        "model": type(model).__name__,
        "columns": [
            {"column": choice.column, "role": choice.role, "given": choice.given, "note": choice.why}
            for choice in choices
        ],
        "rows": n,
        "features": params.n_features,
        "epochs": len(model.history_),
        "seconds": seconds,
        "held_out_rows": n_held,
        "held_out": quality,
    }


def _print_rows(args: argparse.Namespace, rows: _Rows, task: str, choices: Sequence[Choice]) -> None:
    what = f"{rows.X.shape[1]:,} columns" if not choices else f"target {rows.y.name}"
    guessed = "" if args.task else ", guessed"
    values = rows.y.nunique()
    span = f"{rows.y.min():g} to {rows.y.max():g}" if pd.api.types.is_numeric_dtype(rows.y) else f"{values} classes"
    print(f"Read {len(rows.y):,} rows, {what} ({span}; {task}{guessed}).")
    _print_choices(choices)


def _print_choices(choices: Sequence[Choice]) -> None:
    if choices:
        widths = [max(len(choice.column) for choice in choices), max(len(choice.role) for choice in choices)]
        for choice in choices:
            how = "as said" if choice.given else "guessed"
            line = f"  {choice.column.ljust(widths[0])}  {choice.role.ljust(widths[1])}  {how}"
            print(line + (f": {choice.why}" if choice.why else ""))


def _print_fit(args: argparse.Namespace, report: dict[str, Any]) -> None:
    print(
        f"Fitted {report['model']} to {report['rows']:,} rows, {report['features']:,} encoded columns, "
        f"{report['epochs']} passes, {report['seconds']:.2f} s."
    )
    if report["held_out"]:
        if _share(args.holdout) is None:
            how = f"of {args.holdout}"
        else:
            how = f"the latest by {args.by_time}" if args.by_time else "drawn at random"
        chose = "; they chose the epoch too" if args.early_stopping else ""
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in report["held_out"].items())
        print(f"Held out {report['held_out_rows']:,} rows ({how}{chose}): {figures}.")
