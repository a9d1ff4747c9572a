"""Models that answer: the service of docs/serving.md, many threads on one model, and nonsense of every kind."""

import functools
import json
import random
import re
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sparsefm import FMRanker, FMRegressor, FrameEncoder, MultiHot, Numeric, OneHot, load

PAGE = Path(__file__).parents[1] / "docs" / "serving.md"

no_checkout = pytest.mark.skipif(not PAGE.exists(), reason="tests run without a checkout")

USERS, ITEMS = [f"u{i}" for i in range(12)], [f"i{i}" for i in range(9)]
GENRES = ["drama", "comedy|drama", "war", "", "war|comedy", "drama", "comedy", "western", "war|western"]


def interactions(users=USERS, items=ITEMS, seed=0):
    """Some pairs; the last user met every item."""
    met = np.random.default_rng(seed).random((len(users), len(items))) < 0.4
    met[:, 0] = met[0] = False
    met[0, 1:3] = met[1:4, 0] = met[-1] = True
    user, item = np.nonzero(met)
    return pd.DataFrame({"user_id": np.array(users)[user], "item_id": np.array(items)[item]})


def rated():
    met = interactions()
    sides = met.merge(people(), on="user_id").merge(films(), on="item_id")
    return sides, np.random.default_rng(1).integers(1, 6, len(sides)).astype(float)


def people():
    return pd.DataFrame({"user_id": USERS, "age": np.linspace(20, 60, len(USERS))})


def films():
    return pd.DataFrame({"item_id": ITEMS, "genres": GENRES})


def encoder():
    return FrameEncoder({"user_id": OneHot(), "age": Numeric(), "item_id": OneHot(), "genres": MultiHot("|")})


@functools.cache
def ranker():
    """Text ids, both sides described."""
    model = FMRanker(4, solver="implicit_als", encoder=encoder(), random_state=0)
    return model.fit(interactions(), users=people(), items=films())


@functools.cache
def numbered(seed=0):
    """Integer ids and nothing else."""
    met = interactions(np.arange(100, 112), np.arange(7, 16), seed=seed)
    return FMRanker(4, solver="implicit_als", random_state=seed).fit(met)


@functools.cache
def regressor():
    return FMRegressor(4, encoder=encoder(), random_state=0).fit(*rated())


@functools.cache
def of_angles():
    """Scores are cosines."""
    return FMRanker(4, solver="sampled_softmax", random_state=0).fit(interactions())


def plain_ids(model):
    """Of users and of items, as Python's own numbers or texts."""
    return pd.Series(model.user_ids_).tolist(), pd.Series(model.item_ids_).tolist()


# ---- the page ----


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def execute(block):
    names = {"__name__": "app"}
    exec(compile(block, str(PAGE), "exec"), names)
    return names


@no_checkout
def test_the_python_blocks_of_the_serving_page_run(tmp_path, monkeypatch):
    pytest.importorskip("fastapi", reason="the service of the page")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_PATH", raising=False)
    for block in blocks():
        execute(block)


@no_checkout
def test_the_candidates_of_an_index_are_put_in_the_order_of_recommend(tmp_path, monkeypatch, capsys):
    """An exact index with the interface of faiss stands for it, so that what is tested is the use of the vectors."""

    class Exact:
        def __init__(self, width, links, metric):
            self.width, self.hnsw = width, types.SimpleNamespace(efSearch=0)

        def add(self, vectors):
            assert vectors.dtype == np.float32
            assert vectors.shape[1] == self.width
            self.vectors = vectors

        def search(self, asked, k):
            scores = asked @ self.vectors.T
            order = np.argsort(-scores, axis=1)[:, :k]
            order[:, -3:] = -1  # as faiss does where it finds fewer
            return np.take_along_axis(scores, order, axis=1), order

    faiss = types.ModuleType("faiss")
    faiss.IndexHNSWFlat, faiss.METRIC_INNER_PRODUCT = Exact, 0
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    monkeypatch.chdir(tmp_path)
    first, last = blocks()[0], blocks()[-1]
    model = execute(first)["model"]
    execute(last)
    assert capsys.readouterr().out == f"{model.recommend(model.user_ids_[:1])}\n"


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Starts the service of the page on a model; gives a client and the path of the model's file."""
    pytest.importorskip("fastapi", reason="the service of the page")
    pytest.importorskip("httpx", reason="fastapi.testclient")
    if not PAGE.exists():
        pytest.skip("tests run without a checkout")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using `httpx` with")  # starlette would have its successor
        from fastapi.testclient import TestClient

    def start(model):
        path = tmp_path / "served.sfm"
        model.save(path)
        monkeypatch.setenv("MODEL_PATH", str(path))
        (app,) = (block for block in blocks() if "FastAPI()" in block)
        return TestClient(execute(app)["app"]), path

    return start


