"""The language model: embedding, blocks, final norm, head. The head runs on the rows it is asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megarc.attention import Cache
from megarc.model.block import Block, Linear, Norm
from megarc.model.config import ExecutionConfig, ModelConfig
from megarc.model.loss import RowLoss, row_loss
from megarc.model.record import attach


class Transformer(nn.Module):
    """Built with empty parameters: ``initialise`` or a checkpoint fills them."""

    def __init__(self, config: ModelConfig, execution: ExecutionConfig | None = None) -> None:
        super().__init__()
        execution = execution or ExecutionConfig()
        self.config, self.execution = config, execution
        self.embedding = Embedding(config.padded_vocabulary, config.hidden)
        rows = config.learned_positions
        self.positions = None if rows is None else Embedding(rows, config.hidden)
        self.blocks = nn.ModuleList(
            Block(config, execution.attention, layer) for layer in range(config.layers)
        )
        self.norm = Norm(config.hidden, config.norm_epsilon)
        self.head = None if config.tied else Linear(config.hidden, config.padded_vocabulary, "readout")
        if execution.compile:
            for block in self.blocks:
                block.compile()

    def forward(
        self,
        tokens: Tensor,
        rows: slice,
        recent: int | Tensor,
        documents: Tensor | None = None,
    ) -> RowLoss:
        """Losses of the rows ``rows`` of windows ``tokens`` [batch, n + 1]: a ``RowLoss`` of [batch, s].

        Args:
            recent: how many first rows are R: one number, or one a sample [batch].
            documents: [batch, n] segment ids; attention stays inside a segment.
        """
        logits = self.logits(tokens[:, :-1], rows, recent, documents)
        return row_loss(logits, tokens[:, 1:][:, rows])

    def logits(
        self,
        tokens: Tensor,
        rows: slice,
        recent: int | Tensor,
        documents: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits [batch, len(rows), padded vocabulary] of ``tokens`` [batch, n]; padding is -inf.

        With a ``cache`` the tokens follow those already in it, and theirs are added.
        """
        hidden = self.hidden(tokens, recent, documents, cache)[:, rows]
        weight = self.embedding.weight if self.head is None else self.head.weight
        logits = nn.functional.linear(self.norm(hidden), weight)
        return mask_padding(logits, self.config.tokens)

    def hidden(
        self,
        tokens: Tensor,
        recent: int | Tensor,
        documents: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The residual stream [batch, n, hidden] after the last block."""
        x = self.embedding(tokens)
        if self.positions is not None:
            first = 0 if cache is None else cache.length
            x = x + self.positions(torch.arange(first, first + tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            if self.execution.recompute == "full" and torch.is_grad_enabled() and cache is None:
                x = checkpoint(block, x, recent, documents, use_reentrant=False)
            else:
                x = block(x, recent, documents, cache)
        return x


class Embedding(nn.Module):
    """A vector for each token id, or for each row."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = attach(nn.Parameter(torch.empty(tokens, width)), "embedding")

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.embedding(tokens, self.weight)


def mask_padding(logits: Tensor, vocabulary: int) -> Tensor:
    """Logits of the padding ids as -inf, so that they take no probability."""
    if logits.shape[-1] == vocabulary:
        return logits
    padding = torch.arange(logits.shape[-1], device=logits.device) >= vocabulary
    return logits.masked_fill(padding, float("-inf"))
