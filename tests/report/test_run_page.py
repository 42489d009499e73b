"""The report of runs: from real run folders, opened in a real browser where there is one."""

import csv
import json
import logging
import re
import shutil
import subprocess

import numpy as np
import orjson
import pytest
from PIL import Image
from support.scripts import ROOT
from support.small_run import page

from megarc.errors import UserError
from megarc.report.run_page import read_history
from megarc.report.run_page.chart import Curve, line_chart, smoothed
from megarc.report.run_page.heldout_detail import by_bins
from megarc.report.style import PALETTE
from megarc.train import RunFolder
from megarc.train.folder.append_only import LogFile

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SAYS = {
    "megarc/train/health/bad_steps.py": "step %d is skipped, %d in a row: %s",
    "megarc/train/run.py": "resumes from step %d in %s",
    "megarc/train/checkpoint/resume.py": (
        "returns to step %d; the samples of steps %d to %d are skipped permanently: %s"
    ),
}


@pytest.fixture(scope="module")
def runs(small_run, tmp_path_factory):
    """A real run, and a copy of it with another seed, more lines, a restart and a skipped step in its own log."""
    folder = tmp_path_factory.mktemp("runs")
    other = shutil.copytree(small_run, folder / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(re.sub(r"^seed: .*$", "seed: 77", config, flags=re.MULTILINE))
    lines = [orjson.loads(line) for line in (other / "metrics.jsonl").read_bytes().splitlines()]
    train = next(line for line in lines if "train/nats_per_token" in line)
    for step in range(3, 40):
        counts = {
            name: train[name] / train["step"] * step
            for name in ("samples", "predicted_tokens", "processed_tokens")
        }
        lines.append(
            train | counts | {"step": step, "time": train["time"] + 9 * step, "train/nats_per_token": 5 + 1 / step,
                              "train/skipped": 1, "batch/noise_scale": 30.0 + step, "samples": int(counts["samples"])}
        )  # fmt: skip
    (other / "metrics.jsonl").write_bytes(
        b"".join(orjson.dumps(line) + b"\n" for line in lines) + b'{"step": 40, "tr'
    )
    said, log = logging.getLogger("of a test"), LogFile(other / "log.txt")
    said.addHandler(log)
    said.propagate = False
    said.warning(SAYS["megarc/train/health/bad_steps.py"], 7, 1, "the loss is nan; samples 24..27 & <b>")
    said.warning(SAYS["megarc/train/run.py"], 6, "runs/other")
    said.warning(SAYS["megarc/train/checkpoint/resume.py"], 6, 7, 8, [(24, 8)])
    log.close()
    return small_run, other


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    page("launch/report.py", *runs, "--out", folder / "report.html", "--csv", folder / "report.csv", "--targets", 300,
         "--sample", 10)  # fmt: skip
    return folder / "report.html"


def test_every_part_is_there(report):
    html = report.read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "The runs", "Loss", "Held-out loss by place and by frequency", "Training", "Skipped steps and restarts",
        "Configuration differences", "Samples", "Environment",
    ]  # fmt: skip
    captions = re.findall(r"<figcaption>(.*?)</figcaption><svg", html)
    parts = (
        "by predicted tokens, by steps, by FLOPs, by hours, by position, by token frequency, learning rate, "
    )
    parts += "gradient norm, throughput, MFU, memory, noise scale, steps skipped, held-out accuracy"
    for part in parts.split(", "):
        assert any(part in caption for caption in captions), part
    assert "<td>seed</td><td>0</td><td>77</td>" in html
    assert "<td>7</td><td>the loss is nan; samples 24..27 &amp; &lt;b&gt;</td><td>sample 24: " in html
    assert re.search(r"sample 24: [\d+=. ]{5,}", html)  # sums, as the run has read them
    assert "went on from step 6" in html and "returns to step 6; the samples of steps 7 to 8" in html
    assert "packages.torch" in html and html.count("<pre>") == 2


def test_the_logs_sentences_are_those_of_the_code():
    for path, sentence in SAYS.items():
        assert f'"{sentence}"' in (ROOT / path).read_text(), path


def test_the_table_has_every_line(report, runs):
    rows = list(csv.DictReader((report.parent / "report.csv").open()))
    lines = [
        line
        for run in runs
        for line in (run / "metrics.jsonl").read_bytes().splitlines()
        if line.endswith(b"}")
    ]
    assert len(rows) == len(lines) and {row["run"] for row in rows} == {"run", "other"}
    flops = [float(row["flops"]) for row in rows if row["run"] == "other"]
    samples = [float(row["samples"]) for row in rows if row["run"] == "other"]
    assert np.array(flops) / samples == pytest.approx(flops[0] / samples[0])


def looked_at(path, *options):
    """What the browser prints when it opens a page: its console, on standard error."""
    if BROWSER is None:
        pytest.skip(
            "no browser is installed; `make test-system` installs Debian's chromium and runs this test"
        )
    profile = path.parent / "profile"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               f"--user-data-dir={profile}", "--enable-logging=stderr", *options, path.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_a_browser_shows_it_and_has_nothing_to_complain_of(report):
    picture = report.parent / "report.png"
    document, console = looked_at(report, "--window-size=1300,3000", f"--screenshot={picture}", "--dump-dom")
    assert console == []
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int).reshape(-1, 3)
    for colour in PALETTE[:2]:
        rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(pixels - rgb).max(axis=1) < 8).sum() > 120, colour  # the legend alone has 88
    if document:  # a browser takes either the picture or the document
        assert document.count("<svg") >= 13


