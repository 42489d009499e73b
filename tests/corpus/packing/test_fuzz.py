"""Some hundreds of the fuzz campaign's mutations; ``benchmarks/fuzz_corpus.py`` runs ten thousand."""

import importlib.util
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[3] / "benchmarks" / "fuzz_corpus.py"


@pytest.fixture(scope="module")
def fuzz():
    sys.path.insert(0, str(CAMPAIGN.parent))  # as for a script
    spec = importlib.util.spec_from_file_location("fuzz_corpus", CAMPAIGN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(CAMPAIGN.parent))
    return module


def test_damage_ends_in_a_right_answer_or_a_clear_error(fuzz, tmp_path):
    counts, failures = fuzz.campaign(tmp_path, 300, seed=1)
    assert not failures
    assert all(sum(some.values()) >= 30 for some in counts.values())
    assert sum(some["right answer"] for some in counts.values()) > 20
