"""The average of weights is what a brute-force mean over the run's steps gives, in checkpoints and held-out losses."""

from types import SimpleNamespace

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
from megarc.train.loop import Averaging, Moment

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


def test_it_is_scored_as_a_model_of_its_own_and_a_bad_step_is_not_taken_in(groups, tmp_path):
    class Scored(Observer):
        def stop(self, engine, moment, ending):
            with engine.average.in_place():
                self.values = {name: p.detach().flatten().clone() for name, p, _ in engine.parameters()}
            before = [average.clone() for _, average in engine.average._both()]
            engine.average.update(torch.tensor(0.5), torch.tensor(True))
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


def test_a_mean_that_a_resume_begins_weighs_all_its_steps_alike(groups, plain):
    """Of a checkpoint's own weights and those after it, also where it is resumed again."""
    begun, seen = find_checkpoint(plain).standing.step, None
    for steps in (1, 2, 3):
        tape = Tape()
        tree = config(plain, 0, begun + steps, average={"last_k": 100})
        pretrain(build(RunConfig, tree, "test"), groups, MAKERS, watch=[tape])
        seen = [*(seen or tape.weights[:1]), *tape.weights[1:]]
        for name, values in full_masters(find_checkpoint(plain), average=True):
            mean = torch.stack([weights[name] for weights in seen]).mean(0)
            torch.testing.assert_close(values, mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [{1}, {1, 2}, {4}, {3, 5}], ids=str)
@pytest.mark.parametrize("last", [3, 100])
def test_a_skipped_step_leaves_the_others_equal_weights(bad, last):
    total = 6
    found = SimpleNamespace(weights=-50.0, mean=torch.tensor(-50.0))

    def update(share, left_out):
        found.mean = torch.where(left_out, found.mean, found.mean.lerp(torch.tensor(found.weights), share))

    engine = SimpleNamespace(
        average=SimpleNamespace(update=update), groups=SimpleNamespace(device=torch.device("cpu"))
    )
    averaging = Averaging(AverageConfig(last_k=last), 0)
    averaging.start(engine, Moment(0, total, 0))
    for step in range(1, total + 1):
        found.weights = found.weights if step in bad else float(step)
        averaging.after_step(
            engine, Moment(step, total, 8 * step), SimpleNamespace(bad=torch.tensor(step in bad))
        )
    taken = [step for step in range(max(1, total - last + 1), total + 1) if step not in bad]
    assert float(found.mean) == pytest.approx(sum(taken) / len(taken))
    assert averaging.taken == len(taken)
