"""`launch/plan.py`: what it prints, the object for programs, and the run's file that it writes."""

import json
import re
import runpy
import shlex
import sys

import pytest
from support.scripts import ROOT

from megarc.config import load
from megarc.errors import UserError
from megarc.train import RunConfig

TREE = """model: {layers: 2, hidden: 64, heads: 4, vocabulary: 300}
window: {recent: 16, causal: 16}
batch: {size: 16}
precision: bf16
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    (tmp_path / "base.yaml").write_text(TREE)
    (tmp_path / "run.yaml").write_text("base: base.yaml\noptimizer: {lr: 6e-5}\n")
    main = runpy.run_path(str(ROOT / "launch/plan.py"), run_name="page")["main"]

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["plan.py", "--config", str(tmp_path / "run.yaml"), *words])
        return main()

    return run


def test_one_layout_as_words_object_and_file(page, tmp_path, capsys):
    written = tmp_path / "deep" / "cluster.yaml"
    written.parent.mkdir()
    words = ["--gpus", "4", "--device", "a100-80g", "--topology", "tensor=2,micro=4,recompute=full"]
    assert page(*words, "--json", "--explain", "--price", "2", "--write", str(written)) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[-1].startswith("{"), "the object is the last line"
    assert "the layout that was asked for" in told and "money" in told and "bubble = (p - 1)" in told
    assert "it updates P = " in told and "weights 2N = " in told and "moments 8P = " in told
    (found,) = next(json.loads(line) for line in told.splitlines() if line.startswith("{"))["topologies"]
    assert (found["tensor"], found["data"], found["context"], found["expert"]) == (2, 2, 1, 1)
    assert found["fits"] is True and 0 < found["mfu_exact_mask"] < found["mfu_full_square"] < 1
    config = load(RunConfig, written)
    assert (config.parallel.tensor, config.parallel.world, config.batch.micro) == (2, 4, 4)
    assert config.execution.recompute == "full" and config.optimizer.lr == 6e-5 and config.model.hidden == 64
    assert config.logging.predicted_step == pytest.approx(found["step_seconds"], rel=1e-3)


def test_pictures(page, tmp_path):
    assert page("--gpus", "2", "--device", "h200", "--plots", str(tmp_path), "--critical-batch", "32") == 0
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("layouts.png", "time.png"))


@pytest.mark.parametrize(
    "words", [("--price", "nan"), ("--price", "-1"), ("--critical-batch", "0"), ("--critical-batch", "nan")]
)
def test_numbers_that_are_none_are_refused(page, words):
    with pytest.raises(UserError, match=words[0]):
        page("--gpus", "1", "--device", "h200", *words)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/clusters").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_clusters_file_is_what_the_planner_writes(path, page, tmp_path, monkeypatch):
    """Its header has the command that wrote it; that gives the same lines, but for where the files lie.

    Its figures are rounded, and a traced size may lie next to where they are rounded up.
    """
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^#   python launch/plan\.py (.*)$", path.read_text(), re.M)
    *words, written = shlex.split(command)
    assert (words[-1], written) == ("--write", f"configs/clusters/{path.name}")
    assert page(*words, str(tmp_path / path.name)) == 0
    number = r"\d+\.\d+"
    ours, theirs = (
        [line for line in one.read_text().splitlines() if not line.startswith(("base:", "#   python"))]
        for one in (path, tmp_path / path.name)
    )
    plain = [
        [re.sub(number, "x", line) if line[0] == "#" else line for line in one] for one in (ours, theirs)
    ]
    assert plain[0] == plain[1], "write it anew, by the command in its header"
    figures = [[float(one) for one in re.findall(number, " ".join(lines))] for lines in (ours, theirs)]
    assert figures[0] == pytest.approx(figures[1], rel=5e-3, abs=0.1)
