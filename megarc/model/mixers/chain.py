"""Forward-backward of a linear chain of hidden states, in blocks: products of small matrices, and no loop over rows.

A row's state s_i has a potential u_i(s), and neighbours have w_i(s_{i-1}, s_i) = log E_i, whose rows are distributions:

    p(s) = exp(sum_i u_i(s_i) + sum_i w_i(s_{i-1}, s_i)) / Z      (Lafferty et al. 2001; Rabiner 1989, section III)

    a_i ~ (a_{i-1} E_i) * exp(u_i)            forward: the distribution of s_i given the rows up to i
    b_i ~ E_{i+1} (exp(u_{i+1}) * b_{i+1})    backward: how likely the rows behind i are, from each state
    p(s_i | all rows) ~ a_i * b_i

E_i is one matrix of a head, or a mean of several, E_i = sum_k m_i(k) E(k), with weights that are the row's own and sum
to 1. The state before the first row is uniform, and so is b behind the last one.

Rows are cut into blocks. The steps of a block together are one [states, states] matrix. Each of its rows is scaled to a
largest element of 1, and the log of the scale stands beside it. Blocks are brought together by the same scheme.
Potentials are bounded (``CAP``), so that in float32 the largest element of a step is never lost, whatever the number of
rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 16
CAP = 16.0
"""Potentials and the low-rank part of transitions lie between -CAP and CAP. So a step takes at most 2 CAP (potentials)
+ 2 CAP (transitions) + 7 (staying) + log 64 = 75 nats from a state, log 8 = 2 more where 8 matrices are mixed, and
float32 has 87."""


def bounded(potentials: Tensor) -> Tensor:
    """Between -CAP and CAP, by tanh."""
    return CAP * torch.tanh(potentials / CAP)


class Messages(NamedTuple):
    """Of every row, [batch, heads, rows, states]: the state's distribution by the rows before, and with its own."""

    before: Tensor
    after: Tensor


class _Steps(NamedTuple):
    """What takes a distribution through the rows of each block.

    Attributes:
        own: exp(u), the largest of a row 1, [batch, heads, blocks, size, states].
        transition: E(k), [heads, matrices, states, states].
        mixed: m, [batch, heads, blocks, size, matrices]; None: there is one matrix.
        anew: [batch, 1, blocks, size, 1, 1], rows that nothing precedes.
    """

    own: Tensor
    transition: Tensor
    mixed: Tensor | None
    anew: Tensor | None

    def expected(self, past: Tensor, row: int) -> Tensor:
        """At that row of each block, after ``past`` [batch, heads, blocks, any, states]."""
        into = self._into(row)
        moved = past @ into
        if self.anew is None:
            return moved
        return torch.where(self.anew[:, :, :, row], into.mean(-2, keepdim=True), moved)

    def _into(self, row: int) -> Tensor:
        """E_i of that row of each block, [batch, heads, blocks, states, states]; the first three may be 1."""
        if self.mixed is None:
            return self.transition
        mean = self.mixed[:, :, :, row] @ self.transition.flatten(2)
        return mean.unflatten(-1, self.transition.shape[2:])

    def seen(self, expected: Tensor, row: int) -> Tensor:
        """With the row's own potential."""
        return expected * self.own[:, :, :, row, None]


