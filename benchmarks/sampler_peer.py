"""Megatron's way from .bin/.idx to a batch, to be timed beside ours by ``sampler.py``.

megatron-core's own GPTDataset where it can be imported (0.16.1 was used:
``pip install --no-deps megatron-core==0.16.1 triton``); else a stand-in of ours
that does the same work for a sample: look up shuffle, sample and document index,
cut the documents, join them, make int64 tensors, labels and loss mask, collate.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Getter = Callable[[int], dict[str, Any]]

EOD = 0


def peer(prefix: Path, rows: int, samples: int) -> tuple[str, Getter]:
    """Its name, and what gives sample k of ``samples`` windows of ``rows`` rows: a dictionary of tensors."""
    try:
        return _megatron(prefix, rows, samples)
    except ImportError:
        return "stand-in for Megatron's GPTDataset", StandIn(prefix, rows, samples).__getitem__


def collated(get: Getter, numbers: range) -> dict[str, Any]:
    """A batch as torch's DataLoader makes it, in the process itself."""
    from torch.utils.data import default_collate

    return default_collate([get(number) for number in numbers])


def _megatron(prefix: Path, rows: int, samples: int) -> tuple[str, Getter]:
    import megatron.core
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    class Tokenizer:
        eod, pad, vocab_size, unique_identifiers = EOD, -1, 32_000, {}

    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=rows,
        blend=([str(prefix)], None),
        split="1,0,0",
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    indexed = IndexedDataset(str(prefix), mmap=True)
    documents = np.arange(indexed.document_indices.shape[0] - 1, dtype=np.int32)
    dataset = GPTDataset(indexed, str(prefix), documents, samples, Split.train, config)
    return f"megatron-core {megatron.core.__version__} GPTDataset", dataset.__getitem__


class StandIn:
    """The same steps in the same order as Megatron's, with its three indices held in memory."""

    def __init__(self, prefix: Path, rows: int, samples: int) -> None:
        from megarc.corpus import IndexedCorpus

        corpus = IndexedCorpus(prefix)
        starts = np.asarray(corpus.documents)
        self.tokens, self.starts = corpus.tokens, starts
        self.lengths = np.diff(np.append(starts, len(corpus.tokens)))
        random = np.random.default_rng(0)
        self.document_index = random.permutation(len(starts))
        ends = np.cumsum(self.lengths[self.document_index])
        edges = np.arange((ends[-1] - 1) // rows + 1) * rows
        document = np.searchsorted(ends, edges, side="right")
        offset = edges - (ends - self.lengths[self.document_index])[document]
        self.sample_index = np.stack([document, offset], axis=1)
        self.shuffle_index = random.permutation(len(edges) - 1)
        self.mask: Any = None

    def __getitem__(self, number: int) -> dict[str, Any]:
        import torch

        place = self.shuffle_index[number % len(self.shuffle_index)]
        (first, offset), (last, end) = self.sample_index[place], self.sample_index[place + 1]
        pieces = []
        for which in range(first, last + 1):
            document = self.document_index[which]
            begin = offset if which == first else 0
            length = end + 1 if which == last else self.lengths[document]
            at = self.starts[document]
            pieces.append(self.tokens[at + begin : at + length])
        text = torch.from_numpy(np.array(np.concatenate(pieces), dtype=np.int64)).long()
        tokens, labels = text[:-1].contiguous(), text[1:].contiguous()
        if self.mask is None:
            self.mask, self.positions = torch.ones(len(tokens)), torch.arange(len(tokens))
        mask = self.mask.clone()
        mask[labels == -1] = 0.0
        tokens[tokens == -1] = 0
        labels[labels == -1] = 0
        return {"tokens": tokens, "labels": labels, "loss_mask": mask, "position_ids": self.positions}
