"""Encoders that are fitted in chunks, that grow, that share vocabularies, and frames that are not pandas'."""

import importlib.util
import json
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_encoders import QUICK, assert_same, assert_well_formed, damage, ratings, tasks, through_state  # noqa: F401

import sparsefm
from sparsefm import FMRegressor
from sparsefm.encoders import (
    Binned,
    Counts,
    Cross,
    Date,
    FrameEncoder,
    Hashed,
    History,
    MultiHot,
    Numeric,
    OneHot,
    TargetStats,
)
from sparsefm.model import FMParams, score

NEEDS_ARROW = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
NEEDS_POLARS = pytest.mark.skipif(
    importlib.util.find_spec("polars") is None or importlib.util.find_spec("pyarrow") is None,
    reason="polars or pyarrow is not installed",
)


def everything():
    """A field of each kind."""
    return {
        "user_id": OneHot(vocabulary="user"),
        "friend": OneHot(vocabulary="user"),
        "item_id": OneHot(min_count=2),
        "genres": MultiHot("|"),
        "age": Numeric(clip=3),
        "years": Binned(4),
        "when": Date(("year", "hour")),
        "code": Hashed(3),
        "user×code": Cross("user_id", "code"),
        "seen": History(),
        "watchers": History("item_id", "user_id", last=3, before="when"),
        "statistics": TargetStats(["user_id", "code"], crosses=2, n_bins=3, output="bins"),
        "counts": Counts(["item_id"]),
    }


def table(n_rows, random_state=0, *, n_users=8):
    rng = np.random.default_rng(random_state)
    ages = rng.normal(size=n_rows).round(2)
    return pd.DataFrame(
        {
            "user_id": rng.integers(n_users, size=n_rows),
            "friend": rng.integers(n_users + 4, size=n_rows),
            "item_id": rng.choice([f"film {i}" for i in range(10)], n_rows),
            "genres": ["|".join(sorted(set(rng.choice(list("abcde"), 3)))) for _ in range(n_rows)],
            "age": np.where(ages > 1.5, np.nan, ages),
            "years": ages,
            "when": pd.Timestamp("2023-11-01") + pd.to_timedelta(rng.integers(9000, size=n_rows), unit="h"),
            "code": rng.choice(["x", "y", "z"], n_rows),
            "rating": rng.integers(2, size=n_rows),
        }
    )


def parts(frame, cuts):
    edges = [0, *sorted(cuts), len(frame)]
    return [frame.iloc[a:b] for a, b in pairwise(edges) if b > a]


def as_dicts(encoder, X):
    """Each row as a dict from column name to value: what it means, whatever the order of the columns."""
    names = encoder.get_feature_names_out()
    return [
        dict(zip(names[X.indices[a:b]], X.data[a:b].tolist(), strict=True))
        for a, b in zip(X.indptr[:-1], X.indptr[1:], strict=True)
    ]


def unquoted(encoder):
    """The names of the columns; text is quoted from when a level of another type joins it."""
    return [name.replace("'", "") for name in encoder.get_feature_names_out()]


# Chunks ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:column .* was fitted on levels")
@QUICK
@given(tasks(), st.lists(st.integers(1, 7), max_size=3))
def test_a_fit_in_chunks_is_a_fit_of_the_whole(task, cuts):
    specification, train, test = task
    chunked = FrameEncoder(specification).fit_stream(iter(parts(train, [c for c in cuts if c < len(train)])))
    whole = FrameEncoder(specification).fit(train)
    assert chunked.get_feature_names_out().tolist() == whole.get_feature_names_out().tolist()
    X, Y = chunked.transform(test), whole.transform(test)
    np.testing.assert_allclose(X.toarray(), Y.toarray(), rtol=1e-6, atol=1e-6)  # means of chunks, to rounding


