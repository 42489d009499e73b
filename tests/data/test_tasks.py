"""Files of tasks: what a line becomes, how answers are counted, and what is refused."""

import json

import pytest

from megarc.corpus import load_tokenizer
from megarc.data import Pair, parts, read_task, split_ids
from megarc.errors import UserError
from megarc.window import Window

BYTES = load_tokenizer("bytes")


def write(path, *lines):
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


def test_choices_and_how_they_are_counted(tmp_path):
    path = write(tmp_path / "sums.jsonl",
                 {"prompt": "2+3= ", "choices": ["4", "5", "11111"], "answer": 1},
                 "", {"prompt": "", "choices": ["yes", "no"], "answer": 1, "id": 7})  # fmt: skip
    task = read_task(path, BYTES, start=256)
    assert task.name == "sums" and not task.cloze
    assert task.pairs[0] == Pair([*b"2+3="], [*b" 4"]), "spaces at the end belong to what follows"
    assert task.pairs[3] == Pair([256], [*b"yes"])
    results = task.results([-3.0, -2.0, -4.0, -1.0, -2.0])
    assert results == {"nats_per_token": 4.0 / 4, "accuracy": 0.5, "accuracy_per_character": 0.0}


def test_cloze(tmp_path):
    path = write(tmp_path / "c.jsonl", {"prompt": "a", "target": " bc"}, {"prompt": "é", "target": "d"})
    task = read_task(path, BYTES)
    assert task.cloze and task.results([-6.0, -2.0]) == {"nats_per_token": 2.0}
    assert task.results([-6.0, -2.0], [True, False])["accuracy"] == 0.5


def test_parts_cover_a_continuation_once_and_know_what_generation_knows():
    window = Window(6, 5, 4)
    for context in range(1, 20):
        pair = Pair(list(range(context)), list(range(100, 123)))
        found = list(parts(pair, window))
        assert [one for part in found for one in part.ids[-part.scored :]] == pair.continuation
        for part in found:
            begun = len(part.ids) - part.scored
            assert part.recent == min(6, begun - 1) and begun <= window.rows - 4 + 1
        assert all(part.recent == 0 for part in parts(pair, window, causal=True))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"prompt": "a", "choices": ["b", "c"], "answer": 2}], "no right answer: the key answer is 2"),
        ([{"prompt": "a", "choices": ["b", "c"]}], "no right answer"),
        ([{"prompt": "a", "choices": ["b", "c"], "answer": "b"}], "no right answer"),
        ([{"prompt": "a", "choices": ["b", "b"], "answer": 0}], "two or more, and differ"),
        ([{"prompt": "a", "choices": ["b", ""], "answer": 0}], "texts that are not empty"),
        ([{"prompt": "", "target": "b"}], "prompt has no tokens"),
        ([{"prompt": "a", "target": "b", "choices": ["b"]}], "a question is"),
        ([{"prompt": "a", "target": "b", "id": i} for i in (1, "1")], "id '1' is that of line 1"),
        ([{"prompt": "a", "target": "b"}, {"prompt": "a", "choices": ["b", "c"], "answer": 0}], "mixes"),
        (["nothing"], "line 1 is not JSON"),
        (["[" * 100_000], "line 1 is not JSON"),
        (['{"prompt": "a", "target": "\\ud800"}'], "line 1: .*surrogate"),
        ([""], "holds no questions"),
    ],
)  # fmt: skip
def test_bad_tasks_are_refused(tmp_path, lines, said):
    with pytest.raises(UserError, match=said):
        read_task(write(tmp_path / "bad.jsonl", *lines), BYTES)
    with pytest.raises(UserError, match="cannot read the task"):
        read_task(tmp_path / "none.jsonl", BYTES)


def test_a_continuation_is_tokenized_with_its_context():
    assert split_ids(BYTES, "ab  ", "c", None) == Pair([*b"ab"], [*b"  c"])
    assert split_ids(BYTES, "  ", "c", 9) == Pair([9], [*b"  c"])
