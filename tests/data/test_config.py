import pytest

from megarc.config import load
from megarc.data import DataConfig, SourceConfig
from megarc.errors import UserError


@pytest.mark.parametrize("given", ["train=my/train", "train=[my/train]", "train=[{path: my/train}]"])
def test_a_prefix_stands_for_a_source(given):
    assert load(DataConfig, None, [given]).train == load(DataConfig, None, ["train=[{path: my/train}]"]).train


def test_prefixes_and_sources_mix():
    config = load(DataConfig, None, ["train=[a, {path: b, weight: 2}]"])
    assert [(str(source.path), source.weight) for source in config.train] == [("a", 1.0), ("b", 2.0)]
    assert all(isinstance(source, SourceConfig) for source in config.train)


def test_a_colon_without_a_space_is_explained():
    with pytest.raises(UserError, match=r"a space belongs after the colon: \{path: my/train\}"):
        load(DataConfig, None, ["train=[{path:my/train}]"])
