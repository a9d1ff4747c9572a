"""Random bytes through the three readers of text, checked against the slow reference of test_text.py.

Not collected by pytest; it needs atheris (pip install atheris) and runs until it is stopped or finds something:

    python tests/fuzz_text.py -max_total_time=3600 [folder of examples to start from and to keep]

Both must give the same arrays, bit for bit, or refuse the text at the same line and column. What atheris follows is
the Python code, the reference above all: it has a branch for each rule of the format. Half of the inputs are
bytes as they are, half choose among labels and entries.

For reads and writes out of bounds and undefined behaviour in the parser, build it with gcc's sanitizers into a
folder of its own and run the same there. (gcc's libasan hides the counters of atheris, so inputs are blind then.)

    mkdir -p build/sanitized && cp -r sparsefm setup.py setup.cfg pyproject.toml README.md LICENSE build/sanitized/
    cd build/sanitized && rm sparsefm/datasets/_text.*.so
    CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" \\
        python setup.py -q build_ext --inplace --force
    cd ../..
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) \\
        $(gcc -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \\
        PYTHONPATH=build/sanitized python tests/fuzz_text.py -max_total_time=3600 -len_control=0 -max_len=1024
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import atheris
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["test_text", "sparsefm.datasets.parsing", "sparsefm.datasets.text"]):
    import test_text

    from sparsefm.datasets import parsing, text

SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz_text")) / "input.txt"
ONLY_DIGITS = bytes(c if chr(c) in "0123456789" else 32 for c in range(256))
NUMBERS = [word.encode() for word in test_text.NUMBERS]


def compose(choices: bytes, layout: str) -> bytes:
    """Text that is right but for a stray byte here and there; it gets far into the parser without any feedback."""
    rest = iter(choices)
    parts = [b"1"]
    for kind in rest:
        number = NUMBERS[next(rest, 0) % len(NUMBERS)]
        if kind < 40:
            parts.append(b"\n" + number)
        elif kind < 43:
            parts.append(bytes([next(rest, 0)]))
        else:
            index = next(rest, 0)
            field = b"%d:" % (index % 7) if layout == "libffm" else b""
            parts.append(b" %s%d:%s" % (field, index << kind % 9, number))
    return b"".join(parts)


def check(data: bytes) -> None:
    choices = atheris.FuzzedDataProvider(data[:5])
    layout = choices.PickValueInList(list(test_text.LOADERS))
    dtype = choices.PickValueInList([np.float32, np.float64])
    n_features = choices.PickValueInList([None, None, 30])
    parsing._PIECE = choices.PickValueInList([1, 7, 40, 1 << 22])
    content = compose(data[5:], layout) if choices.ConsumeBool() else data[5:]
    # a table of fields as long as the largest index would take most of the time
    if (
        layout == "libffm"
        and n_features is None
        and any(len(run) > 4 for run in content.translate(ONLY_DIGITS).split())
    ):
        n_features = 10_000
    test_text.agree(content, SCRATCH, layout, n_features, dtype)


@contextmanager
def in_memory(path: Path) -> Iterator[bytes]:
    """In place of the map, whose last page ends later than the file: here a sanitizer sees a read past the end."""
    yield path.read_bytes()


text._opened = in_memory

if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