def answer(model, user, k, known=True):
    """What the service must say, as JSON holds it."""
    found = model.recommend([user], k=k)
    pairs = zip(found["item_id"].tolist(), found["score"].tolist(), strict=True)
    return json.loads(json.dumps({"known": known, "items": [{"item": i, "score": s} for i, s in pairs]}))


@pytest.mark.parametrize("model", [ranker, numbered])
def test_the_service_answers_as_the_model_does_with_ids_as_they_were_given(serve, model):
    model = model()
    client, _ = serve(model)
    for user in plain_ids(model)[0]:
        for k in (1, 3, 100):
            response = client.get(f"/recommend/{user}", params={"k": k})
            assert response.status_code == 200
            assert response.json() == answer(model, user, k)
    user = plain_ids(model)[0][0]
    ids = [pair["item"] for pair in client.get(f"/recommend/{user}").json()["items"]]
    assert ids
    assert all(type(item) is type(plain_ids(model)[1][0]) for item in ids)
    assert client.get("/health").json() == {"ok": True, "error": None, "users": len(model.user_ids_)}


@pytest.mark.parametrize("model,stranger", [(ranker, "nobody"), (numbered, 5), (numbered, "nobody"), (numbered, -1)])
def test_a_user_whom_the_fit_did_not_see_gets_what_most_users_met(serve, model, stranger):
    model = model()
    client, _ = serve(model)
    found = client.get(f"/recommend/{stranger}", params={"k": 4}).json()
    asked = stranger if type(stranger) is type(plain_ids(model)[0][0]) else 5
    assert found == answer(model, asked, 4, known=False)
    counts = np.sort(np.bincount(model.seen_.indices))[::-1]
    assert [pair["score"] for pair in found["items"]] == counts[:4].tolist()


def test_ids_that_urls_give_a_meaning_to_are_ids_like_others(serve):
    users = ["a/b", "/", "a b", "100%", "?k=2", "#", "ä", "a+b", "\"'", "é/ü"]
    model = FMRanker(2, solver="implicit_als", random_state=0).fit(interactions(users, seed=1))
    client, _ = serve(model)
    known = plain_ids(model)[0]
    assert {"a/b", "?k=2", "a+b"} <= set(known)
    for user in known:
        assert client.get(f"/recommend/{quote(user, safe='')}?k=3").json() == answer(model, user, 3)


@pytest.mark.parametrize("k", ["0", "-1", str(10**9), "x", "1.5", "", "nan", str(10**30)])
def test_a_length_that_is_none_is_refused(serve, k):
    client, _ = serve(ranker())
    for user in ("u1", "nobody"):
        assert client.get(f"/recommend/{user}", params={"k": k}).status_code == 422


def test_a_service_without_a_good_file_does_not_start(serve):
    _, path = serve(numbered())
    (app,) = (block for block in blocks() if "FastAPI()" in block)
    path.write_bytes(b"no model")
    with pytest.raises(SystemExit, match="not a sparsefm model file"):
        execute(app)


def test_a_new_file_changes_the_answers(serve):
    client, path = serve(numbered(0))
    assert client.get("/recommend/101?k=3").json() == answer(numbered(0), 101, 3)
    assert answer(numbered(0), 101, 3) != answer(numbered(1), 101, 3)
    for seed in (1, 0, 1):
        numbered(seed).save(path)
        assert client.get("/recommend/101?k=3").json() == answer(numbered(seed), 101, 3)


