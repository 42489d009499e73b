"""What a run's configuration takes from its data."""

import pytest
from support.pairs import write_pairs

from megarc.config import build
from megarc.errors import UserError
from megarc.parallel import Topology
from megarc.science import MAKERS
from megarc.train import RunConfig, open_train, resolve

TASK = {"kind": "late_clue"}  # 27 ids


def vocabulary_of(asked, *sources):
    tree = {"length": "4 steps", "window": {"recent": 24, "causal": 16}, "model": {"vocabulary": asked},
            "batch": {"size": 8}, "data": {"train": list(sources)}}  # fmt: skip
    config = build(RunConfig, tree, "test")
    return resolve(config, open_train(config, MAKERS), Topology()).model.vocabulary


def test_a_corpus_that_does_not_state_its_ids_may_need_more_than_a_task_beside_it(tmp_path):
    write_pairs(tmp_path / "pairs")  # 39 ids, which its manifest does not state
    corpus = {"path": str(tmp_path / "pairs")}
    assert vocabulary_of(None, TASK) == 27 and vocabulary_of(40, corpus) == 40
    assert vocabulary_of(40, TASK, corpus) == 40
    with pytest.raises(UserError, match=r"model.vocabulary is 40, but the data has 27 ids"):
        vocabulary_of(40, TASK)
    with pytest.raises(UserError, match=r"model.vocabulary is 20, but the data has 27 ids"):
        vocabulary_of(20, TASK, corpus)
