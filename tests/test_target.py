"""Statistics of labels and counts against their definitions, row by row; and that no row sees its own label."""

import json
import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from sparsefm.encoders import FrameEncoder, OneHot, target
from sparsefm.encoders.field import _stack
from sparsefm.encoders.target import Counts, TargetStats, _Counts, _TargetStats

QUICK = settings(max_examples=40, deadline=None)
KINDS = {TargetStats: _TargetStats, Counts: _Counts}


# What FrameEncoder does with a column ------------------------------------------------------------------------


def fitted(spec, *chunks):
    """chunks: (frame, y)"""
    spec._check("stats")
    column = KINDS[type(spec)]("stats", spec)
    for frame, y in chunks:
        column.count(column.read(frame), y)
    column.settle()
    return column


def trained(column, frame, y):
    """The training rows as fit_transform gives them, dense."""
    return _stack([(0, column.encode_training(column.read(frame), y))], len(frame), column.size).toarray()


def encoded(column, frame):
    return _stack([(0, column.encode(column.read(frame)))], len(frame), column.size).toarray()


def through_state(column):
    meta, arrays = column.to_state()
    for array in arrays.values():
        assert array.flags.c_contiguous
        assert array.dtype in (np.int64, np.uint8, np.float64)
    return type(column).from_state(column.name, column.encoder, json.loads(json.dumps(meta)), arrays)


# The reference -----------------------------------------------------------------------------------------------


def statistics(spec, frame):
    """For each statistic the level of each row."""
    columns = [[None if pd.isna(v) else v for v in frame[name]] for name in spec.columns]
    pairs = combinations(columns, 2) if spec.crosses == 2 else []
    return [*columns, *([*zip(a, b, strict=True)] for a, b in pairs)]


def smooth(labels, mean, prior):
    return (math.fsum(labels) + prior * mean) / (len(labels) + prior)


def out_of_fold(spec, frame, y):
    """For each statistic the value and the evidence of each training row, from the definition."""
    rng, n, mean = np.random.default_rng(spec.random_state), len(y), math.fsum(y) / len(y)
    places = []
    for _ in range(spec.permutations):
        order = rng.permutation(n).tolist()
        places.append([order.index(row) for row in range(n)])
    for levels in statistics(spec, frame):
        values, known = [], []
        for row in range(n):
            seen = [
                [
                    y[other]
                    for other in range(n)
                    if levels[other] == levels[row]
                    and (place[other] < place[row] if spec.scheme == "ordered" else place[other] % 5 != place[row] % 5)
                ]
                for place in places
            ]
            values.append(sum(smooth(labels, mean, spec.prior) for labels in seen) / len(seen))
            known.append(any(seen))
        yield np.array(values), np.array(known)


def of_all(spec, frame, y, other):
    """For each statistic the value and the evidence of rows that come later."""
    mean = math.fsum(y) / len(y)
    for levels, wanted in zip(statistics(spec, frame), statistics(spec, other), strict=True):
        seen = [[label for level, label in zip(levels, y, strict=True) if level == w] for w in wanted]
        yield np.array([smooth(labels, mean, spec.prior) for labels in seen]), np.array([bool(s) for s in seen])


