"""verify names what is damaged; make_manifest adopts a corpus from elsewhere."""

from pathlib import Path

import numpy as np
import pytest

from megarc.config import build
from megarc.corpus import (
    IndexedCorpus,
    IndexedWriter,
    load_manifest,
    load_tokenizer,
    make_manifest,
    verify,
    write_manifest,
)
from megarc.corpus.indexed.digest import LEAF_BYTES
from megarc.data import DataConfig, open_stream
from megarc.errors import UserError
from megarc.window import Window

from ..conftest import pack_some, some_texts, write_lines


@pytest.fixture
def corpus(tmp_path):
    """3.5 MB of tokens: four nodes."""
    pack_some(
        tmp_path / "c", write_lines(tmp_path / "l.jsonl", some_texts(12000)), append_end_of_document=True
    )
    return tmp_path / "c"


PARTS = ("bin", "idx")


def two_corpora(folder: Path, other: list[str], *, sampled: bool) -> Path:
    """Corpus ``c``, whose files are replaced by those of another while its manifest stays."""
    for name, texts in (("c", some_texts(40)), ("d", other)):
        pack_some(folder / name, write_lines(folder / f"{name}.jsonl", texts), append_end_of_document=True)
    manifest = load_manifest(folder / "c")
    assert manifest is not None
    if not sampled:  # as an earlier megarc wrote it
        write_manifest(folder / "c", manifest.model_copy(update={"sampled_digest": None}))
    assert IndexedCorpus(folder / "c").digest == manifest.content_digest
    for part in PARTS:
        (folder / f"d.{part}").replace(folder / f"c.{part}")
    return folder / "c"


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("kind", ["another", "of the same lengths"])
def test_files_of_another_corpus_are_noticed_when_it_is_opened(tmp_path, sampled, kind):
    texts = some_texts(40)
    other = some_texts(41) if kind == "another" else [text[::-1] for text in texts]
    prefix = two_corpora(tmp_path, other, sampled=sampled)
    told = r"c.json is the manifest of another corpus than .*c.bin and .idx: .*--make-manifest"
    with pytest.raises(UserError, match=told):
        IndexedCorpus(prefix)
    assert verify(prefix, quiet=True)
    config = build(DataConfig, {"train": [{"path": str(prefix)}]}, "test")
    with pytest.raises(UserError, match=told):
        open_stream(config, "train", Window(4, 4, 4), seed=0)
    Path(f"{prefix}.json").rename(tmp_path / "old.json")
    make_manifest(prefix, quiet=True)
    assert IndexedCorpus(prefix).document_count == len(other)


@pytest.mark.parametrize("part", PARTS)
def test_files_that_do_not_belong_together_are_noticed(tmp_path, part):
    two_corpora(tmp_path, [text[::-1] for text in some_texts(40)], sampled=True)
    pack_some(tmp_path / "c", tmp_path / "c.jsonl", append_end_of_document=True)
    pack_some(tmp_path / "d", tmp_path / "d.jsonl", append_end_of_document=True)
    (tmp_path / f"d.{part}").replace(tmp_path / f"c.{part}")
    if part == "idx":  # the lengths are the same: any index of them is right
        assert IndexedCorpus(tmp_path / "c").document_count == 40
    else:
        with pytest.raises(UserError, match="their index or tokens differ"):
            IndexedCorpus(tmp_path / "c")


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_a_whole_corpus_has_no_problems(corpus):
    assert verify(corpus, quiet=True) == []


@pytest.mark.parametrize("at", [0, LEAF_BYTES - 1, LEAF_BYTES, 2 * LEAF_BYTES + 5, -1])
def test_a_flipped_byte_of_the_tokens_is_named(corpus, at):
    path = Path(f"{corpus}.bin")
    flip(path, at)
    place = at % path.stat().st_size // LEAF_BYTES * LEAF_BYTES
    problems = verify(corpus, quiet=True)
    assert any(
        f"c.bin has changed between bytes {place} and {place + LEAF_BYTES}" in line for line in problems
    )


def test_a_token_out_of_range_is_named(corpus):
    flip(Path(f"{corpus}.bin"), 2 * 1234 + 1, 6)
    assert any("token 1234 is 16" in line and "not below 273" in line for line in verify(corpus, quiet=True))


def test_every_flip_of_the_index_is_noticed(tmp_path):
    pack_some(tmp_path / "c", write_lines(tmp_path / "l.jsonl", ["a", "bc", "", "d"]))
    path = tmp_path / "c.idx"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flip(path, bit // 8, bit % 8)
        try:
            assert verify(tmp_path / "c", quiet=True)
        except UserError as error:
            assert "c.idx" in str(error)
        path.write_bytes(whole)


def test_a_manifest_of_another_corpus_is_noticed(tmp_path):
    for name, texts in (("a", ["x", "y"]), ("b", ["x", "z"])):
        pack_some(tmp_path / name, write_lines(tmp_path / f"{name}.jsonl", texts))
    (tmp_path / "a.json").write_bytes((tmp_path / "b.json").read_bytes())
    assert verify(tmp_path / "a", quiet=True)


def test_a_corpus_without_manifest_can_get_one(corpus):
    """The files of ``pack`` without their manifest, as Megatron would leave them."""
    told = Path(f"{corpus}.json")
    before = IndexedCorpus(corpus)
    digest = before.digest
    told.unlink()
    assert verify(corpus, quiet=True) == []
    bare = IndexedCorpus(corpus).digest
    assert bare != digest
    manifest = make_manifest(corpus, load_tokenizer("bytes"), quiet=True)
    assert verify(corpus, quiet=True) == []
    assert manifest.content_digest == IndexedCorpus(corpus).digest == digest
    assert manifest.text_bytes == sum(len(text.encode()) for text in some_texts(12000))
    with pytest.raises(UserError, match="has a manifest already"):
        make_manifest(corpus, quiet=True)


def test_the_cheap_digest_sees_other_files(corpus):
    Path(f"{corpus}.json").unlink()
    seen = {IndexedCorpus(corpus).digest}
    flip(Path(f"{corpus}.bin"), 0)
    seen.add(IndexedCorpus(corpus).digest)
    flip(Path(f"{corpus}.bin"), -1)
    seen.add(IndexedCorpus(corpus).digest)
    assert len(seen) == 3


def test_the_wrong_tokenizer_is_refused(tmp_path):
    with IndexedWriter(tmp_path / "m", np.uint16) as writer:
        writer.add(np.array([5, 300, 2]))
        writer.finish()
    with pytest.raises(UserError, match="token 1 is 300, not below 273: is this the tokenizer"):
        make_manifest(tmp_path / "m", load_tokenizer("bytes"), quiet=True)
