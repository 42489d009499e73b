"""Where texts are cut: the library's ids of the parts are those of the whole, for every kind that is known."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.corpus import load_tokenizer
from megarc.corpus.tokenizer.known_borders import known_borders
from megarc.corpus.tokenizer.train import train_tokenizer

from .test_gigatoken_engine import sentencepiece_model
from .test_tokenizer import HOSTILE, SAMPLE
from .test_unicode_stability import GPT_2, LLAMA_3, O200K

QWEN = LLAMA_3.replace("{1,3}", "")
TEXT = st.lists(
    st.one_of(HOSTILE, st.sampled_from(["def value", " x, 12 y. ", "語 日", "\n\n ", "a\ua7cf b ", "<ro> "]))
)
KINDS = ["gpt2", "llama3", "qwen2", "o200k", "llama2", "metaspace", "bpe", "prefix", "normalised"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    train_tokenizer(SAMPLE, place / "bpe", 420)
    train_tokenizer(SAMPLE, place / "unigram", 328, algorithm="unigram")
    sentencepiece_model(place / "prefix", normalization_rule_name="identity", remove_extra_whitespaces=False)
    sentencepiece_model(place / "normalised")
    sentencepiece_model(place / "suffix", treat_whitespace_as_suffix=True)
    sentencepiece_model(place / "across", split_by_whitespace=False)
    found = {path.stem: path for path in place.glob("*.model")}
    for name, pattern in [("gpt2", GPT_2), ("llama3", LLAMA_3), ("qwen2", QWEN), ("o200k", O200K)]:
        found[name] = huggingface(place / f"{name}.json", pattern)
    found["llama2"] = of_spaces(place / "llama2.json")
    found["metaspace"] = of_spaces(place / "metaspace.json", metaspace=True)
    return found


def huggingface(path, pattern):
    """A byte-level BPE as GPT-2 or a newer model has it."""
    library = pytest.importorskip("tokenizers")
    pre, byte_level = library.pre_tokenizers, library.pre_tokenizers.ByteLevel
    tokenizer = library.Tokenizer(library.models.BPE())
    if pattern is None:
        tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    else:
        split = pre.Split(library.Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre.Sequence([split, byte_level(add_prefix_space=False, use_regex=False)])
    if pattern is QWEN:
        tokenizer.normalizer = library.normalizers.NFC()
    return trained(tokenizer, library, path, byte_level.alphabet())


def of_spaces(path, *, metaspace=False):
    """A BPE over the whole text, as Llama 2's tokenizer.json."""
    library = pytest.importorskip("tokenizers")
    tokenizer = library.Tokenizer(library.models.BPE(unk_token="<unk>", fuse_unk=True))
    # also: nothing merges across
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace(prepend_scheme="first")
    trained(tokenizer, library, path, ["\u2581"])
    tree = orjson.loads(path.read_bytes())
    if not metaspace:
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
        tree["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace],
        }
        tree["pre_tokenizer"] = None
    path.write_bytes(orjson.dumps(tree))
    return path


def trained(tokenizer, library, path, alphabet):
    trainer = library.trainers.BpeTrainer(
        vocab_size=450,
        show_progress=False,
        special_tokens=["<unk>", "<|endoftext|>", "<ro>"],
        initial_alphabet=alphabet,
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_parts_have_the_ids_of_the_whole(files, kind):
    tokenizer = load_tokenizer(files[kind])
    borders = known_borders(tokenizer)
    assert borders is not None
    assert len(borders.parts("".join(SAMPLE), 1)) > 3 * len(SAMPLE)

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(pieces=TEXT)
    def same(pieces):
        text = "".join(pieces)
        whole = tokenizer.encode_documents([text])[0].tolist()
        assert tokenizer.encode_documents(borders.parts(text, 1))[0].tolist() == whole
        places = [place for place, character in enumerate(text) if character == "\ua7cf"]
        parts, behind = [], 0
        for begin, end in borders.around(text, places):
            assert begin < end and behind <= begin
            parts += [text[behind : begin - borders.gap]] * (begin > behind) + [text[begin:end]]
            behind = end + borders.gap
            places = [place for place in places if not begin <= place < end]
        parts += [text[behind:]] * (behind < len(text))
        assert not places
        assert tokenizer.encode_documents(parts)[0].tolist() == whole

    same()


def test_only_the_words_around_a_place_are_given(files):
    borders = known_borders(load_tokenizer(files["gpt2"]))
    text = "one two " * 1000 + "three\ua7cf four\ua7cf " + "five " * 1000 + "six \ua7cf"
    places = [place for place, character in enumerate(text) if character == "\ua7cf"]
    assert [text[begin:end] for begin, end in borders.around(text, places)] == [
        " three\ua7cf four\ua7cf five",
        " \ua7cf",
    ]


@pytest.mark.parametrize("kind", ["unigram", "suffix", "across"])
def test_other_sentencepiece_models_are_not_cut(files, kind):
    assert known_borders(load_tokenizer(files[kind])) is None


def changed(**parts):
    return lambda tree: tree.update(parts)


def adding(content, **more):
    def change(tree):
        token = {"id": 9, "content": content, "special": True, "normalized": False, "single_word": False}
        tree["added_tokens"].append(token | {"lstrip": False, "rstrip": False} | more)

    return change


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("gpt2", changed(normalizer={"type": "Lowercase"})),
        ("gpt2", changed(pre_tokenizer={"type": "Whitespace"})),
        ("gpt2", lambda tree: tree["pre_tokenizer"].update(add_prefix_space=True)),
        ("gpt2", lambda tree: tree["model"].update(dropout=0.1)),
        ("gpt2", adding("two words")),
        ("gpt2", adding("<x>", rstrip=True)),
        (
            "llama3",
            lambda tree: tree["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "\\w+ \\w+"}),
        ),
        ("llama2", adding("word")),
        ("llama2", adding(" ")),
        ("metaspace", adding(" t!")),
        ("llama2", lambda tree: tree["model"]["vocab"].update({"a\u2581b": 460})),
        ("metaspace", lambda tree: tree["model"]["vocab"].pop("\u2581")),
    ],
)
def test_tokenizers_that_may_look_across_a_border_are_not_cut(files, kind, change):
    tokenizer = load_tokenizer(files[kind])
    tree = orjson.loads(tokenizer.source)
    assert known_borders(tokenizer) is not None
    change(tree)
    tokenizer.source = orjson.dumps(tree)
    assert known_borders(tokenizer) is None
