"""A number of data ranks that does not divide the batch is refused with the numbers that would do."""

from types import SimpleNamespace

import pytest

from megarc.config import load
from megarc.errors import UserError
from megarc.parallel import Topology
from megarc.train import RunConfig, resolve


def micro_of(ranks, *words):
    config = load(RunConfig, None, ["model.vocabulary=64", *words])
    return resolve(
        config, SimpleNamespace(vocabulary=None, sources=[]), Topology(1, ranks, 1, False)
    ).batch.micro


@pytest.mark.parametrize(("ranks", "micro"), [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2)])
def test_another_number_of_ranks_takes_other_parts_of_the_same_batch(ranks, micro):
    assert micro_of(ranks, "batch.size=12") == micro
    assert micro_of(ranks, "batch.size=12", "batch.micro=1") == 1


@pytest.mark.parametrize(
    ("ranks", "words", "told"),
    [
        (3, ["batch.size=16"], "3 data ranks do not divide; use 15 or 18, or 2 or 4 data ranks"),
        (5, ["batch.size=12"], "use 10 or 15, or 4 or 6 data ranks"),
        (8, ["batch.size=16", "batch.micro=4"], "use a divisor of 2, or 4 data ranks"),
        (16, ["batch.size=8"], "use 16, or 8 data ranks"),
        (3, ["batch.size=8", "batch.stages=[{at: 100 samples, size: 12}]"], "or 2 or 4 data ranks"),
    ],
)
def test_the_numbers_that_would_do_are_named(ranks, words, told):
    with pytest.raises(UserError) as error:
        micro_of(ranks, *words)
    assert told in str(error.value)
