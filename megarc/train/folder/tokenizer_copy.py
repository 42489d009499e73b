"""The tokenizer of a run's text in the run folder, so that the folder is whole without the corpora."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson

from megarc.atomic_write import written_atomically
from megarc.config import build, to_dict
from megarc.corpus import (
    Tokenizer,
    TokenizerFacts,
    copy_tokenizer,
    find_tokenizer_file,
    load_manifest,
    load_tokenizer,
    stored_tokenizer,
)
from megarc.data import DataConfig, SourceConfig
from megarc.errors import UserError

log = logging.getLogger("megarc")

_FACTS = "facts.json"  # what the corpora's manifests say of it
_NO_FILE = "bytes"  # the kind of tokenizer that needs none


def keep_tokenizer(data: DataConfig, folder: Path, start_from: Path | None = None) -> None:
    """Copies the tokenizer of the training corpora into ``folder``, once; says where none is found.

    Args:
        start_from: the run folder that the run begins from, or a checkpoint in it: its tokenizer is looked at
            first, for an imported model's has a chat template beside it; then those beside the corpora.

    Raises:
        UserError: where a manifest is damaged, or the folder cannot be written.
    """
    facts = of_corpora(data)
    if facts is None:
        return
    keep_facts(facts, folder)
    if facts.kind == _NO_FILE or find_tokenizer_file(folder, facts.digest) is not None:
        return
    earlier = [] if start_from is None else [start_from, *start_from.absolute().parents[:2]]
    kept = (find_tokenizer_file(place / "tokenizer", facts.digest) for place in earlier)
    found = next((file for file in kept if file is not None), None) or beside_corpora(data, facts)
    if found is not None:
        copy_tokenizer(found, folder)
    else:
        log.info(
            "the tokenizer does not lie beside the corpora of data.train (SHA-256 %s): copy it into %s, and the run "
            "folder is whole", facts.digest, folder,
        )  # fmt: skip


def keep_facts(facts: TokenizerFacts, folder: Path) -> None:
    """Writes what ``kept_facts`` reads."""
    if kept_facts(folder) != facts:
        with written_atomically(folder / _FACTS) as file:
            file.write(orjson.dumps(to_dict(facts), option=orjson.OPT_INDENT_2) + b"\n")


def kept_facts(folder: Path) -> TokenizerFacts | None:
    """What ``keep_tokenizer`` wrote of the tokenizer.

    Raises:
        UserError: where it is damaged.
    """
    path = folder / _FACTS
    try:
        tree = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None  # it is written again at the next start, and the corpora say it too
    return build(TokenizerFacts, tree, str(path))


def of_corpora(data: DataConfig) -> TokenizerFacts | None:
    """What the manifests of the training corpora say of their tokenizer: it is one, and compared at the start."""
    for source in data.train:
        if source.kind == "text":
            return None if source.tokenizer is None else _of_text(source).facts()
        manifest = load_manifest(source.path) if source.path is not None else None
        if manifest is not None and manifest.tokenizer is not None:
            return manifest.tokenizer
    return None


def tokenizer_of_corpora(data: DataConfig) -> Tokenizer | None:
    """The tokenizer of the training corpora; None where none is known, or its file is not beside them."""
    facts = of_corpora(data)
    if facts is None:
        return None
    file = Path(_NO_FILE) if facts.kind == _NO_FILE else beside_corpora(data, facts)
    return None if file is None else load_tokenizer(file)


def _of_text(source: SourceConfig) -> Tokenizer:
    wanted = source.options.get("eod_token")
    return load_tokenizer(str(source.tokenizer), None if wanted is None else str(wanted))


def beside_corpora(data: DataConfig, facts: TokenizerFacts) -> Path | None:
    """Its file: that of a source of text, or where it lies beside one of the training corpora."""
    files = [
        path
        for source in data.train
        for path in (source.tokenizer, source.path if source.kind != "text" else None)
    ]
    places = dict.fromkeys(path.parent for path in files if isinstance(path, Path))
    found = (find_tokenizer_file(place, facts.digest) for place in places)
    near = next((file for file in found if file is not None), None)
    return near or _beside_stored(data, facts)


def _beside_stored(data: DataConfig, facts: TokenizerFacts) -> Path | None:
    """A copy of the one that lies beside a training corpus in an object store."""
    urls = [source.path for source in data.train if isinstance(source.path, str) and source.kind != "text"]
    try:
        found = (stored_tokenizer(url, facts.digest, data.store_cache) for url in urls)
        return next((file for file in found if file is not None), None)
    except (OSError, UserError) as error:
        log.warning("the tokenizer beside a corpus in the store cannot be copied: %s", error)
        return None
