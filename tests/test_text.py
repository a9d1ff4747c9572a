"""The readers of libsvm, libFM and libFFM text against a slow reference; the writers against the readers."""

import doctest
import gzip
import math
import mmap
import re
import tracemalloc
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_svmlight_file

from sparsefm import datasets
from sparsefm.datasets import (
    DataFileError,
    dump_libffm,
    dump_libfm,
    dump_libsvm,
    iter_libfm,
    iter_libsvm,
    load_libffm,
    load_libfm,
    load_libsvm,
    parsing,
    text,
)

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
LOADERS = {"libsvm": load_libsvm, "libfm": load_libfm, "libffm": load_libffm}
DUMPERS = {"libsvm": dump_libsvm, "libfm": dump_libfm}


# The reference ---------------------------------------------------------------------------------------------


class Refused(NamedTuple):
    place: tuple[int, int] | None  # line and column from 1; None: the file as a whole


def number(word, dtype):
    if not word or set(word) - set(b"0123456789+-.eE"):
        raise ValueError
    with np.errstate(over="ignore"):
        value = dtype(float(word))
    if not math.isfinite(value):
        raise ValueError
    return value


def integer(word, limit):
    if not word.isdigit():
        raise ValueError
    digits = word.lstrip(b"0") or b"0"
    if len(digits) > 20 or int(digits) >= limit:
        raise ValueError
    return int(digits)


def reference(content, layout, n_features=None, dtype=np.float32):
    """(rows of sorted (index, value), labels, {index: field}) or Refused, straight from the format's definition."""
    first, has_fields = int(layout == "libsvm"), layout == "libffm"
    limit = n_features if n_features is not None else 2**28 if has_fields else 2**63 - 1
    rows, labels, fields = [], [], {}
    for line_number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = line.removesuffix(b"\r").split(b"#")[0].replace(b"\t", b" ")
        row, at, words = {}, 0, 0
        for word in line.split(b" "):
            column, at = at + 1, at + len(word) + 1
            if not word:
                continue
            words += 1
            try:
                if words == 1:
                    labels.append(number(word, np.float64))
                    continue
                *field, index, value = word.split(b":")
                if len(field) != has_fields:
                    raise ValueError
                if has_fields:
                    field = integer(field[0], 2**31)
                index = integer(index, limit + first) - first
                value = number(value, dtype)
                if index < 0 or index in row or (has_fields and fields.setdefault(index, field) != field):
                    raise ValueError
                row[index] = value
            except ValueError:
                return Refused((line_number, column))
        if words:
            rows.append(sorted(row.items()))
    if not rows:
        return Refused(None)
    return rows, labels, fields


def agree(content, path, layout, n_features=None, dtype=np.float32, n_threads=1):
    """Loads the content and checks it against the reference: the same bits, or the same place of the first fault."""
    path.write_bytes(content)
    load = LOADERS[layout]
    expected = reference(content, layout, n_features, dtype)
    if isinstance(expected, Refused):
        with pytest.raises(DataFileError) as caught:
            load(path, n_features=n_features, dtype=dtype, n_threads=n_threads)
        where = re.match(rf"{re.escape(str(path))}, line (\d+), column (\d+): got ['\"]", str(caught.value))
        assert (tuple(map(int, where.groups())) if where else None) == expected.place, str(caught.value)
        return None
    rows, labels, fields = expected
    X, y, *rest = load(path, n_features=n_features, dtype=dtype, n_threads=n_threads)
    entries = [entry for row in rows for entry in row]
    largest = max((index for index, _ in entries), default=-1)
    shape = (len(rows), largest + 1 if n_features is None else n_features)
    assert isinstance(X, sparse.csr_array)
    assert X.shape == shape
    assert X.data.dtype == dtype
    assert X.indices.dtype == X.indptr.dtype == (np.int32 if max(shape) < 2**31 else np.int64)
    assert np.diff(X.indptr).tolist() == [len(row) for row in rows]
    assert X.indptr[0] == 0
    assert X.indices.tolist() == [index for index, _ in entries]
    assert X.data.tobytes() == np.array([value for _, value in entries], dtype).tobytes()
    assert y.tobytes() == np.array(labels, np.float64).tobytes()
    assert X.has_canonical_format
    for array in (X.data, X.indices, X.indptr, y):
        owner = array if array.base is None else array.base
        assert owner.size == array.size, "a view keeps more than it shows"
    if layout == "libffm":
        assert rest[0].dtype == np.int32
        assert rest[0].tolist() == [fields.get(index, -1) for index in range(shape[1])]
    return X


