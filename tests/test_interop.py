"""Models of other libraries: the same scores and lists here, from text and arrays alone."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import sparsefm
from sparsefm import FMClassifier, FMRegressor
from sparsefm.interop import from_libfm, from_lightfm
from sparsefm.model import score

HEADS = ("#global bias W0", "#unary interactions Wj", "#pairwise interactions Vj,f")


def libfm_text(w0: float | None, w: Any, V: Any) -> str:
    """As libFM's saveModel writes it."""
    parts = [] if w0 is None else [HEADS[0], str(w0)]
    parts += [] if w is None else [HEADS[1], *map(str, w)]
    return "\n".join([*parts, HEADS[2], *(" ".join(map(str, row)) for row in V)]) + "\n"


def by_definition(w0: float, w: Any, V: Any, x: Any) -> float:
    pairs = sum(V[i] @ V[j] * x[i] * x[j] for i, j in combinations(range(len(x)), 2))
    return float(w0 + w @ x + pairs)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_text_model_of_libfm_scores_as_the_definition_says(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(0)
    w, V, X = rng.normal(size=5), rng.normal(size=(5, k)), rng.normal(size=(20, 5))
    (tmp_path / "m").write_text(libfm_text(-0.25, w, V))
    model = from_libfm(tmp_path / "m")
    assert isinstance(model, FMRegressor)
    expected = [by_definition(-0.25, w, V, x) for x in X]
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)
    cut = from_libfm(tmp_path / "m", target_range=(-1, 1))
    np.testing.assert_allclose(cut.predict(X), np.clip(expected, -1, 1), rtol=1e-12)
    classes = from_libfm(tmp_path / "m", task="classification")
    assert isinstance(classes, FMClassifier)
    np.testing.assert_allclose(classes.predict_proba(X)[:, 1], 1 / (1 + np.exp(-np.array(expected))), rtol=1e-10)
    assert set(classes.predict(X)) <= {-1.0, 1.0}
    model.save(tmp_path / "m.sfm")
    np.testing.assert_array_equal(sparsefm.load(tmp_path / "m.sfm").predict(X), model.predict(X))


@pytest.mark.parametrize("w0, w", [(None, None), (2.0, None), (None, [0.5, 0.25])])
def test_what_libfm_left_out_is_zero(tmp_path: Path, w0: float | None, w: list[float] | None) -> None:
    V = np.array([[1.0, 2.0], [3.0, 4.0]])
    (tmp_path / "m").write_text(libfm_text(w0, w, V))
    model = from_libfm(tmp_path / "m")
    assert (model.intercept_, model.coef_.tolist()) == (w0 or 0.0, w or [0.0, 0.0])
    np.testing.assert_array_equal(model.factors_, V)


GOOD = libfm_text(1.0, [0.5, 0.25], [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "line 1: the file ends without '#pairwise interactions Vj,f'"),
        (GOOD.split(HEADS[2])[0], "line 5: the file ends without '#pairwise"),
        ("1 2 3\n" + GOOD, "line 1: expected '#global bias W0' or .*, got '1 2 3'"),
        (GOOD.replace(HEADS[2], "#pairs"), "line 6: expected '#pairwise interactions Vj,f', got '#pairs'"),
        (HEADS[2] + "\n1\n" + HEADS[0] + "\n1\n", "line 3: expected numbers, got '#global bias W0'"),
        (GOOD + HEADS[2] + "\n1 2\n", "line 9: expected numbers, got '#pairwise"),
        (GOOD.replace("1.0\n", "", 1), "line 1: expected one bias below it, got 0"),
        (GOOD.replace("1.0\n", "1.0\n2.0\n", 1), "line 1: expected one bias below it, got 2"),
        (GOOD.replace("0.5\n", "0.5 0.5\n"), "line 4: expected 1 numbers, not 2: got '0.5 0.5'"),
        (GOOD.replace("\n0.25", ""), "line 7: the file ends after 1 weights and factors of 2 features"),
        (GOOD.replace("3 4\n", ""), "line 7: the file ends after 2 weights and factors of 1 features"),
        (GOOD.replace("3 4", "3"), "line 8: expected 2 numbers, not 1: got '3'"),
        (GOOD.replace("1 2\n", "1 2\n\n"), "line 8: expected 2 numbers, not 0"),
        (GOOD.replace("3 4", "3 x"), "line 8: expected finite numbers, got '3 x'"),
        (GOOD.replace("3 4", "3 1_0"), "line 8: expected finite numbers"),
        (GOOD.replace("3 4", "3 nan"), "line 8: expected finite numbers"),
        (GOOD.replace("3 4", "3 1e999"), "line 8: expected finite numbers"),
        (GOOD.replace("3 4", "3 \x80\x00"), r"line 8: expected finite numbers, got '3 \\x80\\x00'"),
        (GOOD[:-1], "line 8: the file ends inside a line"),
        (HEADS[2] + "\n", "line 1: the file ends before the first feature"),
    ],
)
def test_damaged_text_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        from_libfm(tmp_path / "m")