def test_the_browser_would_complain_of_a_script_or_of_anything_from_elsewhere(report):
    bad = report.with_name("bad.html")
    bad.write_text(
        report.read_text().replace(
            "</body>", "<script>undefined.x</script><img src='http://localhost:1/x.png'></body>"
        )
    )
    _, console = looked_at(bad, "--dump-dom")
    assert len(console) >= 2 and all("Content Security Policy" in line for line in console)


def test_runs_of_other_tokenizers_are_compared_by_the_byte(runs, tmp_path):
    first, other = runs
    third = shutil.copytree(other, tmp_path / "third")
    facts = json.loads((third / "tokenizer/facts.json").read_bytes())
    (third / "tokenizer/facts.json").write_text(json.dumps(facts | {"digest": "0" * 64}))
    words = ("--out", tmp_path / "report.html", "--targets", 0)
    page("launch/report.py", first, third, *words)
    html = (tmp_path / "report.html").read_text()
    assert "different tokenizers" in html and "bits/byte only" in html and "bits / byte" in html
    assert "nats / token</text>" not in html and "other tokenizer" in html and "held-out accuracy" not in html
    metrics = (third / "metrics.jsonl").read_text()
    (third / "metrics.jsonl").write_text(metrics.replace("train/bits_per_byte", "train/other"))
    with pytest.raises(
        UserError, match=r"different tokenizers, so only bits/byte can be compared, and third has none"
    ):
        page("launch/report.py", first, third, *words)


def test_a_run_without_a_checkpoint_is_shown_without_its_scores(runs, tmp_path):
    bare = shutil.copytree(
        runs[1], tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints", "log.txt", "state.json")
    )
    page("launch/report.py", bare, "--out", tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "has no whole checkpoint" in html and "No step was skipped" in html and "contains no run" in html


def test_bad_input_is_answered_in_a_sentence(runs, tmp_path):
    out = ("--out", tmp_path / "report.html", "--targets", 0)
    with pytest.raises(UserError, match="holds no run"):
        page("launch/report.py", tmp_path, *out)
    with pytest.raises(UserError, match="given twice"):
        page("launch/report.py", runs[0], runs[0], *out)
    broken = shutil.copytree(runs[0], tmp_path / "broken")
    metrics = broken / "metrics.jsonl"
    metrics.write_bytes(b"rubbish\n" + metrics.read_bytes())
    with pytest.raises(UserError, match=r"line 1, is not a line of metrics"):
        page("launch/report.py", broken, *out)
    whole = orjson.loads((runs[0] / "metrics.jsonl").read_bytes().splitlines()[-1])
    for damage in (
        {"samples": "x"},
        {"processed_tokens": None},
        {"train/nats_per_token": "low"},
        {"more": {}},
    ):
        metrics.write_bytes(orjson.dumps(whole | damage) + b"\n" + orjson.dumps(whole))
        with pytest.raises(UserError, match=r"line 1, is not a line of metrics"):
            read_history(broken)
    metrics.write_bytes(b"")
    with pytest.raises(UserError, match="logged no metrics yet"):
        page("launch/report.py", broken, *out)
    assert not (tmp_path / "report.html").exists()


def test_damaged_files_beside_the_metrics_are_said_on_the_page(runs, tmp_path):
    broken = shutil.copytree(runs[0], tmp_path / "broken", ignore=shutil.ignore_patterns("checkpoints"))
    (broken / "environment.json").write_text("[1, 2]")
    for state in ("[1]", '{"state": "finished"}', '{"state": "finished", "time": "never"}'):
        (broken / "state.json").write_text(state)
        with pytest.raises(UserError, match=r"state\.json is damaged: it needs 'state' and 'time'"):
            RunFolder(broken).fate()
    page("launch/report.py", broken, "--out", tmp_path / "report.html", "--targets", 0)
    assert "state.json is damaged" in (tmp_path / "report.html").read_text()


def test_a_loss_that_is_not_finite_at_the_end_is_not_shown_as_its_earlier_value(runs, tmp_path):
    gone = shutil.copytree(runs[0], tmp_path / "gone", ignore=shutil.ignore_patterns("checkpoints"))
    before = read_history(gone)
    heldout = next(line for line in reversed(before.lines) if "heldout/nats_per_token" in line)
    assert before.final("heldout/nats_per_token") == heldout["heldout/nats_per_token"]
    last = {name: value for name, value in heldout.items() if not name.startswith("heldout/")}
    with (gone / "metrics.jsonl").open("ab") as file:
        file.write(orjson.dumps(last | {"heldout/accuracy": 0.0}) + b"\n")
    after = read_history(gone)
    assert after.final("heldout/nats_per_token") is None and after.final("heldout/accuracy") == 0.0


@pytest.mark.parametrize(
    "points", [[(1, 2.0)], [(0, 0.0), (1, 0.0)], [(1, float("nan"))], [], [(x, x**2) for x in range(5000)]]
)
@pytest.mark.parametrize("log", [False, True])
def test_charts_of_odd_points(points, log):
    drawn = line_chart([Curve("a", points, "#000000")], "x", "y", log_x=log, log_y=log)
    assert "nan" not in drawn and len(drawn) < 20_000
    assert bool(drawn) == any(y == y and (x > 0 < y or not log) for x, y in points)


def test_bins_and_smoothing():
    shares = np.repeat([0.011, 0.02, 0.0011, 0.0], 30)
    losses = np.repeat([1.0, 3.0, 5.0, 9.0], 30)
    assert [loss for _, loss in by_bins(shares, losses)] == [5.0, 2.0]
    points = [(x, 2.0 * x) for x in range(41)]
    assert smoothed(points, 0.1)[20] == (20, 40.0)
    assert smoothed(points, 0.1)[0] == (0, 2.0) and smoothed(points, 0.1)[-1] == (40, 78.0)
