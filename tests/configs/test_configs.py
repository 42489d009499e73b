"""Every file under configs/ is what it says."""

import re
from pathlib import Path

import pytest
import yaml

from megarc.config import load
from megarc.model import cost_of
from megarc.train import RunConfig

ROOT = Path(__file__).parents[2] / "configs"
SUFFIX = {"M": 1e6, "B": 1e9, "T": 1e12}
FILES = sorted(ROOT.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_builds_and_comments_every_key(path):
    config = load(RunConfig, path)
    config.window.build()
    assert config.total_steps() > 0
    for line in path.read_text().splitlines():
        if re.match(r"\s+\w+: \S|(length|precision|folder|seed|device): ", line):
            assert "#" in line, f"no comment: {line}"


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_has_as_many_parameters_as_its_name_says(path):
    text = path.read_text()
    vocabulary = int(re.search(r"vocabulary of (\d+)", text)[1])
    config = load(RunConfig, path, [f"model.vocabulary={vocabulary}"])
    parameters = cost_of(config.model, config.window.build()).parameters
    named = float(path.stem[:-1]) * SUFFIX[path.stem[-1]]
    assert abs(parameters / named - 1) < 0.1
    number, suffix = re.match(r"# ([\d.]+)([MBT]) parameters", text).groups()
    assert float(number) * SUFFIX[suffix] == pytest.approx(parameters, rel=0.005)
    assert config.model.width_of_head in (32, 64, 128)


def test_the_talks_window_is_there():
    window = load(RunConfig, ROOT / "runs" / "talk.yaml").window.build()
    assert (window.recent, window.causal, window.stride) == (512, 512, 512)


def test_tests_and_trees_agree_on_yaml():
    for path in FILES:
        assert isinstance(yaml.safe_load(path.read_text()), dict)