def small_pieces(monkeypatch, size):
    monkeypatch.setattr(parsing, "_PIECE", size)


# Reading ---------------------------------------------------------------------------------------------------


WORDS = st.one_of(
    st.from_regex(rb"\A[+-]?[0-9]{0,22}\.?[0-9]{0,22}([eE][+-]?[0-9]{1,3})?\Z"),
    st.floats(width=32).map(lambda x: repr(x).encode()),
    st.floats().map(lambda x: repr(x).encode()),
    st.integers(0, 12).map(lambda x: b"%d" % x),
    st.sampled_from(
        [b"", b"1", b"0", b"x", b"0x1f", b"1_0", b"inf", b"NaN", b"-0", b"1,2", b"\x00", b"\xc3\xa9", b"1d3"]
    ),
)


@st.composite
def contents(draw):
    """Mostly right text: a few words, separators and numbers are not."""
    has_fields = draw(st.booleans())
    lines = []
    for _ in range(draw(st.integers(0, 6))):
        words = [draw(st.one_of(st.sampled_from([b"1", b"-1", b"+1", b"0.5"]), WORDS))]
        indices = draw(st.lists(st.integers(0, 40), max_size=6, unique=draw(st.integers(0, 9)) > 0))
        if draw(st.booleans()):
            indices.sort()
        for index in indices:
            parts = [b"%d" % (index % 3)] if has_fields else []
            parts += [b"%d" % index, draw(st.one_of(st.sampled_from([b"1", b"0.25", b"3.14159"]), WORDS))]
            if draw(st.integers(0, 40)) == 0:
                parts[draw(st.integers(0, len(parts) - 1))] = draw(WORDS)
            words.append(b":".join(parts))
        blank = draw(st.sampled_from([b" ", b" ", b"\t", b"  ", b" \t "]))
        line = draw(st.sampled_from([b"", b"", b" ", b"\t"])) + blank.join(words)
        line += draw(st.sampled_from([b"", b"", b"", b" ", b" # 1:2", b"#x", b"\r", b" \r"]))
        lines += [line] + draw(st.sampled_from([[], [], [], [b""], [b"# a:b:c"], [b" \t\r"]]))
    joined = draw(st.sampled_from([b"\n", b"\n", b"\r\n"])).join(lines)
    return (
        draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
        + joined
        + draw(st.sampled_from([b"\n", b"\r\n", b"", b"\r"]))
    )


@given(
    content=contents(),
    layout=st.sampled_from(list(LOADERS)),
    n_features=st.sampled_from([None, None, 30]),
    dtype=st.sampled_from([np.float32, np.float64]),
    piece=st.sampled_from([1, 7, 40, 1 << 22]),
    n_threads=st.integers(1, 4),
)
@QUICK
def test_text_is_read_like_the_reference_reads_it(
    tmp_path_factory, content, layout, n_features, dtype, piece, n_threads
):
    with pytest.MonkeyPatch.context() as patch:
        small_pieces(patch, piece)
        agree(content, tmp_path_factory.getbasetemp() / "any.txt", layout, n_features, dtype, n_threads)


@given(content=st.binary(max_size=60), layout=st.sampled_from(list(LOADERS)))
@QUICK
def test_bytes_are_read_like_the_reference_reads_them(tmp_path_factory, content, layout):
    agree(content, tmp_path_factory.getbasetemp() / "any.txt", layout)


def test_the_forms_that_a_line_may_take(tmp_path):
    path = tmp_path / "forms.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# made by hand\r\n"
        b"+1 3:1e2 1:-.5\t2:+7. # unsorted\n"
        b"\n"
        b"  -1\t\r\n"
        b"2.5e-1 000002:0#no blank before\n"
        b"0 4:-0"
    )
    X, y = load_libsvm(path)
    assert X.toarray().tolist() == [[-0.5, 7, 100, 0], [0] * 4, [0] * 4, [0] * 4]
    assert X.indptr.tolist() == [0, 3, 3, 4, 5]  # zeros in the file are stored
    assert math.copysign(1, X.data[-1]) == -1
    assert y.tolist() == [1, -1, 0.25, 0]
    assert (X.dtype, X.indices.dtype, X.indptr.dtype, y.dtype) == (np.float32, np.int32, np.int32, np.float64)


