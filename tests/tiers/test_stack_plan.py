"""What a stack consists of, and which stacks are none."""

import pytest

from megarc.config import load, to_dict
from megarc.errors import UserError
from megarc.tiers import StackConfig, StackPlan, open_stack
from megarc.tiers.stack_plan import write_keys

TWO = "configs/tiers/two.yaml"


def opened(root, *changes):
    return StackPlan(load(StackConfig, root / TWO, changes))


def test_stages_go_from_the_bottom_up(built):
    assert [stage.name for stage in built.stages()] == [
        "train bottom", "roll-outs of bottom for heldout",
        "roll-outs of bottom for middle", "train middle", "roll-outs of middle for heldout",
        "roll-outs of bottom for top", "roll-outs of middle for top", "train top",
    ]  # fmt: skip


def test_what_a_tier_reads_may_be_chosen(pytestconfig):
    changes = ["tiers.other={data: {kind: iterated_function}}", "tiers.other.reads={tiers: [bottom]}"]
    plan = opened(pytestconfig.rootpath, *changes)
    assert plan.reads("other") == ["bottom"] and plan.reads("top") == ["bottom"]
    everything = opened(pytestconfig.rootpath, changes[0])
    assert everything.reads("other") == ["bottom", "top"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("tiers.bottom.writes.samples=0", "tiers.bottom.writes.samples"),
        ("tiers.bottom.writes.tokens=0", "tiers.bottom.writes.tokens"),
        ("tiers.top.data.part=[0.4, 1.0]", "top and bottom read the same data"),
        ("heldout.path=demo/text/train", "heldout and bottom read the same data"),
        ("tiers.top.reads.tiers=[middle]", "do not stand below it"),
        ("tiers.top.huggingface=some/model", "only the bottom tier"),
        ("run.window.stride=4", "a stack predicts all of C"),
        ("tiers.bottom.wirtes.samples=2", "wirtes"),
        ("tiers.top.run.widnow.recent=2", "widnow"),
        ("tiers={bottom: {}}", "two tiers or more"),
    ],
)
def test_stacks_that_are_none(pytestconfig, change, said):
    with pytest.raises(UserError, match=said):
        list(opened(pytestconfig.rootpath, change).stages())


def test_a_stack_is_opened_by_its_folder_too(built, tmp_path):
    write_keys(tmp_path / "stack.yaml", built.config)
    assert to_dict(open_stack(tmp_path).config) == to_dict(built.config)
    with pytest.raises(UserError, match="is not a stack"):
        open_stack(tmp_path / "elsewhere")