class _Matrices(NamedTuple):
    """The rows of a block, or of several, as one step.

    Attributes:
        matrix: [batch, heads, blocks, states, states], each row's largest element 1.
        scale: the log of what each row was divided by, [batch, heads, blocks, states].
        ended: [batch, 1, blocks, 1], where nothing before the block is read behind it: all rows are equal.
    """

    matrix: Tensor
    scale: Tensor
    ended: Tensor | None

    def grouped(self) -> _Matrices:
        """Blocks as [groups, BLOCK]. What fills up the last group is behind all blocks, and not read."""
        matrix, scale = _blocks(self.matrix, BLOCK, 1.0), _blocks(self.scale, BLOCK, 0.0)
        return _Matrices(matrix, scale, None if self.ended is None else _blocks(self.ended, BLOCK, False))

    def of(self, block: int) -> _Matrices:
        """That block of each group."""
        ended = None if self.ended is None else self.ended[:, :, :, block]
        return _Matrices(self.matrix[:, :, :, block], self.scale[:, :, :, block], ended)

    def after(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """``past`` [.., any, states] times the matrix, and the log by which it is too small, [.., 1]."""
        largest = self.scale.detach().amax(-1, keepdim=True)
        moved = (past * (self.scale - largest).exp()[..., None, :]) @ self.matrix
        if self.ended is None:
            return moved, largest
        ended = self.ended[..., None]
        return torch.where(ended, self.matrix[..., :1, :], moved), largest


def messages(
    potentials: Tensor,
    transition: Tensor,
    mixed: Tensor | None = None,
    anew: Tensor | None = None,
    before: Tensor | None = None,
) -> Messages:
    """Forward over the rows; backward is the same of rows turned round, with ``transition`` transposed.

    Args:
        potentials: [batch, heads, rows, states].
        transition: [heads, matrices, states, states], from the first index of states to the second.
        mixed: the weight of each matrix in the step to a row, [batch, heads, rows, matrices], with a sum of 1; None:
            there is one matrix.
        anew: [batch, rows], rows that nothing precedes; None: no row but the first.
        before: the distribution of the state before the first row, [batch, heads, states]; None: uniform.
    """
    rows, states = potentials.shape[2:]
    size = min(BLOCK, rows)
    own = _blocks((potentials - potentials.detach().amax(-1, keepdim=True)).exp(), size, 1.0)
    begins = None if anew is None else _blocks(anew[:, None, :, None, None], size, False)
    if mixed is not None:
        mixed = _blocks(mixed, size, 1 / mixed.shape[-1])
    steps = _Steps(own, transition, mixed, begins)
    if before is None:
        before = own.new_full((*own.shape[:2], states), 1 / states)
    past = _entering(_together(steps, size), before) if own.shape[2] > 1 else before[:, :, None]
    past = past[..., None, :]  # [batch, heads, blocks, 1, states]
    expected, seen = [], []
    for row in range(size):
        expected.append(steps.expected(past, row))
        past = _unit(steps.seen(expected[-1], row))
        seen.append(past)
    before_row, after_row = torch.cat(expected, 3).flatten(2, 3), torch.cat(seen, 3).flatten(2, 3)
    return Messages(before_row[:, :, :rows], after_row[:, :, :rows])


def _together(steps: _Steps, size: int) -> _Matrices:
    states = steps.own.shape[-1]
    start = torch.eye(states, dtype=steps.own.dtype, device=steps.own.device)
    matrix = start.expand(*steps.own.shape[:3], states, states)
    scale = torch.zeros_like(matrix[..., 0])
    for row in range(size):
        matrix, more = _scaled(steps.seen(steps.expected(matrix, row), row))
        scale = scale + more
        if steps.anew is not None:  # all rows are equal from here on
            scale = scale.masked_fill(steps.anew[:, :, :, row, 0], 0.0)
    return _Matrices(matrix, scale, None if steps.anew is None else steps.anew[..., 0].any(3))


def _entering(blocks: _Matrices, before: Tensor) -> Tensor:
    """The distribution before each block, [batch, heads, blocks, states]."""
    count = blocks.matrix.shape[2]
    groups = blocks.grouped()
    past = before[:, :, None]
    if count > BLOCK:
        past = _entering(_grouped_together(groups), before)
    found = [past]
    for block in range(min(count, BLOCK) - 1):
        past = _unit(groups.of(block).after(past[..., None, :])[0])[..., 0, :]
        found.append(past)
    return torch.stack(found, 3).flatten(2, 3)[:, :, :count]


def _grouped_together(groups: _Matrices) -> _Matrices:
    """Each group as one block."""
    matrix, scale, ended = groups.of(0)
    for block in range(1, BLOCK):
        next_one = groups.of(block)
        product, less = next_one.after(matrix)
        matrix, more = _scaled(product)
        scale = scale + more + less
        if ended is not None and next_one.ended is not None:
            scale = scale.masked_fill(next_one.ended, 0.0)
            ended = ended | next_one.ended
    return _Matrices(matrix, scale, ended)


def _scaled(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Its rows with a largest element of 1, and the logs of what they were divided by, [.., rows]."""
    largest = matrix.detach().amax(-1)
    return matrix / largest[..., None], largest.log()


def _unit(distribution: Tensor) -> Tensor:
    """With a sum of 1. What divides has no gradient: the sum of a marginal's own is divided out again later."""
    return distribution / distribution.detach().sum(-1, keepdim=True)


def _blocks(x: Tensor, size: int, filler: float | bool) -> Tensor:
    """Dimension 2 as [blocks, size], filled up."""
    short = -x.shape[2] % size
    if short:
        x = F.pad(x, (0, 0) * (x.dim() - 3) + (0, short), value=filler)
    return x.unflatten(2, (-1, size))