def test_fields_come_with_their_features(tmp_path):
    path = tmp_path / "fields.ffm"
    path.write_bytes(b"1 2:5:1 0:1:0.5\n0 0:0:1 2:5:2\n")
    X, y, fields = load_libffm(path, n_features=7)
    assert X.toarray().tolist() == [[0, 0.5, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 2, 0]]
    assert y.tolist() == [1, 0]
    assert fields.tolist() == [0, 0, -1, -1, -1, 2, -1]
    assert fields.dtype == np.int32


def midpoints():
    """Decimals at, just above and just below the middle of two neighbouring doubles, and of two floats."""
    rng = np.random.default_rng(0)
    for x in [1.0, 2.0**53, 5e-324, 2.2250738585072014e-308, *rng.random(20), *rng.lognormal(0, 200, 20)]:
        middle = (Fraction(float(x)) + Fraction(float(np.nextafter(x, np.inf)))) / 2
        digits, scale = middle.numerator, 0
        while digits % middle.denominator:
            digits, scale = digits * 10, scale + 1
        digits //= middle.denominator
        for step in (-1, 0, 1):
            yield f"{digits * 10 + step}e-{scale + 1}"
    for x in rng.random(20, dtype=np.float32):
        middle = (Fraction(float(x)) + Fraction(float(np.nextafter(x, np.float32(2))))) / 2
        yield f"{float(middle)!r}"


SHORT_NUMBERS = """9007199254740992 9007199254740993 9007199254740993.0 90071992547409930e-1 18446744073709551615
18446744073709551616 9999999999999999999 99999999999999999999 1e-320 4.9e-324 2e-324 1e-400
179769313486231570e291 1.7976931348623157e308 1e22 1e23 1e-22 1e-23 9007199254740992e22 9007199254740992e-22
9007199254740993e22 123456789012345678901234567890 0.1234567890123456789012345678901 0.30000000000000004 0.1 1e0
1E+05 1e-05 00000000000000000000000001 0e999999999999 0.0e-999999 1e-99999999999999999999 -0 -0.0 +0 5. .5 -.5e1
1.0000000 12345678 123456789 1234567. 123456.7 12345.67 1234567.8 0.000001 0.0000001 3.4028234663852886e38 1e-45
7e-46 8e-46
"""
NUMBERS = [
    *SHORT_NUMBERS.split(),
    "1" + 300 * "0",
    400 * "0" + "1.5",
    "0." + 400 * "0" + "1",
    "1" + 400 * "0" + "e-400",
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_are_what_float_makes_of_them(tmp_path, dtype):
    path = tmp_path / "numbers.txt"
    with np.errstate(over="ignore"):
        words = [word for word in [*NUMBERS, *midpoints()] if np.isfinite(dtype(float(word)))]
    expected = np.array([float(word) for word in words])
    # at every distance from the end of the text, which is how far eight bytes at once may look
    for end in ("\n", "", " \n", "        \n", "#\n", "\r\n"):
        path.write_bytes("\n".join(f"{word} 1:{word}" for word in words).encode() + end.encode())
        X, y = load_libsvm(path, dtype=dtype)
        assert X.data.tobytes() == expected.astype(dtype).tobytes()
        assert y.tobytes() == expected.tobytes()
    for word, value in zip(words, expected, strict=True):
        path.write_bytes(b"0 1:" + word.encode())
        assert load_libsvm(path, dtype=dtype)[0].data.tobytes() == dtype(value).tobytes()


def test_many_short_numbers_are_what_float_makes_of_them(tmp_path):
    path = tmp_path / "numbers.txt"
    words = [
        f"{i % 10**k}.{i // 7 % 10**f:0{f}d}" for k in range(1, 8) for f in range(1, 8) for i in range(0, 10**7, 99991)
    ]
    path.write_text("".join(f"0 1:{word}\n" for word in words))
    assert load_libsvm(path, dtype=np.float64)[0].data.tolist() == [float(word) for word in words]


def test_values_are_rounded_to_double_and_then_to_float(tmp_path):
    path = tmp_path / "twice.txt"
    # just above the middle of two floats, but nearer to it than a double can tell
    word = "1.000000059604644775390625000000000000001"
    path.write_text(f"0 1:{word}\n")
    assert load_libsvm(path)[0].data[0] == np.float32(float(word)) == 1


@pytest.mark.parametrize("extra", range(-2, 3))
def test_a_file_that_ends_with_its_page(tmp_path, extra):
    page = mmap.PAGESIZE
    for tail in (b"0 1:12345678", b"0 1:0.5\n", b"0 1:123456789012\n", b"0 1:1"):
        content = b"1 2:3\n" * ((page + extra - len(tail)) // 6)
        content += b"\n" * (page + extra - len(tail) - len(content)) + tail
        assert len(content) == page + extra
        agree(content, tmp_path / "page.txt", "libsvm")


def made(n_rows=400, seed=0):
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(n_rows):
        indices = rng.permutation(60)[: rng.integers(0, 12)]
        words = [f"{i % 5}:{i}:{rng.choice([1, 0.5, 1e-30, 0.1 + 0.2, -7])}" for i in indices]
        lines.append(
            " ".join([str(rng.choice([-1, 0.25])), *words]) + str(rng.choice(["", "", "", " # a:b:c", "\n", "\n#::"]))
        )
    return "\n".join(lines).encode()


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
def test_pieces_and_threads_change_nothing(tmp_path, monkeypatch, n_threads):
    content = made()
    path = tmp_path / "pieces.txt"
    path.write_bytes(content)
    whole, *_ = load_libffm(path, n_threads=1)
    for piece in (1, 13, 100, 1000):
        small_pieces(monkeypatch, piece)
        X = agree(content, path, "libffm", n_threads=n_threads)
        assert X.data.tobytes() == whole.data.tobytes()
        assert X.indices.tolist() == whole.indices.tolist()


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
@pytest.mark.parametrize("piece", [1, 50, 700, 1 << 22])
def test_the_first_fault_of_the_file_is_reported(tmp_path, monkeypatch, n_threads, piece):
    small_pieces(monkeypatch, piece)
    lines = made().split(b"\n")
    rng = np.random.default_rng(1)
    faults = [
        b"1 x",
        b"1 0:0:1 0:0:1",
        b"1 3:3:1 4:1:1",
        b"1 0:0:1e999",
        b"1 0:0:1e39",
        b"1 0:999999999999:1",
        b"1 0:0:0x1",
    ]
    for _ in range(20):
        broken = list(lines)
        for at in rng.integers(len(lines), size=rng.integers(1, 5)):
            broken[at] = faults[rng.integers(len(faults))]
        assert agree(b"\n".join(broken), tmp_path / "faults.txt", "libffm", n_threads=n_threads) is None


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("block", [1, 7, 100, 1 << 20])
@pytest.mark.parametrize("read", [iter_libsvm, iter_libfm])
def test_a_file_in_pieces_is_the_whole_file(tmp_path, read, block, packed):
    rng = np.random.default_rng(0)
    X = sparse.random_array((60, 9), density=0.3, rng=rng, format="csr", dtype=np.float32)
    y = rng.integers(0, 2, 60)
    path = tmp_path / "rows.txt"
    (dump_libsvm if read is iter_libsvm else dump_libfm)(X, y, path)
    content = b"# a comment\n\n" + path.read_bytes() + b"\n# the end\n"
    if packed:
        path = tmp_path / "rows.txt.gz"
        content = gzip.compress(content)
    path.write_bytes(content)
    pieces = list(read(path, n_features=9, block_bytes=block))
    assert len(pieces) == (60 if block == 1 else len(pieces))
    assert (sparse.vstack([piece for piece, _ in pieces]) != X).nnz == 0
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in pieces]), y)


