"""A stop string ends a text at the first token that completes it, wherever tokens begin and end."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.corpus import load_tokenizer
from megarc.errors import UserError
from megarc.inference.stop_strings import StopStrings, added

BYTES = load_tokenizer("bytes")


class Pieces:
    """Ids that are pieces of several letters, one of none, and a first space that is dropped, as SentencePiece does."""

    pieces = ("a", "ab", " b", "ba b", "", "é", "b")

    def decode(self, ids):
        return "".join(self.pieces[number] for number in ids).removeprefix(" ")


@settings(max_examples=80)
@given(
    st.lists(st.integers(0, 6), max_size=6),
    st.lists(st.integers(0, 6), min_size=1, max_size=40),
    st.lists(st.text("ab é", min_size=1, max_size=5), min_size=1, max_size=3),
)
def test_it_ends_where_the_whole_text_first_holds_one(prompt, new, stops):
    tokenizer = Pieces()
    rule = StopStrings(tokenizer, stops)
    whole = (added(tokenizer, prompt, new[:count]) for count in range(1, len(new) + 1))
    expected = next((n for n, text in enumerate(whole, 1) if any(one in text for one in stops)), None)
    assert next((n for n in range(1, len(new) + 1) if rule.ended(prompt, new[:n])), None) == expected
    if expected is not None:
        text = added(tokenizer, prompt, new[:expected])
        cut = rule.cut(text)
        assert not any(one in cut for one in stops) and any(text[len(cut) :].startswith(one) for one in stops)


def test_characters_of_several_bytes():
    rule, ids = StopStrings(BYTES, ["é!"]), BYTES.encode("caféé!x").tolist()
    assert [rule.ended([], ids[:n]) for n in range(1, len(ids) + 1)].index(True) + 1 == len(ids) - 1
    assert rule.cut("caféé!x") == "café"
    with pytest.raises(UserError, match="empty"):
        StopStrings(BYTES, ["a", ""])


def test_a_hugging_face_tokenizer_keeps_the_space_after_the_prompt(tmp_path):
    pytest.importorskip("tokenizers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"▁one": 0, "▁two": 1, "▁": 2, "<unk>": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(words.to_str())))
    tokenizer = load_tokenizer(path)
    assert added(tokenizer, [0], [1, 0]) == " two one"
    assert StopStrings(tokenizer, [" one"]).ended([0], [1, 0])
    assert not StopStrings(tokenizer, ["one"]).ended([0], [1])
