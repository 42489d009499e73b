"""From transcripts to a run on any topology, and from the run to a text that calls a real interpreter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.ranks import run_jobs
from support.runs import config, metrics
from support.scripts import run

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


def job(prefix: Path, folder: Path, **parallel: object) -> dict[str, object]:
    source = {"kind": "transcripts", "path": str(prefix)}
    other = {**source, "options": {"weights": {"text": 0.5, "output": 0.25}}}
    tree = config(folder, 0, STEPS, data__train=[source], data__valid=[other])
    tree["parallel"] = parallel
    tree["validation"] = {"every": "2 steps", "windows": 6}
    return {"do": "pretrain", "config": tree}


def test_weights_by_segment_count_the_same_on_any_topology(prefix: Path, tmp_path: Path) -> None:
    topologies: dict[str, dict[str, object]] = {
        "tensor": {"tensor": 2, "sequence": True},
        "data": {"zero": 3},
        "pipeline": {"pipeline": 2, "zero": 1},
    }
    run_jobs([job(prefix, tmp_path / name, **parallel) for name, parallel in topologies.items()], 2, tmp_path)
    run_jobs([job(prefix, tmp_path / "alone", zero=0)], 1, tmp_path)
    for name in ("train/nats_per_token", "heldout/nats_per_token"):
        alone = metrics(tmp_path / "alone", name)
        assert len(alone) > 1
        for other in topologies:
            assert metrics(tmp_path / other, name) == pytest.approx(alone, rel=1e-5), (name, other)


def test_a_trained_model_calls_the_interpreter_and_is_a_judge(
    prefix: Path, tmp_path: Path, language: Callable[[str], Language]
) -> None:
    """By the commands: learns one document by heart, writes its code, is given Python's output, judges pieces."""
    assert language("python")
    tree = config(tmp_path / "run", 0, 120, data__train=[{"kind": "transcripts", "path": str(prefix)}])
    tree |= {"data": {**tree["data"], "valid": []}, "window": {"recent": 40, "causal": 24, "stride": 24}}
    tree["optimizer"] = {"lr": 1e-2}
    run_jobs([{"do": "pretrain", "config": tree}], 1, tmp_path)
    generate = [
        "python",
        "launch/generate.py",
        "--run",
        tmp_path / "run",
        "--tokens",
        "40",
        "--temperature",
        "0",
    ]
    prompt = ["--prompt", "2+3 is ", "--tokenizer-model", "bytes"]
    said = run(*generate, *prompt, "--interpreter", "python,smt" if language("smt") else "python")
    assert "python: done" in said and "<in:python>2+3</in><out>5\n</out>seven." in said
    told = run("python", "launch/evaluate.py", "--run", tmp_path / "run", "--corpus", prefix, "--segments",
               "--json", tmp_path / "s.json")  # fmt: skip
    (found,) = json.loads((tmp_path / "s.json").read_text()).values()
    assert "by the run's weights" in told
    # Learnt by heart, but for outputs, which weighed nothing.
    assert found["text"] < 0.5 and found["code"] < 0.5 < found["output"]
    shares = {"text": 15, "code": 12}  # of a document, its end included
    mean = sum(found[kind] * share for kind, share in shares.items()) / sum(shares.values())
    assert found["by the run's weights"] == pytest.approx(mean, rel=0.2)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"text": DOCUMENT, "source": "a"}) + "\n")
    judge = [
        "python",
        "launch/filter_transcripts.py",
        "--run",
        tmp_path / "run",
        "--tokenizer-model",
        "bytes",
    ]
    run(*judge, "--input", source, "--output", target, "--threshold", "0.01")
    (line,) = [json.loads(one) for one in target.read_text().splitlines()]
    assert line["pieces"] == 1 and parse_marked(line["text"]) == parse_marked(DOCUMENT)
    source.write_text(json.dumps({"text": "a <in:python> b"}) + "\n")
    assert "line 1: no transcript (<in> is not closed" in run(
        *judge, "--input", source, "--output", target, code=2
    )
