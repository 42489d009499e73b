"""The language model: embedding, blocks, final norm, head. The head runs on the rows it is asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from megarc.attention import Cache, Cached, CacheShape, Slots
from megarc.errors import UserError
from megarc.interval import Intervals, Seen
from megarc.model.block import Block
from megarc.model.block_part import Split
from megarc.model.config import ExecutionConfig, ModelConfig
from megarc.model.feed_forward import feed_forward_of
from megarc.model.layers import ColumnLinear, Embedding, Norm, Positions, first_token
from megarc.model.loss import Head, Loss, capped, head_loss
from megarc.model.mixers import mixer_of
from megarc.model.parametrization import output_scale
from megarc.model.recompute import Runner
from megarc.parallel import RankRows, TensorParallel


class Transformer(nn.Module):
    """Built with empty parameters: ``initialise`` or a checkpoint fills them.

    Raises:
        UserError: for recurrent mixers whose rows context ranks would share.
    """

    def __init__(
        self,
        config: ModelConfig,
        execution: ExecutionConfig | None = None,
        tensor: TensorParallel | None = None,
    ) -> None:
        super().__init__()
        execution, tensor = execution or ExecutionConfig(), tensor or TensorParallel()
        self.config, self.execution, self.tensor = config, execution, tensor
        recurrent = sorted(set(config.mixers) - {"attention"})
        if recurrent and tensor.context.size > 1:  # a rank's rows are not one after the other
            raise UserError(
                f"{tensor.context.size} context ranks cannot share the rows of a model whose model.mixers are "
                f"{', '.join(recurrent)}: their state goes from row to row; leave --context out, or use "
                "parallel.context=1"
            )
        width, ids = config.hidden, config.padded_vocabulary
        self.embedding = Embedding(ids, width, tensor)
        rows = config.learned_positions
        self.positions = None if rows is None else Positions(rows, width, tensor)
        runner = Runner(execution)
        self.blocks = nn.ModuleList(
            Block(config, execution.attention, layer, tensor, runner) for layer in range(config.layers)
        )
        self.norm = final_norm(config, tensor)
        self.head = None if config.tied else ColumnLinear(width, ids, "readout", tensor)
        self._head = Head.of(config, execution, tensor)

    def forward(
        self,
        tokens: Tensor,
        rows: slice | Tensor,
        seen: Seen,
        positions: Tensor | None = None,
        weights: Tensor | None = None,
        z_loss: float = 0.0,
        inputs: Tensor | None = None,
        kept: int | None = None,
    ) -> Loss:
        """Losses of some rows of windows ``tokens`` [batch, n + 1]: a ``Loss`` of [batch, s], or of [k].

        Args:
            rows: the same s rows of every window; or k rows by number, window after window, [k] of 0 .. batch * n - 1.
            seen: how many first rows are R, or the interval of keys that each row sees, [batch, n].
            positions: [batch, n], where each row stands; None: its number.
            weights: of those rows, [batch, s] or [k]; None: all 1.
            z_loss: weight of log_z^2.
            inputs: [batch, n], what the rows hold where some tokens are hidden; None: ``tokens[:, :-1]``.
            kept: of a nested model, neurons of each group that take part; None: all.
        """
        hidden = self._last(tokens[:, :-1] if inputs is None else inputs, rows, seen, None, positions, kept)
        targets = pick_rows(tokens[:, 1:], rows)
        return head_loss(self._head, hidden, self._table(), targets, weights, z_loss)

    def logits(
        self,
        tokens: Tensor,
        rows: slice | Tensor,
        seen: Seen,
        cache: Cached | None = None,
        positions: Tensor | None = None,
        kept: int | None = None,
    ) -> Tensor:
        """Logits [batch, len(rows), this rank's ids] of ``tokens`` [batch, n]; those of padding are -inf.

        Rows may also be k numbers, window after window, as ``forward`` takes them: [k, this rank's ids].
        With a ``cache`` the tokens follow those already in it, and theirs are added.
        """
        hidden = self._last(tokens, rows, seen, cache, positions, kept)
        return head_logits(hidden, self._table(), self.config, self.tensor)

    def hidden(
        self,
        tokens: Tensor,
        seen: Seen,
        cache: Cached | None = None,
        positions: Tensor | None = None,
        kept: int | None = None,
        read: slice | Tensor | None = None,
    ) -> Tensor:
        """The residual stream [batch, n (or this rank's part), hidden] after the last block.

        With ``read``, of these rows alone: the last block computes no others. It is ``cache.last``, or without a
        cache a slice.
        """
        x = self.embedding(tokens)
        if self.positions is not None:
            first = 0 if cache is None else cache.length
            x = x + self.positions(first, tokens.shape[1], positions)
        final = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            x = block(x, seen, cache, positions, kept, read if number == final else None)
        return x

    def empty_cache(self, batch: int, rows: int) -> Cache:
        """What ``logits`` fills while it decodes ``batch`` windows of at most ``rows`` rows and of one length."""
        weight = self.embedding.weight
        return self.cache_shape().cache(batch, rows, weight.dtype, weight.device)

    def empty_slots(self, slots: int, rows: int) -> Slots:
        """The same for texts that come and go, each of a length of its own."""
        weight = self.embedding.weight
        return self.cache_shape().slots(slots, rows, weight.dtype, weight.device)

    def cache_shape(self) -> CacheShape:
        """What decoding keeps of each layer on this tensor rank."""
        kinds = self.config.kinds()
        kept = {name: mixer_of(one).cache_shape(one, self.tensor.size) for name, one in kinds.items()}
        return CacheShape([kept[self.config.kind(layer)] for layer in range(self.config.layers)])

    def _last(
        self,
        tokens: Tensor,
        rows: slice | Tensor,
        seen: Seen,
        cache: Cached | None,
        positions: Tensor | None,
        kept: int | None,
    ) -> Tensor:
        """What the head reads: [batch, len(rows), hidden] or [k, hidden], normalised."""
        if not self._picks(rows, seen, cache):
            hidden = self.hidden(tokens, seen, cache, positions, kept)
            return self.norm(pick_rows(self.tensor.enter(hidden), rows))
        hidden = self.tensor.enter(self.hidden(tokens, seen, cache, positions, kept, rows))
        return self.norm(hidden if isinstance(rows, slice) else hidden.flatten(0, 1))

    def _picks(self, rows: slice | Tensor, seen: Seen, cache: Cached | None) -> bool:
        """Whether the last block can compute ``rows`` alone under its mixer."""
        final = self.blocks[-1].attention if len(self.blocks) else None
        if final is None or not final.picks or self.tensor.sequence:
            return False
        if cache is None:
            return isinstance(rows, slice) and bool(rows.start) and self._scores_alone(seen)
        # the last of each text
        if isinstance(rows, Tensor):
            return rows is cache.last
        return isinstance(cache.last, slice) and rows == cache.last and not isinstance(seen, Intervals)

    def _scores_alone(self, seen: Seen) -> bool:
        """Whether rows of R may be left out of the last block: without gradients, on a CPU.

        With them the memory and the work of a step would be others than predicted. On a GPU and in compiled code
        it has not been measured.
        """
        execution, place = self.execution, self.embedding.weight.device.type
        served = execution.attention in ("auto", "split_cpu", "reference") and not execution.compile
        return not torch.is_grad_enabled() and place == "cpu" and served and not isinstance(seen, RankRows)

    def _table(self) -> Tensor:
        return self.embedding.weight if self.head is None else self.head.weight


def final_norm(config: ModelConfig, tensor: TensorParallel) -> Norm:
    """The norm before the head."""
    return Norm(
        config.hidden, config.norm_epsilon, tensor, partial=tensor.size > 1, scale=output_scale(config)
    )


def pick_rows(x: Tensor, rows: slice | Tensor) -> Tensor:
    """Some rows of ``x`` [batch, n, ..]: the same of every sample [batch, s, ..], or [k, ..] by their numbers."""
    return x[:, rows] if isinstance(rows, slice) else x.flatten(0, 1)[rows]


def splits(config: ModelConfig) -> list[Split]:
    """What the number of tensor ranks must divide: heads, inner widths, and the rows of the embedding."""
    return [
        *dict.fromkeys(split for each in config.kinds().values() for split in mixer_of(each).splits(each)),
        *(split for each in _distinct(config) for split in feed_forward_of(each).splits(each)),
        Split("model.vocabulary_multiple", config.vocabulary_multiple),
    ]


def _distinct(config: ModelConfig) -> list[ModelConfig]:
    """The configurations of layers, each once."""
    found: list[ModelConfig] = []
    for layer in range(config.layers):
        own = config.of_layer(layer)
        if own not in found:
            found.append(own)
    return found


def head_logits(hidden: Tensor, weight: Tensor, config: ModelConfig, tensor: TensorParallel) -> Tensor:
    """Logits of ``hidden`` [.., hidden] on this rank's ids; those of padding are -inf: no probability."""
    logits, _ = capped(nn.functional.linear(hidden, weight), config.logit_cap)
    known = config.tokens - first_token(weight, tensor)
    if logits.shape[-1] <= known:
        return logits
    padding = torch.arange(logits.shape[-1], device=logits.device) >= known
    return logits.masked_fill(padding, float("-inf"))
