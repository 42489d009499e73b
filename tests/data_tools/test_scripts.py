"""The scripts, as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from megarc.corpus import IndexedCorpus, load_manifest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["preprocess", "train_tokenizer", "verify", "inspect_corpus", "interpret"]


def run(name: str, *arguments: object, code: int = 0, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "data_tools" / f"{name}.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, **options)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tokenizer and a corpus, made by the scripts."""
    place = tmp_path_factory.mktemp("place")
    text = place / "text.jsonl"
    sentences = [f"def f{i}(x):\n    return x + {i}  # a line of code\n" for i in range(400)]
    text.write_bytes(b"".join(orjson.dumps({"text": sentence}) + b"\n" for sentence in sentences))
    run("train_tokenizer", "--input", text, "--output-prefix", place / "t", "--vocab-size", 340)
    arguments = ["--tokenizer-model", place / "t.model", "--append-eod", "--workers", 2]
    said = run("preprocess", "--input", text, "--output-prefix", place / "c", *arguments)
    assert "400 documents" in said.stdout
    return place


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_an_example(name):
    assert f"python data_tools/{name}.py" in run(name, "--help").stdout


def test_no_torch_is_imported():
    """Nor anything else that a machine which only packs need not have."""
    heavy = ("torch", "deepspeed", "tokenizers", "pyarrow", "mpi4py", "sentencepiece", "gigatoken")
    script = f"import sys, megarc.corpus; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_megatrons_flags_are_understood(place):
    run(
        *(
            "preprocess",
            "--input",
            place / "text.jsonl",
            "--json-keys",
            "text",
            "--output-prefix",
            place / "m",
        ),
        *("--tokenizer-type", "SentencePieceTokenizer", "--tokenizer-model", place / "t.model"),
        *("--workers", 1, "--append-eod"),
    )
    assert (place / "m.bin").read_bytes() == (place / "c.bin").read_bytes()


def test_the_end_of_a_document_is_said_and_can_be_chosen(place):
    arguments = ["--input", place / "text.jsonl", "--output-prefix", place / "e"]
    arguments += ["--tokenizer-model", place / "t.model"]
    said = run("preprocess", *arguments).stderr  # appended unless told otherwise
    assert "each document ends with '</s>' (1), as the tokenizer's file says" in said
    assert (place / "e.bin").read_bytes() == (place / "c.bin").read_bytes()
    said = run("preprocess", *arguments, "--eod-token", "<spare9>").stderr
    assert "warning:" in said and "made with another tokenizer" in said and "will be overwritten" in said
    assert "each document ends with '<spare9>' (17), as asked for" in said
    facts, corpus = load_manifest(place / "e").tokenizer, IndexedCorpus(place / "e")
    assert facts.end_of_document == 17 and corpus.document(0)[-1] == 17
    said = run("preprocess", *arguments, "--no-append-eod").stderr
    assert "without a token between them" in said
    assert len(IndexedCorpus(place / "e").tokens) == len(corpus.tokens) - 400
    wrong = run("preprocess", *arguments, "--eod-token", "<spare>", code=2).stderr
    assert "--eod-token <spare>: the tokenizer has no such token; near it are <spare" in wrong


def test_parts_and_merge(place):
    arguments = ["--input", place / "text.jsonl", "--output-prefix", place / "p"]
    arguments += ["--tokenizer-model", place / "t.model", "--append-eod"]
    run("preprocess", *arguments, "--part", "0/2")
    assert (
        "part-00001-of-00002" in run("preprocess", "--output-prefix", place / "p", "--merge", code=2).stderr
    )
    run("preprocess", *arguments, "--part", "1/2")
    run("preprocess", "--output-prefix", place / "p", "--merge")
    assert (place / "p.bin").read_bytes() == (place / "c.bin").read_bytes()


def test_under_a_launcher_the_last_part_joins(place):
    arguments = ["--input", place / "text.jsonl", "--output-prefix", place / "s"]
    arguments += ["--tokenizer-model", place / "t.model", "--append-eod"]
    for rank in (1, 0):
        assert load_manifest(place / "s") is None
        step = {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": str(rank)}
        run("preprocess", *arguments, env=step)
    assert (place / "s.bin").read_bytes() == (place / "c.bin").read_bytes()
    assert load_manifest(place / "s") == load_manifest(place / "c")


def test_verify(place):
    assert "c: whole" in run("verify", place / "c").stdout
    for suffix in ("bin", "idx"):
        (place / f"v.{suffix}").write_bytes((place / f"c.{suffix}").read_bytes())
    bare = run("verify", place / "v").stdout
    assert "v: cannot be verified: it has no manifest" in bare and "NOT WHOLE" not in bare
    assert f"verify.py {place}/v --make-manifest" in bare
    run("verify", place / "v", "--make-manifest", "--tokenizer-model", place / "t.model")
    made, packed = load_manifest(place / "v"), load_manifest(place / "c")
    assert (made.content_digest, made.text_bytes) == (packed.content_digest, packed.text_bytes)
    (place / "v.bin").write_bytes(b"\1" + (place / "c.bin").read_bytes()[1:])
    done = run("verify", place / "c", place / "v", code=2)
    assert "v: NOT WHOLE" in done.stdout and "v.bin has changed between bytes 0" in done.stdout


def test_inspect(place):
    shown = [
        "--tokenizer-model",
        place / "t.model",
        "--document",
        0,
        "--window",
        2,
        "--recent",
        8,
        "--causal",
        8,
    ]
    done = run("inspect_corpus", place / "c", "--plot", place / "l.png", *shown, "--stride", 4)
    assert "in 400 documents" in done.stdout and "[R 8 | C 8] stride 4" in done.stdout
    assert "return x +" in done.stdout
    assert (place / "l.png").read_bytes().startswith(b"\x89PNG")
    corpus = IndexedCorpus(place / "c")
    too_far = ["--tokenizer-model", place / "t.model", "--window", len(corpus.tokens)]
    assert "numbered from 0" in run("inspect_corpus", place / "c", *too_far, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "no.jsonl", "--tokenizer-model", "bytes"], "no such file: no.jsonl"),
        (["--input", "no.jsonl", "--tokenizer-model", "no.model"], "no such tokenizer: no.model"),
        (["--tokenizer-model", "bytes"], "--input is missing"),
        (["--input", "x", "--tokenizer-model", "bytes", "--part", "2/2"], "--part 2/2"),
        (["--input", "x", "--tokenizer-model", "bytes", "--split", "1"], "--split 1"),
        (["--input", "x", "--tokenizer-model", "bytes", "--json-keys", "a", "b"], "--json-keys: one key"),
        (["--merge"], "there are no parts to join"),
    ],
)
def test_mistakes_are_told(tmp_path, arguments, message):
    done = run("preprocess", "--output-prefix", tmp_path / "c", *arguments, code=2)
    assert f"error: {message}" in done.stderr