def test_a_file_that_does_not_load_leaves_the_old_model_and_is_reported(serve):
    client, path = serve(numbered())
    whole, expected = path.read_bytes(), answer(numbered(), 101, 3)

    def spoil(how):
        beside = path.with_name("beside")
        if how == "another model":
            regressor().save(beside)
        else:
            beside.write_bytes(how)
        beside.replace(path)

    half, flipped = whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])
    for how, reason in (
        (half, "ModelFileError"),
        (b"", "ModelFileError"),
        (flipped, "checksum"),
        ("another model", "user_ids_"),
    ):
        spoil(how)
        assert client.get("/recommend/101?k=3").json() == expected
        health = client.get("/health").json()
        assert not health["ok"]
        assert reason in health["error"]
    path.unlink()
    assert client.get("/recommend/101?k=3").json() == expected
    assert "FileNotFoundError" in client.get("/health").json()["error"]
    numbered(1).save(path)
    assert client.get("/recommend/101?k=3").json() == answer(numbered(1), 101, 3)
    assert client.get("/health").json()["ok"]


def test_no_request_sees_half_a_model_while_the_file_is_replaced(serve):
    client, path = serve(numbered(0))
    users = [*plain_ids(numbered())[0], 5]
    legal = {user: [answer(numbered(seed), user, 5, known=user != 5) for seed in (0, 1)] for user in users}
    stop, seen, wrong = threading.Event(), set(), []

    def ask(user):
        found = client.get(f"/recommend/{user}?k=5").json()
        if found in legal[user]:
            seen.add((user, legal[user].index(found)))
        else:
            wrong.append((user, found))

    def hammer(start):
        n = 0
        while not stop.is_set():
            ask(users[(start + n) % len(users)])
            n += 1
        return n

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(hammer, start) for start in range(4)]
        try:
            for seed in [1, 0] * 10:
                numbered(seed).save(path)
                ask(101)
        finally:
            stop.set()
    assert not wrong
    assert all(future.result() > 0 for future in asked)
    numbered(1).save(path)
    ask(101)
    assert client.get("/recommend/101?k=5").json() == legal[101][1]
    assert (101, 1) in seen
    assert client.get("/health").json()["ok"]


# ---- threads ----


def bits(table):
    """All that a table holds, floats by their bytes."""
    table = table.reset_index()
    parts = [
        part.tobytes() if part.dtype.kind in "if" else part.tolist()
        for part in map(np.asarray, table.to_dict("series").values())
    ]
    return [list(table.columns), *parts]


def readers(model, other):
    """Calls of a ranker and a regressor that only read, by name."""
    rows = rated()[0]
    pairs = pd.DataFrame([(user, item) for user in [*USERS[:6], "nobody"] for item in ITEMS[::2]])
    pairs.columns = ["user_id", "item_id"]
    later = pd.DataFrame({"user_id": ["zoe", "zoe", USERS[1]], "item_id": ITEMS[2:5]})
    return {
        "by ids": lambda: model.recommend([*USERS, "nobody"], k=5),
        "among items": lambda: model.recommend(USERS[:4], items=ITEMS[2:], exclude_seen=False, k=3),
        "by frames": lambda: model.recommend(people(), films(), k=4, exclude=interactions()),
        "by pairs": lambda: model.recommend([*USERS[:6], "nobody"], items=pairs, k=3),
        "similar_items": lambda: model.similar_items(ITEMS, k=3),
        "similar_users": lambda: model.similar_users(USERS, k=3),
        "user_vectors": model.user_vectors,
        "item_vectors": model.item_vectors,
        "fold_in": lambda: model.fold_in(later).recommend(["zoe", *USERS[:3]], k=4),
        "regressor": lambda: other.recommend(people(), films(), k=4, exclude=interactions()),
        "predict": lambda: pd.DataFrame(other.predict(rows)),
    }


