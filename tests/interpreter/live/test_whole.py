"""From transcripts to a run on any topology, and from the run to a text that calls a real interpreter."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.ranks import run_jobs
from support.runs import config, metrics
from support.scripts import ROOT, run

from megarc.corpus import PackRequest, PackSettings, pack_and_join, parse_marked
from megarc.interpreter.languages import Language

# What it shows as output is wrong on purpose, and weighs nothing: a right one can only be the machine's.
DOCUMENT = "2+3 is <in:python>2+3</in><out>7\n</out>seven.\n"
STEPS = 4


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "in.jsonl").write_text((json.dumps({"text": DOCUMENT}) + "\n") * 60)
    pack_and_join(
        PackRequest(inputs=[str(folder / "in.jsonl")], prefix=folder / "packed", tokenizer="bytes", workers=0,
                    settings=PackSettings(transcripts=True, append_end_of_document=True), say=lambda _: None)
    )  # fmt: skip
    return folder / "packed"


def job(prefix: Path, folder: Path, steps: int = STEPS, **changes: object) -> dict[str, object]:
    source = {"kind": "transcripts", "path": str(prefix)}
    other = {**source, "options": {"weights": {"text": 0.5, "output": 0.25}}}
    tree = config(folder, 0, steps, data__train=[source], data__valid=[other], **changes)
    tree["validation"] = {"every": "2 steps", "windows": 6}
    return {"do": "pretrain", "config": tree}


def learning(prefix: Path, folder: Path) -> dict[str, object]:
    """A run that learns the document by heart."""
    tree = config(folder, 0, 120, data__train=[{"kind": "transcripts", "path": str(prefix)}])
    tree |= {"data": {**tree["data"], "valid": []}, "window": {"recent": 40, "causal": 24, "stride": 24}}
    tree["optimizer"] = {"lr": 1e-2}
    return {"do": "pretrain", "config": tree}


TOPOLOGIES: dict[str, dict[str, object]] = {
    "tensor": {"parallel": {"tensor": 2, "sequence": True}},
    "data": {"parallel": {"zero": 3}},
    "pipeline": {"parallel": {"pipeline": 2, "zero": 1}},
    "recomputation": {"parallel": {"zero": 2}, "execution__recompute": "full"},
    "resharded": {"parallel": {"tensor": 2}},
    "bf16": {"parallel": {"zero": 2}, "precision": "bf16"},
}


@pytest.fixture(scope="module")
def runs(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on one rank and on two, and one that learns by heart; one pool of ranks for each world size."""
    folder = tmp_path_factory.mktemp("runs")
    bf16 = {"precision": "bf16", "parallel": {"zero": 1}}
    alone = [
        job(prefix, folder / "alone"),
        job(prefix, folder / "alone-bf16", **bf16),
        job(prefix, folder / "resharded", STEPS // 2),
        learning(prefix, folder / "learnt"),
    ]
    run_jobs(alone, 1, folder)
    run_jobs([job(prefix, folder / name, **changes) for name, changes in TOPOLOGIES.items()], 2, folder)
    return folder


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_weights_by_segment_count_the_same_on_any_topology(runs: Path, name: str) -> None:
    """Recomputed, in bf16, and where two ranks go on with a checkpoint of one, too."""
    one, tolerance = ("alone-bf16", 1e-3) if name == "bf16" else ("alone", 1e-5)
    for number in ("train/nats_per_token", "heldout/nats_per_token"):
        alone = metrics(runs / one, number)
        assert len(alone) > 1
        assert metrics(runs / name, number) == pytest.approx(alone, rel=tolerance), number
    resumed = "resumes from step 2" in (runs / name / "log.txt").read_text()
    assert resumed == (name == "resharded")


def command(capsys: pytest.CaptureFixture[str], script: str, *words: object, code: int = 0) -> str:
    """What ``script`` prints; in this process, which has torch already."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [script, *map(str, words)])
        patch.syspath_prepend((ROOT / script).parent)
        runpy.run_path(str(ROOT / script), run_name="__main__")
    printed = "".join(capsys.readouterr())
    assert ended.value.code == code and "Traceback" not in printed, printed
    return printed


def test_a_trained_model_calls_the_interpreter(runs: Path, language: Callable[[str], Language]) -> None:
    """By the command: has learnt one document by heart, writes its code, is given Python's output."""
    assert language("python")
    names = ["--interpreter", "python,smt" if language("smt") else "python"]
    generate = [
        "python",
        "launch/generate.py",
        "--run",
        runs / "learnt",
        "--tokens",
        "80",
        "--temperature",
        "0",
    ]
    said = run(*generate, "--prompt", "2+3 is ", "--tokenizer-model", "bytes", *names)
    assert "python: done" in said and "<in:python>2+3</in><out>5\n</out>seven." in said


def test_a_trained_model_answers_a_file_of_prompts(
    runs: Path, tmp_path: Path, language: Callable[[str], Language], capsys: pytest.CaptureFixture[str]
) -> None:
    """More than are written at once; a prompt's answer is the one that it has in a shorter file."""
    assert language("python")
    generate = ["launch/generate.py", "--run", runs / "learnt", "--tokens", "40", "--temperature", "0.5",
                "--tokenizer-model", "bytes", "--prompts", tmp_path / "p.jsonl"]  # fmt: skip
    prompts = ["2+3 is "] * 33 + ["seven.\n2+3 is "]
    answers = []
    for asked in (prompts, prompts[:3]):
        (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n\n" for one in asked))
        said = command(capsys, *generate, "--interpreter", "python")
        answers.append([json.loads(line) for line in said.splitlines()])
    assert [one["prompt"] for one in answers[0]] == prompts
    assert answers[0][:3] == answers[1]
    assert answers[0][33]["text"].startswith("seven.\n2+3 is ")
    right = [one for one in answers[0] if "<in:python>2+3</in><out>5\n</out>" in one["text"]]
    assert right and all({"language": "python", "status": "done"} in one["calls"] for one in right)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": ""}\n')
    assert "p.jsonl, line 2: not a prompt" in command(capsys, *generate, "--interpreter", "python", code=2)
    assert "p.jsonl, line 2" in command(capsys, *generate, code=2)


def test_a_trained_model_is_scored_by_segments(
    runs: Path, prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = command(capsys, "launch/evaluate.py", "--run", runs / "learnt", "--corpus", prefix, "--segments",
                   "--json", tmp_path / "s.json")  # fmt: skip
    (found,) = json.loads((tmp_path / "s.json").read_text()).values()
    assert "by the run's weights" in told
    # Learnt by heart, but for outputs, which weighed nothing.
    assert found["text"] < 0.5 and found["code"] < 0.5 < found["output"]
    shares = {"text": 15, "code": 12}  # of a document, its end included
    mean = sum(found[kind] * share for kind, share in shares.items()) / sum(shares.values())
    assert found["by the run's weights"] == pytest.approx(mean, rel=0.2)


def test_a_trained_model_is_a_judge(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    judge = ["launch/filter_transcripts.py", "--run", runs / "learnt", "--tokenizer-model", "bytes",
             "--input", source, "--output", target, "--threshold", "0.01"]  # fmt: skip
    source.write_text(json.dumps({"text": "a <in:python> b"}) + "\n")
    said = command(capsys, *judge, code=2)
    assert "line 1: no transcript (<in> is not closed" in said and not target.exists()
    source.write_text(json.dumps({"text": DOCUMENT, "source": "a"}) + "\n")
    command(capsys, *judge)
    (line,) = [json.loads(one) for one in target.read_text().splitlines()]
    assert line["pieces"] == 1 and parse_marked(line["text"]) == parse_marked(DOCUMENT)