@pytest.mark.parametrize("cuts", [[1], [50, 51, 100], [149]])
def test_every_kind_of_field_can_be_fitted_in_chunks(cuts):
    train, test = table(150), table(40, 1, n_users=12)
    chunked = FrameEncoder(everything()).fit_stream(parts(train, cuts), target="rating")
    whole = FrameEncoder(everything()).fit(train, train["rating"])
    assert chunked.get_feature_names_out().tolist() == whole.get_feature_names_out().tolist()
    np.testing.assert_allclose(chunked.transform(test).toarray(), whole.transform(test).toarray(), atol=1e-6)


def test_a_stream_without_frames_or_target_is_refused():
    with pytest.raises(ValueError, match="frames holds no rows"):
        FrameEncoder(everything()).fit_stream([])
    with pytest.raises(ValueError, match=r"column\(s\) 'label' not in the input"):
        FrameEncoder({"user_id": OneHot()}).fit_stream([table(3)], target="label")


# Growth ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:column .* was fitted on levels")
@QUICK
@given(tasks(), tasks(), st.booleans())
def test_growing_appends_columns_and_never_moves_one(first, second, restored):
    specification, train, test = first
    more = second[1]
    encoder = FrameEncoder(specification).fit(train)
    names, fields = unquoted(encoder), encoder.fields_.copy()
    encoder = through_state(encoder) if restored else encoder
    encoder.partial_fit(more)
    assert unquoted(encoder)[: len(names)] == names
    np.testing.assert_array_equal(encoder.fields_[: len(names)], fields)
    X = encoder.transform(test)
    assert_well_formed(X, encoder)
    assert_same(through_state(encoder).transform(test), X)


def test_every_kind_of_field_grows():
    train, more, test = table(100), table(100, 1, n_users=12), table(40, 2, n_users=14)
    encoder = FrameEncoder(everything())
    encoder.fit(train, train["rating"])
    names = encoder.get_feature_names_out().tolist()
    again = FrameEncoder.from_state(*encoder.to_state())
    encoder.partial_fit(more, more["rating"])
    again.partial_fit(more, more["rating"])
    assert encoder.get_feature_names_out().tolist()[: len(names)] == names
    grown = {encoder.field_names_[field] for field in encoder.fields_[len(names) :]}
    assert {"user_id", "friend", "user×code", "watchers"} <= grown  # those with users have met new ones
    X = encoder.transform(test)
    assert_well_formed(X, encoder)
    assert_same(again.transform(test), X)
    json.dumps(encoder.to_state()[0])


def test_levels_mean_after_growth_what_they_mean_when_all_are_fitted_at_once():
    specification = {"user_id": OneHot(), "genres": MultiHot("|"), "item_id": OneHot(min_count=4)}
    train, more, test = table(20), table(30, 1, n_users=12), table(40, 2, n_users=14)
    grown = FrameEncoder(specification).fit(train).partial_fit(more)
    whole = FrameEncoder(specification).fit(pd.concat([train, more]))
    assert as_dicts(grown, grown.transform(test)) == as_dicts(whole, whole.transform(test))
    assert grown.inverse_transform(grown.transform(test)).equals(whole.inverse_transform(whole.transform(test)))


def test_a_rare_level_gets_its_column_once_it_is_frequent():
    encoder = FrameEncoder({"c": OneHot(min_count=2)}).fit(pd.DataFrame({"c": ["a", "a", "b"]}))
    assert encoder.get_feature_names_out().tolist() == ["c=<unknown>", "c=<missing>", "c=a"]
    encoder = through_state(encoder).partial_fit(pd.DataFrame({"c": ["b", "d"]}))
    assert encoder.get_feature_names_out().tolist()[3:] == ["c=b"]


def test_a_full_vocabulary_takes_no_more():
    encoder = FrameEncoder({"c": OneHot(max_levels=3)}).fit(pd.DataFrame({"c": ["a", "b"]}))
    encoder.partial_fit(pd.DataFrame({"c": ["d", "e", "e"]}))
    assert encoder.get_feature_names_out().tolist()[2:] == ["c=a", "c=b", "c=e"]
    encoder.partial_fit(pd.DataFrame({"c": ["f"] * 9}))
    assert encoder.n_features_out_ == 5


