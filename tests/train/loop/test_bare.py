"""A run's steps are those of the same model in a loop of plain PyTorch: losses, norms, weights."""

import pytest
import torch
from support.runs import config

from megarc.config import build
from megarc.model import ExecutionConfig, Transformer, initialise, record_of
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.science import MAKERS
from megarc.train import Observer, RunConfig, pretrain


@pytest.fixture(scope="module")
def groups():
    yield connect(meet(ALONE), "cpu")
    disconnect()


class Tape(Observer):
    """What a run took, what became of it, and the weights at its end."""

    def __init__(self):
        self.batches, self.done = [], []

    def start(self, engine, moment):
        self.config = engine.config

    def before_step(self, engine, moment, micro_batches):
        self.batches.append(micro_batches)

    def settled(self, engine, moment, steps):
        self.done += steps

    def stop(self, engine, moment, ending):
        self.weights = {name: parameter.detach().clone() for name, parameter, _ in engine.parameters()}


def bare(tape):
    """The same batches and rates; losses, gradient norms, weights."""
    keys = tape.config.optimizer
    model = Transformer(tape.config.model, ExecutionConfig())
    initialise(model, tape.config.model, tape.config.seed)
    decaying, others = (
        [p for p in model.parameters() if record_of(p).decays is decays] for decays in (True, False)
    )
    adam = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": keys.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(keys.beta1, keys.beta2),
        eps=keys.epsilon,
        foreach=False,
    )
    losses, norms = [], []
    for batches, done in zip(tape.batches, tape.done, strict=True):
        total = sum(float(batch.weights.sum()) for batch in batches)
        nll = 0.0
        for batch in batches:
            loss = model(batch.tokens, batch.rows, batch.seen, None, batch.weights, keys.z_loss)
            nll += float((loss.nll * batch.weights).sum())
            (loss.objective / total).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), keys.clip)))
        losses.append(nll / total)
        for group in adam.param_groups:
            group["lr"] = done.learning_rate
        adam.step()
        adam.zero_grad()
    return losses, norms, dict(model.named_parameters())


@pytest.mark.parametrize("zero", [0, 2])
def test_a_run_is_a_plain_loop(groups, tmp_path, zero):
    tape = Tape()
    tree = config(tmp_path, zero, 8)
    tree["logging"] = {"every": 5, "tensorboard": False, "peak_flops": 1e12}
    pretrain(build(RunConfig, tree, "test"), groups, MAKERS, watch=[tape])
    losses, norms, weights = bare(tape)
    assert [done.step for done in tape.done] == list(range(1, 9))
    assert [done.loss for done in tape.done] == pytest.approx(losses, rel=1e-5)
    assert [done.gradient_norm for done in tape.done] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > tape.config.optimizer.clip, "clipping is at work"
    for name, weight in weights.items():
        torch.testing.assert_close(tape.weights[name], weight.detach(), rtol=1e-3, atol=2e-5)
