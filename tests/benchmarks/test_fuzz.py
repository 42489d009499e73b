"""The campaigns of wrong configurations and of hostile files, in short."""

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import fuzz_configs
import fuzz_files


def test_wrong_configurations_end_in_words_that_help():
    found = fuzz_configs.Found()
    fuzz_configs.campaign(250, 27, found, keep=lambda: None)
    assert not found.failures
    assert sum(some["could start"] for some in found.outcomes.values()) > 10 and len(found.messages) > 100


def test_a_campaign_goes_on_where_it_was_stopped(tmp_path):
    whole, parts = fuzz_configs.Found(), fuzz_configs.Found()
    fuzz_configs.campaign(60, 3, whole, keep=lambda: None)
    fuzz_configs.campaign(25, 3, parts, keep=lambda: parts.write(tmp_path / "found.json", "some"))
    parts = fuzz_configs.Found.of(json.loads((tmp_path / "found.json").read_bytes()))
    fuzz_configs.campaign(60, 3, parts, keep=lambda: None)
    assert (parts.mutants, parts.outcomes) == (60, whole.outcomes)


def test_keys_of_the_first_source_of_a_list_take_part():
    tree = fuzz_configs.Tree(fuzz_configs.RunConfig, fuzz_configs.BASE)
    text = tree._text({"data.train.weight": "-1"})
    assert "- kind: pointer_chase\n    weight: -1\n" in text and fuzz_configs.BASE["data"]["train"][
        0
    ].keys() == {"kind"}


def test_what_helps_is_told_from_what_does_not():
    mutant = fuzz_configs.Mutant(b"", [], ["batch.size"], "value")
    assert fuzz_configs.judged("batch.size is 0; use 1 or more", mutant, ["batch.size"]) == "refused"
    assert "BAD" in fuzz_configs.judged("batch.size is 0", mutant, ["batch.size"])
    assert "BAD" in fuzz_configs.judged("it is wrong; use another", mutant, ["batch.size"])


def test_hostile_files_do_no_harm(small_run, tmp_path):
    run = shutil.copytree(small_run, tmp_path / "run")
    outcomes, failures = fuzz_files.campaign(tmp_path, run, files=180, seed=27)
    assert not failures
    assert len(outcomes) == 9 and all(some["refused"] for some in outcomes.values())


def test_what_a_reader_does_is_watched(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")

    def read():
        import pickle  # noqa: TID251

        return pickle.loads(b"cos\ngetpid\n.")  # noqa: S301

    target = fuzz_files.Target(path, lambda content, _: content, read)
    assert "pickle.find_class" in fuzz_files.one(target, None, fuzz_files.Watch())


@pytest.mark.parametrize("seconds", [1])
def test_a_hang_is_seen(seconds):
    with pytest.raises(TimeoutError), fuzz_configs.hang_after(seconds):
        while True:
            pass
