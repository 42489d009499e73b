"""Each split layer alone against torch.nn's own, values and gradients, on real ranks."""

import pytest
from support.ranks import run_jobs


@pytest.mark.parametrize("world", [2, 4])
def test_split_layers_equal_torchs(world, tmp_path):
    jobs = [{"do": "layers", "sequence": sequence} for sequence in (False, True)]
    assert run_jobs(jobs, world, tmp_path).count("layers agree") == 2
