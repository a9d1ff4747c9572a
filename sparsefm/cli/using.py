"""What is done with a model file: `sparsefm predict`, `recommend`, `explain` and `info`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier

from ..encoders import Date, FrameEncoder
from ..estimators import FMRanker, load
from ..persistence import replacing
from ..solvers import RANKERS, SOLVERS, make_solver
from .judging import judge
from .roles import as_dates, guess_side, names_in
from .tables import check_output, expect, is_matrix, plain, read_matrix, read_table, show

__all__ = ["explain", "info", "predict", "recommend"]

# -------------------------------------------------------------------------------------------------- predict


def predict(args: argparse.Namespace) -> None:
    """A prediction for each row."""
    check_output(args.out)
    model: Any = load(args.model)
    if isinstance(model, FMRanker):
        raise ValueError(f"{args.model} is a ranking: sparsefm recommend gives its lists")
    X, frame = _rows_for(model, args)
    out = pd.DataFrame(index=frame.index)
    for column in names_in(args.keep):
        expect(frame, column, "--keep names columns")
        out[column] = frame[column]
    if args.std:
        if getattr(model, "posterior_", None) is None or is_classifier(model):
            raise ValueError(f"--std needs a model of numbers fitted with --solver mcmc; {args.model} is none")
        out["prediction"], out["std"] = model.predict(X, return_std=True)
    else:
        out["prediction"] = model.predict(X)
    if is_classifier(model):
        p = model.predict_proba(X)
        names = ["probability"] if p.shape[1] == 2 else [f"probability_{label}" for label in model.classes_]
        for i, name in enumerate(names):
            out[name] = p[:, 1 if p.shape[1] == 2 else i]
    if args.target is not None:
        expect(frame, args.target, "--target names a column")
        found = judge(model, X, frame[args.target], frame[args.target])
        figures = ", ".join(f"{name} {value:.4f}" for name, value in found.items() if "_of_" not in name)
        print(f"{len(frame):,} rows: {figures}", file=sys.stderr)
    show(out, args.out, args.json)


def _rows_for(model: Any, args: argparse.Namespace) -> tuple[Any, pd.DataFrame]:
    """Rows as the model takes them, and the table they come from; of a matrix its labels alone."""
    encoder = model.encoder_
    if is_matrix(args.data, args.format):
        if encoder is not None:
            columns = ", ".join(map(str, encoder.feature_names_in_))
            raise ValueError(f"{args.model} reads a table with the columns {columns}; {args.data[0]} has no names")
        X, y, _ = read_matrix(args.data, args.format, n_features=model.n_features_in_)
        return X, pd.DataFrame({"label": y})
    if encoder is None:
        raise ValueError(
            f"{args.model} was fitted to a matrix of {model.n_features_in_:,} columns without names; give a libsvm "
            "file, not a table"
        )
    frame = read_table(args.data, args.format, args.join)
    for column in encoder.feature_names_in_:
        expect(frame, column, f"{args.model} reads {', '.join(encoder.feature_names_in_)} (--join adds columns)")
    return as_dates(frame, _dates(encoder)), frame


def _dates(encoder: FrameEncoder) -> list[str]:
    return [name for name, column in encoder.columns_.items() if isinstance(column.encoder, Date)]


# ------------------------------------------------------------------------------------------------ recommend


def recommend(args: argparse.Namespace) -> None:
    """The k best items for each user."""
    check_output(args.out)
    model: Any = load(args.model)
    encoder = model.encoder_
    if encoder is None:
        raise ValueError(f"{args.model} was fitted to a matrix without names; recommend needs one fitted to a table")
    ranks = isinstance(model, FMRanker)
    user = args.user_column or (model.user if ranks else guess_side([*encoder.columns_], "user"))
    item = args.item_column or (model.item if ranks else guess_side([*encoder.columns_], "item"))
    for flag, column in (("user", user), ("item", item)):
        if column not in encoder.columns_:
            raise ValueError(f"--{flag}-column: the model reads no {column!r}, only {', '.join(encoder.columns_)}")
    if args.show is not None and args.items is None:
        raise ValueError("--show shows columns of --items; give that table")
    exclude = None if args.exclude is None else read_table([args.exclude])
    items: Any = None if args.items is None else _of_model(read_table([args.items]), encoder, item)
    by_id = ranks and args.users is None and items is None
    if args.users is not None:
        users = _of_model(read_table([args.users]), encoder, user)
    else:
        known = model.user_ids_ if ranks and model.user_ids_ is not None else encoder.columns_[user].vocabulary.levels
        users = pd.DataFrame({user: _ids(known, args.user, user)})
    if by_id:
        if exclude is not None:
            raise ValueError("--exclude goes with --items; by ids alone a ranking leaves out what the user met")
        found = model.recommend(users[user].tolist(), k=args.k)
    else:
        if items is None:
            items = _every_item(model, ranks, users, user, item)
        of_class = _class_of(model, args.label)
        found = model.recommend(users, items, k=args.k, user=user, item=item, exclude=exclude, **of_class)
    for column in names_in(args.show):
        expect(items, column, "--show names columns of --items")
        found[column] = items.set_index(item)[column].reindex(found[item]).to_numpy()
    show(found, args.out, args.json)


def _of_model(frame: pd.DataFrame, encoder: FrameEncoder, key: str) -> pd.DataFrame:
    expect(frame, key, "recommend needs the ids")
    return as_dates(frame, [column for column in _dates(encoder) if column in frame.columns])


def _ids(known: Any, typed: Sequence[str], what: str) -> list[Any]:
    """The ids as the model has them, of what was typed."""
    by_text = {str(value): value for value in known}
    for text in typed:
        if text not in by_text:
            raise ValueError(f"the model knows no {what} {text!r}; they look like {', '.join([*by_text][:5])}")
    return [by_text[text] for text in typed]


def _class_of(model: Any, typed: str | None) -> dict[str, Any]:
    """The class that is meant, as an argument."""
    if typed is None:
        return {}
    if not is_classifier(model):
        raise ValueError(f"--label is of models of classes; this one is {type(model).__name__}")
    return {"label": _ids(model.classes_, [typed], "class")[0]}


def _every_item(model: Any, ranks: bool, users: pd.DataFrame, user: str, item: str) -> pd.DataFrame:
    """All items the model knows, if their ids are all it wants to know of them."""
    others = [name for name in model.encoder_.feature_names_in_ if name != item and name not in users.columns]
    if others and not ranks:
        raise ValueError(
            f"the model also reads {', '.join(others)}: give those of items by --items FILE, of users by --users FILE"
        )
    levels = model.item_ids_ if ranks else model.encoder_.columns_[item].vocabulary.levels
    return pd.DataFrame({item: pd.Series(list(levels))})


# ---------------------------------------------------------------------------------------- explain and info


def explain(args: argparse.Namespace) -> None:
    """The parts of scores, or how much fields make scores differ."""
    check_output(args.out)
    check_output(args.plot, (".png",))
    model: Any = load(args.model)
    X, frame = _rows_for(model, args)
    of_class = _class_of(model, args.label)
    if args.fields:
        if args.row or args.columns:
            raise ValueError("--fields is of all rows together; leave out --row and --columns")
        if isinstance(model, FMRanker):
            raise ValueError("--fields is of models that predict rows; of a ranking explain rows of users and items")
        table = model.field_importance(X, **of_class)[: args.top]
    else:
        rows = args.row or [0]
        wrong = [row for row in rows if not 0 <= row < len(frame)]
        if wrong:
            raise ValueError(f"--row {wrong[0]}: there are rows 0 to {len(frame) - 1}")
        by = "column" if args.columns else None
        taken = X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]
        parts = model.explain(taken, by=by, **of_class)
        parts["row"] = np.asarray(rows)[parts["row"]]
        table = pd.concat([_largest(parts[parts["row"] == row], args.top) for row in dict.fromkeys(rows)])
    if args.plot is not None:
        from .. import plots

        if args.fields:
            ax = plots.field_importance(table, top=args.top)
        else:
            ax = plots.explanation(parts, top=args.top)
        figure: Any = ax.figure
        with replacing(args.plot) as file:
            figure.savefig(file, format="png", dpi=150)
    show(table, args.out, args.json)


def _largest(parts: pd.DataFrame, top: int) -> pd.DataFrame:
    """Intercept, the largest parts, what the others come to, and the score."""
    first, others = parts[: top + 1], parts[top + 1 :]
    ends = [] if others.empty else [(f"{len(others)} others", others["value"].sum())]
    ends.append(("score", parts["value"].sum()))
    row = parts["row"].iloc[0]
    last = pd.DataFrame([(row, name, "", "", value) for name, value in ends], columns=parts.columns)
    return pd.concat([first, last])


def info(args: argparse.Namespace) -> None:
    """What a model file holds."""
    model: Any = load(args.model)
    params = model.params_[0] if isinstance(model.params_, tuple) else model.params_
    options = {name: value for name, value in model.get_params(deep=False).items() if name not in ("encoder", "solver")}
    defaults = type(model)().get_params(deep=False)
    changed = {name: value for name, value in options.items() if not _same(value, defaults.get(name))}
    solver = make_solver(model.solver, RANKERS if isinstance(model, FMRanker) else SOLVERS)
    found: dict[str, Any] = {
        "file": args.model,
        "bytes": Path(args.model).stat().st_size,
        "model": type(model).__name__,
        "features": params.n_features,
        "factors": params.n_factors,
        "type": str(params.dtype),
        "solver": type(solver).__name__,
        "passes": len(model.history_),
    }
    for name in ("classes_", "levels_", "target_range_"):
        if hasattr(model, name):
            found[name.strip("_").replace("_", " ")] = np.asarray(getattr(model, name)).tolist()
    if getattr(model, "posterior_", None) is not None:
        draws = model.posterior_[0] if isinstance(model.posterior_, tuple) else model.posterior_
        found["draws"] = len(draws)
    if isinstance(model, FMRanker):
        found |= {"users": model.seen_.shape[0], "items": model.seen_.shape[1], "interactions": model.seen_.nnz}
    if changed:
        found["options"] = {name: value for name, value in changed.items() if name != "fields"}
    last = {key: value for key, value in model.history_[-1].items() if key in ("loss", "eval_loss", "eval_metric")}
    found["last pass"] = last
    encoder = model.encoder_
    columns = []
    if encoder is not None:
        sizes = np.bincount(encoder.fields_, minlength=len(encoder.field_names_))
        columns = [
            {"column": name, "encoder": type(column.encoder).__name__, "encoded columns": int(sizes[i])}
            for i, (name, column) in enumerate(encoder.columns_.items())
        ]
    if args.json:
        print(json.dumps(found | {"columns": columns}, default=plain))
        return
    for name, value in found.items():
        shown = ", ".join(f"{k} {_short(v)}" for k, v in value.items()) if isinstance(value, dict) else _short(value)
        print(f"{name:12}  {shown}")
    if columns:
        print()
        show(pd.DataFrame(columns), None, False)


def _same(one: Any, other: Any) -> bool:
    return one is other or bool(np.array_equal(one, other))


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value[:8])) + (f", ... ({len(value)})" if len(value) > 8 else "")
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
