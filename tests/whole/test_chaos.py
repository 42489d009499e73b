"""The campaign of faults of all kinds, in short: what `benchmarks/chaos.py` does for hours."""

import json

import pytest
from support.scripts import python


@pytest.mark.timeout(900)  # of a machine that is shared
def test_faults_of_many_kinds_leave_a_run_equal(tmp_path):
    out = tmp_path / "chaos.json"
    kinds = "signal,disk flip,memory flip,clock,full disk"
    python(
        "benchmarks/chaos.py",
        "--faults",
        5,
        "--layouts",
        "dp2-z2",
        "--kinds",
        kinds,
        "--out",
        out,
        timeout=880,
    )
    (run,) = json.loads(out.read_bytes())["runs"]
    assert run["verdict"] == "equal" and set(run["met"]) == set(kinds.split(","))
