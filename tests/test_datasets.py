"""sparsefm.datasets: every layout, every kind of damage, and generated ratings whose truth is known."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy.stats import norm

from sparsefm import datasets
from sparsefm.datasets import DataFileError, MovieLens, fetch_movielens, load_movielens, make_ratings

TINY = Path(__file__).parent.parent / "datasets" / "tiny"
TEXT = pd.Series([""]).dtype

ML_100K = {
    "u.data": "21\t31\t3\t880000001\n12\t44\t3\t880000002\n21\t44\t4\t880000003\n",
    "u.user": "12|39|F|executive|00000\n21|49|M|writer|50001\n",
    "u.item": (
        "31|Marble (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Marble%20(1996)|0|0|1\n"
        "44|Caf\xe9, The (1997) (V)||||0|1|1\n"
    ),
    "u.genre": "unknown|0\nAction|1\nComedy|2\n\n",
}
ML_1M = {
    "ratings.dat": "1::93::5::970000001\n2::66::3::970000002\n",
    "users.dat": "1::F::1::10::40001\n2::M::56::16::70001\n",
    "movies.dat": "66::Ada: The Quarry (1996)::Animation|Children's\n93::Heron's Nest (1975)::Drama\n",
}
ML_10M = {
    "ratings.dat": "1::52::5::830000001\n1::58::3.5::830000002\n",
    "movies.dat": "52::Compass (1992)::Comedy|Romance\n58::Mill, The (1995)::(no genres listed)\n",
    "tags.dat": "1::52::so slow!::1210000000\n",
}
ML_CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,960000001\n1,779,0.5,960000002\n",
    "movies.csv": (
        'movieId,title,genres\n1,Paper Kite (1995),Adventure|Animation\n779,"11\'09""01 - River, The (2002)",Drama\n'
    ),
    "tags.csv": 'userId,movieId,tag,timestamp\n1,1,"paper, wind",1130000000\n',
    "links.csv": "movieId,imdbId,tmdbId\n1,0100001,101\n779,0300002,\n",
}
RECBOLE = {
    "ml-100k.inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n21\t31\t3\t880000001\n12\t44\t3\t880000002\n"
    ),
    "ml-100k.user": (
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "12\t39\tF\texecutive\t00000\n21\t49\tM\twriter\t50001\n"
    ),
    "ml-100k.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "31\tMarble\t1996\tComedy Film-Noir\n44\tLand, The (1995)\tV\tunknown\n"
    ),
}
LAYOUTS = {"ml-100k": ML_100K, "ml-1m": ML_1M, "ml-10m": ML_10M, "ml-csv": ML_CSV, "recbole": RECBOLE}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        # what GroupLens uses: latin-1 in the files of 1998 to 2003
        encoding = "latin-1" if name.startswith("u.") or name.endswith(".dat") else "utf-8"
        (folder / name).write_bytes(text.encode(encoding))
    return folder


def damaged(files: dict[str, str], name: str, old: str, new: str) -> dict[str, str]:
    assert old in files[name]
    return files | {name: files[name].replace(old, new, 1)}


# ------------------------------------------------------------------------------------------------- layouts


def test_all_three_layouts_of_the_tiny_set_load_to_the_same_frames() -> None:
    old, middle, new = (load_movielens(TINY / name) for name in ("ml-100k", "ml-1m", "ml-latest"))
    columns = ["item_id", "title", "year", "genres"]
    assert len(old.ratings) == 60
    assert_frame_equal(old.ratings, middle.ratings)
    assert_frame_equal(old.ratings, new.ratings)
    # without a year in the title there is none, although the old layout has a release date as well
    assert_frame_equal(old.items[columns], middle.items)
    assert_frame_equal(old.items[columns], new.items)
    # occupation is a word in one layout and a code in the other
    assert_frame_equal(old.users.drop(columns="occupation"), middle.users.drop(columns="occupation"))
    assert sorted(new.users["user_id"]) == sorted(old.users["user_id"])
    assert new.tags is not None
    assert new.tags["tag"].tolist()[0] == "seen, twice"
    assert new.links is not None
    assert new.links["imdb_id"].tolist()[0] == "0000001"
    assert old.items["title"].tolist()[:4] == [
        'Café "Nord", The',
        "Straße der Möwen (Street of Gulls)",
        "8½: The Return",
        "Quiet Tower, The",
    ]
    assert old.items["year"].isna().tolist()[:5] == [False, False, False, True, False]
    assert old.items["genres"].isna().tolist()[:6] == [False, False, False, False, True, False]


def test_ml_100k(tmp_path: Path) -> None:
    ml = load_movielens(write(tmp_path, ML_100K))
    assert repr(ml) == "MovieLens(ml-100k: 3 ratings, 2 users, 2 items)"
    assert ml.ratings.to_dict("list") == {
        "user_id": [21, 12, 21],
        "item_id": [31, 44, 44],
        "rating": [3.0, 3.0, 4.0],
        "timestamp": [880000001, 880000002, 880000003],
    }
    assert ml.ratings.dtypes.tolist() == [np.int64, np.int64, np.float64, np.int64]
    assert ml.users.dtypes.tolist() == [np.int64, pd.Int64Dtype(), TEXT, TEXT, TEXT]
    assert ml.users["zip_code"].tolist() == ["00000", "50001"]
    assert ml.items["title"].tolist() == ["Marble", "Café, The"]
    assert ml.items["year"].tolist() == [1996, 1997]
    assert ml.items["genres"].tolist() == ["Comedy", "Action|Comedy"]
    assert ml.items["release_date"].fillna("?").tolist() == ["24-Jan-1997", "?"]
    assert ml.tags is None
    assert ml.links is None


def test_ml_1m_keeps_codes_as_they_are(tmp_path: Path) -> None:
    ml = load_movielens(write(tmp_path, ML_1M))
    assert ml.name == "ml-1m"
    assert ml.users["age"].tolist() == [1, 56]
    assert ml.users["occupation"].tolist() == ["10", "16"]
    assert ml.items["title"].tolist() == ["Ada: The Quarry", "Heron's Nest"]
    assert ml.items["genres"].tolist() == ["Animation|Children's", "Drama"]


def test_ml_10m_has_users_only_by_their_ids(tmp_path: Path) -> None:
    ml = load_movielens(write(tmp_path, ML_10M))
    assert ml.name == "ml-10m"
    assert ml.users.to_dict("list") == {"user_id": [1]}
    assert ml.ratings["rating"].tolist() == [5.0, 3.5]
    assert ml.items["genres"].isna().tolist() == [False, True]
    assert ml.tags is not None
    assert ml.tags.to_dict("list") == {
        "user_id": [1],
        "item_id": [52],
        "tag": ["so slow!"],
        "timestamp": [1210000000],
    }


def test_ml_csv_with_quotes_and_commas(tmp_path: Path) -> None:
    ml = load_movielens(write(tmp_path, ML_CSV))
    assert repr(ml) == "MovieLens(ml-csv: 2 ratings, 1 users, 2 items, 1 tags)"
    assert ml.items["title"].tolist() == ["Paper Kite", "11'09\"01 - River, The"]
    assert ml.tags is not None
    assert ml.tags["tag"].tolist() == ["paper, wind"]
    assert ml.links is not None
    assert ml.links["imdb_id"].tolist() == ["0100001", "0300002"]
    assert ml.links["tmdb_id"].fillna("?").tolist() == ["101", "?"]


def test_recbole_looks_like_ml_100k(tmp_path: Path) -> None:
    ml = load_movielens(write(tmp_path, RECBOLE))
    assert ml.name == "ml-100k"
    assert ml.users["age"].tolist() == [39, 49]
    assert ml.items["title"].tolist() == ["Marble", "Land, The"]
    assert ml.items["year"].tolist() == [1996, 1995]
    assert ml.items["genres"].fillna("?").tolist() == ["Comedy|Film-Noir", "?"]


def test_recbole_interactions_alone_are_enough(tmp_path: Path) -> None:
    ml = load_movielens(write(tmp_path, {"x.inter": RECBOLE["ml-100k.inter"]}))
    assert ml.name == "x"
    assert ml.users["user_id"].tolist() == [21, 12]
    assert ml.items["item_id"].tolist() == [31, 44]
    assert ml.items["title"].isna().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_byte_order_mark_windows_lines_and_blank_lines_are_read_over(tmp_path: Path, layout: str) -> None:
    plain = load_movielens(write(tmp_path / "plain", LAYOUTS[layout]))
    folder = write(tmp_path / "windows", {n: t.replace("\n", "\r\n") + "\r\n" for n, t in LAYOUTS[layout].items()})
    for file in folder.iterdir():
        data = file.read_bytes()
        # a mark promises UTF-8, so not where the file is latin-1
        file.write_bytes(b"\xef\xbb\xbf" + data if data.isascii() else data)
    windows = load_movielens(folder)
    for frame in ("ratings", "users", "items"):
        assert_frame_equal(getattr(plain, frame), getattr(windows, frame))


def test_dat_files_may_be_utf_8(tmp_path: Path) -> None:
    folder = write(tmp_path, ML_10M)
    (folder / "movies.dat").write_bytes("52::Fantômas (1913)::Crime\n58::Seven (1995)::Drama\n".encode())
    assert load_movielens(folder).items["title"].tolist() == ["Fantômas", "Seven"]


def test_a_colon_before_the_separator_belongs_to_the_field(tmp_path: Path) -> None:
    files = damaged(ML_1M, "movies.dat", "Ada: The Quarry (1996)::", "Ada: The Quarry (1996):::")
    assert load_movielens(write(tmp_path, files)).items["genres"].tolist() == [
        "Animation|Children's",
        "Drama",
    ]


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Paper Kite (1995)", "Paper Kite", 1995),
        ("Shawshank Redemption, The (1994)", "Shawshank Redemption, The", 1994),
        ("City, The (Cité, La) (1995)", "City, The (Cité, La)", 1995),
        ("1941 (1979) ", "1941", 1979),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", 2009),
        ("Land Before Time (1995) (V)", "Land Before Time", 1995),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
        ("Death Note (2006–2007)", "Death Note", 2006),
        ("Big Bang Theory, The (2007-)", "Big Bang Theory, The", 2007),
        ("Twice (1990) and (1991) again", "Twice (1990) and again", 1991),
        ("Babylon 5", "Babylon 5", None),
        ("Number (9999)", "Number (9999)", None),
        ("(1995)", "(1995)", None),
    ],
)
def test_year_leaves_the_title(tmp_path: Path, text: str, title: str, year: int | None) -> None:
    files = damaged(ML_CSV, "movies.csv", "Paper Kite (1995)", f'"{text}"')
    item = load_movielens(write(tmp_path, files)).items.iloc[0]
    assert item["title"] == title
    assert (None if pd.isna(item["year"]) else item["year"]) == year


# ----------------------------------------------------------------------------------------------------- ids


def test_one_id_with_a_leading_zero_makes_all_ids_text_in_all_frames(tmp_path: Path) -> None:
    files = {name: text.replace("58::", "0185::") for name, text in ML_10M.items()}
    ml = load_movielens(write(tmp_path, files))
    assert ml.tags is not None
    assert ml.ratings["item_id"].tolist() == ["52", "0185"]
    assert ml.ratings["user_id"].tolist() == ["1", "1"]
    for frame in (ml.ratings, ml.users, ml.items, ml.tags):
        assert {frame[c].dtype for c in ("user_id", "item_id") if c in frame} == {TEXT}
    assert len(ml.ratings.merge(ml.users, on="user_id").merge(ml.items, on="item_id")) == 2


@pytest.mark.parametrize("odd", ["+5", "5.0", " 5", "9223372036854775808", "-0", "5_0", "NA", "nan"])
def test_ids_that_are_no_plain_integers_stay_as_they_are(tmp_path: Path, odd: str) -> None:
    files = damaged(ML_1M, "ratings.dat", "2::66", f"{odd}::66")
    ml = load_movielens(write(tmp_path, files))
    assert ml.ratings["user_id"].tolist() == ["1", odd]


def test_a_text_id_among_the_tags_alone_counts_too(tmp_path: Path) -> None:
    ml = load_movielens(write(tmp_path, damaged(ML_CSV, "tags.csv", "\n1,1,", "\n01,1,")))
    assert ml.ratings["item_id"].tolist() == ["1", "779"]


def test_negative_and_large_integers_are_integers(tmp_path: Path) -> None:
    ml = load_movielens(write(tmp_path, damaged(ML_10M, "tags.dat", "1::52::", "-9223372036854775808::52::")))
    assert ml.ratings["user_id"].dtype == np.int64


def test_ids_that_only_ratings_have_are_appended_with_missing_attributes(tmp_path: Path) -> None:
    files = damaged(ML_100K, "u.data", "21\t31", "7\t9999")
    ml = load_movielens(write(tmp_path, files))
    assert ml.users["user_id"].tolist() == [12, 21, 7]
    assert ml.users.iloc[2].isna().tolist() == [False, True, True, True, True]
    assert ml.items["item_id"].tolist() == [31, 44, 9999]
    assert ml.items.iloc[2].isna().sum() == len(ml.items.columns) - 1
    assert ml.users["age"].dtype == pd.Int64Dtype()


# -------------------------------------------------------------------------------------------- where it lies


def zipped(path: Path, folder: Path, inside: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"{inside}{file.name}")
    return path


@pytest.mark.parametrize("suffix", [".zip", ".whl"])
@pytest.mark.parametrize("inside", ["", "ml-100k/", "package/data/ml-100k/"])
def test_archives_are_searched_and_nothing_is_extracted(tmp_path: Path, suffix: str, inside: str) -> None:
    archive = zipped(tmp_path / f"a{suffix}", TINY / "ml-100k", inside)
    with zipfile.ZipFile(archive, "a") as more:
        more.mkdir("empty")
        more.writestr("__MACOSX/ml-100k/u.data", "resource fork")
        more.writestr("ml-100k/._u.data", "resource fork")
        more.writestr("../../outside.txt", "not extracted")
    assert_frame_equal(load_movielens(str(archive)).ratings, load_movielens(TINY / "ml-100k").ratings)
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]


def test_folders_are_searched(tmp_path: Path) -> None:
    shutil.copytree(TINY / "ml-1m", tmp_path / "a" / "b" / "ml-1m")
    assert load_movielens(tmp_path).name == "ml-1m"


def test_two_data_sets_are_an_error_that_names_both() -> None:
    with pytest.raises(
        DataFileError, match=r"3 data sets \(ml-100k/u.data, ml-1m/ratings.dat, ml-latest/ratings.csv\)"
    ):
        load_movielens(TINY)


def test_no_data_set_is_an_error_that_says_what_is_there_and_what_should_be(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no ratings")
    with pytest.raises(DataFileError, match=r"no data set \(notes.txt\); expected .*u\.data.*ratings\.csv.*\.inter"):
        load_movielens(tmp_path)
    with pytest.raises(DataFileError, match="no files"):
        load_movielens(write(tmp_path / "nothing", {}))


@pytest.mark.parametrize(
    ("layout", "missing"),
    [("ml-100k", "u.item"), ("ml-100k", "u.user"), ("ml-10m", "movies.dat"), ("ml-csv", "movies.csv")],
)
def test_an_incomplete_layout_names_the_missing_file(tmp_path: Path, layout: str, missing: str) -> None:
    files = {name: text for name, text in LAYOUTS[layout].items() if name != missing}
    with pytest.raises(DataFileError, match=f"needs {missing} beside .*found"):
        load_movielens(write(tmp_path, files))


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_movielens(tmp_path / "nowhere")
    with pytest.raises(DataFileError, match="neither a folder nor"):
        load_movielens(TINY / "ml-100k" / "u.data")


def test_damaged_archives(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", TINY / "ml-100k", "")
    data = archive.read_bytes()
    (tmp_path / "short.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataFileError, match=r"short\.zip is neither"):
        load_movielens(tmp_path / "short.zip")
    with zipfile.ZipFile(archive) as whole:
        at = whole.getinfo("u.data").header_offset + 200
    (tmp_path / "flipped.zip").write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    with pytest.raises(DataFileError, match=r"flipped\.zip: u\.data cannot be read"):
        load_movielens(tmp_path / "flipped.zip")


# -------------------------------------------------------------------------------------------- malformed lines


@pytest.mark.parametrize(
    ("layout", "file", "old", "new", "line", "message"),
    [
        ("ml-100k", "u.data", "12\t44\t3\t880000002", "12\t44\t3", 2, "expected 4 fields .*found 3"),
        ("ml-100k", "u.data", "12\t44\t3\t", "12\t44\t3\t4\t", 2, "expected 4 fields .*found 5"),
        ("ml-100k", "u.data", "21\t31\t3\t", "21\t31\t3\t4\t", 1, "expected 4 fields .*found 5"),
        (
            "ml-100k",
            "u.data",
            "12\t44\t3\t",
            "12\t44\tgood\t",
            2,
            "rating must be a finite number, found 'good'",
        ),
        ("ml-100k", "u.data", "12\t44\t3\t", "12\t44\tnan\t", 2, "rating must be a finite number"),
        ("ml-100k", "u.data", "12\t44\t3\t", "12\t44\tinf\t", 2, "rating must be a finite number"),
        ("ml-100k", "u.data", "12\t44\t3\t", "12\t44\t\t", 2, "rating must be a finite number, found ''"),
        ("ml-100k", "u.data", "880000003", "1997-11-05", 3, "timestamp must be a finite number"),
        ("ml-100k", "u.data", "880000003", "880000003.5", 3, "timestamp must be a whole number"),
        ("ml-100k", "u.data", "880000003", "1e300", 3, "timestamp must be a whole number"),
        ("ml-100k", "u.data", "\n12\t44", "\n\t44", 2, "user_id is empty"),
        ("ml-100k", "u.data", "\n12\t44", "\n12\t", 2, "item_id is empty"),
        ("ml-100k", "u.data", "4\t880000003\n", "4", 3, "expected 4 fields .*found 3"),
        ("ml-100k", "u.data", "\n12", "\n\n  \n\t\t\t\n12", 4, "user_id is empty"),
        ("ml-100k", "u.data", "12\t44\t3\t", "12 44 3 ", 2, "expected 4 fields .*found 1"),
        ("ml-100k", "u.user", "21|49", "12|49", 2, "user_id '12' is in line 1 already"),
        ("ml-100k", "u.user", "21|49", "21|old", 2, "age must be a finite number, found 'old'"),
        ("ml-100k", "u.item", "|0|1|1", "|0|1", 2, "expected 8 fields .*found 7"),
        ("ml-100k", "u.item", "|0|1|1", "|0|1|x", 2, "a genre must be 0 or 1, found 'x' for Comedy"),
        ("ml-100k", "u.item", "44|", "31|", 2, "item_id '31' is in line 1 already"),
        ("ml-1m", "ratings.dat", "2::66::3::", "2::66::3:", 2, "expected 4 fields .*found 3"),
        ("ml-1m", "ratings.dat", "2::66::3", "2::66\x1f1::3", 2, "control character"),
        ("ml-1m", "movies.dat", "93::", "93:", 2, "expected 3 fields .*found 2"),
        ("ml-1m", "movies.dat", "93::", "::", 2, "item_id is empty"),
        ("ml-10m", "tags.dat", "1210000000", "yesterday", 1, "timestamp must be"),
        ("ml-csv", "ratings.csv", "1,779,0.5", "1,779,0.5,", 3, "expected 4 fields .*found 5"),
        ("ml-csv", "ratings.csv", "1,779,0.5", "1,779,half", 3, "rating must be a finite number"),
        ("ml-csv", "ratings.csv", "movieId", "bookId", 1, "no column item_id; it reads userId, bookId"),
        ("ml-csv", "movies.csv", "title", "movieId", 1, "no column title"),
        ("ml-csv", "movies.csv", "title,genres", "title,genres,genres", 1, "two columns of one name"),
        ("ml-csv", "movies.csv", '(2002)"', "(2002)", 3, "unexpected end of data"),
        ("ml-csv", "movies.csv", '""01', '"01', 3, "expected after"),
        ("ml-csv", "links.csv", "1,0100001,101", ",0100001,101", 2, "item_id is empty"),
        ("recbole", "ml-100k.inter", "rating:float", "label:float", 1, "no column rating"),
        ("recbole", "ml-100k.inter", "12\t44\t3", "12\t44\tthree", 3, "rating must be a finite number"),
        (
            "recbole",
            "ml-100k.item",
            "Land, The (1995)\tV",
            "Land, The (1995)",
            3,
            "expected 4 fields .*found 3",
        ),
    ],
)
def test_malformed_line_is_named(
    tmp_path: Path, layout: str, file: str, old: str, new: str, line: int, message: str
) -> None:
    folder = write(tmp_path, damaged(LAYOUTS[layout], file, old, new))
    with pytest.raises(DataFileError, match=rf"^{file}, line {line}: .*{message}"):
        load_movielens(folder)


def test_one_bad_line_far_down_is_found(tmp_path: Path) -> None:
    lines = ["1::66::3::970000002\n"] * 5000
    lines[4321] = "1::66::3\n"
    folder = write(tmp_path, ML_1M | {"ratings.dat": "".join(lines)})
    with pytest.raises(DataFileError, match=r"^ratings\.dat, line 4322: "):
        load_movielens(folder)


def test_a_short_and_a_long_line_do_not_cancel_out(tmp_path: Path) -> None:
    files = ML_1M | {"ratings.dat": "1::66::3\n1::66::3::970000002::7\n"}
    with pytest.raises(DataFileError, match=r"^ratings\.dat, line 1: expected 4 fields"):
        load_movielens(write(tmp_path, files))


def test_lines_are_counted_through_quoted_line_breaks(tmp_path: Path) -> None:
    files = damaged(ML_CSV, "tags.csv", '"paper, wind"', '"pixar,\nfun"')
    files["tags.csv"] += "1,1,late,never\n"
    with pytest.raises(DataFileError, match=r"^tags\.csv, line 4: timestamp"):
        load_movielens(write(tmp_path, files))


@pytest.mark.parametrize("layout", ["ml-csv", "recbole"])
def test_undecodable_bytes_are_named(tmp_path: Path, layout: str) -> None:
    folder = write(tmp_path, LAYOUTS[layout])
    name = next(n for n in LAYOUTS[layout] if n in ("movies.csv", "ml-100k.item"))
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data.replace(b"The", b"Th\xe9", 1))
    with pytest.raises(DataFileError, match=rf"^{name}, line 3: not UTF-8 text"):
        load_movielens(folder)


@pytest.mark.parametrize(("layout", "file"), [(layout, file) for layout, files in LAYOUTS.items() for file in files])
@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_named(tmp_path: Path, layout: str, file: str, text: str) -> None:
    with pytest.raises(DataFileError, match=rf"^{file}: the file is empty"):
        load_movielens(write(tmp_path, LAYOUTS[layout] | {file: text}))


def test_a_header_alone_has_no_ratings(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"^ratings\.csv: no ratings"):
        load_movielens(write(tmp_path, ML_CSV | {"ratings.csv": "userId,movieId,rating,timestamp\n"}))


# --------------------------------------------------------------------------------------------------- folds


@pytest.fixture(scope="module")
def generated() -> datasets.GeneratedRatings:
    return make_ratings(random_state=0)


def test_five_folds_are_the_fifths_of_the_file(generated: datasets.GeneratedRatings) -> None:
    tests = []
    for k in range(1, 6):
        train, test = generated.fold(k)
        assert len(train) == 80_000
        assert test.index.tolist() == list(range((k - 1) * 20_000, k * 20_000))
        assert train.index.is_monotonic_increasing
        tests.append(test)
    assert_frame_equal(pd.concat(tests), generated.ratings)


def test_ua_and_ub_take_the_first_and_the_next_ten_of_each_user(generated: datasets.GeneratedRatings) -> None:
    for fold, first in (("ua", 0), ("ub", 10)):
        train, test = generated.fold(fold)
        assert (len(train), len(test)) == (90_570, 9_430)
        rows = generated.ratings.index[generated.ratings["user_id"] == 17]
        assert test.index[test["user_id"] == 17].tolist() == rows[first : first + 10].tolist()
    assert not set(generated.fold("ua")[1].index) & set(generated.fold("ub")[1].index)


@pytest.mark.parametrize("fold", [0, 6, "1", "uc", True, 1.0])
def test_unknown_fold(generated: datasets.GeneratedRatings, fold: object) -> None:
    with pytest.raises(ValueError, match="fold must be 1, 2, 3, 4, 5"):
        generated.fold(fold)  # type: ignore[arg-type]


def test_folds_of_another_data_set_are_refused_with_a_way_out(generated: datasets.GeneratedRatings) -> None:
    for other in (load_movielens(TINY / "ml-100k"), dataclasses.replace(generated, name="ml-10m")):
        with pytest.raises(ValueError, match=r"100,000 ratings only.*sparsefm\.splits"):
            other.fold(1)


# --------------------------------------------------------------------------------------------------- fetch


def test_fetch_downloads_by_pooch_with_a_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pooch", reason="an extra: sparsefm[data]")
    archive = zipped(tmp_path / "a.zip", TINY / "ml-1m", "ml-1m/")
    asked = {}

    def retrieve(**options: object) -> str:
        asked.update(options)
        return str(archive)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert fetch_movielens("ml-1m", cache_dir=tmp_path).name == "ml-1m"
    assert asked == {
        "url": "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        "known_hash": "md5:c4d9eecfca2ab87c1945afe126590906",
        "fname": "ml-1m.zip",
        "path": tmp_path,
    }


def test_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pooch", reason="an extra: sparsefm[data]")

    def retrieve(**options: object) -> str:
        raise ConnectionError("certificate has expired")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(OSError, match=r"certificate has expired.*load_movielens"):
        fetch_movielens()


def test_fetch_without_pooch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install sparsefm\[data\]"):
        fetch_movielens()


def test_fetch_lists_the_names_it_knows() -> None:
    with pytest.raises(ValueError, match=r"ml-latest-small.*known are ml-100k, ml-1m"):
        fetch_movielens("ml-latest-small")


# ----------------------------------------------------------------------------------------------- generated


def test_generated_frames_look_like_loaded_ones(generated: datasets.GeneratedRatings) -> None:
    loaded = load_movielens(TINY / "ml-100k")
    assert isinstance(generated, MovieLens)
    for frame in ("ratings", "users", "items"):
        ours, theirs = getattr(generated, frame), getattr(loaded, frame)
        assert ours.dtypes.to_dict() == theirs[ours.columns].dtypes.to_dict()
    assert (len(generated.users), len(generated.items), len(generated.ratings)) == (943, 1682, 100_000)
    assert not generated.ratings.duplicated(["user_id", "item_id"]).any()
    assert generated.ratings["user_id"].value_counts().min() >= 20
    assert set(generated.ratings["rating"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert generated.items["title"].is_unique
    assert not generated.items["genres"].str.contains("unknown").any()


def test_generated_popularity_is_skewed(generated: datasets.GeneratedRatings) -> None:
    counts = generated.ratings["item_id"].value_counts()
    assert counts.iloc[:168].sum() > 0.3 * len(generated.ratings)  # a tenth of the films, 36% in MovieLens


def test_noise_floor_is_what_theory_says(generated: datasets.GeneratedRatings) -> None:
    error = generated.ratings["rating"].to_numpy() - generated.expected
    n = len(error)
    assert generated.noise_floor == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
    # mean error and mean squared error over n independent rows, within four standard errors of 0 and std**2
    assert abs(error.mean()) < 4 * np.sqrt(np.mean(generated.std**2) / n)
    assert abs(np.mean(error**2 - generated.std**2)) < 4 * np.std(error**2 - generated.std**2) / np.sqrt(n)
    # calibrated throughout, not only on average
    for low in (1.5, 2.5, 3.5, 4.5):
        near = abs(generated.expected - low) < 0.25
        assert abs(error[near].mean()) < 4 * generated.std[near].mean() / np.sqrt(near.sum())


@pytest.mark.parametrize("noise_std", [0.0, 0.3, 0.85])
def test_expected_is_the_mean_over_the_five_stars(noise_std: float) -> None:
    score = np.linspace(-1.03, 7, 41)
    mean, std = datasets.synthetic._moments(score, noise_std)
    if noise_std == 0:
        np.testing.assert_allclose(mean, np.clip(np.rint(score), 1, 5))
        np.testing.assert_allclose(std, 0)
        return
    edges = np.array([-np.inf, 1.5, 2.5, 3.5, 4.5, np.inf])
    share = np.diff(norm.cdf((edges - score[:, None]) / noise_std), axis=1)
    stars = np.arange(1, 6)
    np.testing.assert_allclose(mean, share @ stars, atol=1e-12)
    np.testing.assert_allclose(std**2, share @ stars**2 - (share @ stars) ** 2, atol=1e-12)


def test_attributes_carry_part_of_the_truth(generated: datasets.GeneratedRatings) -> None:
    frame = generated.ratings.assign(expected=generated.expected)
    frame = frame.merge(generated.users, on="user_id").merge(generated.items, on="item_id")
    between = frame.groupby(["occupation", "gender"])["expected"].transform("mean").var()
    between_items = frame.groupby("genres")["expected"].transform("mean").var()
    assert between > 0.02 * frame["expected"].var()
    assert between_items > 0.1 * frame["expected"].var()


def test_same_seed_same_ratings() -> None:
    a, b = make_ratings(20, 30, 400, random_state=5), make_ratings(20, 30, 400, random_state=5)
    for frame in ("ratings", "users", "items"):
        assert_frame_equal(getattr(a, frame), getattr(b, frame))
    other = make_ratings(20, 30, 400, random_state=6)
    assert not a.ratings["rating"].equals(other.ratings["rating"])


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 2, 6), (20, 5, 100), (5, 40, 6), (2, 2000, 30)])
def test_small_and_full_tables(sizes: tuple[int, int, int]) -> None:
    ml = make_ratings(*sizes, random_state=0)
    assert (len(ml.users), len(ml.items), len(ml.ratings)) == sizes
    assert not ml.ratings.duplicated(["user_id", "item_id"]).any()
    assert ml.ratings["user_id"].nunique() == sizes[0]
    assert ml.items["title"].is_unique
    assert np.isfinite(ml.expected).all()


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((0, 5, 5), {}, "at least 1"),
        ((5, 5, 26), {}, "between n_users"),
        ((5, 5, 4), {}, "between n_users"),
        ((5, 5, 20), {"n_factors": 0}, "at least 1"),
        ((5, 5, 20), {"noise_std": -1.0}, "noise_std"),
        ((5, 5, 20), {"noise_std": float("nan")}, "noise_std"),
    ],
)
def test_impossible_sizes(sizes: tuple[int, int, int], options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_ratings(*sizes, **options)  # type: ignore[arg-type]