def test_threads_that_share_a_model_get_the_bits_that_one_gets(tmp_path):
    fitted = ranker(), regressor()
    for place, model in enumerate(fitted):
        model.save(tmp_path / str(place))
    expected = {name: bits(call()) for name, call in readers(*fitted).items()}
    calls = readers(*(load(tmp_path / str(place)) for place in range(2)))  # what is made at a first call is made by all
    together, interval = threading.Barrier(8), sys.getswitchinterval()

    def work(seed):
        order = list(calls) * 12
        random.Random(seed).shuffle(order)
        together.wait()
        return [(name, bits(calls[name]())) for name in order]

    sys.setswitchinterval(1e-5)  # threads meet in the middle of calls
    try:
        with ThreadPoolExecutor(8) as pool:
            found = [answer for answers in pool.map(work, range(8)) for answer in answers]
    finally:
        sys.setswitchinterval(interval)
    assert len(found) == 8 * 12 * len(calls)
    assert not {name for name, answer in found if answer != expected[name]}


# ---- ids ----


@pytest.mark.parametrize("kind", ["Int64", "int32", "uint8", "uint64", "float64", "category", "object"])
class TestTheColumnThatHeldTheNumbers:
    """An id is its value: what kind of column the fit found it in makes no difference."""

    def fitted(self, kind):
        met = interactions(np.arange(100, 112), np.arange(7, 16))
        return FMRanker(4, solver="implicit_als", random_state=0).fit(met.astype(kind))

    def test_lists_are_those_of_plain_numbers(self, kind):
        model, plain = self.fitted(kind), numbered()
        pairs = pd.DataFrame({"user_id": [101, 101, 105], "item_id": [9, 10, 13]})
        for more in ({}, {"items": [7, 9, 12]}, {"items": pairs}):
            for asked in ([101, 105], pd.Series([101, 105]).astype(kind)):
                found, expected = model.recommend(asked, **more), plain.recommend([101, 105], **more)
                assert len(found) > 0
                assert [found[name].tolist() for name in found] == [expected[name].tolist() for name in expected]
        assert model.similar_items([7, 8])["similar"].tolist() == plain.similar_items([7, 8])["similar"].tolist()

    def test_what_is_left_out_of_frames_is_that_of_plain_numbers(self, kind):
        met = interactions(np.arange(100, 112), np.arange(7, 16))
        users, items = met[["user_id"]].drop_duplicates(), met[["item_id"]].drop_duplicates()
        found = self.fitted(kind).recommend(users, items, exclude=met.astype(kind))
        assert bits(found) == bits(numbered().recommend(users, items, exclude=met))

    def test_a_file_keeps_the_answers(self, kind, tmp_path):
        model = self.fitted(kind)
        model.save(tmp_path / "model")
        again = load(tmp_path / "model")
        assert plain_ids(again) == plain_ids(model)
        assert again.recommend([101])["item_id"].tolist() == numbered().recommend([101])["item_id"].tolist()

    def test_who_came_later_may_come_in_another(self, kind, tmp_path):
        later, asked = pd.DataFrame({"user_id": [5, 5, 101], "item_id": [8, 9, 10]}), [5, 101, 102]
        expected = numbered().fold_in(later).recommend(asked, k=3)["item_id"].tolist()
        for model, X in ((self.fitted(kind), later), (numbered(), later.astype(kind))):
            grown, known = model.fold_in(X), plain_ids(model)[0]
            assert grown.recommend(asked, k=3)["item_id"].tolist() == expected
            assert list(map(repr, plain_ids(grown)[0])) == list(map(repr, [*known, type(known[0])(5)]))
            grown.save(tmp_path / "grown")
            assert load(tmp_path / "grown").recommend(asked, k=3)["item_id"].tolist() == expected


def test_numbers_and_texts_beside_each_other_are_told_apart():
    met = pd.DataFrame({"user_id": [1, "1", 2, "2"], "item_id": ["a", "b", "a", "b"]})
    model = FMRanker(2, solver="implicit_als", random_state=0).fit(met)
    for user, other in ((1, "b"), ("1", "a"), (2, "b")):
        assert model.recommend([user])[["user_id", "item_id"]].to_numpy().tolist() == [[user, other]]


# ---- nonsense ----

