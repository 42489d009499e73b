"""Is a corpus what it says: structure, digests, token range; and a manifest for one that has none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megarc.corpus.indexed.answer_starts import answers_path
from megarc.corpus.indexed.corpus import IndexedCorpus, dtype_code
from megarc.corpus.indexed.digest import Tree, TreeDigest, cheap_digest, content_digest, file_digest
from megarc.corpus.indexed.manifest import BinDigests, Manifest, write_manifest
from megarc.corpus.tokenizer import Tokenizer
from megarc.errors import UserError
from megarc.progress import progress

_TOKENS_AT_ONCE = 1 << 22


def verify(prefix: str | Path, *, quiet: bool = False) -> list[str]:
    """Reads all of a corpus and says everything that is wrong with it: nothing, if it is whole.

    Of one without a manifest only the structure can be judged.

    Raises:
        UserError: where it cannot even be opened.
    """
    corpus = IndexedCorpus(prefix, compare=False)
    manifest = corpus.manifest
    problems: list[str] = []
    try:
        corpus.check_all()
    except UserError as error:
        problems.append(str(error))
    vocabulary = manifest.tokenizer.vocabulary_size if manifest and manifest.tokenizer else None
    problems += _wrong_answers(corpus)
    tree, out_of_range = _read(corpus, vocabulary, quiet=quiet)
    if manifest is None:
        return problems + out_of_range
    return [*problems, *_against(manifest, corpus, tree), *out_of_range]


def make_manifest(prefix: str | Path, tokenizer: Tokenizer | None = None, *, quiet: bool = False) -> Manifest:
    """Writes P.json for a corpus that came without one, from Megatron for instance.

    Args:
        tokenizer: the one it was made with, if known: the tokens are checked against
            its vocabulary, and decoded to count the bytes of text.

    Raises:
        UserError: where the corpus is damaged or has a manifest already.
    """
    corpus = IndexedCorpus(prefix, compare=False)
    if corpus.url is not None:
        raise UserError(
            f"{corpus.url}: a manifest can be made only for a corpus on a disk; make it there, and copy it to the store"
        )
    if corpus.manifest is not None:
        raise UserError(f"{corpus.prefix} has a manifest already; verify it, or move it away")
    corpus.check_all()
    tree, out_of_range = _read(corpus, tokenizer.vocabulary_size if tokenizer else None, quiet=quiet)
    if out_of_range:
        raise UserError(f"{out_of_range[0]}: is this the tokenizer that the corpus was made with?")
    index = file_digest(Path(f"{corpus.prefix}.idx"))
    wrong = list(_wrong_answers(corpus))
    if wrong:
        raise UserError(wrong[0])
    answers = _answers_digest(corpus)
    manifest = Manifest(
        documents=corpus.document_count,
        tokens=len(corpus.tokens),
        text_bytes=_text_bytes(corpus, tokenizer) if tokenizer else None,
        dtype=corpus.dtype.name,
        content_digest=content_digest(dtype_code(corpus.dtype), index, tree.root, answers),
        answers_digest=answers,
        idx_digest=index,
        bin_digests=BinDigests(node_bytes=tree.node_bytes, nodes=list(tree.nodes), root=tree.root),
        sampled_digest=cheap_digest(corpus.prefix),
        tokenizer=tokenizer.facts() if tokenizer else None,
    )
    write_manifest(corpus.prefix, manifest)
    return manifest


def _read(corpus: IndexedCorpus, vocabulary: int | None, *, quiet: bool) -> tuple[Tree, list[str]]:
    """The .bin's digests, and the first token that is out of range."""
    tree = TreeDigest()
    problems: list[str] = []
    with progress("reading", len(corpus.tokens), unit="tokens", quiet=quiet) as bar:
        for first in range(0, len(corpus.tokens), _TOKENS_AT_ONCE):
            some = np.array(corpus.tokens[first : first + _TOKENS_AT_ONCE])
            tree.update(memoryview(some).cast("B"))
            wrong = some < 0 if vocabulary is None else (some < 0) | (some >= vocabulary)
            if not problems and wrong.any():
                at = first + int(np.argmax(wrong))
                limit = "negative" if vocabulary is None else f"not below {vocabulary}"
                problems.append(f"{corpus.name}.bin: token {at} is {corpus.tokens[at]}, {limit}")
            bar.advance(len(some))
    return tree.finish(), problems


def _against(manifest: Manifest, corpus: IndexedCorpus, tree: Tree) -> Iterator[str]:
    for name, value in corpus.facts.items():
        stated = getattr(manifest, name)
        if stated != value:
            yield f"{corpus.name}.json says {name} {stated}, the files have {value}"
    index = file_digest(Path(f"{corpus.prefix}.idx"))
    if index != manifest.idx_digest:
        yield f"{corpus.name}.idx is not the file that its manifest describes"
    yield from _changed_nodes(manifest.bin_digests, tree, f"{corpus.name}.bin")
    if _answers_digest(corpus) != manifest.answers_digest:
        yield f"{corpus.name}.answers is not the file that its manifest describes"
    stated_content = content_digest(
        dtype_code(corpus.dtype), manifest.idx_digest, manifest.bin_digests.root, manifest.answers_digest
    )
    if stated_content != manifest.content_digest:
        yield f"{corpus.name}.json is damaged: its digests do not fit together"


def _answers_digest(corpus: IndexedCorpus) -> str | None:
    path = answers_path(corpus.prefix)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _wrong_answers(corpus: IndexedCorpus) -> Iterator[str]:
    """The first document whose answer begins behind its end."""
    try:
        answers = corpus.answers
    except UserError as error:
        yield str(error)
        return
    if answers is None:
        return
    lengths: npt.NDArray[np.int64] = np.diff(np.append(corpus.documents, len(corpus.tokens)))
    wrong = np.flatnonzero(answers > lengths)
    if len(wrong):
        place = int(wrong[0])
        yield (
            f"{corpus.name}.answers: the answer of document {place} begins behind its "
            f"{lengths[place]} tokens, at {answers[place]}"
        )


def _changed_nodes(recorded: BinDigests, tree: Tree, path: str) -> Iterator[str]:
    if recorded.node_bytes != tree.node_bytes or len(recorded.nodes) != len(tree.nodes):
        yield f"{path} is not the file that its manifest describes"
        return
    changed = [
        i for i, nodes in enumerate(zip(recorded.nodes, tree.nodes, strict=True)) if nodes[0] != nodes[1]
    ]
    for node in changed[:10]:
        start = node * recorded.node_bytes
        yield f"{path} has changed between bytes {start} and {start + recorded.node_bytes}"
    if len(changed) > 10:
        yield f"{path} has changed in {len(changed) - 10} more such places"
    if not changed and recorded.root != tree.root:
        yield f"{path} is not the file that its manifest describes"


def _text_bytes(corpus: IndexedCorpus, tokenizer: Tokenizer) -> int:
    ends = tokenizer.facts().end_of_document
    total = 0
    for number in range(corpus.document_count):
        document = corpus.document(number)
        text = document[:-1] if len(document) and document[-1] == ends else document
        total += len(tokenizer.decode(text).encode())
    return total
