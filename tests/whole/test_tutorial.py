"""The wheel, installed without the checkout, and the tutorial's commands with it, as the page has them."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
from support.pages import sections
from support.scripts import ROOT

pytestmark = pytest.mark.timeout(1200)  # a dozen commands, on a machine that may be busy

SITE = sysconfig.get_path("purelib")  # what megarc depends on is taken from here; megarc itself is not in it


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution, which is built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = {"demo", "runs", "build", "site", "benchmarks", "tests"}

    def unwanted(place, names):
        return [name for name in names if name[0] == "." or (place == str(ROOT) and name in left_out)]

    shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    build = f"from setuptools import build_meta as b; b.build_sdist({str(folder)!r})"
    say(subprocess.run([sys.executable, "-c", build], cwd=folder / "source", capture_output=True, text=True))
    (archive,) = folder.glob("megarc-*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", archive]
    say(subprocess.run(command, cwd=folder, capture_output=True, text=True))
    (found,) = folder.glob("megarc-*.whl")
    return found


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A reader's text: some files of this repository's documentation."""
    folder = tmp_path_factory.mktemp("text")
    for file in [*(ROOT / "docs").glob("*.md"), *(ROOT / "megarc").glob("*.py")]:
        shutil.copy(file, folder)
    return folder


def say(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def done(wheel, text, tmp_path_factory):
    """What each section's commands printed, in one folder and one shell each, as a reader would go on."""
    folder = tmp_path_factory.mktemp("tutorial")
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {"MEGARC": str(wheel), "TEXT": str(text), "PYTHONPATH": SITE, "OMP_NUM_THREADS": "1"}
    environment |= {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}  # the rest is there already
    said = {}
    for heading, script in sections("tutorial.md"):
        if heading.endswith("SLURM"):
            continue  # tests/system/test_slurm.py
        active = "" if "venv env" in script else "source env/bin/activate\n"
        command = ["bash", "-euo", "pipefail", "-c", active + script]
        said[heading] = say(
            subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)
        )
    return folder, environment, said


def of(said, words):
    return next(text for heading, text in said.items() if words in heading)


def test_the_page_does_what_it_says(done):
    folder, _, said = done
    assert "my/text_valid:" in of(said, "tokens")
    trained = of(said, "Train")
    assert "step 20 of 20" in trained and "resumes from step 20" in trained and "step 30 of 30" in trained
    assert of(said, "Sample").strip().startswith("The ")
    assert "nats/token" in of(said, "Evaluate") and "500 targets" in of(said, "Evaluate")
    ranks = of(said, "Two ranks")
    assert "2 ranks" in ranks and "resumes from step 30" in ranks and "step 40 of 40" in ranks
    lines = [json.loads(line) for line in (folder / "runs/mine/metrics.jsonl").read_text().splitlines()]
    losses = [line["train/nats_per_token"] for line in lines if "train/nats_per_token" in line]
    assert losses[-1] < losses[0] - 0.3
    for name in ("config.yaml", "log.txt", "plots/loss.png", "checkpoints"):
        assert (folder / "runs/mine" / name).exists(), name


def test_the_wheel_is_all_that_is_used(done):
    """Neither pages nor package come from the checkout, and every page and configuration is there."""
    folder, environment, _ = done
    script = "import megarc.command as c; print(c.__file__); print(*c.pages()); print(c.resources())"
    python = folder / "env/bin/python"
    found = say(
        subprocess.run([python, "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    )
    place, pages, resources = found.splitlines()[:3]
    assert place.startswith(str(folder)) and resources.startswith(str(folder))
    assert {"pretrain", "preprocess", "evaluate", "demo", "tune-batch"} <= set(pages.split())
    for file in (ROOT / "configs").rglob("*.yaml"):
        assert (folder / file.relative_to(ROOT)).read_bytes() == file.read_bytes()
    assert (folder / "launch/job.sh").stat().st_mode & 0o111
