"""Every file under configs/ is what it says."""

import re
from pathlib import Path

import pytest
import yaml
from support.pairs import write_pairs

from megarc.config import load, to_dict
from megarc.model import cost_of
from megarc.model.experts_config import ExpertsConfig
from megarc.science.recipes import CompareConfig, arm_config, budget_of, flops_of
from megarc.tiers import StackConfig, StackPlan
from megarc.train import Lengths, RunConfig

ROOT = Path(__file__).parents[2] / "configs"
SUFFIX = {"M": 1e6, "B": 1e9, "T": 1e12}
FILES = sorted(path for path in ROOT.rglob("*.yaml") if not {"tiers", "recipes", "studies"} & {*path.parts})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_builds(path):
    config = load(RunConfig, path)
    config.window.build()
    assert Lengths(config).total > 0


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_arm_of_a_comparison_has_the_same_flops(path, tmp_path):
    """Packed rows say themselves what they cost: here those of other pairs."""
    write_pairs(tmp_path / "pairs")
    comparison = load(CompareConfig, path)
    if comparison.run.data.packs:
        unused = "loss.token=39"  # an id that these pairs never hold
        keys = [f"run.data.train=[{tmp_path / 'pairs'}]", unused]
        comparison = load(CompareConfig, path, keys)
    vocabulary = {"vocabulary": comparison.run.model.vocabulary or 2048}
    run = comparison.run.model_copy(update={"model": comparison.run.model.model_copy(update=vocabulary)})
    comparison = comparison.model_copy(update={"run": run})
    for arm in comparison.arms:
        config = arm_config(comparison, arm)
        step = flops_of(config) / Lengths(config).total
        assert 0 <= budget_of(comparison) - flops_of(config) < 1.5 * step, arm


def keys_with_comments(path):
    """``(dotted key, comment)`` of each line that gives a key its value."""
    groups = []
    for line in path.read_text().splitlines():
        found = re.match(r"( *)(\w+):( \S.*)?$", line)
        if not found or found[2] == "base":
            continue
        del groups[len(found[1]) // 2 :]
        if found[3] is None or found[3].lstrip().startswith("#"):
            groups.append(found[2])
        else:
            yield ".".join([*groups, found[2]]), found[3].partition(" # ")[2].strip()


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.name != "demo"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_comments_say_type_default_and_meaning(path):
    """``# type, default. Meaning.``, where the default is the one in the code."""
    for name, comment in keys_with_comments(path):
        said = re.fullmatch(r"(.+?)[,;] (\S+(?: of run| steps)?)\. (\S.*)", comment)
        assert said, f"{name}: {comment!r}"
        default = DEFAULTS[name]
        assert default == yaml.safe_load(said[2]) or float(default) == float(said[2]), f"{name}: {comment!r}"


def test_every_key_is_read():
    """What the test above reads are all the keys of a file."""
    for path in FILES:
        given = yaml.safe_load(path.read_text())
        given.pop("base", None)
        names = [name for name, _ in keys_with_comments(path)]
        assert names == [name for name, _ in leaves(given)], path


def leaves(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


DEFAULTS = dict(leaves(to_dict(RunConfig())))
DEFAULTS |= leaves(to_dict(ExpertsConfig()), "model.experts.")


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_has_as_many_parameters_as_its_name_says(path):
    text = path.read_text()
    vocabulary = int(re.search(r"vocabulary of (\d+)", text)[1])
    config = load(RunConfig, path, [f"model.vocabulary={vocabulary}"])
    cost = cost_of(config.model, config.window.build())
    parameters, (whole, *active) = cost.parameters, path.stem.split("-")
    assert abs(parameters / (float(whole[:-1]) * SUFFIX[whole[-1]]) - 1) < 0.1
    assert bool(active) == (config.model.experts is not None)
    if active:
        assert abs(cost.active_parameters / (float(active[0][:-1]) * SUFFIX[active[0][-1]]) - 1) < 0.2
        number, suffix = re.search(r"([\d.]+)([MBT]) of them active", text).groups()
        assert float(number) * SUFFIX[suffix] == pytest.approx(cost.active_parameters, rel=0.005)
    number, suffix = re.match(r"# ([\d.]+)([MBT]) parameters", text).groups()
    assert float(number) * SUFFIX[suffix] == pytest.approx(parameters, rel=0.005)
    assert config.model.width_of_head in (32, 64, 128)


def test_the_talks_window_is_there():
    window = load(RunConfig, ROOT / "runs" / "talk.yaml").window.build()
    assert (window.recent, window.causal, window.stride) == (512, 512, 512)


@pytest.mark.parametrize("path", sorted((ROOT / "tiers").glob("*.yaml")), ids=lambda path: path.stem)
def test_stacks_build_and_say_what_each_key_means(path):
    plan = StackPlan(load(StackConfig, path))
    assert len(list(plan.stages())) == {2: 4, 3: 8}[len(plan.names)]
    for stage in plan.stages():
        if stage.script == "pretrain.py":
            assert Lengths(stage.config).total > 0
    for line in path.read_text().splitlines():
        found = re.fullmatch(r" *[\w-]+: (?!#)\S.*?( +# .*)?", line)
        assert not found or found[1] or ("{" in line), f"{path}: {line!r} says no type and meaning"
