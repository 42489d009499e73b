"""The examples do what they say."""

import contextlib
import csv
import io
import json
import runpy

import pytest
from support.scripts import ROOT

EXAMPLES = ROOT / "examples"


def main_of(name):
    return runpy.run_path(str(EXAMPLES / name), run_name="example")["main"]


def test_a_custom_source_is_learned(tmp_path):
    assert main_of("custom_source.py")(tmp_path / "run") > 0.9


def test_a_custom_observer_sees_every_step(tmp_path):
    rows = list(csv.reader(main_of("custom_observer.py")(tmp_path / "run").open()))
    assert [int(step) for step, _, _ in rows] == list(range(1, 21))
    assert all(float(norm) > 0 for _, _, norm in rows)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert float(rows[9][2]) == pytest.approx(lines[0]["train/gradient_norm"], rel=1e-4)


def test_attention_alone_equals_the_dense_mask():
    assert main_of("attention_alone.py")() < 1e-5


def test_the_notebook_prints_what_it_shows(tmp_path, monkeypatch):
    """Its cells, executed again, print what is stored in it."""
    monkeypatch.chdir(tmp_path)
    names = {}
    cells = json.loads((EXAMPLES / "window.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 3 and all(cell["execution_count"] for cell in code)
    for cell in code:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec("".join(cell["source"]), names)  # noqa: S102
        stored = ["".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout"]
        lines = said.getvalue().splitlines(keepends=True)  # a picture is a picture only in a notebook
        assert [line for line in lines if not line.startswith("<IPython")] == "".join(stored).splitlines(True)
