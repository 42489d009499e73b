"""The average of weights is what a brute-force mean over the run's steps gives, in checkpoints and held-out losses."""

import pytest
import torch
from support.runs import config, full_state, metrics

from megarc.config import build
from megarc.errors import UserError
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.science import MAKERS
from megarc.train import Observer, RunConfig, find_checkpoint, full_masters, pretrain
from megarc.train.config import AverageConfig

STEPS, LAST = 6, 3


@pytest.fixture(scope="module")
def groups():
    yield connect(meet(ALONE), "cpu")
    disconnect()


class Tape(Observer):
    """The weights at the start and after each step."""

    def __init__(self):
        self.weights = []

    def start(self, engine, moment):
        self.keep(engine)

    def after_step(self, engine, moment, result):
        self.keep(engine)

    def keep(self, engine):
        self.weights.append({name: p.detach().flatten().clone() for name, p, _ in engine.parameters()})


def brute_force(name, tape, keys):
    values = [weights[name].double() for weights in tape.weights]
    if "last_k" in keys:
        return torch.stack(values[-keys["last_k"] :]).mean(0)
    mean = values[0]
    for step, value in enumerate(values[1:], 1):
        decay = min(keys["decay"], (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * value
    return mean


@pytest.fixture(scope="module")
def plain(groups, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    pretrain(build(RunConfig, config(folder, 0, STEPS), "test"), groups, MAKERS)
    return folder


@pytest.mark.parametrize("keys", [{"decay": 0.3}, {"last_k": LAST}], ids=str)
def test_equals_a_brute_force_mean_and_leaves_the_run_alone(groups, plain, tmp_path, keys):
    tape = Tape()
    pretrain(build(RunConfig, config(tmp_path, 0, STEPS, average=keys), "test"), groups, MAKERS, watch=[tape])
    found = dict(full_masters(find_checkpoint(tmp_path), average=True))
    assert found.keys() == tape.weights[0].keys()
    for name, values in found.items():
        torch.testing.assert_close(values.double(), brute_force(name, tape, keys), rtol=1e-5, atol=1e-7)
    mean, last = (
        metrics(tmp_path, "heldout/average/nats_per_token"),
        metrics(tmp_path, "heldout/nats_per_token"),
    )
    assert len(mean) == len(last) == 2 and not torch.equal(mean, last)
    before, after = full_state(plain), full_state(tmp_path)
    assert all(torch.equal(values, after[part]) for part, values in before.items()), "the swap left a trace"


def test_the_last_k_of_a_shorter_run_are_all_its_steps():
    """Its start, which no step made, has no part in them."""
    keys, mean = AverageConfig(last_k=100), -50.0
    for step in range(1, STEPS + 1):
        mean += keys.share(step, STEPS) * (step - mean)
    assert mean == pytest.approx(sum(range(1, STEPS + 1)) / STEPS)


def test_it_is_scored_as_a_model_of_its_own_and_a_bad_step_is_not_taken_in(groups, tmp_path):
    class Scored(Observer):
        def stop(self, engine, moment, ending):
            with engine.average.in_place():
                self.values = {name: p.detach().flatten().clone() for name, p, _ in engine.parameters()}
            before = [average.clone() for _, average in engine.average._both()]
            engine.average.update(0.5, torch.tensor(True))
            after = [average for _, average in engine.average._both()]
            self.same = all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    scored = Scored()
    tree = config(tmp_path, 2, 3, average={"decay": 0.3})
    pretrain(build(RunConfig, tree, "test"), groups, MAKERS, watch=[scored])
    for name, values in full_masters(find_checkpoint(tmp_path), average=True):
        assert torch.equal(values, scored.values[name]), name
    assert scored.same


def test_an_average_that_no_run_kept_is_refused_with_the_key(plain):
    with pytest.raises(UserError, match=r"average\.decay=0\.999"):
        next(full_masters(find_checkpoint(plain), average=True))
    with pytest.raises(UserError, match="give one of them"):
        build(RunConfig, {"average": {"decay": 0.9, "last_k": 3}}, "test")


def test_a_resumed_run_that_asks_for_one_begins_it_with_its_weights(groups, plain):
    """So a long run may start to average late."""
    tape = Tape()
    tree = config(plain, 0, STEPS + 1, average={"decay": 0.5})
    pretrain(build(RunConfig, tree, "test"), groups, MAKERS, watch=[tape])
    decay = min(0.5, (2 + STEPS) / (11 + STEPS))
    for name, values in full_masters(find_checkpoint(plain), average=True):
        there, then = (weights[name] for weights in tape.weights)
        torch.testing.assert_close(values, decay * there + (1 - decay) * then, rtol=1e-6, atol=1e-7)
