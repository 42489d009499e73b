"""What Muon holds beside gradients while it updates, as ``megarc.train.engine.muon`` does it.

Of its matrices a rank holds parts (``held`` elements) and orthogonalises some whole (``owned``), those of equal shape
[r, c], r <= c, at once. It has, in elements of float32:

    the momentum a step ahead                                     divided gradient, momentum, what is ahead: 3 held
    parts on their way to owners        held + parts packed (twice on several ranks) + what came + whole matrices
    Newton-Schulz of e elements         held + owned + updates of earlier shapes + e (3 + 2r/c): stacked, before and
                                        after an iteration, and two products [r, r]; in bf16 these count half, and 3e
                                        are held when the update is float32 again
    updates on their way back           held + owned, packed twice, + whole updates + what came
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from megarc.model import ModelConfig
from megarc.plan.block_matrices import block_matrices
from megarc.train import RunConfig, matrices_of


class Alike(NamedTuple):
    """The matrices of all blocks that have one shape."""

    rows: int
    columns: int
    elements: int

    def at_once(self, elements: float, wide: bool, equal_rows: bool) -> float:
        """Elements of float32 that Newton-Schulz of some of them has at the most; ``wide``: in float32."""
        shorter, longer = sorted((self.rows, self.columns))
        return elements * max(3 + (2 * shorter / longer if wide else 0), 4 if equal_rows else 0)


@lru_cache(maxsize=32)
def alike(keys: str) -> tuple[Alike, ...]:
    """Of a model of these keys, in the order in which they are updated."""
    model = ModelConfig.model_validate_json(keys)
    listed = {
        kind: [
            (one.rows, one.columns) for name in sorted(records) for one in matrices_of(name, records[name])
        ]
        for kind, records in block_matrices(model).items()
    }
    found: dict[tuple[int, int], int] = {}
    for layer in range(model.layers):
        for rows, columns in listed[model.kind(layer)]:
            found[rows, columns] = found.get((rows, columns), 0) + rows * columns
    return tuple(Alike(*shape, elements) for shape, elements in found.items())


def beside_gradients(config: RunConfig, held: float, owned: float, ranks: int, device: str) -> float:
    """Bytes that an update holds beside gradients, on a rank whose stage has ``ranks`` tensor, context and data ranks.

    Args:
        held: elements of the parts of matrices that the rank has.
        owned: elements of matrices that the rank orthogonalises whole.
        device: "cpu" or "cuda".
    """
    keys, groups = config.optimizer.muon, alike(config.model.model_dump_json())
    wide = keys.precision == "fp32" or (keys.precision == "auto" and device != "cuda")
    share = owned / sum(one.elements for one in groups)
    done = most = 0.0
    for one in groups:
        own = max(share * one.elements, one.rows * one.columns)  # some rank has a whole one
        most = max(most, done + one.at_once(own, wide, keys.equal_rows))
        done += own
    travelling = max(3 * held + owned, 2 * held + 3 * owned) if ranks > 1 else 2 * held + owned
    return 4 * max(3 * held, held + owned + max(most, done), travelling)
