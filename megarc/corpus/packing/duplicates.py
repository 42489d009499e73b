"""Which documents are the first of their text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from megarc.corpus.packing.shard import Shard

_AT_ONCE = 32_000_000  # hashes in memory (about 2 GB with their order); more take several passes


def first_ones(shards: Sequence[Shard]) -> dict[int, npt.NDArray[np.bool_]]:
    """Which documents of each shard stay, ``[documents]``: of equal texts the first in input order."""
    total = sum(shard.facts.documents for shard in shards)
    keep: dict[int, npt.NDArray[np.bool_]] = {}
    for number, shard in enumerate(shards):
        keep[number] = np.ones(shard.facts.documents, np.bool_)
    passes = -(-total // _AT_ONCE)
    for turn in range(passes):
        tables, owners, places = [], [], []
        for number, shard in enumerate(shards):
            records = shard.records()
            some = np.flatnonzero(records["hash"][:, 0] % np.uint64(passes) == turn)
            tables.append(records[["hash", "input", "offset"]][some])
            owners.append(np.full(len(some), number))
            places.append(some)
        table, owner, place = (np.concatenate(column) for column in (tables, owners, places))
        high, low = table["hash"][:, 0], table["hash"][:, 1]
        order = np.lexsort((table["offset"], table["input"], low, high))
        again = (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0)
        repeated = order[1:][again]
        for number in np.unique(owner[repeated]):
            keep[int(number)][place[repeated[owner[repeated] == number]]] = False
    return keep
