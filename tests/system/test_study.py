"""A study as an array on a real SLURM: held, submitted once, trained by its tasks, shown with a run that failed."""

import json
import sys

import pytest
from support.scripts import ROOT, state

from .slurm import absent

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(absent()), reason=absent()),
]

STUDY = """
seeds: 1
control: causal
chance: 0.1
arms:
  - name: causal
    keys: {window: {recent: 0, causal: 40, stride: 16}}
  - name: "[R | C]"
  - name: no corpus
    keys: {data: {train: [{path: no/where}]}}
run:
  length: 6 steps
  window: {recent: 24, causal: 16, stride: 16}
  model: {layers: 1, hidden: 32, heads: 2}
  data: {train: [{kind: pointer_chase}], valid: [{kind: pointer_chase, options: {seed: 9}}]}
  batch: {size: 8}
  validation: {every: 3 steps, windows: 8}
  logging: {tensorboard: false}
"""


def test_a_study_is_an_array(slurm, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    folder = tmp_path / "study"

    def study(*words, code=0):
        words = ["--config", tmp_path / "study.yaml", f"folder={folder}", *words]
        return slurm.call(sys.executable, ROOT / "launch" / "study.py", *words, cwd=tmp_path, code=code)

    number = study("--submit=--hold --time=5").split("submitted as job ")[1].split(",")[0]
    said = study("--submit", code=2)
    assert f"job {number} of {folder} still has 3 tasks in the queue" in said
    assert len((folder / "array.txt").read_text().splitlines()) == 3
    slurm.run("scontrol", "release", number)
    slurm.wait(number)
    logs = "\n".join(log.read_text() for log in sorted(folder.glob("slurm-*.log")))
    for name in ("causal-s0", "R-C-s0"):
        assert (folder / "runs" / name / "state.json").exists(), logs
        assert state(folder / "runs" / name) == "finished", logs
    assert "no such corpus" in logs and "Traceback" not in logs, logs
    said = study("--report")
    assert "1 of 3 runs not finished: no-corpus-s0." in said and "R-C-s0" not in said, said
    facts = json.loads((folder / "result.json").read_text())
    assert set(facts["values"]) == {"causal-s0", "R-C-s0"} and facts["missing"] == ["no-corpus-s0"]
    assert [row[0] for row in facts["rows"]] == ["causal", "[R | C]"]
