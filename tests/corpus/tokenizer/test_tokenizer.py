"""Tokenizers: what comes back, reserved tokens, and equality with the library that a file belongs to."""

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.corpus import RESERVED, load_tokenizer
from megarc.corpus.tokenizer.train import train_tokenizer
from megarc.errors import UserError

WORDS = "the quick brown fox jumps over lazy dogs and then sleeps all day" * 12
SAMPLE = [
    f"def value_{i}(x, y):\n    # {word} ünïcode 日本語 {i}\n    return x * {i} + y  # </s>\n"
    for i, word in enumerate(WORDS.split())
]
SIZES = {"bpe": 420, "unigram": 328}
HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            ["</s>", "<ro>", "<|endoftext|>", "\0", " ", "   ", "\n", "\t", "\r\n", "\ufeff", "é", "e\u0301"]
        ),
        st.sampled_from(
            [
                "def ",
                "return",
                "\U0001f468\u200d\U0001f469\u200d\U0001f467",
                "\ud7ff",
                "\ufffd",
                "<0x41>",
                "a" * 300,
            ]
        ),
    ),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def sentencepiece_model(request, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("tokenizer") / request.param
    train_tokenizer(SAMPLE, prefix, SIZES[request.param], algorithm=request.param)
    return f"{prefix}.model"


@pytest.fixture(scope="module")
def huggingface_file(tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=["<|endoftext|>", "<ro>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def check_batch(tokenizer, texts):
    """Encoding many at once is encoding each, and every id lies in the vocabulary."""
    ids, lengths = tokenizer.encode_documents(texts)
    assert ids.dtype == lengths.dtype == np.int32
    parts = np.split(ids, np.cumsum(lengths)[:-1]) if texts else []
    for text, part in zip(texts, parts, strict=True):
        assert part.tolist() == tokenizer.encode(text).tolist()
    assert not len(ids) or (ids.min() >= 0 and ids.max() < tokenizer.vocabulary_size)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(texts=st.lists(HOSTILE, max_size=5))
def test_sentencepiece_is_the_librarys_encoding_and_comes_back(sentencepiece_model, texts):
    tokenizer = load_tokenizer(sentencepiece_model)
    library = sentencepiece.SentencePieceProcessor(model_file=sentencepiece_model)
    check_batch(tokenizer, texts)
    for text in texts:
        ids = tokenizer.encode(text).tolist()
        assert ids == library.encode(text)
        assert not set(ids) & {tokenizer.end_of_document, *tokenizer.reserved.values()}
        assert tokenizer.decode(ids) == text.replace("\u2581", " ")


@settings(max_examples=100, derandomize=True, deadline=None)
@given(texts=st.lists(HOSTILE, max_size=5))
def test_huggingface_is_the_librarys_encoding(huggingface_file, texts):
    import tokenizers

    tokenizer = load_tokenizer(huggingface_file)
    library = tokenizers.Tokenizer.from_file(str(huggingface_file))
    check_batch(tokenizer, texts)
    for text in texts:
        assert tokenizer.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids
        if "<" not in text:
            assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=100, derandomize=True, deadline=None)
@given(texts=st.lists(HOSTILE, max_size=5))
def test_bytes_are_utf8(texts):
    tokenizer = load_tokenizer("bytes")
    check_batch(tokenizer, texts)
    for text in texts:
        assert bytes(tokenizer.encode(text).tolist()) == text.encode()
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_reserved_tokens_have_stable_ids(sentencepiece_model, huggingface_file):
    tokenizer = load_tokenizer(sentencepiece_model)
    assert tokenizer.end_of_document == 1
    assert list(tokenizer.reserved.items()) == [(name, 2 + i) for i, name in enumerate(RESERVED)]
    assert RESERVED[:6] == ("<ro>", "</ro>", "<code>", "</code>", "<output>", "</output>")
    other = load_tokenizer(huggingface_file)
    assert (other.end_of_document, other.reserved) == (0, {"<ro>": 1})


def test_facts_identify_the_tokenizer(sentencepiece_model, huggingface_file):
    facts = [load_tokenizer(path).facts() for path in (sentencepiece_model, huggingface_file, "bytes")]
    assert len({fact.digest for fact in facts}) == 3
    assert [fact.kind for fact in facts] == ["sentencepiece", "huggingface", "bytes"]


def test_training_is_deterministic(tmp_path, sentencepiece_model):
    algorithm = "unigram" if "unigram" in sentencepiece_model else "bpe"
    again = train_tokenizer(iter(SAMPLE), tmp_path / "again", SIZES[algorithm], algorithm=algorithm)
    assert again.digest == load_tokenizer(sentencepiece_model).digest
    assert again.vocabulary_size == SIZES[algorithm]


def test_lone_surrogates_are_refused(sentencepiece_model):
    for path in (sentencepiece_model, "bytes"):
        with pytest.raises(UserError, match="lone surrogate at character 1"):
            load_tokenizer(path).encode("a\ud800")


def test_tabs_and_long_lines_do_not_lose_the_sample(tmp_path):
    """SentencePiece leaves out sentences with a tab, and long ones."""
    text = "\t".join(["zebra"] * 2000)
    tokenizer = train_tokenizer([text], tmp_path / "t", 285)
    assert len(tokenizer.encode("zebra")) <= 2


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        ([], 400, "empty"),
        ([""], 400, "empty"),
        (["ab"], 4000, "another size, or more text"),
        (["ab"], 100, "too small"),
    ],
)
def test_what_cannot_be_trained_is_said(tmp_path, texts, size, message):
    with pytest.raises(UserError, match=message):
        train_tokenizer(texts, tmp_path / "t", size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"plain text", b"{}", b'{"model": 3}', bytes(range(256))])
def test_what_is_no_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "t.model").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.model"):
        load_tokenizer(tmp_path / "t.model")
    with pytest.raises(UserError, match="no such tokenizer"):
        load_tokenizer(tmp_path / "u.model")
