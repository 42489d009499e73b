"""The campaign of kills, in short: what `benchmarks/faults.py` does a hundred times."""

import json

import pytest
from support.scripts import python


@pytest.mark.timeout(900)  # of a machine that is shared
def test_killed_again_and_again_a_run_is_what_it_would_have_been(tmp_path):
    out = tmp_path / "faults.json"
    layouts = "dp2-z2,another at each start"
    python("benchmarks/faults.py", "--kills", 8, "--each", 4, "--layouts", layouts, "--out", out, timeout=880)
    result = json.loads(out.read_bytes())
    assert result["kills"] == 8 and result["runs"] == result["equal"] == 2