def test_a_fault_in_a_later_piece_is_named_by_its_line(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("1 1:1\n" * 10 + "1 4:1\n")
    pieces = iter_libsvm(path, n_features=3, block_bytes=15)
    next(pieces)
    with pytest.raises(DataFileError, match="line 11, column 3: got '4:1', expected an index of at most 3"):
        list(pieces)
    path.write_text("# nothing\n")
    with pytest.raises(DataFileError, match="has no rows"):
        list(iter_libsvm(path, n_features=3))
    for wrong in ({"n_features": None}, {"n_features": 3, "block_bytes": 0}):
        with pytest.raises(ValueError, match="must be a positive integer"):
            iter_libsvm(path, **wrong)
    path = tmp_path / "cut.txt.gz"
    path.write_bytes(gzip.compress(b"1 1:1\n" * 1000)[:-9])
    with pytest.raises(DataFileError, match="no intact gzip file"):
        list(iter_libsvm(path, n_features=3))


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
@pytest.mark.parametrize("order", ["down", "random", "organ pipe"])
def test_rows_are_sorted(tmp_path, n, order):
    indices = np.arange(n)[::-1]
    if order == "random":
        indices = np.random.default_rng(n).permutation(n)
    elif order == "organ pipe":
        indices = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]])
    line = " ".join(["1"] + [f"{i % 7}:{i}:{i}.5" for i in indices])
    agree(line.encode(), tmp_path / "unsorted.ffm", "libffm")
    agree((line + f" 0:{n // 2}:1").encode(), tmp_path / "twice.ffm", "libffm")


