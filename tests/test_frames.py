"""sparsefm.datasets.frames: against Python's csv module, whatever the chunks; and every kind of damage."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from sparsefm.datasets import DataFileError, iter_frames, load_avazu, load_criteo, load_recbole
from sparsefm.encoders import FrameEncoder, Numeric, OneHot

TINY = Path(__file__).parent.parent / "datasets" / "tiny"
TEXT = pd.Series([""]).dtype

RECBOLE = {
    "tiny.inter": "user_id:token\titem_id:token\trating:float\tpast:float_seq\n7\t01\t4\t1.5 2\n8\t2\t\t\n",
    "tiny.user": 'user_id:token\tnick:token\n7\t"Ada\n8\t\n9\t12\n',
    "tiny.item": "item_id:token\tgenres:token_seq\n01\tDrama War\n2\tDrama\n3\t\n",
}


def write(folder: Path, text: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, **options: Any) -> pd.DataFrame:
    return pd.concat(iter_frames(path, **options))


# ------------------------------------------------------------------------------------------- against csv


def dtype_by_definition(texts: list[str]) -> Any:
    """The rule of the docstring, spelled out for one column."""

    def plain(text: str) -> bool:
        try:
            return str(int(text)) == text and -(2**63) <= int(text) < 2**63
        except ValueError:
            return False

    def number(text: str) -> bool:
        if not text.isascii() or "_" in text or text != text.strip():
            return False
        try:
            int(text)
        except ValueError:
            try:
                return math.isfinite(float(text)) or text.lower() == "nan"
            except ValueError:
                return False
        return plain(text) and abs(int(text)) <= 2**53

    some = [text for text in texts if text]
    if some and all(map(plain, some)):
        return np.dtype("int64") if len(some) == len(texts) else pd.Int64Dtype()
    return np.dtype("float64") if some and all(map(number, some)) else TEXT


def cell(text: str, dtype: Any) -> Any:
    if text == "":
        return None
    return text if dtype == TEXT else int(text) if "int" in str(dtype).lower() else float(text)


def assert_is(frame: pd.DataFrame, texts: dict[str, list[str]], dtypes: dict[str, Any]) -> None:
    assert list(frame.columns) == list(texts)
    assert frame.dtypes.to_dict() == dtypes
    assert frame.index.tolist() == list(range(len(frame)))
    for column, cells in texts.items():
        expected = [cell(text, dtypes[column]) for text in cells]
        found = [None if gap else value for value, gap in zip(frame[column], frame[column].isna(), strict=True)]
        assert found == [None if value != value else value for value in expected]


integers = st.integers(-(2**70), 2**70).map(str)
fields = st.one_of(
    integers,
    st.sampled_from(
        ["", "", "0", "-0", "007", "+1", "1.5", "-.5", "2.", "1e3", "1e999", "nan", "NA", "inf", "1_0", " 1"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=5),
)
column_of = st.sampled_from(
    [
        fields,
        st.integers(-(2**63), 2**63 - 1).map(str),
        st.one_of(st.just(""), st.integers(-9, 9).map(str)),
        st.one_of(st.just(""), st.floats(allow_nan=False, allow_infinity=False).map(repr)),
        st.sampled_from(["1", "2.5", str(2**53), str(2**53 + 1)]),
    ]
)


@st.composite
def tables(draw: Any) -> dict[str, list[str]]:
    n_rows = draw(st.integers(1, 20))
    # two columns at least: csv cannot tell an empty line from a row with one gap
    return {
        f"c{i}": draw(st.lists(draw(column_of), min_size=n_rows, max_size=n_rows))
        for i in range(draw(st.integers(2, 4)))
    }


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from([",", "\t"]), st.sampled_from(["\n", "\r\n"]))
def test_any_chunks_are_what_csv_reads(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, list[str]], sep: str, end: str
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=sep, lineterminator=end).writerows([table, *zip(*table.values(), strict=True)])
    path = tmp_path_factory.mktemp("any") / ("a.csv" if sep == "," else "a.tsv")
    path.write_bytes(text.getvalue().encode())
    dtypes = {column: dtype_by_definition(texts) for column, texts in table.items()}
    whole = read(path)
    assert_is(whole, table, dtypes)
    # what the whole settles on holds for all pieces
    named = {column: "str" if dtype == TEXT else str(dtype) for column, dtype in dtypes.items()}
    for rows in (1, 7):
        frames = list(iter_frames(path, rows=rows, dtypes=named))
        assert [len(frame) for frame in frames[:-1]] == [rows] * (len(frames) - 1)
        assert_frame_equal(pd.concat(frames), whole)


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_chunks_without_dtypes(tmp_path: Path, rows: int) -> None:
    texts = {"id": ["1"] * 30, "x": ["0.5", "2"] * 15, "name": ["a", "", "NA"] * 10}
    path = write(tmp_path, "id,x,name\n" + "".join(f"{a},{b},{c}\n" for a, b, c in zip(*texts.values(), strict=True)))
    assert_is(read(path, rows=rows), texts, {"id": np.dtype("int64"), "x": np.dtype("float64"), "name": TEXT})


def test_more_records_than_are_held_at_one_time(tmp_path: Path) -> None:
    texts = {"id": [str(i) for i in range(25_003)], "x": [f"v{i % 7}" for i in range(25_003)]}
    path = write(tmp_path, "id,x\n" + "".join(f"{i},v{i % 7}\n" for i in range(25_003)))
    frames = list(iter_frames(path, rows=12_000))
    assert [len(frame) for frame in frames] == [12_000, 12_000, 1_003]
    assert_is(pd.concat(frames), texts, {"id": np.dtype("int64"), "x": TEXT})


# ------------------------------------------------------------------------------------------- the dtype trap


@pytest.mark.parametrize(
    ("first", "later", "dtype", "remedy"),
    [
        ("1", "x", "int64", "str"),
        ("1", "007", "int64", "str"),
        ("1", "1.0", "int64", "str"),
        ("1", str(2**63), "int64", "str"),
        ("1", "", "int64", "Int64"),
        ("0.5", "x", "float64", "str"),
        ("0.5", "inf", "float64", "str"),
        ("0.5", "1e999", "float64", "str"),
    ],
)
def test_a_later_value_that_does_not_fit_is_named_with_its_remedy(
    tmp_path: Path, first: str, later: str, dtype: str, remedy: str
) -> None:
    # the quoted line break makes lines and rows differ
    path = write(tmp_path, f'k,v\n"a\nb",{first}\n\nc,{first}\nd,{later}\n')
    frames = iter_frames(path, rows=2)
    assert next(frames)["v"].dtype == dtype
    with pytest.raises(DataFileError) as caught:
        next(frames)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 6: column 'v' is {dtype}, so expected ")
    assert f"found {later!r}" in message
    assert f'dtypes={{"v": "{remedy}"}}' in message
    cured = read(path, rows=2, dtypes={"v": remedy})
    assert [str(v) for v in cured["v"].fillna(-1)] == [first, first, later or "-1"]


def test_text_stays_text_in_chunks_that_look_like_integers(tmp_path: Path) -> None:
    path = write(tmp_path, "id,x\n007,1\n8,1\n9,1\n")
    assert [frame["id"].tolist() for frame in iter_frames(path, rows=1)] == [["007"], ["8"], ["9"]]


def test_gaps_do_not_make_integers_floats(tmp_path: Path) -> None:
    big = 2**62 + 1
    frame = read(write(tmp_path, f"id,x\n{big},1\n,1\n"))
    assert frame["id"].dtype == pd.Int64Dtype()
    assert frame["id"][0] == big


# ------------------------------------------------------------------------------------------- files and names


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_files_and_their_damage(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    data = ("id,x\n" + "".join(f"{i},{i * 37 % 101}\n" for i in range(5000))).encode()
    plain = read(write(tmp_path, data))
    assert_frame_equal(read(write(tmp_path, compress(data), f"a.csv{suffix}")), plain)
    short = write(tmp_path, compress(data)[:-20], f"short.csv{suffix}")
    with pytest.raises(DataFileError, match=r"short\.csv.*cannot be read beyond line"):
        read(short)
    with pytest.raises(DataFileError, match=r"none\.csv.*cannot be read beyond line 0"):
        iter_frames(write(tmp_path, data, f"none.csv{suffix}"))


def test_zip_with_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside.csv", "id,x\n1,2\n")
    assert read(path).to_dict("list") == {"id": [1], "x": [2]}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.csv", "id,x\n1,2\n")
    with pytest.raises(DataFileError, match="exactly one file, found 2"):
        iter_frames(path)


def test_several_files_are_one_table(tmp_path: Path) -> None:
    a, b = write(tmp_path, "id,x\n1,a\n2,b\n"), write(tmp_path, "x,id\nc,3\n", "b.csv")
    frames = list(iter_frames([a, b], rows=5))
    assert [len(frame) for frame in frames] == [2, 1]
    assert_is(pd.concat(frames), {"id": ["1", "2", "3"], "x": ["a", "b", "c"]}, {"id": np.dtype("int64"), "x": TEXT})
    with pytest.raises(DataFileError, match=r"c\.csv has the columns id, but .*a\.csv has id, x"):
        iter_frames([a, write(tmp_path, "id\n1\n", "c.csv")])
    with pytest.raises(DataFileError, match=r"d\.csv, line 2: column 'id' is int64"):
        read([a, write(tmp_path, "id,x\nz,1\n", "d.csv")])  # type: ignore[arg-type]


def test_columns_are_chosen_and_ordered(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c\n1,2,3\n")
    assert read(path, columns=["c", "a"]).to_dict("list") == {"c": [3], "a": [1]}


def test_byte_order_mark_and_layout_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbfid\tx\n1\t\xc3\xa9\n", "train")
    assert read(path, layout="tsv").to_dict("list") == {"id": [1], "x": ["é"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows must be"),
        ({"rows": True}, "rows must be"),
        ({"rows": 1.0}, "rows must be"),
        ({"columns": []}, "list of different names"),
        ({"columns": "id"}, "list of different names"),
        ({"columns": ["id", "id"]}, "list of different names"),
        ({"columns": ["id", "y"]}, "has no column y; it has id, x"),
        ({"layout": "excel"}, "layout must be one of csv, tsv"),
        ({"dtypes": {"y": "str"}}, "has no column y; it has id, x"),
        ({"dtypes": {"x": "float32"}}, "dtype of 'x' must be one of str, int64, Int64, float64"),
    ],
)
def test_arguments_are_checked_at_the_call(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        iter_frames(write(tmp_path, "id,x\n1,2\n"), **options)


def test_paths_are_checked_at_the_call(tmp_path: Path) -> None:
    path = write(tmp_path, "id,x\n1,2\n")
    with pytest.raises(FileNotFoundError, match="there is no file at"):
        iter_frames([path, tmp_path / "b.csv"])
    with pytest.raises(ValueError, match="empty list"):
        iter_frames([])
    with pytest.raises(ValueError, match="does not follow from its name; pass layout"):
        iter_frames(write(tmp_path, "1", "day_0.gz"))
    with pytest.raises(ValueError, match="one layout, found csv, tsv"):
        iter_frames([path, write(tmp_path, "id\tx\n", "a.tsv")])


# ------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (b"3,c", b"3", 4, "expected 2 fields, found 1"),
        (b"3,c", b"3,c,d", 4, "expected 2 fields, found 3"),
        (b"3,c", b"   ", 4, "expected 2 fields, found 1"),
        (b"3,c", b'3,"c', 4, "unexpected end of data"),
        (b"3,c", b'3,"c"d', 4, "expected after"),
        (b"3,c", b"3,\xe9", 4, "not UTF-8 text"),
        (b"3,c", b"3,\0", 4, "NUL byte"),
        (b"3,c", b"3,c\r4,d", 4, "new-line character"),
        (b"3,c", b'"\n",c\n\n3', 7, "expected 2 fields, found 1"),
        (b"id,x", b"id,id", 1, "two columns of one name"),
    ],
)
@pytest.mark.parametrize("rows", [1, 100])
def test_a_malformed_line_is_named(tmp_path: Path, rows: int, old: bytes, new: bytes, line: int, message: str) -> None:
    path = write(tmp_path, b"id,x\n1,a\n2,b\n3,c\n4,d\n".replace(old, new))
    with pytest.raises(DataFileError, match=rf"a\.csv, line {line}: .*{message}"):
        read(path, rows=rows, dtypes={} if b"id,id" in new else {"id": "str"})


@pytest.mark.parametrize("text", ["", "\n\n", "\r\n"])
def test_an_empty_file_is_named_at_the_call(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataFileError, match=r"a\.csv: the file is empty"):
        iter_frames(write(tmp_path, text))


def test_a_header_alone_has_no_rows_but_may_stand_beside_others(tmp_path: Path) -> None:
    empty, full = write(tmp_path, "id,x\n"), write(tmp_path, "id,x\n1,2\n", "b.csv")
    with pytest.raises(DataFileError, match=r"a\.csv: no rows"):
        next(iter_frames(empty))
    assert len(list(iter_frames([empty, full]))) == 1


# ------------------------------------------------------------------------------------------------- parquet


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install sparsefm\[arrow\]"):
        iter_frames(write(tmp_path, b"PAR1", "a.parquet"))


def parquet(path: Path, columns: dict[str, Any], row_group_size: int = 3) -> Path:
    pa = pytest.importorskip("pyarrow", reason="an extra: sparsefm[arrow]")
    pq = pytest.importorskip("pyarrow.parquet", reason="an extra: sparsefm[arrow]")
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
def test_parquet_has_the_same_dtypes_in_every_chunk(tmp_path: Path, rows: int) -> None:
    pa = pytest.importorskip("pyarrow", reason="an extra: sparsefm[arrow]")
    big = 2**62 + 1
    path = parquet(
        tmp_path / "a.parquet",
        {
            "plain": [1, 2, 3, 4, big],
            "gaps": [1, 2, 3, None, big],
            "small": pa.array([1, None, 3, 4, 5], pa.int8()),
            "unsigned": pa.array([2**64 - 1, 0, 0, 0, 0], pa.uint64()),
            "flag": [True, False, True, None, False],
            "x": [0.5, None, 1.0, 2.0, 3.0],
            "name": ["a", None, "NA", "007", ""],
            "coded": pa.array(["u", "v", None, "u", "u"]).dictionary_encode(),
            "when": pa.array([0, 1, None, 3, 4], pa.timestamp("s")),
        },
    )
    frames = list(iter_frames(path, rows=rows))
    assert max(map(len, frames)) <= rows
    for frame in frames:
        assert {column: str(dtype) for column, dtype in frame.dtypes.items()} == {
            "plain": "int64",
            "gaps": "Int64",
            "small": "Int8",
            "unsigned": "uint64",
            "flag": "boolean",
            "x": "float64",
            "name": str(TEXT),
            "coded": str(TEXT),
            "when": "datetime64[ms]",  # Parquet has no seconds
        }
    whole = pd.concat(frames)
    assert whole.index.tolist() == [0, 1, 2, 3, 4]
    assert whole["plain"].tolist() == [1, 2, 3, 4, big]
    assert whole["gaps"].isna().tolist() == [False, False, False, True, False]
    assert whole["gaps"][4] == big
    assert whole["unsigned"][0] == 2**64 - 1
    assert whole["name"].fillna("?").tolist() == ["a", "?", "NA", "007", ""]
    assert whole["coded"].fillna("?").tolist() == ["u", "v", "?", "u", "u"]
    assert whole["when"].isna().tolist() == [False, False, True, False, False]


def test_parquet_in_other_dtypes(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet", {"id": [1, 2, None, 4], "code": ["1", "2", "3", "007"], "x": [1.0, 2.0, 3.0, 4.5]}
    )
    assert read(path, columns=["id"], dtypes={"id": "str"})["id"].fillna("?").tolist() == ["1", "2", "?", "4"]
    assert read(path, columns=["x", "id"], dtypes={"id": "float64"}).dtypes.tolist() == [np.float64, np.float64]
    with pytest.raises(DataFileError, match=r"row 3: column 'id' is not int64, found a gap"):
        read(path, columns=["id"], dtypes={"id": "int64"})
    # Arrow itself would read 7
    with pytest.raises(DataFileError, match=r"row 4: column 'code' is not int64, found 007"):
        read(path, dtypes={"code": "int64"})
    with pytest.raises(DataFileError, match=r"rows 1 to 4: column 'x' is not Int64"):
        read(path, dtypes={"x": "Int64"})


def test_parquet_files_must_agree(tmp_path: Path) -> None:
    a = parquet(tmp_path / "a.parquet", {"id": [1, 2]})
    b = parquet(tmp_path / "b.parquet", {"id": ["1", "007"]})
    with pytest.raises(DataFileError, match=r"b\.parquet: column 'id' is string, in .*a\.parquet it is int64"):
        iter_frames([a, b])
    assert read([a, b], dtypes={"id": "str"})["id"].tolist() == ["1", "2", "1", "007"]  # type: ignore[arg-type]
    # one file's gaps are known before the other is read
    c = parquet(tmp_path / "c.parquet", {"id": [3, None]})
    assert [str(frame["id"].dtype) for frame in iter_frames([a, c])] == ["Int64", "Int64"]


def test_damaged_parquet(tmp_path: Path) -> None:
    data = parquet(tmp_path / "a.parquet", {"id": list(range(1000))}, 1000).read_bytes()
    with pytest.raises(DataFileError, match=r"short\.parquet is no whole Parquet file"):
        iter_frames(write(tmp_path, data[:-10], "short.parquet"))
    with pytest.raises(DataFileError, match=r"zero\.parquet: cannot be read beyond row 0"):
        read(write(tmp_path, data[:4] + bytes(60) + data[64:], "zero.parquet"))
    with pytest.raises(DataFileError, match="no rows"):
        read(parquet(tmp_path / "none.parquet", {"id": []}))


# ------------------------------------------------------------------------------------------------- layouts


def raw(name: str, sep: str) -> list[list[str]]:
    with (TINY / name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=sep, quoting=csv.QUOTE_NONE))


def test_tiny_criteo_loads_and_encodes() -> None:
    frame = load_criteo(TINY / "criteo.tsv")
    names = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    dtypes = {n: np.dtype("int64") if n == "label" else pd.Int64Dtype() if n[0] == "I" else TEXT for n in names}
    assert_is(frame, dict(zip(names, map(list, zip(*raw("criteo.tsv", "\t"), strict=True)), strict=True)), dtypes)
    assert frame["I2"].min() < 0
    assert frame.drop(columns="label").isna().any().all()
    columns = {n: Numeric() if n[0] == "I" else OneHot() for n in names[1:]}
    X = FrameEncoder(columns).fit_transform(frame)
    assert X.shape[0] == 60
    assert np.isfinite(X.data).all()


def test_tiny_avazu_loads_and_encodes() -> None:
    frame = load_avazu(TINY / "avazu.csv")
    header, *rows = raw("avazu.csv", ",")
    texts = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    hours = [f"{hour:%y%m%d%H}" for hour in frame["hour"]]
    assert hours == texts["hour"]
    assert str(frame["hour"].dtype) == "datetime64[s]"
    is_text = {"id", *(n for n in header if n.startswith(("site_", "app_")) or n in ("device_id", "device_ip"))}
    is_text |= {"device_model"}
    rest = [n for n in header if n != "hour"]
    assert_is(frame[rest], {n: texts[n] for n in rest}, {n: TEXT if n in is_text else np.dtype("int64") for n in rest})
    X = FrameEncoder({n: OneHot() for n in rest if n not in ("id", "click")}).fit_transform(frame)
    assert X.shape[0] == 60


@pytest.mark.parametrize(("load", "name"), [(load_criteo, "criteo.tsv"), (load_avazu, "avazu.csv")])
def test_click_logs_in_part_and_in_pieces(load: Callable[..., pd.DataFrame], name: str) -> None:
    whole = load(TINY / name)
    for rows in (1, 13, 60, 99):
        assert_frame_equal(load(TINY / name, rows=rows), whole.iloc[:rows])
    layout = name.partition(".")[0]
    for rows in (1, 7):
        assert_frame_equal(read(TINY / name, layout=layout, rows=rows), whole)
    with pytest.raises(ValueError, match="rows must be"):
        load(TINY / name, rows=0)


def test_test_sets_have_no_label(tmp_path: Path) -> None:
    cut = ["\t".join(row[1:]) for row in raw("criteo.tsv", "\t")]
    frame = load_criteo(write(tmp_path, "\n".join(cut), "test.txt"))
    assert_frame_equal(frame, load_criteo(TINY / "criteo.tsv").drop(columns="label"))
    cut = [",".join([row[0], *row[2:]]) for row in raw("avazu.csv", ",")]
    frame = load_avazu(write(tmp_path, "\n".join(cut), "test"))
    assert_frame_equal(frame, load_avazu(TINY / "avazu.csv").drop(columns="click"))


def test_what_is_not_a_click_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"line 1: expected 40 fields, or 39 .*found 24"):
        load_criteo(write(tmp_path, (TINY / "avazu.csv").read_text().replace(",", "\t")))
    with pytest.raises(DataFileError, match=r"line 1: the header is not Avazu's"):
        load_avazu(write(tmp_path, (TINY / "avazu.csv").read_text().replace("banner_pos", "banner")))
    text = (TINY / "avazu.csv").read_text().replace("14102100", "14139900", 1)
    with pytest.raises(DataFileError, match=r"line 2: column 'hour' .*YYMMDDHH, found '14139900'"):
        load_avazu(write(tmp_path, text))
    lines = raw("criteo.tsv", "\t")
    lines[2][1] = "1.5"
    with pytest.raises(DataFileError, match=r"line 3: column 'I1' is Int64.*found '1\.5'"):
        load_criteo(write(tmp_path, "\n".join(map("\t".join, lines))))


def test_recbole_tokens_are_ids_of_the_whole_set(tmp_path: Path) -> None:
    for name, text in RECBOLE.items():
        write(tmp_path, text, name)
    frames = load_recbole(tmp_path)
    assert sorted(frames) == ["inter", "item", "user"]
    inter, user, item = frames["inter"], frames["user"], frames["item"]
    assert inter.dtypes.tolist() == [np.int64, TEXT, np.float64, TEXT]
    # 01 is no integer, so no item id is one
    assert inter["item_id"].tolist() == ["01", "2"]
    assert item["item_id"].tolist() == ["01", "2", "3"]
    assert inter["past"].fillna("?").tolist() == ["1.5 2", "?"]
    assert inter["rating"].isna().tolist() == [False, True]
    assert user["user_id"].tolist() == [7, 8, 9]
    assert user["nick"].fillna("?").tolist() == ['"Ada', "?", "12"]
    assert item["genres"].fillna("?").tolist() == ["Drama|War", "Drama", "?"]
    alone = load_recbole(tmp_path / "tiny.user")
    assert_frame_equal(alone["user"], user)
    assert_frame_equal(read(tmp_path / "tiny.user"), user)


def test_tokens_are_never_floats(tmp_path: Path) -> None:
    path = write(tmp_path, "version:token\tn:token\n1.1\t3\n1.10\t\n", "a.item")
    frame = read(path)
    assert frame["version"].tolist() == ["1.1", "1.10"]
    assert frame["n"].dtype == pd.Int64Dtype()


def test_recbole_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_recbole(tmp_path / "none")
    with pytest.raises(DataFileError, match="of one data set, found none"):
        load_recbole(tmp_path)
    with pytest.raises(DataFileError, match=r"a\.item, line 1: the header of an atomic file is name:type"):
        load_recbole(write(tmp_path, "item_id\n1\n", "a.item"))
    with pytest.raises(
        DataFileError, match=r"a\.item, line 2: column 'g' is token_seq.*words without a \|, found 'a\|b'"
    ):
        load_recbole(write(tmp_path, "item_id:token\tg:token_seq\n1\ta|b\n", "a.item"))
    write(tmp_path, "item_id:token\n1\n", "b.item")
    with pytest.raises(DataFileError, match=r"of one data set, found a\.item, b\.item"):
        load_recbole(tmp_path)
