"""One file for arrays and JSON: written whole or not at all, checked before it is parsed, nothing executed.

    8 bytes     magic
    32 bytes    SHA-256 of everything after it
    the rest    a safetensors file whose metadata holds the JSON text

The checksum finds damage, not malice: whoever reads the arrays checks every bound again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as _parse

__all__ = ["ModelFileError", "read", "replacing", "write"]

_MAGIC = b"sparsefm"
_DIGEST = 32
_KEY = "sparsefm"
_DTYPES = {"<f4": "F32", "<f8": "F64", "<i4": "I32", "<i8": "I64", "|u1": "U8", "|b1": "BOOL"}  # safetensors' names


class ModelFileError(ValueError):
    """The file is no intact model file of this package."""


def write(path: str | os.PathLike[str], meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Writes beside the target and renames, so that the target is the old file or the new one, never half.

    The arrays go to the file one by one: no second copy of them is made.
    """
    header: dict[str, Any] = {"__metadata__": {_KEY: json.dumps(meta, allow_nan=False)}}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.str], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    parts = [len(text).to_bytes(8, "little") + text]
    with replacing(path) as file:
        digest = hashlib.sha256()
        file.write(_MAGIC + bytes(_DIGEST))
        for part in itertools.chain(parts, arrays.values()):
            # of strided or Fortran-ordered arrays the elements in order, not the memory as it lies
            plain = part if isinstance(part, bytes) else np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
            digest.update(plain)
            file.write(plain)
        file.seek(len(_MAGIC))
        file.write(digest.digest())


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file beside the path, which takes its place once it is complete: never half, whatever happens."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The JSON object and the arrays of a file; ModelFileError unless it is intact, OSError if it cannot be read."""
    content = Path(path).read_bytes()
    start = len(_MAGIC) + _DIGEST
    if len(content) < start or not content.startswith(_MAGIC):
        raise ModelFileError(f"{path} is not a sparsefm model file; give a file that save() wrote")
    body = content[start:]
    if hashlib.sha256(body).digest() != content[len(_MAGIC) : start]:
        raise ModelFileError(f"{path} is damaged: its checksum does not match its content; copy it again or save anew")
    try:
        length = int.from_bytes(body[:8], "little")
        header = json.loads(body[8 : 8 + length].decode("utf-8"))
        meta = json.loads(header["__metadata__"][_KEY])
        arrays = _parse(body)
    except Exception as error:  # whatever the parsers make of hostile bytes
        raise ModelFileError(f"{path} cannot be parsed: {type(error).__name__}: {error}") from error
    if not isinstance(meta, dict):
        raise ModelFileError(f"{path} holds no description of a model")
    return meta, arrays
