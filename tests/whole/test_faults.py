"""The campaign of kills, in short: what `benchmarks/faults.py` does a hundred times."""

import json

from support.scripts import python


def test_killed_again_and_again_a_run_is_what_it_would_have_been(tmp_path):
    out = tmp_path / "faults.json"
    layouts = "dp2-z2,another at each start"
    python("benchmarks/faults.py", "--kills", 8, "--each", 4, "--layouts", layouts, "--out", out, timeout=400)
    result = json.loads(out.read_bytes())
    assert result["kills"] == 8 and result["runs"] == result["equal"] == 2