def test_indices_beyond_int32_make_int64(tmp_path):
    path = tmp_path / "wide.txt"
    for last, wide in ((2**31 - 2, False), (2**31 - 1, True), (2**31, True), (2**63 - 2, True)):
        X = agree(b"1 0:1 7:2\n2 %d:3\n" % last, path, "libfm")
        assert X.shape[1] == last + 1
        assert (X.indices.dtype == np.int64) == wide
    agree(b"1 %d:3\n" % (2**63 - 1), path, "libsvm")
    agree(b"1 1:3\n", path, "libsvm", n_features=2**31)
    # a fault before the wide index, and one after it
    agree(b"1 x\n1 %d:3\n" % 2**40, path, "libfm")
    agree(b"1 %d:3 %d:1\n1 x\n" % (2**40, 2**40), path, "libfm")
    agree(b"1 %d:3\n1 1:nan\n" % 2**40, path, "libfm")


def test_scikit_learn_reads_the_same(tmp_path):
    rng = np.random.default_rng(0)
    X = sparse.csr_array(np.where(rng.random((200, 50)) < 0.2, rng.normal(size=(200, 50)), 0))
    y = rng.normal(size=200).round(3)
    path = tmp_path / "both.txt"
    dump_libsvm(X, y, path)
    ours, our_y = load_libsvm(path, dtype=np.float64)
    theirs, their_y = load_svmlight_file(str(path))
    assert (ours != theirs).nnz == 0
    assert (our_y == their_y).all()


def test_reading_takes_little_more_memory_than_its_result(tmp_path, monkeypatch):
    small_pieces(monkeypatch, 1 << 16)
    path = tmp_path / "large.txt"
    path.write_text(
        "".join(f"{i} {i % 7}:1 {i % 7 + 9}:0.5 {i % 5 + 20}:1e-40 {i + 99}:3 # a:b\n" for i in range(60_000))
    )
    for n_threads in (1, 2):
        tracemalloc.start()
        X, y = load_libfm(path, n_threads=n_threads)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1.3 * (X.data.nbytes + X.indices.nbytes + X.indptr.nbytes + y.nbytes)  # every fifth colon lies


def test_a_packed_file_is_unpacked(tmp_path):
    path = tmp_path / "packed.txt.gz"
    path.write_bytes(gzip.compress(b"1 1:2\n-1 2:1"))
    X, y = load_libsvm(path)
    assert X.toarray().tolist() == [[2, 0], [0, 1]]
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"no gzip", whole[:14] + b"\xff\xff\xff\xff" + whole[18:]):
        path.write_bytes(damaged)
        with pytest.raises(DataFileError, match="no intact gzip file"):
            load_libsvm(path)
    dump_libsvm(X, y, path)
    assert gzip.decompress(path.read_bytes()) == b"1 1:2\n-1 2:1\n"


# What is refused -------------------------------------------------------------------------------------------

