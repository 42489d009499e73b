"""Documents with a question and an answer: the same tokens as plain documents, and where each answer begins."""

import random
from pathlib import Path

import numpy as np
import orjson
import pytest

from megarc.corpus import IndexedCorpus, load_manifest, load_tokenizer, verify
from megarc.corpus.inputs import split_files
from megarc.corpus.inputs.document_fields import BadLineError, Choice
from megarc.errors import UserError

from ..conftest import pack_some

BAD = {
    2: ({"question": "no answer"}, "no key 'answer'"),
    3: ({"question": "q", "answer": " \n"}, "the key 'answer' is empty"),
    5: ({"question": None, "answer": "a"}, "the key 'question' holds null"),
    8: ({"question": "q", "answer": "x" * 41}, "an answer of 41 tokens, more than 40"),
    9: (["q", "a"], "a list, not an object with the key 'question'"),
}


def pairs(count):
    chance = random.Random(1)
    return [
        {
            "question": "".join(chance.choices("ab é\n", k=chance.randrange(30))),
            "answer": "c" * chance.randint(1, 30),
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file of pairs with bad lines among them; the good ones."""
    path = tmp_path_factory.mktemp("divided") / "pairs.jsonl"
    good, lines = pairs(60), []
    for pair in good:
        while len(lines) + 1 in BAD:
            lines.append(BAD[len(lines) + 1][0])
        lines.append(pair)
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path, good


KEYS = {"recent_key": "question", "causal_key": "answer", "append_end_of_document": True}


def read(prefix):
    """Question, answer (with the end) of each document."""
    corpus = IndexedCorpus(prefix)
    documents = [corpus.document(number) for number in range(corpus.document_count)]
    return [
        (tokens[:border].tolist(), tokens[border:].tolist())
        for tokens, border in zip(documents, corpus.answers, strict=True)
    ]


def test_answers_begin_where_they_do_however_the_work_is_shared_out(tmp_path, written, monkeypatch):
    path, good = written
    tokenizer = load_tokenizer("bytes")
    expected = [
        (
            tokenizer.encode(pair["question"]).tolist(),
            [*tokenizer.encode(pair["answer"]).tolist(), tokenizer.end_of_document],
        )
        for pair in good
    ]
    pack_some(tmp_path / "plain", path, **KEYS, shuffle_seed=None, longest_answer=41, max_bad=0.5)
    assert [pair for pair in read(tmp_path / "plain") if len(pair[1]) <= 41] == expected
    for number, (limit, workers) in enumerate([(1 << 20, 1), (700, 2)]):
        monkeypatch.setattr(split_files, "_piece_bytes", lambda inputs, limit=limit: limit)
        prefix = tmp_path / f"shuffled{number}"
        pack_some(prefix, path, **KEYS, shuffle_seed=3, longest_answer=40, max_bad=0.5, workers=workers)
        assert sorted(read(prefix)) == sorted(expected) and read(prefix) != expected
        assert verify(prefix, quiet=True) == []
        rejects = [orjson.loads(line) for line in Path(f"{prefix}.rejects.jsonl").read_bytes().splitlines()]
        assert {bad["line"] for bad in rejects} == set(BAD)
        assert all(BAD[bad["line"]][1] in bad["reason"] for bad in rejects)
    first, second = (Path(f"{tmp_path}/shuffled{i}.answers").read_bytes() for i in (0, 1))
    assert first == second


def test_damage_is_found_and_other_corpora_have_no_answers(tmp_path, written):
    path, _ = written
    pack_some(tmp_path / "c", path, **KEYS, max_bad=0.5)
    answers = Path(f"{tmp_path}/c.answers")
    whole = answers.read_bytes()
    answers.write_bytes(whole[:-4])
    with pytest.raises(UserError, match=r"the \.answers has another digest"):
        IndexedCorpus(tmp_path / "c")
    with pytest.raises(UserError, match="damaged or belongs to another corpus"):
        _ = IndexedCorpus(tmp_path / "c", compare=False).answers
    answers.write_bytes(whole[:-4] + (10**6).to_bytes(4, "little"))
    problems = verify(tmp_path / "c", quiet=True)
    assert any("begins behind its" in problem for problem in problems)
    assert any("not the file that its manifest describes" in problem for problem in problems)
    digest = load_manifest(tmp_path / "c").content_digest
    pack_some(tmp_path / "c", path, json_key="question", max_bad=0.5)
    assert (
        IndexedCorpus(tmp_path / "c").answers is None
        and load_manifest(tmp_path / "c").content_digest != digest
    )


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "times 3?"},
    {"role": "assistant", "content": "12"},
    {"role": "user", "content": "thanks"},
]


@pytest.mark.parametrize(
    ("choice", "element", "question", "answer"),
    [
        (
            Choice(chat_key="turns"),
            {"turns": CHAT},
            "system:\nBe brief.\n\nuser:\n2 + 2?\n\nassistant:\n4\n\nuser:\ntimes 3?\n\nassistant:\n",
            "12",
        ),
        (Choice(chat_key="t"), {"t": [{"from": "gpt", "value": "hi"}]}, "gpt:\n", "hi"),
        (Choice(separator="##"), {"text": "a##b##c"}, "a##", "b##c"),
        (Choice(separator="\n"), "a\nb", "a\n", "b"),
        (Choice("t"), {"t": "all"}, "", "all"),
    ],
)
def test_ways_to_divide(choice, element, question, answer):
    text, border = choice.pick(element)
    assert (text[:border], text[border:]) == (question, answer)


@pytest.mark.parametrize(
    ("choice", "element", "said"),
    [
        (Choice(chat_key="turns"), {"turns": "hi"}, "holds a string, not a list of turns"),
        (Choice(chat_key="turns"), {"turns": CHAT[:2]}, "no turn of the key 'turns' is an answer"),
        (Choice(chat_key="turns"), {"turns": [*CHAT, {"role": "user"}]}, "turn 7 has no role and content"),
        (
            Choice(chat_key="turns"),
            {"turns": [{"role": "bot", "content": " "}]},
            "turn 1, the last answer, is empty",
        ),
        (Choice(separator="##"), {"text": "a # b"}, "the separator '##' is not in the text"),
        (Choice(separator="##"), {"text": "a ##  "}, "nothing follows the separator"),
    ],
)
def test_what_holds_no_pair(choice, element, said):
    with pytest.raises(BadLineError, match=said):
        choice.pick(element)


def test_columns_of_a_table(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"q": "why", "a": "because"}, {"q": "how", "a": None}, {"q": "", "a": "so"}]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    pack_some(
        tmp_path / "p", tmp_path / "t.parquet", recent_key="q", causal_key="a", shuffle_seed=None, max_bad=0.5
    )
    assert [(bytes(q), bytes(a)) for q, a in read(tmp_path / "p")] == [(b"why", b"because"), (b"", b"so")]
    assert np.array_equal(IndexedCorpus(tmp_path / "p").answers, [3, 0])
