"""The noise scale of real runs against gradients worked out sample by sample."""

import json

import pytest
import torch
from support.ranks import run_jobs
from support.runs import pretrain

from megarc.data import open_stream
from megarc.science import MAKERS
from megarc.train import load_model
from megarc.train.engine import to_tensors

STEPS, BATCH, GROUP = 3, 8, 2
EVERY = {"batch__noise_every": 1, "checkpoint__every": "1 steps", "checkpoint__keep": 9}
# The samples of a step, their groups and so the estimates are the same on each.
MIXES = {
    1: {
        "z0": (0, {}),
        "z3": (3, {}),
        "no clipping": (1, {"optimizer__clip": 0.0}),
    },
    2: {
        "dp2-z0": (0, {}),
        "dp2-z1": (1, {}),
        "dp2-z2": (2, {}),
        "dp2-z3": (3, {}),
        "tp2": (1, {"parallel__tensor": 2}),
        "tp2-sequence-z3": (3, {"parallel__tensor": 2, "parallel__sequence": True}),
        "pp2": (1, {"parallel__pipeline": 2}),
        "context2": (2, {"parallel__context": 2}),
    },
    4: {
        "tp4-shared-keys": (1, {"parallel__tensor": 4}),
        "pp2-tp2-sequence": (1, {"parallel__pipeline": 2, "parallel__tensor": 2, "parallel__sequence": True}),
        "pp2-dp2": (1, {"parallel__pipeline": 2}),
        "pp2-context2": (1, {"parallel__pipeline": 2, "parallel__context": 2}),
    },
}
NAMES = [name for mixes in MIXES.values() for name in mixes]
UNTIED = {"tied": False, "layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    pools = {
        world: [pretrain(folder / name, zero, STEPS, **EVERY, **keys) for name, (zero, keys) in mixes.items()]
        for world, mixes in MIXES.items()
    }
    pools[1] += [
        pretrain(folder / "one group", 1, 2, batch__micro=8),
        pretrain(folder / "untied", 1, STEPS, **EVERY, model=UNTIED),
        pretrain(folder / "resumed", 1, STEPS, until="2 steps", **EVERY),
        pretrain(folder / "resumed", 1, STEPS, **EVERY),
        pretrain(folder / "off", 1, 2, batch__noise_every=0),
    ]
    pools[2].append(pretrain(folder / "untied-pp2", 1, STEPS, **EVERY, model=UNTIED, parallel__pipeline=2))
    for world, jobs in pools.items():
        run_jobs(jobs, world, folder)
    return folder


def lines(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if "train/nats_per_token" in line]


def estimates(folder, first=0):
    names = ("batch/gradient_square", "batch/gradient_variance")
    return torch.tensor([[line[name] for name in names] for line in lines(folder)[first:]])


def by_hand(folder):
    """|G|^2 and tr S of steps 2 .. STEPS, from each sample's own gradient at the run's checkpoints."""
    found = []
    for step in range(1, STEPS):
        saved = load_model(folder / "checkpoints" / f"step-{step:09d}")
        run, window = saved.config, saved.config.window.build()
        stream = open_stream(run.data, "train", window, run.seed, makers=MAKERS)
        samples = [to_tensors(stream.read(BATCH * step + k, 1), torch.device("cpu")) for k in range(BATCH)]
        weight = sum(float(sample.weights.sum()) for sample in samples)
        gradients = []  # of each sample, so that their mean is the batch's
        for sample in samples:
            saved.model.zero_grad()
            logits = saved.model.logits(sample.tokens[:, :-1], window.loss_rows, sample.seen).double()
            log_z = logits.logsumexp(-1)
            targets = sample.tokens[:, 1:][:, window.loss_rows]
            nll = log_z - logits.gather(-1, targets[..., None])[..., 0]
            weights = torch.zeros(window.rows).index_put((sample.rows,), sample.weights)[window.loss_rows]
            loss = (weights * (nll + run.optimizer.z_loss * log_z.square())).sum()
            (loss * BATCH / weight).backward()
            gradients.append(torch.cat([p.grad.double().flatten() for p in saved.model.parameters()]))
        groups = torch.stack(gradients).view(BATCH // GROUP, GROUP, -1).mean(1)
        small, large = groups.square().sum(1).mean(), groups.mean(0).square().sum()
        found.append([(BATCH * large - GROUP * small) / (BATCH - GROUP),
                      (small - large) / (1 / GROUP - 1 / BATCH)])  # fmt: skip
    return torch.tensor(found)


@pytest.fixture(scope="module")
def worked_out(runs):
    """By the run whose checkpoints it is worked out from."""
    return {origin: by_hand(runs / origin) for origin in ("untied", "no clipping", "z0")}


@pytest.mark.parametrize("name", [*NAMES, "untied", "untied-pp2"])
def test_equals_gradients_of_single_samples(runs, worked_out, name):
    expected = worked_out["untied" if "untied" in name else "no clipping" if name == "no clipping" else "z0"]
    found = estimates(runs / name, first=1)
    assert (expected[:, 1] > 0).all()
    scale = expected.abs().amax(0)
    assert ((found - expected).abs() / scale).max() < 2e-4


def test_the_scale_is_a_ratio_of_averages_and_goes_on_after_a_stop(runs):
    for name in ("dp2-z1", "resumed"):
        square = variance = 0.0
        for line in lines(runs / name):
            square = 0.9 * square + line["batch/gradient_square"]
            variance = 0.9 * variance + line["batch/gradient_variance"]
            expected = variance / square if square > 0 else None
            assert line["batch/noise_scale"] == (expected and pytest.approx(expected, rel=1e-6))


def test_one_group_a_step_is_said_to_be_undefined(runs):
    assert [line["batch/noise_scale"] for line in lines(runs / "one group")] == [None, None]
    said = (runs / "one group" / "log.txt").read_text()
    assert said.count("a step is one micro-batch on one data rank") == 1


def test_off_it_tells_nothing(runs):
    assert not any(name.startswith("batch/noise") for line in lines(runs / "off") for name in line)


def test_estimates_are_unbiased():
    """Gradients drawn with a known mean and variance give both back, averaged over many steps."""
    from megarc.train.metrics.noise_scale import Estimate

    torch.manual_seed(0)
    mean, spread, group, batch = torch.full((50,), 0.3), 2.0, 4, 32
    draws = mean + spread * torch.randn(4000, batch // group, group, 50)
    groups = draws.mean(2)
    small, large = groups.square().sum(-1).mean(), groups.mean(1).square().sum(-1).mean()
    found = Estimate.of(float(small), group, float(large), batch)
    assert found.square == pytest.approx(float(mean.square().sum()), rel=0.02)
    assert found.variance == pytest.approx(50 * spread**2, rel=0.02)