REFUSED = [
    ("libsvm", b"1 0:1", 3, "0:1", "an index from 1; files whose indices count from 0 are for load_libfm"),
    ("libsvm", b"one 1:1", 1, "one", "a decimal number as the label"),
    ("libsvm", b"1:1 2:1", 1, "1:1", "a label, before the first index:value"),
    ("libsvm", b"1,2 1:1", 1, "1,2", "a single number as the label; several labels a row are not supported"),
    ("libsvm", b"nan 1:1", 1, "nan", "a finite label"),
    ("libsvm", b"-Infinity", 1, "-Infinity", "a finite label"),
    ("libsvm", b"1e309 1:1", 1, "1e309", "a label of at most 1.8e\\+308, as float64 holds it"),
    ("libsvm", b"1 1:2 2:abc 3:x", 7, "2:abc", "a decimal number as the value"),
    ("libsvm", b"1 1:0x10", 3, "1:0x10", "a decimal number as the value"),
    ("libsvm", b"1 1:1_0", 3, "1:1_0", "a decimal number as the value"),
    ("libsvm", b"1 1:1e", 3, "1:1e", "a decimal number as the value"),
    ("libsvm", b"1 1:.", 3, "1:.", "a decimal number as the value"),
    ("libsvm", b"1 1:--1", 3, "1:--1", "a decimal number as the value"),
    ("libsvm", b"1 1:NaN", 3, "1:NaN", "a finite value"),
    ("libsvm", b"1 1:+inf", 3, "1:+inf", "a finite value"),
    ("libsvm", b"1 1:1e39", 3, "1:1e39", "a value of at most 3.4e\\+38, as float32 holds it; dtype=np.float64"),
    ("libsvm", b"1 1:1e999", 3, "1:1e999", "a value of at most 3.4e\\+38"),
    ("libsvm", b"1 1:123456789012345678901e30", 3, "1:123456789012345678901e30", "a value of at most 3.4e\\+38"),
    ("libsvm", b"1  1:", 4, "1:", "index:value; the value is missing"),
    ("libsvm", b"1 1: 2", 3, "1:", "index:value; the value is missing"),
    ("libsvm", b"1 1:#2", 3, "1:", "index:value; the value is missing"),
    ("libsvm", b"1 :2", 3, ":2", "index:value with a whole number from 1 as the index"),
    ("libsvm", b"1 -3:2", 3, "-3:2", "index:value with a whole number from 1 as the index"),
    ("libsvm", b"1 1.5:2", 3, "1.5:2", "index:value with a whole number from 1 as the index"),
    ("libsvm", b"1 9223372036854775808:2", 3, "9223372036854775808:2", "an index of at most 9223372036854775807"),
    ("libsvm", b"1 " + b"9" * 50 + b":2", 3, "9" * 50 + ":2", "an index of at most 9223372036854775807"),
    ("libfm", b"1 9223372036854775807:2", 3, "9223372036854775807:2", "an index of at most 9223372036854775806"),
    ("libfm", b"1 18446744073709551616:2", 3, "18446744073709551616:2", "an index of at most 9223372036854775806"),
    ("libsvm", b"1 3:1 2:1 3:2 2:x", 11, "3:2", "each index once in a row; 3 is there already"),
    ("libsvm", b"1 qid:3 1:1", 3, "qid:3", "index:value; groups of rows for ranking"),
    ("libsvm", b"1 1:2 stray", 7, "stray", "index:value"),
    ("libsvm", b"1 1:2 3", 7, "3", "index:value"),
    ("libsvm", b"1 1:2\x002:3", 3, "1:2\\x002:3", "index:value; files with fields are for load_libffm"),
    ("libsvm", b"\x00", 1, "\\x00", "a decimal number as the label"),
    ("libsvm", b"1 1:2\x00", 3, "1:2\\x00", "a decimal number as the value"),
    ("libsvm", b"1\r1:2", 1, "1\\r1:2", "a label, before"),
    ("libsvm", b"1 1:2\x0b", 3, "1:2\\x0b", "a decimal number as the value"),
    ("libsvm", b"1 1:2:3", 3, "1:2:3", "index:value; files with fields are for load_libffm"),
    ("libffm", b"1 0:2", 3, "0:2", "field:index:value; files without fields are for load_libfm or load_libsvm"),
    ("libffm", b"1 0:1:2:3", 3, "0:1:2:3", "field:index:value"),
    ("libffm", b"1 :1:2", 3, ":1:2", "field:index:value with a whole number from 0 to 2147483647 as the field"),
    ("libffm", b"1 -1:1:2", 3, "-1:1:2", "field:index:value with a whole number from 0 to 2147483647 as the field"),
    ("libffm", b"1 2147483648:1:2", 3, "2147483648:1:2", "field:index:value with a whole number from 0 to 2147483647"),
    ("libffm", b"1 0:268435456:2", 3, "0:268435456:2", "an index of at most 268435455; to read larger ones"),
    ("libffm", b"1 3:7:2 4:8:1\n1 4:7:1", 3, "4:7:1", "field 3, where feature 7 was before: .* another index"),
]


@pytest.mark.parametrize("layout, last, column, got, expected", REFUSED)
@pytest.mark.parametrize("before, after", [(b"", b""), (b"2 # x\n\n", b"\r\n1 x\n"), (b"-1\n", b" # y\n")])
def test_what_is_refused_and_where(tmp_path, layout, last, column, got, expected, before, after):
    path = tmp_path / "bad.txt"
    path.write_bytes(before + last + after)
    line = (before + last).count(b"\n") + 1
    with pytest.raises(DataFileError) as caught:
        LOADERS[layout](path)
    start = f"{path}, line {line}, column {column}: got '{got}', expected "
    assert str(caught.value).startswith(start)
    assert re.match(expected, str(caught.value)[len(start) :])


