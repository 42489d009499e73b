"""A tokenizer's file by its digest, and copies of it with what lies beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from megarc.atomic_write import written_atomically
from megarc.corpus.indexed.digest import file_digest
from megarc.corpus.tokenizer.end_of_document import BESIDE

TRAVELS = (*BESIDE, "added_tokens.json", "chat_template.jinja", "generation_config.json")
"""Files that Hugging Face's folders keep beside a tokenizer, and that go where it goes."""

PATTERNS = ("*.model", "*tokenizer*.json", "tokenizer/*.model", "tokenizer/*.json")
LARGEST = 1 << 28  # bytes: a larger file of such a name is something else


def find_tokenizer_file(folder: Path, digest: str) -> Path | None:
    """The tokenizer with that digest in ``folder``, or in a folder ``tokenizer`` there; None: it is not there."""
    for pattern in PATTERNS:
        for candidate in sorted(folder.glob(pattern)):
            fits = candidate.is_file() and candidate.stat().st_size <= LARGEST
            if fits and file_digest(candidate) == digest:
                return candidate
    return None


def copy_tokenizer(file: Path, folder: Path) -> Path:
    """Copies a tokenizer's file, and what Hugging Face's keep beside it, into ``folder``; the copy's path.

    Raises:
        UserError: where it cannot be written.
    """
    kind = "tokenizer.json" if file.suffix == ".json" else "tokenizer.model"
    beside = [path for name in TRAVELS if (path := file.parent / name).is_file()]
    for source, name in [(file, kind), *((path, path.name) for path in beside)]:
        with written_atomically(folder / name) as copy, source.open("rb") as original:
            shutil.copyfileobj(original, copy)
    return folder / kind