def test_a_number_keeps_its_scale_and_gains_a_column_for_gaps():
    encoder = FrameEncoder({"x": Numeric(), "c": OneHot()}).fit(pd.DataFrame({"x": [0.0, 2.0], "c": ["a", "a"]}))
    encoder.partial_fit(pd.DataFrame({"x": [100.0, np.nan], "c": ["b", "b"]}))
    assert encoder.get_feature_names_out().tolist()[-2:] == ["x=<missing>", "c=b"]
    X = encoder.transform(pd.DataFrame({"x": [2.0, np.nan], "c": ["b", "a"]}))
    assert as_dicts(encoder, X) == [{"x": 1.0, "c=b": 1.0}, {"x=<missing>": 1.0, "c=a": 1.0}]


def test_a_refused_chunk_leaves_the_encoder_as_it_was():
    train = table(50)
    encoder = FrameEncoder(everything()).fit(train, train["rating"])
    before = encoder.to_state()
    for bad, y, message in (
        (train.assign(age="old"), train["rating"], "numbers are needed"),
        (train.drop(columns="when"), train["rating"], "'when' not in the input"),
        (train, None, "y"),
        (train, train["rating"].head(3), "one value for each of the 50 rows"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            encoder.partial_fit(bad, y)
        meta, arrays = encoder.to_state()
        assert meta == before[0]
        assert {key: array.tolist() for key, array in arrays.items()} == {k: a.tolist() for k, a in before[1].items()}


@pytest.mark.parametrize(
    "bad, y, message",
    [
        ({"a": ["new"], "b": ["other"], "t": ["text"], "n": [np.nan]}, [0], "column 't' mixes datetimes"),
        ({"a": ["new"], "b": ["other"], "t": np.array(["9999-01-01"], "M8[s]"), "n": [1]}, [0], "too far apart"),
        (
            {"a": ["new"], "b": ["other"], "t": np.array(["20000-01-01"], "M8[s]"), "n": [1]},
            [0],
            "years 1 to 9999|apart",
        ),
        ({"a": ["new"], "b": ["other"], "t": np.array(["2020-01-01"], "M8[ns]"), "n": [1]}, None, "fit needs y"),
        ({"a": ["new"], "b": [pd.Timestamp(0)], "t": np.array(["2020"], "M8[ns]"), "n": [1]}, [0], "mixes datetimes"),
    ],
)
def test_rows_that_cannot_be_counted_change_nothing(bad, y, message):
    train = pd.DataFrame(
        {"a": ["x", "y"], "b": ["y", "z"], "t": np.array(["2020-01-01", "2020-01-02"], "M8[ns]"), "n": [0.0, 1.0]}
    )
    specification = {
        "a": OneHot(vocabulary="v"),
        "b": OneHot(vocabulary="v"),
        "counts": Counts(["a"]),
        "n": Numeric(),
        "pair": Cross("a", "b"),
        "t": OneHot(),
        "statistics": TargetStats(["a", "b"], crosses=2),
    }
    encoder = FrameEncoder(specification).fit(train, [0, 1])
    before, X = encoder.to_state(), encoder.transform(train)
    with pytest.raises((TypeError, ValueError), match=message):
        encoder.partial_fit(pd.DataFrame(bad), y)
    meta, arrays = encoder.to_state()
    assert meta == before[0]
    assert {key: array.tolist() for key, array in arrays.items()} == {k: a.tolist() for k, a in before[1].items()}
    assert_same(through_state(encoder).transform(train), X)
    twin = FrameEncoder(specification).fit(train, [0, 1]).partial_fit(train, [0, 1])
    assert_same(encoder.partial_fit(train, [0, 1]).transform(train), twin.transform(train))


def test_empty_chunks_change_nothing():
    train = table(30)
    for chunks in ([train.head(0), train], [train, train.head(0)]):
        encoder = FrameEncoder(everything()).fit_stream(chunks, target="rating")
        encoder.partial_fit(train.head(0), train["rating"].head(0))
        assert_same(encoder.transform(train), FrameEncoder(everything()).fit(train, train["rating"]).transform(train))


def test_dtypes_choose_the_encoders_of_a_stream():
    one, two = pd.DataFrame({"a": ["x", "y"], "b": [0.5, 1.5]}), pd.DataFrame({"b": [2.5], "a": ["z"]})
    encoder = FrameEncoder().fit(pd.DataFrame({"other": ["w"]}))
    encoder.fit_stream([one, two])
    assert_same(encoder.transform(one), FrameEncoder().fit(pd.concat([one, two])).transform(one))
    assert FrameEncoder().fit_stream([one, two], target="b").field_names_ == ["a"]
    with pytest.raises(ValueError, match="holds no rows"):
        FrameEncoder().fit_stream([one.head(0)])


def test_a_failed_fit_leaves_the_one_before():
    frame = pd.DataFrame({"p": ["x"], "q": ["y"]})
    encoder = FrameEncoder().fit(frame)
    with pytest.raises(ValueError, match="is 'i' an id"):
        encoder.fit(pd.DataFrame({"a": ["x"], "i": [1]}))
    assert encoder.transform(frame).nnz == 2


def test_a_model_whose_encoder_has_grown_is_not_saved(tmp_path):
    frame = pd.DataFrame({"p": ["x", "y"]})
    model = FMRegressor(2, encoder=FrameEncoder({"p": OneHot()}), random_state=0).fit(frame, [1.0, 2.0])
    model.encoder_.partial_fit(pd.DataFrame({"p": ["z"]}))
    with pytest.raises(ValueError, match="the encoder makes 5 columns and the parameters have 4"):
        model.save(tmp_path / "model.sfm")


def test_parameters_grow_without_changing_a_prediction():
    train, more = table(200), table(100, 1, n_users=20)
    encoder = FrameEncoder({"user_id": OneHot(min_count=2), "item_id": OneHot(), "code": OneHot(unknown="ignore")})
    X = encoder.fit_transform(train)
    rng = np.random.default_rng(0)
    params = FMParams(0.3, rng.normal(size=X.shape[1]), rng.normal(size=(X.shape[1], 4)))
    more["code"] = more["code"].replace("x", "new")
    before = score(params, encoder.transform(more))
    encoder.partial_fit(more)
    grown = params.grow(encoder.n_features_out_, start=encoder.buckets_)
    assert encoder.n_features_out_ > X.shape[1]
    np.testing.assert_allclose(score(grown, encoder.transform(more)), before, rtol=1e-12)
    np.testing.assert_array_equal(grown.V[: len(params.V)], params.V)
    code = encoder.get_feature_names_out().tolist().index("code=new")
    assert encoder.buckets_[code] == -1
    assert grown.w[code] == 0


@pytest.mark.parametrize(
    "n_features, start, message",
    [
        (1, None, "at least the 2 there are, got 1"),
        (3, [0, 0], "start must hold 3 integers"),
        (3, [0.0, 0.0, 0.0], "start must hold 3 integers"),
        (3, [0, 0, 2], "present columns, 0 to 1, or -1, got 2 to 2"),
        (3, [0, 0, -2], "or -1, got -2"),
    ],
)
def test_parameters_refuse_to_grow_into_nonsense(n_features, start, message):
    with pytest.raises(ValueError, match=message):
        FMParams(0.0, np.ones(2), np.ones((2, 1))).grow(n_features, start=start)


# What a row holds ------------------------------------------------------------------------------------------


def sums_by_field(encoder, X):
    """(n_rows, n_fields) sums of the entries and of their squares."""
    member = (encoder.fields_[:, None] == np.arange(len(encoder.field_names_))).astype(np.float64)
    return X @ member, X.power(2) @ member


@QUICK
@given(st.integers(1, 60), st.integers(0, 5), st.booleans())
def test_entries_sum_to_what_the_documentation_says(n_rows, random_state, grown):
    train, test = table(n_rows, random_state), table(40, 9, n_users=12)
    encoder = FrameEncoder(everything())
    X = encoder.fit_transform(train, train["rating"])
    frames = [(train, X), (test, encoder.transform(test))]
    if grown:
        encoder.partial_fit(test, test["rating"])
        frames = [(frame, encoder.transform(frame)) for frame in (train, test)]
    for frame, X in frames:
        sums, squares = (dict(zip(encoder.field_names_, part.T, strict=True)) for part in sums_by_field(encoder, X))
        for name in ("user_id", "friend", "item_id", "years", "code", "user×code", "counts"):
            np.testing.assert_array_equal(sums[name], 1)  # one 1
        for name in ("genres", "when", "statistics"):  # of these: two columns and their pair
            np.testing.assert_allclose(squares[name], 1, rtol=1e-6)  # n entries of 1/√n
        for name in ("seen", "watchers"):
            assert (np.isclose(squares[name], 1, rtol=1e-6) | (squares[name] == 0)).all()  # likewise, or nobody else
        assert np.isin(sums["age"][frame["age"].isna()], [0, 1]).all()  # 1 where training knew gaps


@QUICK
@given(st.integers(1, 60), st.integers(0, 5))
def test_known_levels_come_back(n_rows, random_state):
    frame = table(n_rows, random_state)
    specification = {
        "user_id": OneHot(),
        "item_id": OneHot(),
        "genres": MultiHot("|"),
        "years": Numeric(),
        "pair": Cross("user_id", "code"),
    }
    encoder = FrameEncoder(specification)
    back = encoder.inverse_transform(encoder.fit_transform(frame))
    for name in ("user_id", "item_id"):
        assert back[name].tolist() == frame[name].tolist()
    assert [set(cell.split("|")) for cell in back["genres"]] == [set(cell.split("|")) for cell in frame["genres"]]
    np.testing.assert_allclose(back["years"], frame["years"], rtol=1e-6, atol=1e-6)
    assert back["pair"].tolist() == list(zip(frame["user_id"], frame["code"], strict=True))


# One vocabulary for several columns ------------------------------------------------------------------------


def test_columns_that_share_a_vocabulary_know_the_same_levels():
    frame = pd.DataFrame({"home": ["a", "b", "a"], "guest": ["c", "a", "c"]})
    encoder = FrameEncoder({"home": OneHot(vocabulary="team"), "guest": OneHot(vocabulary="team")})
    X = encoder.fit_transform(frame)
    assert encoder.get_feature_names_out().tolist() == [
        *(f"home={level}" for level in ["<unknown>", "<missing>", "a", "c", "b"]),
        *(f"guest={level}" for level in ["<unknown>", "<missing>", "a", "c", "b"]),
    ]
    assert X.indices.reshape(3, 2).tolist() == [[2, 8], [4, 7], [2, 8]]
    restored = through_state(encoder)
    for e in (encoder, restored):
        e.partial_fit(pd.DataFrame({"home": ["d"], "guest": ["e"]}))
        assert e.get_feature_names_out().tolist()[10:] == ["home=d", "home=e", "guest=d", "guest=e"]
    assert through_state(encoder).inverse_transform(encoder.transform(frame)).equals(frame.astype("str"))


def test_shared_levels_are_counted_together():
    frame = pd.DataFrame({"home": ["a", "b"], "guest": ["c", "a"]})
    encoder = FrameEncoder({name: OneHot(vocabulary="team", min_count=2, missing="ignore") for name in frame})
    assert encoder.fit(frame).get_feature_names_out().tolist() == [
        "home=<unknown>",
        "home=a",
        "guest=<unknown>",
        "guest=a",
    ]
    with pytest.raises(
        ValueError, match=r"'home' and 'guest' share the vocabulary 'team'.*\(1, None\) and \(2, None\)"
    ):
        FrameEncoder({"home": OneHot(vocabulary="team"), "guest": OneHot(vocabulary="team", min_count=2)}).fit(frame)
    with pytest.raises(ValueError, match="vocabulary must be a name or None, got 3"):
        FrameEncoder({"home": OneHot(vocabulary=3)}).fit(frame)


def test_a_file_whose_shared_vocabularies_differ_is_refused():
    frame = pd.DataFrame({"home": ["a", "b"], "guest": ["b", "a"]})
    meta, arrays = FrameEncoder({name: OneHot(vocabulary="team") for name in frame}).fit(frame).to_state()
    arrays["1.bytes"] = arrays["1.bytes"][::-1].copy()
    with pytest.raises(ValueError, match="share a vocabulary and differ in it"):
        FrameEncoder.from_state(meta, arrays)


# Numbers ---------------------------------------------------------------------------------------------------


def test_clipped_numbers_stay_inside_the_limit():
    frame = pd.DataFrame({"x": [0.0] * 99 + [1000.0, np.nan]})
    encoder = FrameEncoder({"x": Numeric(clip=2)})
    X = encoder.fit_transform(frame)
    assert X.toarray()[:, 0].max() == 2.0
    assert FrameEncoder({"x": Numeric(None, clip=5)}).fit_transform(frame)[99, 0] == 5
    assert encoder.transform(pd.DataFrame({"x": [1e300]}))[0, 0] == 2.0
    for clip in (0, -1, np.inf, True, "2"):
        with pytest.raises(ValueError, match="clip must be a number above 0 or None"):
            FrameEncoder({"x": Numeric(clip=clip)}).fit(frame)


# Frames that are not pandas' -------------------------------------------------------------------------------


@NEEDS_ARROW
def test_arrow_tables_are_encoded_like_pandas_frames():
    import pyarrow as pa

    train, test = table(60), table(20, 1, n_users=12)
    train.loc[3, "item_id"] = None
    encoder, X = FrameEncoder(everything()), pa.Table.from_pandas(train)
    expected = FrameEncoder(everything())
    assert_same(encoder.fit_transform(X, train["rating"]), expected.fit_transform(train, train["rating"]))
    assert_same(encoder.transform(pa.Table.from_pandas(test)), expected.transform(test))
    assert_same(expected.transform(pa.Table.from_pandas(test)), expected.transform(test))
    assert encoder.feature_names_in_.tolist() == expected.feature_names_in_.tolist()
    assert encoder.get_feature_names_out().tolist() == expected.get_feature_names_out().tolist()


@NEEDS_POLARS
def test_polars_frames_are_encoded_like_pandas_frames():
    import datetime as dt

    import polars as pl

    cells = {
        "text": ["b", None, "a"],
        "category": ["x", "y", None],
        "number": [1, None, 3],
        "real": [0.5, None, 2.0],
        "flag": [True, None, False],
        "list": [["u", "v"], [], None],
        "date": [dt.date(2024, 1, 1), None, dt.date(2020, 5, 5)],
        "time": [dt.datetime(2024, 1, 1, 3), None, dt.datetime(2020, 5, 5)],
    }
    frame = pl.DataFrame(cells).with_columns(pl.col("category").cast(pl.Categorical))
    specification = {name: OneHot() for name in cells} | {"list": MultiHot(), "real": Numeric()}
    pandas = pd.DataFrame(
        {name: pd.Series(values, dtype="Int64" if name == "number" else object) for name, values in cells.items()}
    )
    pandas["date"] = pd.to_datetime(pandas["date"])
    encoder, expected = FrameEncoder(specification), FrameEncoder(specification)
    assert_same(encoder.fit_transform(frame), expected.fit_transform(pandas))
    assert encoder.get_feature_names_out().tolist() == expected.get_feature_names_out().tolist()
    assert_same(expected.transform(frame.head(2)), expected.transform(pandas.head(2)))
    for columns, fields in ((list(cells), FrameEncoder(specification)), (["text", "real"], None), (["real"], None)):
        part = frame.select(columns).fill_null(0)
        model = FMRegressor(encoder=fields, random_state=0).fit(part, [1.0, 2.0, 3.0])
        assert model.predict(part).shape == (3,)
        assert (model.encoder_ is None) == (columns == ["real"])


@NEEDS_POLARS
@pytest.mark.parametrize(
    "encoder", [OneHot(), Hashed(10), Date(("hour",)), Counts(["t"])], ids=lambda e: type(e).__name__
)
def test_an_instant_is_one_level_in_every_kind_of_frame(encoder):
    import polars as pl
    import pyarrow as pa

    stamps = pd.to_datetime(["2020-10-25 00:30", "2020-10-25 01:30", "2020-06-01 10:00"], utc=True).tz_convert(
        "Europe/Vienna"
    )
    pandas = pd.DataFrame({"t": stamps})
    arrow = pa.Table.from_pandas(pandas)
    frames = {
        "polars": pl.from_pandas(pandas),
        "arrow": arrow,
        "dictionary": pa.table({"t": arrow["t"].dictionary_encode()}),
        "arrow-backed": arrow.to_pandas(types_mapper=pd.ArrowDtype),
        "object": pandas.astype(object),
    }
    expected = FrameEncoder({"t": encoder})
    X = expected.fit_transform(pandas)
    for frame in frames.values():
        ours = FrameEncoder({"t": encoder})
        if not (isinstance(encoder, Date) and frame is frames["object"]):
            assert_same(ours.fit_transform(frame), X)
            assert_same(
                through_state(ours).partial_fit(frame).transform(pandas), ours.partial_fit(pandas).transform(frame)
            )
            if isinstance(encoder, OneHot) and frame is not frames["object"]:
                assert (ours.inverse_transform(X)["t"] == pandas["t"]).all()
                assert ours.inverse_transform(X)["t"].dt.tz is not None


@NEEDS_POLARS
def test_lists_in_arrow_keep_their_members_exactly():
    import datetime as dt

    import polars as pl
    import pyarrow as pa

    big = 2**53
    lists = [[big + 1, None], [big], None, []]
    expected = FrameEncoder({"g": MultiHot()}).fit_transform(pd.DataFrame({"g": pd.Series(lists, dtype=object)}))
    for kind in (pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_view(pa.int64())):
        frame = pa.table({"g": pa.array(lists, kind)})
        assert_same(FrameEncoder({"g": MultiHot()}).fit_transform(frame), expected)
    as_pandas = pa.table({"g": pa.array(lists)}).to_pandas(types_mapper=pd.ArrowDtype)
    assert_same(FrameEncoder({"g": MultiHot()}).fit_transform(as_pandas), expected)
    frame = pl.DataFrame({"g": [["a", None], ["b"]], "d": [[dt.date(2020, 1, 1)], []]})
    frame = frame.with_columns(pl.col("g").cast(pl.List(pl.Categorical)))
    encoder = FrameEncoder({"g": MultiHot(), "d": MultiHot()}).fit(frame)
    assert encoder.get_feature_names_out().tolist()[2:4] == ["g=a", "g=b"]
    assert encoder.get_feature_names_out().tolist()[-1] == "d=2020-01-01 00:00:00"


@NEEDS_ARROW
def test_arrow_cells_that_are_no_levels_are_refused_by_name():
    import pyarrow as pa

    repeated = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(["a", None, "a"]))
    encoder = FrameEncoder({"c": OneHot()}).fit(pa.table({"c": repeated}))
    assert encoder.get_feature_names_out().tolist() == ["c=<unknown>", "c=<missing>", "c=a"]
    for cells in (pa.array([{"x": 1}]), pa.array([b"x"]), pa.array([[1]]), pa.array([1], pa.duration("s"))):
        with pytest.raises(TypeError, match="column 'c'"):
            FrameEncoder({"c": OneHot()}).fit(pa.table({"c": cells}))


@NEEDS_ARROW
def test_columns_of_every_frame_are_found_by_name():
    import pyarrow as pa

    frame = pa.record_batch({"p": ["x", "y"], "q": ["y", "x"]})
    swapped = pa.record_batch({"q": ["y", "x"], "p": ["x", "y"]})
    for columns in (None, {"p": OneHot(), "q": OneHot()}):
        encoder = FrameEncoder(columns).fit(frame)
        assert encoder.feature_names_in_.tolist() == ["p", "q"]
        if columns is None:
            with pytest.raises(ValueError, match="feature names should match"):
                encoder.transform(swapped)
        else:
            assert_same(encoder.transform(swapped), encoder.transform(frame))


@NEEDS_POLARS
def test_frames_that_need_pyarrow_say_so(monkeypatch):
    import polars as pl

    frame = pl.DataFrame({"c": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"a DataFrame is read with pyarrow: pip install sparsefm\[arrow\]"):
        FrameEncoder({"c": OneHot()}).fit(frame)


def test_pandas_output_is_refused():
    encoder = FrameEncoder({"c": OneHot()}).set_output(transform="pandas")
    with pytest.raises(ValueError, match="sparse"):
        encoder.fit_transform(pd.DataFrame({"c": ["a"]}))


# Hostile states --------------------------------------------------------------------------------------------


@settings(QUICK, max_examples=300)
@given(st.data(), st.booleans())
def test_a_damaged_state_of_any_field_is_a_value_error_or_a_working_encoder(data, grown):
    frame = table(12)
    encoder = FrameEncoder(everything()).fit(frame, frame["rating"])
    if grown:
        more = table(12, 1, n_users=12)
        encoder.partial_fit(more, more["rating"])
    meta, arrays = encoder.to_state()
    meta = json.loads(json.dumps(meta))
    damage(data, meta, arrays)
    try:
        encoder = FrameEncoder.from_state(meta, arrays)
    except ValueError:
        return
    encoder.get_feature_names_out()
    for name, column in encoder.columns_.items():
        if set(column.sources) <= set(frame.columns):
            try:
                X = encoder.transform(frame, columns=[name])
            except (ValueError, TypeError) as error:  # a policy or an encoder that does not fit these cells
                fine = "column" in str(error)
            else:
                assert_well_formed(X, encoder)
                fine = np.isfinite(X.data).all()
            assert fine


# Models that carry such encoders ---------------------------------------------------------------------------


def test_a_model_is_saved_with_every_kind_of_field(tmp_path):
    train, test = table(120), table(30, 1, n_users=12)
    model = FMRegressor(4, encoder=FrameEncoder(everything()), random_state=0).fit(train, train["rating"])
    model.save(tmp_path / "model.sfm")
    loaded = sparsefm.load(tmp_path / "model.sfm")
    np.testing.assert_array_equal(loaded.predict(test), model.predict(test))
    assert loaded.encoder_.get_feature_names_out().tolist() == model.encoder_.get_feature_names_out().tolist()


def test_recommendations_use_the_history_of_each_user():
    train = table(200)
    encoder = FrameEncoder(
        {"user_id": OneHot(), "item_id": OneHot(), "seen": History(), "watchers": History("item_id", "user_id")}
    )
    model = FMRegressor(4, encoder=encoder, clip=False, random_state=0).fit(train, train["rating"].astype(float))
    users, items = train[["user_id"]].drop_duplicates(), train[["item_id"]].drop_duplicates()
    shown = model.recommend(users, items, k=3, exclude=train)
    pairs = set(zip(train["user_id"], train["item_id"], strict=True))
    assert not pairs & set(zip(shown["user_id"], shown["item_id"], strict=True))
    # an item the user has not met leaves nothing out of the history, so its score is the pair's own
    expected = model.predict(shown[["user_id", "item_id"]])
    np.testing.assert_allclose(shown["score"], expected, rtol=1e-4, atol=1e-5)


def test_a_field_of_both_sides_cannot_be_recommended_with():
    train = table(50)
    encoder = FrameEncoder({"user_id": OneHot(), "pair": Cross("user_id", "item_id")})
    model = FMRegressor(2, encoder=encoder, random_state=0).fit(train, train["rating"].astype(float))
    with pytest.raises(ValueError, match=r"field 'pair' reads .*, of contexts and of candidates together"):
        model.recommend(train[["user_id"]].head(1), train[["item_id"]].drop_duplicates())
