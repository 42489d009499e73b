"""What context ranks count of the rows that they have."""

import numpy as np
import pytest
import torch

from megarc.config import build
from megarc.data import Batch
from megarc.interval import pairs_of
from megarc.model import ModelConfig
from megarc.parallel import Group
from megarc.train import RowSharing

ROWS = 24


@pytest.mark.parametrize("keys", [{}, {"causal_heads": 2}, {"causal_heads": 3, "sliding_window": 5}])
@pytest.mark.parametrize("documents", [None, np.repeat([[0, 1, 2], [0, 1, 1]], 8, axis=1).astype(np.int32)])
def test_ranks_together_count_the_pairs_of_the_whole_window(keys, documents):
    """FLOPs and MFU follow these counts; heads that see R causally have fewer pairs."""
    narrowing = build(ModelConfig, {"heads": 4, **keys}, "test").narrowing
    recent, samples = np.array([9, 9], np.int32), np.arange(2, dtype=np.int64)
    batch = Batch(np.zeros((2, ROWS + 1), np.int32), recent, samples, documents=documents)
    ranks = [RowSharing(Group(rank, 4), stride=8, loss_work=3, narrowing=narrowing) for rank in range(4)]
    shares = ranks[0].shares(batch)
    counted = [rank.own(batch, shares, torch.device("cpu")).pairs for rank in ranks]
    assert sum(counted) == pytest.approx(pairs_of(batch.seen(), ROWS, 2, narrowing))
    if documents is None:
        assert max(counted) <= 1.15 * min(counted)
