"""What a stack costs, in FLOPs."""

from __future__ import annotations

from megarc.model import ModelConfig, cost_of
from megarc.tiers.rollout_store import Rollouts
from megarc.tiers.stack_plan import StackPlan
from megarc.train import Lengths, RunConfig, find_checkpoint, run_config
from megarc.window import Window


def share_of_training(model: ModelConfig, window: Window, samples: int, tokens: int, rows: int) -> float:
    """FLOPs of ``samples`` roll-outs of ``tokens`` at a boundary, over those of training on one window.

    Args:
        rows: rows of the writer's window up to the boundary, encoded once.
    """
    training = cost_of(model, window).training_flops
    encoded = cost_of(model, Window(max(rows - 1, 0), 1, 1))
    # A token more: a causal row that sees `rows` rows and, on average, half of the roll-out.
    step = Window(0, 1, 1)
    one = cost_of(model, step)
    pairs = rows + tokens / 2
    row = one.matrix_flops + one.head_flops + one.attention_flops * pairs
    forward = encoded.matrix_flops + encoded.head_flops + encoded.attention_flops
    return (forward + samples * (tokens - 1) * row) / training


def stack_flops(plan: StackPlan) -> float:
    """FLOPs of training every tier and of making the roll-outs that they were trained with."""
    total = 0.0
    for number, name in enumerate(plan.names):
        if plan.tier(name).huggingface is None:
            run = plan.run(name)
            total += Lengths(run).total * run.batch.size * flops_per_window(plan, run)
        for writer in plan.names[:number]:
            total += _rollout_flops(plan, writer, name)
    return total


def flops_per_window(plan: StackPlan, run: RunConfig) -> int:
    """Training FLOPs of a window; the vocabulary is the data's, which a trained run has recorded."""
    known = run_config(find_checkpoint(plan.run(plan.own[0]).folder)).model.vocabulary
    model = run.model.model_copy(update={"vocabulary": known})
    return cost_of(model, run.window.build()).training_flops


def _rollout_flops(plan: StackPlan, writer: str, reader: str) -> float:
    """Of a writer's roll-outs at every boundary of a reader's split."""
    if plan.tier(writer).huggingface is not None:
        return 0.0  # not a model of ours: its cost is unknown
    run, writes = run_config(find_checkpoint(plan.run(writer).folder)), plan.tier(writer).writes
    window = run.window.build()
    boundaries = Rollouts(plan.prefix(writer, reader)).facts.boundaries
    rows = min(window.rows, plan.window.recent + 1)
    share = share_of_training(run.model, window, writes.samples, writes.tokens, rows)
    return boundaries * share * cost_of(run.model, window).training_flops