def test_line_ends_of_windows_are_line_ends(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(GOOD.replace("\n", "\r\n").encode())
    np.testing.assert_array_equal(from_libfm(tmp_path / "m").factors_, [[1, 2], [3, 4]])


def test_wrong_tasks_and_ranges_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_text(GOOD)
    with pytest.raises(ValueError, match="task must be 'regression' or 'classification', got 'ranking'"):
        from_libfm(tmp_path / "m", task="ranking")  # type: ignore[arg-type]
    for bad in [(5, 1), (1, 1), (1,), (1, 2, 3), (1, np.inf), (np.nan, 1), 5, "ab"]:
        with pytest.raises(ValueError, match="two rising numbers"):
            from_libfm(tmp_path / "m", target_range=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"of a regression; got .* for 'classification'"):
        from_libfm(tmp_path / "m", task="classification", target_range=(1, 5))
    with pytest.raises(OSError, match="nothing"):
        from_libfm(tmp_path / "nothing")


def lightfm(rng: np.random.Generator, n_user_features: int, n_item_features: int) -> Any:
    """The public arrays of a fitted LightFM model."""
    return SimpleNamespace(
        loss="bpr",
        user_embeddings=rng.normal(size=(n_user_features, 4)).astype(np.float32),
        user_biases=rng.normal(size=n_user_features).astype(np.float32),
        item_embeddings=rng.normal(size=(n_item_features, 4)).astype(np.float32),
        item_biases=rng.normal(size=n_item_features).astype(np.float32),
    )


def their_scores(model: Any, user_features: Any, item_features: Any) -> Any:
    """LightFM's prediction of every user and item, from its definition."""
    p, q = user_features @ model.user_embeddings, item_features @ model.item_embeddings
    return p @ q.T + (user_features @ model.user_biases)[:, None] + item_features @ model.item_biases


def test_a_lightfm_model_gives_its_own_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users, items = sp.random_array((9, 6), density=0.5, rng=rng), sp.random_array((12, 7), density=0.5, rng=rng)
    theirs = lightfm(rng, 6, 7)
    met = sp.random_array((9, 12), density=0.2, rng=rng, format="csr")
    user_ids, item_ids = [f"u{i}" for i in range(9)], list(range(100, 112))
    ours = from_lightfm(theirs, users, items, user_ids=user_ids, item_ids=item_ids, interactions=met)
    scores = their_scores(theirs, users, items)
    scores[met.toarray() != 0] = -np.inf
    own = users @ theirs.user_biases  # which lists leave out
    model = sparsefm.load(_saved(ours, tmp_path / "m.sfm"))
    for which in (ours, model):
        lists = which.recommend(user_ids, k=5)
        for u, user in enumerate(user_ids):
            best = np.argsort(-scores[u], kind="stable")[:5]
            part = lists[lists["user_id"] == user]
            assert part["item_id"].tolist() == [item_ids[i] for i in best]
            np.testing.assert_allclose(part["score"] + own[u], scores[u][best], atol=1e-5)
    whole = score(ours.params_, ours.X_sides_[0][[2] * 12] + ours.X_sides_[1])  # the user's own part and all
    np.testing.assert_allclose(whole, their_scores(theirs, users, items)[2], atol=1e-5)
    q = (items @ theirs.item_embeddings)[3]
    cosines = (items @ theirs.item_embeddings) @ q / np.linalg.norm(items @ theirs.item_embeddings, axis=1)
    alike = ours.similar_items([103], k=3)
    assert alike.iloc[:, 1].tolist() == [item_ids[i] for i in np.argsort(-cosines) if i != 3][:3]


def _saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


def test_without_features_and_ids_numbers_are_ids() -> None:
    rng = np.random.default_rng(1)
    theirs = lightfm(rng, 3, 5)
    lists = from_lightfm(theirs).recommend([2], k=5)
    order = np.argsort(-their_scores(theirs, np.eye(3), np.eye(5))[2])
    assert lists["item_id"].tolist() == order.tolist()


def test_new_users_of_an_imported_model_are_folded_in() -> None:
    import pandas as pd

    rng = np.random.default_rng(2)
    met = sp.random_array((20, 30), density=0.3, rng=rng, format="csr")
    ours = from_lightfm(lightfm(rng, 20, 30), interactions=met)
    grown = ours.fold_in(pd.DataFrame({"user_id": [99, 99], "item_id": [3, 4]}))
    assert not set(grown.recommend([99], k=28)["item_id"]) & {3, 4}


@pytest.mark.parametrize(
    "loss, solver", [("bpr", "BPR()"), ("warp", "WARP()"), ("logistic", "WARP()"), (None, "WARP()"), ([], "WARP()")]
)
def test_the_loss_goes_along_where_there_is_one(loss: Any, solver: str) -> None:
    theirs = lightfm(np.random.default_rng(0), 3, 5)
    theirs.loss = loss
    assert repr(from_lightfm(theirs).solver) == solver


def test_what_is_stored_as_zero_was_not_met_and_the_matrix_stays_as_it_is() -> None:
    met = sp.coo_array(([0.0, 2.0, 1.0, -1.0], ([0, 0, 1, 1], [0, 1, 2, 3])), shape=(3, 5)).tocsr()
    before = met.copy()
    lists = from_lightfm(lightfm(np.random.default_rng(0), 3, 5), interactions=met).recommend([0, 1], k=5)
    assert [sorted(part["item_id"]) for _, part in lists.groupby("user_id")] == [[0, 2, 3, 4], [0, 1, 4]]
    np.testing.assert_array_equal(met.data, before.data)


@pytest.mark.parametrize(
    "change, options, message",
    [
        ({"user_embeddings": None}, {}, "pass a LightFM model that is fitted"),
        ({"item_biases": np.zeros(2)}, {}, r"of shapes \(5, 4\) and \(2,\)"),
        ({"item_embeddings": np.full((5, 4), np.nan)}, {}, "not finite: the fit had diverged"),
        ({"item_embeddings": np.ones((5, 3))}, {}, "users have 4 numbers each and items 3"),
        ({}, {"user_features": np.eye(2)}, r"user_features must be \(n_users, 3\).*; got shape \(2, 2\)"),
        ({}, {"item_features": sp.csr_array((0, 5))}, r"item_features must be .*; got shape \(0, 5\)"),
        ({"item_biases": np.full(5, 1e300)}, {}, "not finite: the fit had diverged"),
        ({}, {"user_ids": ["a", "b"]}, "user_ids must be 3 different ids, got 2"),
        ({}, {"item_ids": list("aabcd")}, "item_ids must be 5 different ids, got 5, 4 of them different"),
        ({}, {"interactions": np.eye(3)}, r"interactions must be \(3, 5\)"),
        ({}, {"interactions": np.full((3, 5), np.nan)}, "interactions contains NaN"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: Any, options: Any, message: str) -> None:
    theirs = lightfm(np.random.default_rng(0), 3, 5)
    for name, value in change.items():
        setattr(theirs, name, value)
    with pytest.raises(ValueError, match=message):
        from_lightfm(theirs, **options)


def test_lightfm_itself() -> None:
    package = pytest.importorskip("lightfm", reason="LightFM is a peer, installed for benchmarks alone")
    rng = np.random.default_rng(0)
    met = sp.random_array((40, 60), density=0.1, rng=rng, format="coo")
    features = sp.hstack([sp.eye_array(60), sp.random_array((60, 8), density=0.3, rng=rng)], format="csr")
    theirs = package.LightFM(no_components=6, loss="warp", random_state=0)
    theirs.fit(sp.coo_matrix(met), item_features=sp.csr_matrix(features.astype(np.float32)), epochs=5)
    ours = from_lightfm(theirs, item_features=features)
    lists = ours.recommend([7], k=60).set_index("item_id")["score"].sort_index()
    scores = theirs.predict(7, np.arange(60), item_features=sp.csr_matrix(features.astype(np.float32)))
    np.testing.assert_allclose(lists + theirs.user_biases[7], scores, atol=1e-5)
