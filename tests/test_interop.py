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


def test_what_libfm_left_out_is_zero(tmp_path: Path) -> None:
    V = np.array([[1.0, 2.0], [3.0, 4.0]])
    (tmp_path / "m").write_text(libfm_text(None, None, V))
    model = from_libfm(tmp_path / "m")
    assert (model.intercept_, model.coef_.tolist()) == (0.0, [0.0, 0.0])
    np.testing.assert_array_equal(model.factors_, V)


GOOD = libfm_text(1.0, [0.5, 0.25], [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "it has no heading '#pairwise"),
        (GOOD.replace("#pairwise interactions Vj,f", "#pairs"), "line 6: expected #global bias W0"),
        (HEADS[2] + "\n1\n" + HEADS[0] + "\n1\n", "line 3: expected .* in this order"),
        (GOOD.replace("\n0.25", ""), "may be cut off: it has 1 weights and factors of 2 features"),
        (GOOD.replace("3 4\n", ""), "may be cut off: it has 2 weights and factors of 1 features"),
        (GOOD.replace("3 4", "3"), "line 8: expected 2 factors, got 1"),
        (GOOD.replace("3 4", "3 x"), "line 8: expected finite numbers, got '3 x'"),
        (GOOD.replace("3 4", "3 nan"), "line 8: expected finite numbers"),
        (GOOD.replace("0.5\n", "0.5 0.5\n"), "line 4: expected finite numbers"),
        (GOOD.replace("1.0\n", "1.0\n2.0\n", 1), "it has 2 biases"),
        ("1 2 3\n" + GOOD, "line 1: expected a heading"),
        (HEADS[2] + "\n", "has no feature"),
        ("\x80", "no plain text"),
    ],
)
def test_damaged_text_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        from_libfm(tmp_path / "m")


def test_wrong_tasks_and_ranges_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_text(GOOD)
    with pytest.raises(ValueError, match="task must be 'regression' or 'classification', got 'ranking'"):
        from_libfm(tmp_path / "m", task="ranking")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two rising numbers"):
        from_libfm(tmp_path / "m", target_range=(5, 1))
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
    model = sparsefm.load(_saved(ours, tmp_path / "m.sfm"))
    for which in (ours, model):
        lists = which.recommend(user_ids, k=5)
        for u, user in enumerate(user_ids):
            best = np.argsort(-scores[u], kind="stable")[:5]
            part = lists[lists["user_id"] == user]
            assert part["item_id"].tolist() == [item_ids[i] for i in best]
            np.testing.assert_allclose(
                np.diff(part["score"]), np.diff(scores[u][best]), atol=1e-5
            )  # but for the user's own
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
    "change, options, message",
    [
        ({"user_embeddings": None}, {}, "pass a LightFM model that is fitted"),
        ({"item_biases": np.zeros(2)}, {}, r"of shapes \(5, 4\) and \(2,\)"),
        ({"item_embeddings": np.full((5, 4), np.nan)}, {}, "not finite: the fit had diverged"),
        ({"item_embeddings": np.ones((5, 3))}, {}, "users have 4 numbers each and items 3"),
        ({}, {"user_features": np.eye(2)}, "user_features has 2 columns, the model 3 features"),
        ({}, {"user_ids": ["a", "b"]}, "user_ids must be 3 different ids, got 2"),
        ({}, {"item_ids": list("aabcd")}, "item_ids must be 5 different ids, got 5, 4 of them different"),
        ({}, {"interactions": np.eye(3)}, r"interactions must be \(3, 5\)"),
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
    np.testing.assert_allclose(lists - lists[0], scores - scores[0], atol=1e-4)