LENGTHS = [0, -1, True, False, 1.5, 3.0, "3", None, float("nan"), float("inf"), 10**12, 10**30, [3], (1, 2), {}]
LENGTHS += [np.int64(3), np.uint8(2), np.float64(2), np.bool_(True), np.array(3), np.array([1, 2]), -(10**12)]
MISSING = [None, float("nan"), float("inf"), pd.NA, pd.NaT]


def nonsense(rng):
    """What is no sequence of ids, or one of things that are none."""
    makers = [
        lambda: None, lambda: "u1", lambda: b"u1", lambda: 3, lambda: 3.5, lambda: {}, lambda: {"u1": 1},
        lambda: {"u1", "u2"}, lambda: (user for user in USERS), lambda: iter([101]), lambda: [["u1"]], lambda: [[101]],
        lambda: [["u1"], "u2"], lambda: [["u1", "u2"], ["u3"]], lambda: [{}], lambda: [{"a": 1}, {}], lambda: [{1}],
        lambda: [("u1", 1)], lambda: [object()], lambda: np.array([["u1"]]), lambda: np.eye(2), lambda: np.array(3),
        lambda: np.int64(101), lambda: np.float64("nan"), lambda: np.array([], float), lambda: pd.DataFrame(),
        lambda: people(), lambda: pd.Series(dtype=object), lambda: [10**30], lambda: [-(2**63)], lambda: [2**64 - 1],
        lambda: [101.0, 101.5], lambda: [True, False], lambda: [1 + 2j], lambda: [b"u1"], lambda: ["u1", 101, None],
        lambda: pd.to_datetime(["2020-01-01"]), lambda: np.array(["2020"], "M8[D]"), lambda: pd.Categorical(["u1"]),
        lambda: range(100, 104), lambda: sp.eye_array(2), lambda: np.ma.masked_array([101, 102], [True, False]),
        lambda: [""], lambda: ["\x00", "\ud800"], lambda: [np.nan] * 3, lambda: [None, None], lambda: [pd.NA, "u1"],
        lambda: [np.array(["u1"])], lambda: [np.array([1, 2]), np.array([1])], lambda: np.array([101, 102], np.float16),
        lambda: np.array([(1, 2)], "i4,i4"), lambda: pd.Series(["u1", "u2"], index=[5, 5]), lambda: [pd.Timestamp(0)],
        lambda: pd.MultiIndex.from_tuples([("u1", 1)]), lambda: memoryview(b"u1"), lambda: lambda: 1, lambda: [3, "3"],
    ]  # fmt: skip
    return rng.choice(makers)()


def ids(rng, known, more):
    """Ids of a request, as a rule in order."""
    kind = rng.random()
    if kind < 0.2:
        return nonsense(rng)
    chosen = rng.sample(known, rng.randint(0, len(known)))
    if kind < 0.45:
        chosen += more
    if kind > 0.8:
        chosen += rng.choices(chosen, k=2) if chosen else []  # twice
    if 0.7 < kind < 0.8:
        chosen.append(rng.choice(MISSING))
    rng.shuffle(chosen)
    shapes = [list, tuple, pd.Series, pd.Index, np.array, lambda x: np.array(x, object), pd.Categorical]
    return rng.choice(shapes)(chosen)


def spoiled(rng, frame, column):
    """A frame of a request, or with a fault in one of many places."""
    n = rng.choice([0, 1, 2, rng.randint(0, len(frame)), len(frame)])
    frame = frame.sample(n, random_state=rng.randrange(1000))
    name = rng.choice(list(frame.columns))
    values = [1, "x", float("inf"), 1e300, 1e30, 1j, 10**30, b"x", True, pd.Timestamp(0), [[1]] * n, [{}] * n, *MISSING]
    values += [pd.array([None] * n, "Int64"), frame[name].astype("category"), frame[name].astype(object)]

    def filled():
        return frame.assign(**{name: rng.choice(values)})

    faults = [
        lambda: frame.drop(columns=name), lambda: pd.concat([frame, frame[[name]]], axis=1), lambda: pd.DataFrame(),
        lambda: pd.DataFrame(index=[1, 2]), lambda: pd.concat([frame, frame.head(1)]), lambda: frame.set_axis([0] * n),
        lambda: pd.concat([frame, filled().head(1)]), lambda: frame.head(1).assign(**{name: rng.choice(MISSING)}),
        lambda: frame.assign(age=rng.choice([30, 1e30])), lambda: frame.assign(genres="war"), lambda: frame.T,
        lambda: frame.assign(user_id="u1"), lambda: frame.assign(item_id="i1"), lambda: frame.assign(rank=1, score=2.0),
        lambda: frame.to_dict(), lambda: frame.to_numpy(), lambda: frame.get(column), lambda: nonsense(rng),
        lambda: frame.rename(columns=str.upper), lambda: frame.rename(columns={name: 3}), lambda: frame.set_index(name),
        lambda: frame.set_axis(pd.MultiIndex.from_tuples([(c, "") for c in frame.columns]), axis=1),
        lambda: frame.astype({name: "string"}),
    ]  # fmt: skip
    return rng.choice([lambda: frame, lambda: frame.reset_index(drop=True), filled, filled, *faults[:8], *faults])()