def test_an_index_beyond_n_features_is_refused(tmp_path):
    path = tmp_path / "narrow.txt"
    path.write_bytes(b"1 4:1\n1 5:1\n")
    assert load_libsvm(path, n_features=5)[0].shape == (2, 5)
    with pytest.raises(
        DataFileError, match=r"line 2, column 3: got '5:1', expected an index of at most 4, as n_features=4"
    ):
        load_libsvm(path, n_features=4)
    with pytest.raises(
        DataFileError, match=r"line 2, column 3: got '5:1', expected an index of at most 4, as n_features=5"
    ):
        load_libfm(path, n_features=5)


def test_a_mark_is_passed_over_only_where_a_file_begins(tmp_path):
    path = tmp_path / "marked.svm"
    path.write_bytes(b"\xef\xbb\xbf1 1:1\n\xef\xbb\xbf2 1:1\n")
    for block_bytes in (1, 1 << 20):
        with pytest.raises(DataFileError, match="line 2, column 1"):
            list(iter_libsvm(path, n_features=3, block_bytes=block_bytes))


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"# nothing\r\n \t\n"])
@pytest.mark.parametrize("layout", LOADERS)
def test_a_file_without_rows_is_refused(tmp_path, content, layout):
    path = tmp_path / "empty.txt"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match="has no rows; expected lines of"):
        LOADERS[layout](path)


def test_long_words_are_cut_in_messages(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"1 1:" + b"x" * 10_000)
    with pytest.raises(DataFileError, match="…'") as caught:
        load_libsvm(path)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_options_are_checked(tmp_path):
    path = tmp_path / "good.txt"
    path.write_bytes(b"1 1:1\n")
    for name, values in {"n_features": (0, -1, 2.0, True, "3", 2**63), "n_threads": (0, -1, 1.5, False)}.items():
        for value in values:
            with pytest.raises(ValueError, match=name):
                load_libsvm(path, **{name: value})
    for dtype in (np.int32, np.float16, np.complex64):
        with pytest.raises(ValueError, match="dtype must be float32 or float64"):
            load_libsvm(path, dtype=dtype)
    with pytest.raises(FileNotFoundError):
        load_libsvm(tmp_path / "none.txt")
    with pytest.raises(OSError):
        load_libsvm(tmp_path)


# Writing ---------------------------------------------------------------------------------------------------


@st.composite
def matrices(draw):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    width = 32 if dtype == np.float32 else 64
    values = st.one_of(
        st.floats(width=width, allow_nan=False, allow_infinity=False),
        st.integers(-(10**6), 10**6).map(lambda i: i / 1000),
        st.integers(-20, 20),
    )
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 9)))
    places = draw(st.lists(st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1)), unique=True))
    data = np.array([draw(values) for _ in places], dtype)
    rows, columns = np.array(places, np.int32).reshape(-1, 2).T
    X = sparse.csr_array((data, (rows, columns)), shape=shape)
    y = draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=shape[0], max_size=shape[0]))
    fields = draw(st.lists(st.integers(0, 2**31 - 1), min_size=shape[1], max_size=shape[1]))
    return X, np.array(y), np.array(fields, np.int32)


def bits(X, y):
    return X.shape, X.dtype, X.indptr.tolist(), X.indices.tolist(), X.data.tobytes(), y.tobytes()


@given(drawn=matrices(), block=st.sampled_from([80, 100, 1 << 20]))
@QUICK
def test_what_is_dumped_is_loaded_again(tmp_path_factory, drawn, block):
    X, y, fields = drawn
    path = tmp_path_factory.getbasetemp() / "dumped.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_BLOCK", block)
        for layout, dump in DUMPERS.items():
            dump(X, y, path)
            assert bits(*LOADERS[layout](path, n_features=X.shape[1], dtype=X.dtype)) == bits(X, y)
        dump_libffm(X, y, fields, path)
    Z, z, read = load_libffm(path, n_features=X.shape[1], dtype=X.dtype)
    assert bits(Z, z) == bits(X, y)
    occurs = np.isin(np.arange(X.shape[1]), X.indices)
    assert (read == np.where(occurs, fields, -1)).all()
    # what was read can be dumped, though features that do not occur have no field
    dump_libffm(Z, z, read, path)


def digits(word):
    return len(word.lower().partition("e")[0].replace(".", "").replace("-", "").strip("0"))