def expected(spec, binary, training, rows):
    """The encoding of `rows` where bins and moments are those of `training`; both lists of (values, known)."""
    blocks = []
    for (own, evident), (values, known) in zip(training, rows, strict=True):
        if spec.output == "bins":
            ranked = sorted(own[evident])
            edges = sorted({ranked[k * len(ranked) // spec.n_bins] for k in range(1, spec.n_bins)} if ranked else set())
            edges = [edge for edge in edges if edge > ranked[0]]
            block = np.zeros((len(values), len(edges) + 2))
            for row, (value, k) in enumerate(zip(values, known, strict=True)):
                block[row, 1 + sum(edge <= value for edge in edges) if k else 0] = 1
        else:
            own, values = ((np.log(v / (1 - v)) if binary else v) for v in (own, values))
            own = own[evident] if evident.any() else np.zeros(1)
            std = own.std() if own.std() > 1e-9 * abs(own.mean()) else 1.0
            block = np.where(known, (values - own.mean()) / std, 0.0)[:, None]
        blocks.append(block)
    return np.hstack(blocks) / (math.sqrt(len(blocks)) if spec.output == "bins" else 1.0)


def frames(min_size):
    cells = st.tuples(st.sampled_from(["x", "y", "z", None]), st.integers(0, 2), st.sampled_from([True, "True", 1.5]))
    return st.lists(cells, min_size=min_size, max_size=25).map(
        lambda rows: pd.DataFrame(rows, columns=["a", "b", "c"]).astype(object)
    )


SPECS = st.builds(
    TargetStats,
    st.sampled_from([["a"], ["a", "b"], ("c", "a", "b")]),
    crosses=st.sampled_from([1, 2]),
    scheme=st.sampled_from(["ordered", "kfold"]),
    prior=st.sampled_from([0.5, 1.0, 10.0]),
    permutations=st.sampled_from([1, 2, 5]),
    n_bins=st.integers(2, 5),
    output=st.sampled_from(["bins", "logit"]),
    random_state=st.integers(0, 3),
)


def sixteenths(seed, n):
    """Real labels whose sums are exact, so that equal statistics are equal bits."""
    return np.random.default_rng(seed).integers(-40, 40, n) / 16


@QUICK
@given(SPECS, frames(2), frames(1), st.integers(0, 5), st.booleans())
def test_against_the_definition(spec, train, other, seed, binary):
    y = np.random.default_rng(seed).integers(0, 2, len(train)) if binary else sixteenths(seed, len(train))
    y[:2] = 0, 1
    binary = len(set(y)) == 2
    column = fitted(spec, (train, y))
    assert column.size == len(set(column.labels("s"))) == len(column.labels("s"))
    training, later = list(out_of_fold(spec, train, y)), list(of_all(spec, train, y, other))
    levels = [own.astype(np.int64) for own in column._levels(column.read(train))]
    for (values, known), (found, evident) in zip(training, column._out_of_fold(levels, y.astype(float)), strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(evident, known)
    # bins are cut where values lie, so the reference needs the very bits
    training = list(column._out_of_fold(levels, y.astype(float)))
    later = [
        (np.array([column._smooth(np.array([n]), np.array([s]))[0] for n, s in zip(*found, strict=True)]), known)
        for found, (_, known) in zip(found_sums(column, other), later, strict=True)
    ]
    for values, (wanted, known) in zip(later, of_all(spec, train, y, other), strict=True):
        np.testing.assert_allclose(values[0][known], wanted[known], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(trained(column, train, y), expected(spec, binary, training, training), atol=2e-6)
    np.testing.assert_allclose(encoded(column, other), expected(spec, binary, training, later), atol=2e-6)


def found_sums(column, frame):
    for k, levels in enumerate(column._levels(column.read(frame))):
        yield np.append(column.counts[k], 0)[levels], np.append(column.sums[k], 0.0)[levels]


@QUICK
@given(SPECS, frames(2), frames(1), frames(2), st.integers(0, 5))
def test_chunks_are_the_whole_and_state_keeps_all(spec, one, two, three, seed):
    y = sixteenths(seed, len(one) + len(two) + len(three)) * 16
    parts = np.split(y, [len(one), len(one) + len(two)])
    both = pd.concat([one, two], ignore_index=True)
    whole = fitted(spec, (both, y[: len(both)]))
    chunked = fitted(spec, (one, parts[0]), (two, parts[1]))
    restored = through_state(chunked)
    assert whole.labels("s") == chunked.labels("s") == restored.labels("s")
    for column in (chunked, restored):
        np.testing.assert_array_equal(encoded(column, three), encoded(whole, three))
    if whole.classes is None:
        for column in (chunked, restored):
            column.count(column.read(three), parts[2])
            column.settle()
            assert column.labels("s") == whole.labels("s")
        np.testing.assert_array_equal(encoded(chunked, both), encoded(restored, both))
        total = dict(zip(("n", "s"), zip(*found_sums(chunked, both), strict=True), strict=True))
        for levels, n in zip(statistics(spec, pd.concat([both, three])), total["n"], strict=True):
            assert n.tolist() == [levels.count(level) for level in levels[: len(both)]]


# No row sees its own label -----------------------------------------------------------------------------------


def planted_frame(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"a": rng.integers(0, 6, n), "b": rng.choice(["u", "v", "w"], n)}), rng.normal(size=n)


def rows_that_see_themselves(spec):
    """How many rows' own statistics change with their own label, bit by bit, the overall mean being held."""
    frame, y = planted_frame()
    column = fitted(spec, (frame, y))
    levels = list(column._levels(column.read(frame)))
    before = [values for values, _ in column._out_of_fold(levels, y)]
    seeing = 0
    for row in range(len(y)):
        other = y.copy()
        other[row] += 1000 / 3
        after = [values for values, _ in column._out_of_fold(levels, other)]
        seeing += any(a[row] != b[row] for a, b in zip(before, after, strict=True))
        assert any((a != b).any() for a, b in zip(before, after, strict=True))  # others do see it
    return seeing


@pytest.mark.parametrize("scheme", ["ordered", "kfold"])
@pytest.mark.parametrize("permutations", [1, 3])
def test_no_row_sees_its_own_label(scheme, permutations, monkeypatch):
    spec = TargetStats(["a", "b"], crosses=2, scheme=scheme, permutations=permutations)
    assert rows_that_see_themselves(spec) == 0
    name = "_rows_before" if scheme == "ordered" else "_rows_of_other_folds"
    honest = getattr(target, name)

    def leaking(levels, y, order):
        n, s = honest(levels, y, order)
        return n + 1, s + y

    monkeypatch.setattr(target, name, leaking)
    assert rows_that_see_themselves(spec) == 40


@pytest.mark.parametrize("scheme", ["ordered", "kfold"])
@pytest.mark.parametrize("output", ["bins", "logit"])
def test_a_level_seen_once_carries_no_label(scheme, output):
    frame = pd.DataFrame({"id": np.arange(200)})
    y = np.random.default_rng(0).integers(0, 2, 200)
    column = fitted(TargetStats(["id"], scheme=scheme, permutations=3, output=output), (frame, y))
    assert len(np.unique(trained(column, frame, y), axis=0)) == 1
    later = encoded(column, frame)  # the next row with that id is told, unless bins can tell nothing apart
    assert len(np.unique(later, axis=0)) == (1 if output == "bins" else 2)
    assert (later != trained(column, frame, y)).any()


@pytest.mark.parametrize("scheme", ["ordered", "kfold"])
@pytest.mark.parametrize("output", ["bins", "logit"])
def test_shuffled_labels_teach_nothing(scheme, output):
    rng = np.random.default_rng(1)
    n = 6000
    frame = pd.DataFrame({"many": rng.integers(0, 1500, n), "few": rng.integers(0, 5, n)})
    y = (rng.random(n) < 0.3).astype(int)
    train, test = slice(0, n // 2), slice(n // 2, n)
    column = fitted(TargetStats(["many", "few"], crosses=2, scheme=scheme, output=output), (frame[train], y[train]))
    X = trained(column, frame[train], y[train])
    model = LogisticRegression(C=100, max_iter=1000).fit(X, y[train])
    loss = log_loss(y[test], model.predict_proba(encoded(column, frame[test]))[:, 1])
    base = log_loss(y[test], np.full(n - n // 2, y[train].mean()))
    assert base - 0.003 < loss < base + 0.02
    leaky = LogisticRegression(C=100, max_iter=1000).fit(encoded(column, frame[train]), y[train])
    assert log_loss(y[test], leaky.predict_proba(encoded(column, frame[test]))[:, 1]) > base + 0.1  # as it would be


@pytest.mark.parametrize("scheme", ["ordered", "kfold"])
def test_many_permutations_give_labels_away(scheme):
    """The reason for permutations=1: in the mean over many, a row's level does without its label, and it shows."""
    rng = np.random.default_rng(3)
    frame, y = pd.DataFrame({"a": np.repeat(np.arange(300), 6)}), rng.integers(0, 2, 1800).astype(float)
    found = {}
    for permutations in (1, 100):
        column = fitted(TargetStats(["a"], scheme=scheme, permutations=permutations), (frame, y))
        ((values, _),) = column._out_of_fold(list(column._levels(column.read(frame))), y)
        values, labels = values.reshape(300, 6), y.reshape(300, 6)
        low, high = (np.where(labels == label, values, np.nan)[:, :, None] for label in (0, 1))
        gap = low - high.transpose(0, 2, 1)  # every two rows of a level whose labels differ
        found[permutations] = np.mean(gap[~np.isnan(gap)] > 0)
    assert found[1] < 0.85
    assert found[100] > 0.95


def test_pair_effects_need_pairs():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": rng.integers(0, 20, 8000), "b": rng.integers(0, 20, 8000)})
    y = np.where(rng.random(8000) < 0.9, (frame["a"] + frame["b"]) % 2, rng.integers(0, 2, 8000))
    train, test = frame[:6000], frame[6000:]
    losses = {}
    for crosses in (1, 2):
        column = fitted(TargetStats(["a", "b"], crosses=crosses), (train, y[:6000]))
        model = LogisticRegression().fit(trained(column, train, y[:6000]), y[:6000])
        losses[crosses] = log_loss(y[6000:], model.predict_proba(encoded(column, test)))
    assert losses[1] > 0.68
    assert losses[2] < 0.35


# Targets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "low, high", [("no", "yes"), (False, True), (-1, 1), (1.5, 2.5), ("10", "9"), (np.str_("a"), np.str_("b"))]
)
def test_classes_of_any_type(low, high):
    frame, _ = planted_frame()
    y = np.random.default_rng(0).integers(0, 2, len(frame))
    named = np.array([low, high], dtype=object)[y]
    want = fitted(TargetStats(["a", "b"]), (frame, y))
    for values in (named, np.array(named.tolist())):
        # the first chunk has the larger class only
        first = np.argsort(1 - y, kind="stable")[:3]
        rest = np.setdiff1d(np.arange(len(y)), first)
        parts = [(frame.iloc[rows], values[rows]) for rows in (first, rest)]
        got = through_state(fitted(TargetStats(["a", "b"]), *parts))
        assert got.classes == sorted([low, high])
        np.testing.assert_array_equal(
            [s for sums in found_sums(got, frame) for s in sums], [s for sums in found_sums(want, frame) for s in sums]
        )
        grown = through_state(got)
        grown.count(grown.read(frame), values)
        grown.settle()
        for before, after in zip(found_sums(got, frame), found_sums(grown, frame), strict=True):
            np.testing.assert_array_equal(after, 2 * np.array(before))
        with pytest.raises(ValueError, match=r"two classes|was not before"):
            grown.count(grown.read(frame), np.where(y == 1, "perhaps", "not"))


def test_refused_targets():
    frame = pd.DataFrame({"a": ["x", "y", "x"]})
    for y, message in [
        (None, "fit needs y"),
        (np.array(["a", "b", "c"]), "two classes, got"),
        (np.array(["a", True, "a"], dtype=object), "two classes, got"),
        (np.array([1.0, np.nan, 2.0]), "1 missing or infinite"),
        (np.array(["a", None, "b"], dtype=object), "1 missing or infinite"),
        (np.array(["2024-01-01"] * 3, dtype="M8[s]"), "numbers, text or booleans"),
    ]:
        column = _TargetStats("stats", TargetStats(["a"]))
        with pytest.raises(ValueError, match=message):
            column.count(column.read(frame), y)
    with pytest.raises(ValueError, match=r"got \['a'\] only"):
        fitted(TargetStats(["a"]), (frame, np.array(["a", "a", "a"])))
    column = fitted(TargetStats(["a"]), (frame, np.array([0, 1, 1])))
    with pytest.raises(ValueError, match="two classes"):
        column.count(column.read(frame), np.array([0, 1, 2]))


def test_a_constant_target():
    frame = pd.DataFrame({"a": ["x", "y", "x"]})
    for output in ("bins", "logit"):
        column = fitted(TargetStats(["a"], output=output), (frame, np.ones(3)))
        assert np.isfinite(trained(column, frame, np.ones(3))).all()


# Options, shares, labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TargetStats, Counts])
@pytest.mark.parametrize("columns", [[], "a", ["a", "a"], ["a", 3], None])
def test_refused_columns(kind, columns):
    with pytest.raises(ValueError, match="column 'stats': columns must be"):
        kind(columns)._check("stats")


@pytest.mark.parametrize(
    "options",
    [
        *({"prior": p} for p in (0, -1.0, math.inf, math.nan, "1", True)),
        *({"permutations": p} for p in (0, 1.5, True)),
        *({"n_bins": n} for n in (1, 2.0)),
        *({"crosses": c} for c in (0, 3, True, "2")),
        *({"scheme": "loo"}, {"output": "log"}, {"random_state": -1}, {"random_state": None}),
    ],
)
def test_refused_options(options):
    with pytest.raises(ValueError, match=f"column 'stats': {next(iter(options))} must be"):
        TargetStats(["a"], **options)._check("stats")
    if "crosses" in options or "output" in options:
        with pytest.raises(ValueError, match="must be"):
            Counts(["a"], **options | {"output": "logit"})._check("stats")


def test_shares_and_labels():
    train = pd.DataFrame({"user": ["u", "v", "u", "w"], "app": [1.0, 2.0, 1.0, np.nan]})
    y = np.array([0, 1, 1, 0])
    column = fitted(TargetStats(["user", "app"], crosses=2, prior=1, n_bins=2, output="bins"), (train, y))
    assert column.sources == ("user", "app")
    assert column.decode(None) is None
    block = column.encode(column.read(pd.DataFrame({"user": ["u", "?", None, None], "app": [1, 1, None, 7]})))
    assert (block.unknown, block.missing) == (0.5, 0.5)
    labels = column.labels("stats")
    assert labels[0] == "stats:user=<nothing>"
    assert labels[1].startswith("stats:user=[-inf, ")
    assert any(label.startswith("stats:user×app=") for label in labels)
    logit = fitted(TargetStats(["user", "app"], crosses=2, output="logit"), (train, y))
    assert logit.labels("s") == ["s:user", "s:app", "s:user×app"]


def test_names_of_pairs_stay_apart():
    frame = pd.DataFrame([[1, 2, 3]] * 2, columns=["a", "a×a", "a×a×a"])
    labels = fitted(Counts(["a", "a×a", "a×a×a"], crosses=2), (frame, None)).labels("s")
    assert len(set(labels)) == len(labels)


# Counts ------------------------------------------------------------------------------------------------------


@QUICK
@given(
    st.builds(Counts, st.just(["c", "a"]), crosses=st.sampled_from([1, 2]), output=st.sampled_from(["bins", "log"])),
    frames(1),
    frames(1),
    frames(1),
)
def test_counts_against_the_definition(spec, one, two, other):
    both = pd.concat([one, two], ignore_index=True)
    column = through_state(fitted(spec, (one, None), (two, None)))
    whole = fitted(spec, (both, None))
    assert len(set(column.labels("n"))) == column.size
    np.testing.assert_array_equal(encoded(column, other), encoded(whole, other))
    blocks = {"training": [], "later": []}
    for levels, wanted in zip(statistics(spec, both), statistics(spec, other), strict=True):
        counts = {"training": [levels.count(v) - 1 for v in levels], "later": [levels.count(v) for v in wanted]}
        for rows, values in counts.items():
            if spec.output == "bins":
                n = math.floor(math.log2(max(map(levels.count, levels)))) + 2
                block = np.zeros((len(values), n))
                for row, value in enumerate(values):
                    block[row, 0 if value == 0 else min(math.floor(math.log2(value)) + 1, n - 1)] = 1
            else:
                own = np.log1p(counts["training"])
                block = ((np.log1p(values) - own.mean()) / (own.std() if np.ptp(own) > 0 else 1.0))[:, None]
            blocks[rows].append(block)
    scale = math.sqrt(len(blocks["later"])) if spec.output == "bins" else 1.0
    np.testing.assert_allclose(trained(whole, both, None), np.hstack(blocks["training"]) / scale, atol=1e-5)
    np.testing.assert_allclose(encoded(column, other), np.hstack(blocks["later"]) / scale, atol=1e-5)
    before = column.labels("n")
    column.count(column.read(other), None)
    column.settle()
    assert column.labels("n") == before
    total = pd.concat([both, other], ignore_index=True)
    for levels, wanted, k in zip(statistics(spec, total), statistics(spec, other), range(9), strict=False):
        got = column.counts[k][list(column._levels(column.read(other)))[k]]
        assert got.tolist() == [levels.count(v) for v in wanted]


def test_count_labels():
    frame = pd.DataFrame({"a": ["x"] * 9 + ["y"]})
    labels = fitted(Counts(["a"]), (frame, None)).labels("n")
    assert labels == ["n:a=0", "n:a=1", "n:a=2-3", "n:a=4-7", "n:a=8+"]
    assert fitted(Counts(["a"]), (frame[9:], None)).labels("n") == ["n:a=0", "n:a=1+"]


# In a frame --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [TargetStats(["a", "b"], crosses=2, output="bins"), TargetStats(["b"]), Counts(["a"])])
def test_in_a_frame(spec):
    frame, y = planted_frame()
    y = np.where(y > 0, "yes", "no")
    encoder = FrameEncoder({"a": OneHot(), "stats": spec})
    column = fitted(spec, (frame, y))
    X = encoder.fit_transform(frame, y).toarray()
    np.testing.assert_array_equal(X[:, encoder.fields_ == 1], trained(column, frame, y))
    assert encoder.get_feature_names_out()[encoder.fields_ == 1].tolist() == column.labels("stats")
    assert list(encoder.inverse_transform(X)) == ["a"]
    chunks = [frame[:7].assign(y=y[:7]), frame[7:].assign(y=y[7:])]
    streamed = clone(encoder).fit_stream(chunks, target="y")
    meta, arrays = streamed.to_state()
    streamed = FrameEncoder.from_state(json.loads(json.dumps(meta)), arrays)
    np.testing.assert_array_equal(streamed.transform(frame).toarray(), encoder.transform(frame).toarray())
    np.testing.assert_array_equal(encoder.transform(frame).toarray()[:, encoder.fields_ == 1], encoded(column, frame))
    for fresh in (encoder, streamed):
        fresh.partial_fit(frame[:9].assign(a=99), y[:9])
    np.testing.assert_array_equal(streamed.transform(frame).toarray(), encoder.transform(frame).toarray())
    assert encoder.fields_.tolist() == [0] * (X[:, encoder.fields_[:-1] == 0].shape[1]) + [1] * column.size + [0]


# Hostile files -----------------------------------------------------------------------------------------------

BROKEN = {
    "pairs": [lambda a: a[1:], lambda a: a + 99, lambda a: a - 9, np.zeros_like, lambda a: a.astype(float)],
    "counts": [np.zeros_like, lambda a: -a, lambda a: a[1:], lambda a: a + np.arange(len(a)), lambda a: a * 1.0],
    "sums": [lambda a: a * np.nan, lambda a: a + 50, lambda a: -a, lambda a: a[1:], np.zeros_like],
    "edges": [lambda a: a * np.nan, lambda a: a[::-1], lambda a: a[1:], np.zeros_like],
    "means": [lambda a: np.append(a, 1.0), lambda a: np.append(a[1:], np.inf)],
    "stds": [lambda a: np.append(a, 1.0), lambda a: np.append(a[1:], 0.0), lambda a: np.append(a[1:], np.nan)],
}


@pytest.mark.parametrize("name, change", [(name, change) for name, ways in BROKEN.items() for change in ways])
@pytest.mark.parametrize(
    "spec",
    [
        TargetStats(["a", "b"], crosses=2, output="bins"),
        TargetStats(["a", "b"], crosses=2, output="logit"),
        Counts(["a", "b"], crosses=2, output="bins"),
        Counts(["a", "b"], crosses=2, output="log"),
    ],
    ids=lambda spec: f"{type(spec).__name__}-{spec.output}",
)
def test_hostile_arrays(spec, name, change):
    frame, y = planted_frame()
    column = fitted(spec, (frame, (y > 0).astype(int)))
    meta, arrays = column.to_state()
    value = arrays.get(name, np.ones(0))
    value = np.ascontiguousarray(change(value if len(value) else np.ones(2)))
    with pytest.raises(ValueError, match=r"."):
        type(column).from_state("stats", spec, meta, arrays | {name: value})


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["a"]},
        {"classes": [1.0, 0.0]},
        {"classes": ["a", True]},
        {"classes": "ab"},
        {"sides": []},
        {"pairs": []},
        {"pairs": [-1]},
        {"pairs": ["1"]},
        {"edges": [1]},
        {"edges": [-1, 3, 2]},
        {"more": 1},
    ],
)
def test_hostile_entries(change):
    frame, y = planted_frame()
    spec = TargetStats(["a", "b"], crosses=2, output="bins")
    meta, arrays = fitted(spec, (frame, (y > 0).astype(int))).to_state()
    with pytest.raises(ValueError, match=r"."):
        _TargetStats.from_state("stats", spec, meta | change, arrays)


@pytest.mark.parametrize("bins", [[1, 1, 1], [3], [3, 3, 99], [3, 3, "3"], {}])
def test_hostile_bins_of_counts(bins):
    frame, _ = planted_frame()
    spec = Counts(["a", "b"], crosses=2)
    meta, arrays = fitted(spec, (frame, None)).to_state()
    with pytest.raises(ValueError, match=r"."):
        _Counts.from_state("stats", spec, meta | {"bins": bins}, arrays)
