"""P.json, the manifest beside P.bin and P.idx: what the corpus holds and what it was made from.

It is written last, so a corpus with a manifest is whole. It names no time and
no machine: the same inputs and settings give the same bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from megarc.atomic_write import written_atomically
from megarc.config import Config, build, key, to_dict
from megarc.errors import UserError
from megarc.object_store import StoredFile, ask, is_stored

FORMAT = "megarc corpus"
VERSION = 1


class TokenizerFacts(Config):
    """The tokenizer that made the tokens."""

    kind: str = key(meaning="sentencepiece, huggingface or bytes")
    digest: str = key(meaning="SHA-256 of its file")
    vocabulary_size: int = key(meaning="ids lie below this", ge=1)
    end_of_document: int | None = key(None, "its end-of-document token")
    reserved: dict[str, int] = key({}, "tokens kept for later use, with their ids")


class InputFacts(Config):
    """One file that was read."""

    name: str = key(meaning="as it was named on the command line")
    bytes: int = key(meaning="its size, as stored", ge=0)
    digest: str | None = key(meaning="SHA-256 tree of the file as stored; null for standard input")
    documents: int = key(0, "documents taken from it", ge=0)
    rejects: int = key(0, "bad lines in it", ge=0)


class PackSettings(Config):
    """What decides, beside the inputs and the tokenizer, which tokens a corpus holds."""

    json_key: str = key("text", "the key (or column) that holds the text")
    recent_key: str | None = key(
        None, "the key that holds the question, read both ways; null: not divided so"
    )
    causal_key: str | None = key(None, "the key that holds its answer")
    chat_key: str | None = key(None, "the key that holds a chat's turns; the last answer is predicted")
    separator: str | None = key(None, "the answer begins behind this text")
    longest_answer: int | None = key(None, "an answer of more tokens makes a bad line", ge=1)
    format: str | None = key(None, "how every input was read; null: by its name")
    append_end_of_document: bool = key(False, "each document ends with that token")
    shuffle_seed: int | None = key(0, "documents in random order by this seed; null: in input order")
    drop_duplicates: bool = key(False, "of equal documents the first in input order stays")
    shortest: int = key(0, "documents of fewer bytes are left out", ge=0)
    longest: int | None = key(None, "documents of more bytes are left out")
    transcripts: bool = key(False, "marks such as <in:python> become reserved tokens")
    splits: dict[str, float] = key({}, "shares of the splits, by document hash")
    split: str | None = key(None, "which of them this corpus is")
    split_seed: int = key(0, "another seed draws another split")

    @property
    def divided(self) -> bool:
        """Whether each document has a question and an answer."""
        return not (self.recent_key is None and self.chat_key is None and self.separator is None)


class BinDigests(Config):
    """One layer of the .bin's digest tree (see ``digest.Tree``)."""

    node_bytes: int = key(meaning="bytes that a node covers", ge=1)
    nodes: list[str] = key(meaning="SHA-256 trees of the nodes, in order")
    root: str = key(meaning="digest of the whole")


class Manifest(Config):
    """All that is known of a corpus."""

    format: str = key(FORMAT, "always this")
    version: int = key(VERSION, "of the format")
    documents: int = key(meaning="documents in the corpus", ge=0)
    tokens: int = key(meaning="tokens, end-of-document tokens included", ge=0)
    text_bytes: int | None = key(None, "UTF-8 bytes of the text, for bits/byte; null where unknown")
    dtype: str = key(meaning="type of a token on disk: uint16, int32, ...")
    content_digest: str = key(meaning="of type, index and tokens: the corpus's identity")
    idx_digest: str = key(meaning="SHA-256 of the .idx")
    bin_digests: BinDigests = key(meaning="of the .bin")
    sampled_digest: str | None = key(
        None, "of the .idx and 64 pages of the .bin, compared at every opening; null: of an earlier megarc"
    )
    answers_digest: str | None = key(None, "SHA-256 of the .answers; null where documents are not divided")
    tokenizer: TokenizerFacts | None = key(None, "null where unknown")
    settings: PackSettings | None = key(None, "null where not packed by megarc")
    inputs: list[InputFacts] = key([], "the files read, in order")
    dropped: dict[str, int] = key({}, "documents left out, by reason")


def manifest_path(prefix: str | Path) -> Path:
    return Path(f"{prefix}.json")


def load_manifest(prefix: str | Path) -> Manifest | None:
    """The manifest of corpus ``prefix``, which may be a URL, or None where it has none.

    Raises:
        UserError: where P.json is no manifest, or one of a later version.
    """
    place = f"{prefix}.json"
    path: Path | StoredFile | None = ask(place) if is_stored(place) else Path(place)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            tree = orjson.loads(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read the manifest {path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise UserError(f"the manifest {path} is damaged: it is not valid JSON ({error})") from None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise UserError(f"{path} is not a manifest of a corpus; move it away, or pack the corpus again")
    if tree.get("version") != VERSION:
        raise UserError(f"the manifest {path} has version {tree.get('version')}; this megarc reads {VERSION}")
    if tree.pop("checksum", None) != _checksum(tree):
        raise UserError(f"the manifest {path} is damaged, or was changed by hand: its checksum does not fit")
    return build(Manifest, tree, str(path))


def write_manifest(prefix: str | Path, manifest: Manifest) -> None:
    """Writes P.json, atomically."""
    with written_atomically(manifest_path(prefix)) as file:
        tree = to_dict(manifest)
        tree["checksum"] = _checksum(tree)
        file.write(orjson.dumps(tree, option=orjson.OPT_INDENT_2) + b"\n")


def _checksum(tree: dict[str, Any]) -> str:
    """SHA-256 of all that a manifest tells: nobody else's digest covers its counts of bytes, for instance."""
    return hashlib.sha256(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)).hexdigest()