def test_numbers_have_the_fewest_digits(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "short.txt"
    for dtype, integers in ((np.float32, np.uint32), (np.float64, np.uint64)):
        any_bits = rng.integers(np.iinfo(integers).max, size=3000, dtype=integers).view(dtype)
        x = np.concatenate(
            [any_bits[np.isfinite(any_bits)], rng.random(1000, dtype), rng.integers(10**6, size=500) / 1000]
        )
        x = x.astype(dtype)
        dump_libsvm(sparse.csr_array(x[:, None]), np.zeros(len(x)), path)
        words = [line.partition(":")[2] for line in path.read_text().splitlines()]
        assert [digits(word) for word in words] == [digits(str(value)) for value in x]
    dump_libsvm([[1.0, 0.1, 100.0, -2.5, 1e-7, 1e15, 2.0**-20]], [3.0], path)
    assert path.read_text() == "3 1:1 2:0.1 3:100 4:-2.5 5:1e-7 6:1000000000000000 7:95367431640625e-20\n"


def test_floats_read_back_whatever_their_exponent(tmp_path):
    path = tmp_path / "floats.txt"
    x = np.concatenate([np.arange(1 << 15, 0x7F80 << 16, 40_009, dtype=np.uint32), np.arange(1, 500, dtype=np.uint32)])
    near = (np.arange(1, 255, dtype=np.uint32) << 23)[:, None] + np.arange(-3, 4).astype(np.uint32)
    x = np.concatenate([x, near.ravel()]).view(np.float32)  # neighbours of the powers of two
    dump_libfm(sparse.csr_array(x[None]), [0], path)
    assert load_libfm(path)[0].data.tobytes() == x.tobytes()


def test_all_that_is_a_matrix_can_be_dumped(tmp_path):
    path = tmp_path / "kinds.txt"
    dense = np.array([[0, 2], [3, 0]])
    expected = "1 2:2\n0 1:3\n"
    for X in (dense, dense.astype(np.int8), sparse.csc_array(dense), sparse.coo_array(dense)):
        dump_libsvm(X, [True, False], path)
        assert path.read_text() == expected
    twice = sparse.csr_array((np.array([2.0, 1, 1.5]), np.array([1, 0, 0]), np.array([0, 3])), shape=(1, 2))
    dump_libsvm(twice, [1], path)
    assert path.read_text() == "1 1:2.5 2:2\n"
    assert twice.nnz == 3, "the caller's matrix is left as it was"


def test_what_cannot_be_read_back_is_not_dumped(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("as it was")
    X = sparse.csr_array(np.array([[0.0, 2.0]]))
    bad = [
        (lambda: dump_libsvm(X * np.nan, [1], path), "X must be finite, got nan at position 0"),
        (lambda: dump_libsvm(X, [np.inf], path), "y must be finite, got inf at position 0"),
        (lambda: dump_libsvm([1.0, 2.0], [1, 2], path), "X must have rows and columns"),
        (lambda: dump_libsvm(X, [1, 2], path), "y must have one label for each of the 1 rows"),
        (lambda: dump_libsvm(X, [[1]], path), "y must have one label"),
        (lambda: dump_libsvm(X, ["a"], path), "y must be real numbers"),
        (lambda: dump_libsvm(X * 1j, [1], path), "X must be real numbers"),
        (lambda: dump_libsvm(np.array([[2**60]]), [1], path), "X has integers beyond 2"),
        (lambda: dump_libffm(X, [1], [0], path), "fields must have one integer for each of the 2 columns"),
        (lambda: dump_libffm(X, [1], [0.0, 1.0], path), "fields must have one integer"),
        (lambda: dump_libffm(X, [1], [0, -1], path), "fields must be from 0 to 2147483647, got -1 for feature 1"),
        (lambda: dump_libffm(X, [1], [0, 2**31], path), "fields must be from 0 to 2147483647, got 2147483648"),
    ]
    for dump, message in bad:
        with pytest.raises(ValueError, match=message):
            dump()
        assert path.read_text() == "as it was"
    broken = X.copy()
    broken.indices[0] = 5
    with pytest.raises(ValueError):
        dump_libsvm(broken, [1], path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.txt"
    path.write_text("as it was")

    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(text.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        dump_libsvm([[1.0]], [1], path)
    assert path.read_text() == "as it was"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_the_names_are_public():
    for name in text.__all__:
        assert getattr(datasets, name) is getattr(text, name)


def test_the_examples_in_the_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, attempted = doctest.testmod(datasets.text)
    assert failed == 0
    assert attempted > 10
