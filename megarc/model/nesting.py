"""Nested feed-forward widths (MatFormer, Devvrit et al. 2023, 2310.07707): a width's neurons, and how it is cut out.

Neurons stand in groups of B, the least common denominator of the widths; the width p / B has the first p neurons of
every group. Each narrower width lies in each wider one, as with MatFormer's prefixes, and which neurons a width has
depends on no number of ranks: each tensor rank holds whole groups, and keeps its part of every width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from torch import Tensor

from megarc.errors import UserError
from megarc.model.config import ModelConfig

Cut = Callable[[str, Tensor], Tensor]
"""(canonical name, full values) -> the values in the narrow model."""

_GATE_UP, _DOWN = "feed_forward.gate_up.weight", "feed_forward.down.weight"


def kept_of(config: ModelConfig, width: Fraction) -> int | None:
    """Neurons that ``width`` keeps of each group; None: all."""
    return None if width == 1 else int(width * config.neuron_group)


def narrowed(config: ModelConfig, widths: Sequence[Fraction]) -> tuple[ModelConfig, Cut]:
    """A dense model out of a nested one, with one width for all layers or a width for each: mix'n'match.

    Its logits are those of the nested model at these widths, to the bit: both multiply by the same matrices.

    Raises:
        UserError: where the model is not nested, a width is none of its own, or there are too many or too few.
    """
    if config.nested is None:
        raise UserError("a width is asked for, and the run has no model.nested: it has one width only")
    for width in widths:
        if width not in config.nested:
            known = ", ".join(map(str, config.nested))
            raise UserError(f"the width {width} is none that the model was trained with; it has {known}")
    if len(widths) not in (1, config.layers):
        raise UserError(
            f"{len(widths)} widths are given for {config.layers} layers; give one, or one for each layer"
        )
    by_layer = list(widths) * (config.layers if len(widths) == 1 else 1)
    group, hidden = config.neuron_group, config.hidden

    def cut(name: str, values: Tensor) -> Tensor:
        if not name.endswith((_GATE_UP, _DOWN)):
            return values
        kept = kept_of(config, by_layer[int(name.split(".")[1])])
        if name.endswith(_DOWN):
            return values.view(hidden, -1, group)[..., :kept].reshape(-1)
        return values.view(-1, group, hidden)[:, :kept].reshape(-1)

    inner = [int(width * config.width_of_ffn) for width in by_layer]
    ffn: int | list[int] = inner[0] if len(set(inner)) == 1 else inner
    return config.model_copy(update={"ffn": ffn, "nested": None}), cut