def plain(value):
    """A value that has a hash and equals itself."""
    if not pd.api.types.is_scalar(value):
        return repr(value)
    return "missing" if pd.isna(value) else value


def judge(found, asked, k, user, item, legal, left_out):
    """What is wrong with a list, "" if nothing: its columns, ranks, scores, ids, and what must not be shown."""
    if not isinstance(found, pd.DataFrame) or list(found.columns) != [user, item, "rank", "score"]:
        return "not a frame of these four columns"
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
        return "answered a length that is none"
    users, items = map(plain, found[user].tolist()), map(plain, found[item].tolist())
    runs = []
    for line in zip(users, items, found["rank"].tolist(), found["score"].tolist(), strict=True):
        if line[2] == 1:
            runs.append([])
        if not runs or line[2] != len(runs[-1]) + 1:
            return "ranks do not count from 1"
        runs[-1].append(line)
    requests = iter(map(plain, asked))
    for run in runs:
        scores = [line[3] for line in run]
        shown = [line[1] for line in run]
        if len(run) > k:
            return "longer than k"
        if not np.isfinite(scores).all() or (np.diff(scores) > 0).any():
            return "scores are not finite or ascend"
        if len({line[0] for line in run}) > 1 or run[0][0] not in requests:
            return "of users that were not asked for, or in another order"
        if not set(shown) <= legal or len(set(shown)) < len(shown):
            return "items that are not to choose from, or twice"
        if not left_out.isdisjoint((line[0], line[1]) for line in run):
            return "what was to be left out"
    return ""


def pairs_in(frame):
    return set(zip(map(plain, frame["user_id"].tolist()), map(plain, frame["item_id"].tolist()), strict=True))


def call_by_ids(rng, model):
    """A call with ids, and the judge of its answer."""
    known, of_items = plain_ids(model)
    stranger = "nobody" if isinstance(known[0], str) else 5
    met = interactions() if isinstance(known[0], str) else interactions(np.arange(100, 112), np.arange(7, 16))
    asked = ids(rng, known, [stranger])
    k = rng.choice(LENGTHS) if rng.random() < 0.25 else rng.randint(1, 12)
    more, left_out = {"k": k}, pairs_in(met)
    choose = rng.random()
    if choose < 0.3:
        more["items"] = ids(rng, of_items, [] if rng.random() < 0.7 else [stranger])
    elif choose < 0.7:
        own = pd.DataFrame({"user_id": rng.choices([*known, stranger], k=40), "item_id": rng.choices(of_items, k=40)})
        more["items"] = spoiled(rng, own, "user_id")
    if rng.random() < 0.3:
        more["exclude_seen"], left_out = False, set()
    if rng.random() < 0.05:
        more["exclude"] = met

    def check(found):
        legal = set(of_items)
        if isinstance(more.get("items"), pd.DataFrame):
            wrong = pairs_in(found) - pairs_in(more["items"])
            if wrong:
                return "pairs that are not to choose from"
            places = {user: place for place, user in enumerate(map(plain, pd.Series(asked).tolist()))}
            order = [places[user] for user in map(plain, found["user_id"].tolist())]
            if order != sorted(order):
                return "of users in another order"
        elif more.get("items") is not None:
            legal = set(pd.Series(more["items"]).tolist())
        return judge(found, pd.Series(asked).tolist(), k, "user_id", "item_id", legal, left_out)

    return (lambda: model.recommend(asked, **more)), check, {"contexts": asked, **more}


