"""What mixers and feed-forwards say about themselves, against the modules built."""

import pytest
import torch

from megarc.model import ModelConfig, record_of
from megarc.model.feed_forward import feed_forward_of
from megarc.model.mixers import mixer_of
from megarc.parallel import Group, TensorParallel
from megarc.window import Window

CONFIG = ModelConfig(
    layers=2, hidden=32, heads=4, kv_heads=2, head_dim=16, ffn=24, vocabulary=100, qk_norm=True
)
MIXERS = ("attention", "ssm", "ssm_attention", "crf")
PARTS = {name: mixer_of(CONFIG.model_copy(update={"mixers": [name]})) for name in MIXERS}
PARTS["feed_forward"] = feed_forward_of(CONFIG)
MIXED = CONFIG.model_copy(update={"crf_transitions": 3})
BIASED = CONFIG.model_copy(update={"qk_norm_over": "all", "attention_bias": "all"})


def build(name, rank=0, ranks=1, config=CONFIG):
    tensor = TensorParallel(Group(rank, ranks))
    return PARTS[name](config, *(("auto", 0, tensor) if name in MIXERS else (tensor,)))


@pytest.mark.parametrize(
    "config", [CONFIG, MIXED, BIASED, BIASED.model_copy(update={"attention_bias": "qkv"})]
)
@pytest.mark.parametrize("name", PARTS)
def test_cost_counts_the_parameters_built(name, config):
    records = [record_of(parameter) for parameter in build(name, config=config).parameters()]
    cost = PARTS[name].cost(config, Window.plain(8))

    def elements(gains):
        return sum(torch.Size(one.shape).numel() for one in records if one.decays != gains)

    assert (cost.matrices, cost.gains) == (elements(False), elements(True))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_that_fit_hold_each_element_alike_often(name, ranks):
    """Of a split matrix each element stands on one rank, of others on every rank."""
    assert all(split.fits(ranks) for split in PARTS[name].splits(CONFIG))
    built = [dict(build(name, rank, ranks, MIXED).named_parameters()) for rank in range(ranks)]
    for parameter_name, parameter in built[0].items():
        record = record_of(parameter)
        counted = torch.zeros(record.shape if len(record.shape) == 2 else (1, *record.shape))
        for one in built:
            for box in record_of(one[parameter_name]).boxes:
                counted[box.top : box.bottom, box.left : box.right] += 1
        expected = 1 if record.split or ranks == 1 else ranks
        assert (counted == expected).all(), parameter_name


def test_ranks_that_do_not_fit():
    assert [split.key for split in PARTS["attention"].splits(CONFIG) if not split.fits(3)] == [
        "model.kv_heads",
        "model.heads",
    ]
    # 2 kv_heads, shared by 4
    assert [split.fits(8) for split in PARTS["attention"].splits(CONFIG)] == [True, False]
    assert not any(split.fits(5) for split in PARTS["feed_forward"].splits(CONFIG))
