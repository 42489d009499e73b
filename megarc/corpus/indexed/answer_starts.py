"""P.answers, beside P.bin and P.idx: where the answer begins in each document. Other readers of a corpus pass it over.

magic, 8 bytes | u64 documents | u32 a document: the tokens before its answer
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megarc.errors import UserError

MAGIC = b"MEGARCA\x01"
HEADER = struct.Struct("<8sQ")


def answers_path(prefix: str | Path) -> Path:
    return Path(f"{prefix}.answers")


def packed_answers(answers: npt.NDArray[Any]) -> bytes:
    """The file's content for ``answers`` [documents]."""
    return HEADER.pack(MAGIC, len(answers)) + np.asarray(answers, dtype="<u4").tobytes()


def open_answers(prefix: str | Path, documents: int) -> npt.NDArray[np.uint32] | None:
    """Tokens before the answer of each document, mapped, ``[documents]``; None where documents are not divided.

    Raises:
        UserError: where the file is cut short, or tells of another number of documents.
    """
    path = answers_path(prefix)
    try:
        with path.open("rb") as file:
            head = file.read(HEADER.size)
    except FileNotFoundError:
        return None
    magic, count = HEADER.unpack(head) if len(head) == HEADER.size else (b"", 0)
    if magic != MAGIC or path.stat().st_size != HEADER.size + 4 * count or count != documents:
        raise UserError(
            f"{path} is damaged or belongs to another corpus: {prefix}.idx has {documents} documents; pack it again"
        )
    if not documents:
        return np.empty(0, np.uint32)
    return np.memmap(path, "<u4", mode="r", offset=HEADER.size, shape=(documents,))