def call_by_frames(rng, model):
    """A call with frames, and the judge of its answer."""
    contexts, candidates, met = people(), films(), interactions()
    if model is numbered():
        met = interactions(np.arange(100, 112), np.arange(7, 16))
        contexts, candidates = met[["user_id"]].drop_duplicates(), met[["item_id"]].drop_duplicates()
    fault = rng.random()  # one fault at a time as a rule, so that each is reached
    if fault < 0.4 or fault > 0.9:
        contexts = spoiled(rng, contexts, "user_id")
    if 0.4 < fault < 0.7 or fault > 0.9:
        candidates = spoiled(rng, candidates, "item_id")
    k = rng.choice(LENGTHS) if rng.random() < 0.2 else rng.randint(1, 12)
    more, left_out = {"k": k}, set()
    if rng.random() < 0.5:
        more["exclude"] = spoiled(rng, met, "user_id") if fault > 0.7 else met

    def check(found):
        nonlocal left_out
        if more.get("exclude") is not None:
            left_out = pairs_in(more["exclude"])
        legal, asked = set(map(plain, candidates["item_id"].tolist())), contexts["user_id"].tolist()
        return judge(found, asked, k, "user_id", "item_id", legal, left_out)

    if candidates is None:
        candidates = []  # None would be a call by ids
    return (lambda: model.recommend(contexts, candidates, **more)), check, {
        "contexts": contexts, "candidates": candidates, **more
    }  # fmt: skip


def call_similar(rng, model):
    """A call for neighbours, and the judge of its answer."""
    of_users = rng.random() < 0.3
    known = plain_ids(model)[0 if of_users else 1]
    asked = ids(rng, known, [] if rng.random() < 0.8 else ["nobody"])
    k = rng.choice(LENGTHS) if rng.random() < 0.25 else rng.randint(1, 12)
    column = "user_id" if of_users else "item_id"
    method = model.similar_users if of_users else model.similar_items

    def check(found):
        own = {(one, one) for one in known}
        return judge(found, pd.Series(asked).tolist(), k, column, "similar", set(known), own)

    return (lambda: method(asked, k=k)), check, {"method": method.__name__, "ids": asked, "k": k}


def call_fold_in(rng, model):
    """A call with who came later and has met something, and the judge of the model that it makes."""
    known, of_items = plain_ids(model)
    later = ["zoe", "yan"] if isinstance(known[0], str) else [5, 6]
    X = pd.DataFrame({"user_id": rng.choices([*later, *known[:2]], k=6), "item_id": rng.choices(of_items, k=6)})
    more, fault = {}, rng.random()
    if fault < 0.5:
        X = spoiled(rng, X, "user_id")
    elif fault < 0.6 and known[0] not in USERS:
        X["user_id"] = X["user_id"].astype(
            rng.choice(["float", "uint64", "int32", "uint8", "Int64", "category", object])
        )
    elif fault < 0.7:
        X["weight"] = rng.choice([0, 1, 1e-300, 1e30, 1e300, -1, np.nan, np.inf, "1", None, True, [0, 1, 2, 3, 4, 5]])
    elif fault < 0.8:
        more["sample_weight"] = rng.choice(
            [1, [1], [1] * 6, [0] * 6, [-1] * 6, [np.nan] * 6, [1e300] * 6, ["1"] * 6, [None] * 6, [[1] * 6], "x", {}]
            + [
                10**400,
                [10**400] * 6,
                [1j] * 6,
                np.ones((6, 1)),
                [1, 2, 3, 4, 5, 0],
                np.ones(6, np.float16),
                [True] * 6,
            ]
        )
    elif fault < 0.9:
        more["users"] = spoiled(rng, pd.DataFrame({"user_id": later, "age": [30.0, None]}).iloc[[0, 1, 0]], "user_id")

    def check(found):
        asked = X["user_id"].drop_duplicates().tolist()
        others = [user for user in known if user not in asked]
        if list(map(type, plain_ids(found)[0][: len(known)])) != list(map(type, known)):
            return "ids of users that were there are of another type"
        if plain_ids(found)[0][: len(known)] != known or plain_ids(found)[1] != of_items:
            return "ids that were there are others"
        if bits(found.item_vectors()) != bits(model.item_vectors()):
            return "items moved"
        if bits(found.user_vectors().loc[others]) != bits(model.user_vectors().loc[others]):
            return "users moved that X does not name"
        weighted = "weight" in X.columns or "sample_weight" in more  # of weight zero is not met
        left_out = set() if weighted else pairs_in(X)
        return judge(found.recommend(asked, k=5), asked, 5, "user_id", "item_id", set(of_items), left_out)

    return (lambda: model.fold_in(X, **more)), check, {"X": X, **more}


