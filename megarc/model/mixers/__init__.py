"""Mixers: the part of a block that moves information from row to row.

In: normalised rows of the residual stream, the window's mask, a cache while
decoding. Out: what is added to the stream. A new mixer is one file here that
implements ``Mixer``, a line in ``_MIXERS`` and a name in ``MixerName``; nothing else names one.
"""

from megarc.model.config import MixerName, ModelConfig
from megarc.model.mixers.attention import Attention
from megarc.model.mixers.crf import RandomField
from megarc.model.mixers.fla_scan import check as check_recurrence_kernels
from megarc.model.mixers.mixer import Mixer
from megarc.model.mixers.ssm import StateSpace
from megarc.model.mixers.ssm_attention import RecentStateSpace

__all__ = ["Attention", "Mixer", "check_recurrence_kernels", "mixer_of"]


_MIXERS: dict[MixerName, type[Mixer]] = {
    "attention": Attention,
    "ssm": StateSpace,
    "ssm_attention": RecentStateSpace,
    "crf": RandomField,
}


def mixer_of(config: ModelConfig) -> type[Mixer]:
    """The mixer of a layer: of a model whose layers differ in it, ``config.of_layer(layer)`` is given."""
    (name,) = config.mixers
    return _MIXERS[name]
