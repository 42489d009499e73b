"""`--average` and `--width` of the pages that use a model: the weights that `launch/export.py` writes."""

import json

import pytest
from support.small_run import key_words, page

from megarc.corpus import IndexedCorpus
from megarc.errors import UserError
from megarc.inference import evaluate, load_exported
from megarc.train import load_model
from megarc.window import Window

ASKED = {
    "average": ["--average"],
    "width": ["--width", "1/4"],
    "widths": ["--width", "1/2,1/4"],
    "both": ["--average", "--width", "1/2"],
}


@pytest.fixture(scope="module")
def nested(small_run, tmp_path_factory):
    """A run with widths and an average, on the text of ``small_run``."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    more = ["model.nested=[1/4,1/2,1]", "model.ffn=64", "average.last_k=3", "optimizer.lr=0.05"]
    words = [word for word in key_words(small_run.parent, folder, steps=4) if not word.startswith("model=")]
    shape = ["model.layers=2", "model.hidden=32", "model.heads=4", "model.initial_std=0.2"]
    page("launch/pretrain.py", *words, *shape, *more)
    return folder


def test_scores_are_those_of_the_exported_models(small_run, nested, tmp_path):
    """Of both, and of several widths side by side."""
    corpus, targets = IndexedCorpus(small_run.parent / "sums"), range(13, 133)
    found = {}
    for name, words in ASKED.items():
        page("launch/export.py", "--run", nested, "--to", tmp_path / name, *words)
        model, _ = load_exported(tmp_path / name)
        expected = evaluate(model, corpus.tokens, Window(12, 6, 6), targets).nats_per_token
        page("launch/evaluate.py", "--run", nested, "--corpus", small_run.parent / "sums", "--stride", 6,
             "--tokens", 120, *words, "--json", tmp_path / "scores.json")  # fmt: skip
        (scores,) = json.loads((tmp_path / "scores.json").read_text()).values()
        assert scores["first_target"] == targets.start
        assert scores["nats_per_token"] == pytest.approx(expected, rel=1e-5)
        found[name] = expected
    assert len({round(value, 5) for value in found.values()}) == len(found)


def test_widths_side_by_side_and_texts_by_each(small_run, nested, tmp_path, capsys):
    page("launch/evaluate.py", "--run", nested, "--corpus", small_run.parent / "sums", "--tokens", 60,
         "--width", "1", "--width", "1/4", "--json", tmp_path / "scores.json")  # fmt: skip
    assert list(json.loads((tmp_path / "scores.json").read_text())) == [
        f"{nested} width 1",
        f"{nested} width 1/4",
    ]
    capsys.readouterr()
    texts = []
    for words in ([], ["--width", "1/4"], ["--average"]):
        page("launch/generate.py", "--run", nested, "--prompt", "1+1=", "--tokens", 24, "--temperature", 1,
             "--no-stop", *words)  # fmt: skip
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 3
    assert load_model(nested, widths=[1]).config.model.nested is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--average"], r"average\.decay=0\.999"),
        (["--width", "1/4"], "the run has no model.nested"),
    ],
)
def test_a_run_that_has_none_is_refused(small_run, words, said):
    with pytest.raises(UserError, match=said):
        page("launch/evaluate.py", "--run", small_run, "--corpus", small_run.parent / "sums", *words)
    with pytest.raises(UserError, match=said):
        page("launch/generate.py", "--run", small_run, "--prompt", "1", *words)


def test_a_width_that_is_none_and_a_stack_are_refused(small_run, nested):
    with pytest.raises(UserError, match="1/3 is none that the model was trained with; it has 1/4, 1/2, 1"):
        page("launch/generate.py", "--run", nested, "--prompt", "1", "--width", "1/3")
    with pytest.raises(UserError, match="go with one model; give --run"):
        page("launch/generate.py", "--tiers", "no/stack", "--prompt", "1", "--average")
    with pytest.raises(UserError, match="choose weights of a run; give --run"):
        page("launch/evaluate.py", "--corpus", small_run.parent / "sums", "--average")