BY_IDS = (call_by_ids, call_by_ids, call_similar)


def faults_of(seed, n, makers):
    """One line for each way to fail that n calls meet."""
    rng, faults, answered = random.Random(seed), {}, 0
    for _ in range(n):
        name, maker, model = rng.choice(makers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of older pandas, as the request is made
            call, check, given = maker(rng, model)
        try:
            found = call()
        except (ValueError, TypeError) as error:
            if len(str(error)) >= 20:
                continue
            wrong = f"{type(error).__name__} that says only {error!s:.60}"
        except Exception as error:
            wrong = f"{type(error).__name__}: {re.sub('[0-9.]+', '…', str(error)):.60}"
        else:
            answered += 1
            try:
                wrong = check(found)
            except Exception as error:  # a frame without a column of ids, or with two
                wrong = f"answered, but {type(error).__name__} when the request is read: {error!s:.60}"
        if wrong:
            faults.setdefault((name, wrong), f"{name}: {wrong}\n    of {given!r:.600}")
    assert n / 5 < answered < n * 4 / 5  # both kinds of call are met
    return list(faults.values())


def test_whatever_a_ranker_is_asked_by_ids_it_answers_rightly_or_says_what_is_wrong():
    models = {"text": ranker(), "numbers": numbered(), "angles": of_angles()}
    faults = faults_of(0, 6500, [(name, call, model) for name, model in models.items() for call in BY_IDS])
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)


@pytest.mark.filterwarnings("ignore:column .* was fitted on levels")  # a hint beside an answer
def test_whatever_a_model_is_asked_by_frames_it_answers_rightly_or_says_what_is_wrong():
    models = {"ranker": ranker(), "numbers": numbered(), "regressor": regressor()}
    faults = faults_of(1, 2300, [(name, call_by_frames, model) for name, model in models.items()])
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)


@pytest.mark.filterwarnings("ignore:column .* was fitted on levels")  # a hint beside an answer
def test_whoever_is_folded_in_nothing_else_moves_or_it_says_what_is_wrong():
    models = {"text": ranker(), "numbers": numbered()}
    before = [(bits(model.user_vectors()), bits(model.recommend(model.user_ids_))) for model in models.values()]
    faults = faults_of(2, 1200, [(name, call_fold_in, model) for name, model in models.items()])
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)
    assert [(bits(model.user_vectors()), bits(model.recommend(model.user_ids_))) for model in models.values()] == before


@pytest.mark.parametrize("other", [None, 0.5, float("inf"), 2**63, -1], ids=str)
def test_an_id_beyond_the_exact_floats_is_not_taken_for_its_neighbour(other):
    """A list of such ids and of something that is none is floats to pandas, where neighbours are equal."""
    first = 2**60
    users, items = np.arange(first, first + 12), np.arange(first, first + 9)
    model = FMRanker(4, solver="implicit_als", random_state=0).fit(interactions(users, items))
    for user in users.tolist():
        try:
            found = model.recommend([user, other], k=3)
        except (ValueError, TypeError):
            continue  # refused
        expected = model.recommend([user], k=3)
        found = found.head(len(expected))
        assert found["user_id"].tolist() == expected["user_id"].tolist()
        assert bits(found[["item_id", "score"]]) == bits(expected[["item_id", "score"]])
