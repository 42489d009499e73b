"""The search for the micro-batch: on made-up memories, then on the real engine with memory that really ends."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import processes

from megarc.batchsize import Forecast, Trial, knee, search, usable

ROOT = Path(__file__).parents[2]


def trial(size, fits=True, seconds=None):
    return Trial(size, "none", fits, size, 1, seconds or 0.1 + 0.01 * size)


@given(st.integers(0, 300), st.integers(1, 256))
def test_finds_the_edge_of_memory_to_an_eighth(room, largest):
    tried = []

    def attempt(size):
        tried.append(size)
        return trial(size, fits=size <= room)

    found = search(attempt, largest)
    assert [one.size for one in found] == sorted(set(tried)) and max(tried) <= largest
    fitting = [one.size for one in found if one.fits]
    edge = min(room, largest)
    assert (max(fitting, default=0) == edge) or edge - max(fitting) <= max(1, max(fitting) // 8)
    # Beyond what doubling meets first, nothing that cannot fit is tried again and again.
    assert len(tried) <= 2 + 2 * max(1, largest).bit_length()


@given(st.integers(2, 3000), st.integers(1, 400), st.floats(0.5, 2.0), st.integers(0, 50))
def test_a_forecast_finds_the_same_edge_in_fewer_trials(limit, largest, wrong, fixed):
    """The forecast is ``wrong`` by a factor; trials correct it. What fits is 7 bytes a sample beside ``fixed``."""

    def memory(size):
        return fixed + 7 * size

    def run(forecast):
        tried = []

        def attempt(size):
            tried.append(size)
            fits = memory(size) <= limit
            return Trial(size, "none", fits, memory(size) if fits else None, 1, 0.1 if fits else None)

        return search(attempt, largest, forecast), tried

    edge = min(largest, (limit - fixed) // 7)
    _, without = run(None)
    found, tried = run(Forecast(lambda size: wrong * memory(size), limit))
    fitting = [one.size for one in found if one.fits]
    assert max(fitting, default=0) == max(0, edge) or edge - max(fitting) <= max(1, max(fitting) // 8)
    assert [one.size for one in found] == sorted(set(tried)) and all(one.predicted for one in found)
    assert len(tried) <= len(without) + 1
    # once a trial fitted, the forecast is exact: no other is beyond the memory
    if edge >= 1 and len(found) > 1:
        assert all(one.fits for one in found)


def test_the_knee_is_the_smallest_that_is_about_as_fast_as_any():
    trials = [trial(size) for size in (1, 2, 4, 8, 16, 32, 64)]
    rates = {one.size: one.samples_per_second for one in trials}
    best = knee(trials, 0.15)
    assert rates[best.size] >= 0.85 * max(rates.values()) > rates[best.size // 2]
    assert knee(trials, 0.0).size == 64
    assert knee([trial(1, fits=False)], 0.1) is None


def test_only_divisors_of_a_ranks_share_can_be_taken():
    assert [one.size for one in usable([trial(size) for size in (1, 2, 3, 4, 6, 8)], 12)] == [1, 2, 3, 4, 6]


# ---- the real engine

CONFIG = """
window: {recent: 24, causal: 16}
model: {layers: 1, hidden: 32, heads: 2, vocabulary_multiple: 32768}
data: {train: [{kind: pointer_chase}]}
batch: {size: 32}
tune: {micro: {recompute: [none], repeats: 1}}
"""

# The kernel's own limit on the address space, 100 MiB above what size 1 took: allocations beyond it fail, as on
# a device that is full.
OUT_OF_MEMORY = """
import json, resource, sys
from pathlib import Path
from megarc.batchsize import Probe, StudyConfig, search
from megarc.config import load
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import read_rank_environment
from megarc.science import MAKERS
from datetime import timedelta

study = load(StudyConfig, Path(sys.argv[1]), ["tune.micro.memory_gib=1000"])
groups = connect(meet(read_rank_environment(), timedelta(seconds=60)), "cpu")
probe = Probe(study.run(), groups, MAKERS, "none", study.tune.micro)
probe.attempt(1)
pages = int(Path("/proc/self/statm").read_text().split()[0])
room = pages * resource.getpagesize() + 100 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
found = search(probe.attempt, 4096)
disconnect()
print(json.dumps([[one.size, one.fits] for one in found]))
"""


def run(*words, code=0):
    line = [sys.executable, *map(str, words)]
    done = processes.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


def test_memory_that_runs_out_is_recovered_from(config, tmp_path):
    script = tmp_path / "out_of_memory.py"
    script.write_text(OUT_OF_MEMORY)
    found = json.loads(run(script, config).splitlines()[-1])
    fitting, failing = ([size for size, fits in found if fits is wanted] for wanted in (True, False))
    assert max(fitting) >= 4 and min(failing) > max(fitting)
    assert min(failing) - max(fitting) <= max(1, max(fitting) // 8)


def test_a_limit_by_key_holds(config, tmp_path):
    words = ["launch/tune_batch.py", "micro", "--config", config, f"tune.folder={tmp_path}/study"]
    said = run(*words, "tune.micro.largest=4096", "tune.micro.memory_gib=0.6")
    found = [Trial(**one) for one in json.loads((tmp_path / "study" / "micro.json").read_text())["trials"]]
    fitting = [one for one in found if one.fits]
    assert fitting and all(one.memory <= 0.6 * 2**30 and one.seconds > 0 for one in fitting)
    assert not found[-1].fits
    assert "does not fit" in said and "<- taken" in said
    assert (tmp_path / "study" / "micro.png").stat().st_size > 5000
    assert "not even a micro-batch of 1 fits" in run(*words, "tune.micro.memory_gib=0.01", code=2)
