"""megarc ladder."""

import json
import math
import os
import shutil
import signal

import pytest
from support.small_run import page

from megarc.corpus import load_manifest, write_manifest
from megarc.errors import UserError
from megarc.science import ladder


@pytest.fixture(scope="module")
def corpora(small_run):
    return small_run.parent / "sums"


def test_rows_in_three_units_with_a_model_and_a_plot(small_run, corpora, tmp_path, capsys):
    both = ("--corpus", corpora, "--heldout", corpora, "--tokens", 300)
    files = ("--json", tmp_path / "rows.json", "--plot", tmp_path / "rows.png", "--scratch", tmp_path)
    page("launch/ladder.py", *both, "--run", small_run, "--tokenizer", "bytes", *files)
    rows = json.loads((tmp_path / "rows.json").read_bytes())
    names = {"uniform", "unigram", "bigram", "trigram", "5-gram", "gzip -9, text", str(small_run)}
    assert names <= set(rows)
    assert any("18 tokens each" in name for name in rows)  # the model's context
    for row in rows.values():
        assert row["bits_per_token"] == pytest.approx(row["nats_per_token"] / math.log(2))
        assert row["bits_per_byte"] < row["bits_per_token"] * 1.2
    order = [rows[name]["nats_per_token"] for name in ("uniform", "unigram", "bigram", "trigram", "5-gram")]
    assert order == sorted(order, reverse=True)
    assert rows["uniform"]["bits_per_token"] == pytest.approx(math.log2(273), rel=0.01)
    page(
        "launch/evaluate.py",
        "--run",
        small_run,
        "--corpus",
        corpora,
        "--tokens",
        300,
        "--json",
        tmp_path / "score.json",
    )
    score = json.loads((tmp_path / "score.json").read_bytes())[str(small_run)]
    for unit in ("nats_per_token", "standard_error", "bits_per_byte"):
        assert rows[str(small_run)][unit] == score[unit]
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert (
        "300 targets" in shown
        and "--heldout is the training corpus itself" in shown
        and "what a model learned, window [R 12 | C 6]" in shown
    )
    # no table is left
    assert {path.name for path in tmp_path.iterdir()} == {"rows.json", "rows.png", "score.json"}


def test_sigterm_leaves_no_table_behind(corpora, tmp_path, monkeypatch):
    def stopped(*_, **__):
        assert [path.name.startswith("megarc-ladder-") for path in tmp_path.iterdir()] == [True]
        os.kill(os.getpid(), signal.SIGTERM)
        yield

    monkeypatch.setattr(ladder, "ngrams", stopped)
    with pytest.raises(SystemExit) as ended:
        page("launch/ladder.py", "--corpus", corpora, "--heldout", corpora, "--scratch", tmp_path)
    assert ended.value.code == 128 + signal.SIGTERM and not list(tmp_path.iterdir())


def test_bad_input_is_answered_in_a_sentence(small_run, corpora, tmp_path):
    (tmp_path / "few.jsonl").write_text('{"text": "abcdefgh"}\n')
    words = (
        "--input",
        tmp_path / "few.jsonl",
        "--tokenizer-model",
        "bytes",
        "--output-prefix",
        tmp_path / "few",
    )
    page("data_tools/preprocess.py", *words)
    with pytest.raises(UserError, match=r"9 tokens, too few for 2-grams: none occurs twice"):
        page("launch/ladder.py", "--corpus", tmp_path / "few", "--heldout", corpora)
    with pytest.raises(UserError, match="the first target has 11 before it"):
        page("launch/ladder.py", "--corpus", corpora, "--heldout", tmp_path / "few", "--order", 12)
    other = tmp_path / "other"
    for kind in ("bin", "idx"):
        shutil.copy(f"{corpora}.{kind}", f"{other}.{kind}")
    manifest = load_manifest(corpora)
    tokenizer = manifest.tokenizer.model_copy(update={"digest": "0" * 64})
    write_manifest(other, manifest.model_copy(update={"tokenizer": tokenizer}))
    with pytest.raises(UserError, match="packed with different tokenizers"):
        page("launch/ladder.py", "--corpus", other, "--heldout", corpora)
    # Before anything is counted, for which this folder would be refused.
    words = ("--corpus", other, "--heldout", other, "--scratch", tmp_path / "few.bin" / "x")
    with pytest.raises(UserError, match="is of another tokenizer than the text which the model of"):
        page("launch/ladder.py", *words, "--run", small_run)
    with pytest.raises(UserError, match=r"is not the tokenizer that .* was packed with"):
        page("launch/ladder.py", *words, "--tokenizer", "bytes")
    with pytest.raises(UserError, match=r"--scratch: .* cannot be made"):
        page(
            "launch/ladder.py",
            "--corpus",
            corpora,
            "--heldout",
            corpora,
            "--scratch",
            tmp_path / "few.bin" / "x",
        )
    with pytest.raises(UserError, match="no such corpus"):
        page("launch/ladder.py", "--corpus", tmp_path / "none", "--heldout", corpora)
