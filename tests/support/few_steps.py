"""What `worker.py` does for the job "steps": a few optimizer steps without a run around them, and what came of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch.distributed as dist

from megarc.data import Gaps
from megarc.parallel import Groups, gather_objects
from megarc.science import MAKERS, PointerChase
from megarc.train import RunConfig, open_heldout, open_train, resolve
from megarc.train.checkpoint import Level, Saver, Standing
from megarc.train.engine.build import build_engine
from megarc.train.loop import Averaging, Moment
from megarc.train.loop.feed import steps
from megarc.train.metrics.heldout_loss import heldout_losses
from megarc.train.schedule import Timeline

ALL_TO_ALL = dist.all_to_all_single


class Annotated(PointerChase):
    """The task, with what a source may say of a sample, each by its number: any of ``says``.

    weights: fractions, some 0, also of rows that are no answers; row_weights: of all n rows; uniform: none;
    empty: all 0; beyond: in some an id that is none;
    recent: rows of R, fewer in some; documents; positions.
    """

    def __init__(self, window, seed, says):
        super().__init__(window, seed)
        self.says = says
        self.digest += "".join(sorted(says))

    def read_many(self, k):
        read, rows = super().read_many(k), np.arange(self.window.rows, dtype=np.int32)
        k = k[:, None]
        if "uniform" in self.says:
            read = replace(read, weights=None)
        if "weights" in self.says:
            weights = ((k + np.arange(self.window.stride)) % 4 / 3).astype(np.float32)
            read = replace(read, weights=weights)
        if "row_weights" in self.says:
            read = replace(read, weights=((k + rows) % 5 / 4).astype(np.float32))
        if "empty" in self.says:
            read = replace(read, weights=np.zeros_like(read.weights))
        if "beyond" in self.says:  # in the padded part of the vocabulary
            tokens = read.tokens.copy()
            tokens[k[:, 0] % 9 == 0, 7] = self.vocabulary + 2
            read = replace(read, tokens=tokens)
        if "recent" in self.says:
            recent = np.where(k % 3 == 0, 24, (k * 7) % 24).astype(np.int32)
            read = replace(read, recent=recent[:, 0])
        if "documents" in self.says:
            read = replace(read, documents=(rows >= 5 + k % 11).astype(np.int32) + (rows >= 30))
        if "positions" in self.says:
            read = replace(read, positions=(rows + k % 5).astype(np.int32))
        return read


def make_annotated(config, window):
    return Annotated(window, config.options.get("seed", 0), config.options["says"])


def take_steps(config: RunConfig, groups: Groups, count: int, folder: Path) -> None:
    """``count`` steps; to ``folder`` numbers.json, right.json, and checkpoints/ with masters and moments.

    right.json holds the right guesses of each held-out source.
    """
    kinds = {**MAKERS, "annotated": make_annotated}
    train, heldout = open_train(config, kinds), open_heldout(config, kinds)
    config = resolve(config, train, groups.topology)
    engine, timeline = build_engine(config, groups), Timeline.of(config)
    batches, rate = timeline.batches, timeline.learning_rate
    feed = steps(
        train,
        groups,
        timeline,
        config.batch.micro_batch,
        Gaps(),
        engine.heartbeat,
        vocabulary=config.model.tokens,
        first=0,
        total=count,
        sharing=engine.sharing,
    )
    done, sent = [], count_sent(groups)
    averaging = Averaging(config.average, 0)
    averaging.start(engine, Moment(0, count, 0))
    for number, micro_batches in enumerate(feed):
        done.append(engine.step(micro_batches, rate(number)))
        averaging.after_step(engine, Moment(number + 1, count, batches.samples_before(number + 1)), done[-1])
    heldout = heldout.held_out(batches.samples_before(count) - 1)  # with the last step's window
    scores = heldout_losses(engine, heldout, config.validation.windows)
    right = [one.right for one in scores]
    numbers = {
        "loss": [float(one.loss) for one in done],
        "gradient norm": [float(one.gradient_norm) for one in done],
        "held-out": [one.nll / one.tokens for one in scores],
    }
    if engine.average is not None:
        with engine.average.in_place():
            averaged = heldout_losses(engine, heldout, config.validation.windows)
            numbers["held-out"] += [one.nll / one.tokens for one in averaged]
    target = folder / "checkpoints"
    target.mkdir(parents=True, exist_ok=True)
    if engine.experts is not None or groups.pipeline.size > 1:
        loads = [] if engine.experts is None else engine.experts.read()
        counts = {one.layer: one.counts for part in gather_objects(loads, groups.pipeline) for one in part}
        if groups.first:
            (folder / "counts.json").write_text(json.dumps(counts))
    saver = Saver(groups)
    standing = Standing(step=count, samples=batches.samples_before(count))
    saver.save(engine, standing, {"config": {}}, Level.shared(target, groups, keep=1))
    saver.wait()
    engine.close()
    (folder / f"sent-{groups.world.rank}.json").write_text(json.dumps(sent))
    if groups.first:
        (folder / "numbers.json").write_text(json.dumps(numbers))
        (folder / "right.json").write_text(json.dumps(right))


def count_sent(groups):
    """Elements that each all-to-all of this rank, from now on, sends to others."""
    sent = []

    def counted(received, given, there, here, group=None):
        if group is groups.stage.handle and received.dim() == 1:  # not rows to experts
            sent.append(sum(here) - here[groups.stage.rank])
        return ALL_TO_ALL(received, given, there, here, group=group)

    dist.all_to_all_single = counted
    return sent
