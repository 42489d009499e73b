"""`launch/generate.py`, the page: prompts and answers in JSON lines, stop strings, going on after a kill."""

import json

import pytest
from support.small_run import page

from megarc.errors import UserError
from megarc.inference import Answers
from megarc.inference import prompts as files


@pytest.fixture(scope="module")
def run(small_run):
    return small_run


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Prompts of 1 to 30 bytes, on both sides of R + C."""
    path = tmp_path_factory.mktemp("asked") / "prompts.jsonl"
    lines = [{"id": f"p{n}", "prompt": ("12+3=" * 6)[: n + 1], "tokens": 5 + n % 9} for n in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    return path


def generate(run, *words):
    return page("launch/generate.py", "--run", run, *words)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_are_those_of_each_prompt_alone_and_in_order(run, asked, tmp_path, capsys):
    to = tmp_path / "answers.jsonl"
    generate(run, "--prompts", asked, "--to", to, "--temperature", 0, "--slots", 7, "--logprobs")
    answers = lines(to)
    assert [one["id"] for one in answers] == [f"p{n}" for n in range(30)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl"]
    assert "tokens/s" in capsys.readouterr().err
    for number in (0, 11, 19, 29):
        one = answers[number]
        assert len(one["ids"]) == len(one["logprobs"]) == one["tokens"] <= 5 + number % 9
        generate(run, "--prompt", one["prompt"], "--tokens", 5 + number % 9, "--temperature", 0)
        assert capsys.readouterr().out == one["prompt"] + one["text"] + "\n"
    generate(run, "--prompts", asked, "--temperature", 0, "--slots", 3, "--logprobs")
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["ids"] for one in printed] == [one["ids"] for one in answers]


def test_a_killed_job_goes_on_and_gives_what_a_whole_one_gives(run, asked, tmp_path, monkeypatch):
    words = ["--prompts", asked, "--seed", 3, "--slots", 4, "--stop", "="]
    generate(run, *words, "--to", tmp_path / "whole.jsonl")
    add, to = files._Lines.add, tmp_path / "killed.jsonl"

    def killed_at_the_tenth(file, answer):
        add(file, answer)
        if len(file._done) == 10:
            file._file.write(b'{"id": "p2')
            raise KeyboardInterrupt

    monkeypatch.setattr(files._Lines, "add", killed_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        generate(run, *words, "--to", to)
    assert not to.exists()
    monkeypatch.undo()
    with pytest.raises(UserError, match="of another job"):
        generate(run, *words, "--to", to, "--temperature", 0.1)
    generate(run, *words, "--to", to)
    assert lines(to) == lines(tmp_path / "whole.jsonl")
    with pytest.raises(UserError, match="is there already"):
        generate(run, *words, "--to", to)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}\n', "line 2: id 1 is that of line 1"),
        ('{"prompt": ""}\n', "line 1: not a prompt"),
        ('{"prompt": "a"}\n{"text": "a"}\n', "line 2: not a prompt"),
        ('{"prompt": "a", "tokens": 0}\n', "line 1: tokens is 0"),
        ('{"prompt": "a", "id": [1]}\n', "line 1: id is"),
        ('{"prompt": "a", "id": "\\ud800"}\n', "line 1: id is"),
        (f'{{"prompt": "a", "id": {2**64}}}\n', "line 1: id is"),
        ("[" * 100_000, "line 1: not a prompt"),
        ("nothing\n", "line 1: not a prompt"),
        ("\n", "holds no prompts"),
    ],
)
def test_bad_prompts_are_refused_before_anything_is_written(run, tmp_path, content, said):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        generate(run, "--prompts", path, "--to", tmp_path / "answers.jsonl")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"job":null}\n', "of another job"),
        (b'{"job":[1]}\n', "of another job"),
        (b'{"job":{"a":1}}\n{}\n', "line 2 is not an answer"),
        (b'{"job":{"a":1}}\n[]\n', "line 2 is not an answer"),
        (None, "Is a directory"),
    ],
)
def test_a_partial_file_that_is_none_is_named(tmp_path, content, said):
    partial = tmp_path / "answers.jsonl.partial"
    partial.mkdir() if content is None else partial.write_bytes(content)
    with pytest.raises(UserError, match=f"{partial.name}.*{said}"):
        Answers(tmp_path / "answers.jsonl", {"a": 1})


def test_options_that_do_not_go_together(run, asked):
    for words, said in (
        (["--prompt", "a", "--logprobs"], "go with --prompts"),
        (["--prompts", asked, "--interpreter", "python", "--stop", "x"], "--stop goes with"),
        (["--prompt", "a", "--stop", ""], "stop string is empty"),
    ):
        with pytest.raises(UserError, match=said):
            generate(run, *words)
