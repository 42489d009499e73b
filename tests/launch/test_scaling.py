"""megarc scaling."""

import json
import re
import shutil

import orjson
import pytest
from support.small_run import page

from megarc.errors import UserError
from megarc.science.scaling import Surface

pytest.importorskip("scipy")
LAW = Surface(0.5, 30.0, 20.0, 0.4, 0.35)


@pytest.fixture(scope="module")
def runs(small_run, tmp_path_factory):
    """Copies of a real run, with other sizes and lengths, and held-out losses by a law."""
    folder, made = tmp_path_factory.mktemp("runs"), []
    ignored = shutil.ignore_patterns("checkpoints", "tensorboard", "plots")
    for place, (layers, times) in enumerate(
        [(1, 1), (1, 9), (2, 3), (2, 40), (4, 9), (4, 90), (8, 30), (8, 200)]
    ):
        run = shutil.copytree(small_run, folder / f"run{place}", ignore=ignored)
        config = re.sub(
            r"^  layers: .*$", f"  layers: {layers}", (run / "config.yaml").read_text(), flags=re.MULTILINE
        )
        (run / "config.yaml").write_text(config)
        line = orjson.loads((run / "metrics.jsonl").read_bytes().splitlines()[-1])
        line |= {
            name: line[name] * times * 50 for name in ("samples", "predicted_tokens", "processed_tokens")
        }
        size = 9_000 * layers  # roughly; the fit needs no exact law here
        line["heldout/nats_per_token"] = LAW.loss(size, line["predicted_tokens"])
        (run / "metrics.jsonl").write_bytes(orjson.dumps(line) + b"\n")
        made.append(run)
    state = made[-1] / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"state": "failed", "error": "of a test"}))
    return made


def test_runs_are_fitted_and_a_failed_one_is_named(runs, tmp_path, capsys):
    page("launch/scaling.py", "--run", *runs, "--budget", 1e12, "--resamples", 5, "--json", tmp_path / "fit.json",
         "--plot", tmp_path / "fit.png", "--without-embeddings")  # fmt: skip
    said = capsys.readouterr().out
    assert (
        "run7 is left out: failed" in said
        and "of a test" in said
        and "7 points, loss in nats / token" in said
    )
    facts = json.loads((tmp_path / "fit.json").read_bytes())
    assert 0 < facts["surface"]["e"] < 1 and facts["best"][0]["flops"] == 1e12
    assert facts["starts"]["all"] == 72 and len(facts["intervals"]["alpha"]) == 2
    best = facts["best"][0]
    assert best["parameters"] * best["tokens"] * facts["flops_factor"] == pytest.approx(1e12)
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_a_loss_that_is_not_finite_at_the_end_is_left_out_and_no_interval_without_resamples(
    runs, tmp_path, capsys
):
    gone = shutil.copytree(runs[2], tmp_path / "gone")
    line = orjson.loads((gone / "metrics.jsonl").read_bytes())
    last = {name: value for name, value in line.items() if "nats" not in name} | {"heldout/accuracy": 0.0}
    (gone / "metrics.jsonl").write_bytes(orjson.dumps(line) + b"\n" + orjson.dumps(last) + b"\n")
    page("launch/scaling.py", "--run", *runs[:7], gone, "--resamples", 0, "--without-embeddings")
    said = capsys.readouterr().out
    assert "gone is left out: it has no held-out loss, or it is not finite at the end" in said
    assert "7 points" in said and "L(C) = " in said and "95 %:" not in said


def test_nothing_to_fit_is_answered(runs):
    with pytest.raises(UserError, match="there is nothing to fit"):
        page("launch/scaling.py")
    with pytest.raises(UserError, match="2 points for the five numbers"):
        page("launch/scaling.py", "--run", *runs[:2])


def test_dense_models_and_experts_have_no_common_law(runs, tmp_path):
    """Their N are counted alike, and a row meets another share of them."""
    sparse = shutil.copytree(runs[2], tmp_path / "sparse")
    config = (sparse / "config.yaml").read_text()
    assert "  experts: null\n" in config
    (sparse / "config.yaml").write_text(
        config.replace("  experts: null\n", "  experts: {count: 4, active: 2}\n")
    )
    with pytest.raises(UserError, match="have other numbers of experts"):
        page("launch/scaling.py", "--run", *runs[:2], sparse)
