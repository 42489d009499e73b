"""A checkpoint that somebody made: whoever writes its files writes their digests and the checksum too."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from megarc.errors import UserError
from megarc.train import load_model

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from fuzz_files import seal


@pytest.fixture
def step(small_run, tmp_path):
    return shutil.copytree(next((small_run / "checkpoints").glob("step-*")), tmp_path / "step-000000002")


def change(path, edit):
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))
    seal(path.parent)


def refused(step, words):
    with pytest.raises(UserError, match=words):
        load_model(step)


def test_sealed_anew_an_untouched_one_loads(step):
    change(step / "manifest.json", lambda tree: None)
    assert load_model(step).standing.step == 2


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "a/rank-00000.json", "rank-0.json\0"])
def test_files_are_names_of_its_folder(step, name):
    change(
        step / "manifest.json", lambda tree: tree["files"].update({name: tree["files"]["rank-00000.json"]})
    )
    refused(step, r"manifest.json is damaged: files")


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/passwd", "rank-00001.safetensors"])
def test_tensors_lie_in_a_file_that_the_manifest_lists(step, name):
    change(step / "rank-00000.json", lambda tree: tree.update(tensors=name))
    refused(step, r"rank-00000.json is damaged: tensors")


def test_no_more_elements_than_bytes(step):
    def grown(tree):
        tree["fragments"][0] |= {"shape": [1 << 40, 8], "boxes": [[0, 1 << 40, 0, 8]]}

    change(step / "rank-00000.json", grown)
    refused(step, "elements are said to lie in")


def test_a_box_lies_inside_of_its_parameter(step):
    change(step / "rank-00000.json", lambda tree: tree["fragments"][0].update(boxes=[[-4, 4, 0, 8]]))
    refused(step, "is not inside of")


def test_no_element_twice_and_another_never(step):
    """Before, what stood nowhere was whatever lay in memory."""

    def doubled(tree):
        entry = next(one for one in tree["fragments"] if one["name"] == "blocks.0.attention.out.weight")
        top, bottom, left, right = entry["boxes"][0]
        half = (top + bottom) // 2
        entry["boxes"] = [[top, half, left, right], [top, half, left, right]]

    change(step / "rank-00000.json", doubled)
    refused(step, "on disk twice and some not at all")


def test_a_model_larger_than_its_files_takes_no_memory(step):
    change(step / "manifest.json", lambda tree: tree["config"]["model"].update(layers=90_000))
    refused(step, "describes a model of .* parameters, and its files have room for")


def test_a_parameter_that_the_model_has_not(step):
    change(step / "rank-00000.json", lambda tree: tree["fragments"][0].update(name="forward"))
    refused(step, "forward")


@pytest.mark.parametrize("key", ["files", "standing", "config"])
def test_a_manifest_has_all_its_parts(step, key):
    change(step / "manifest.json", lambda tree: tree.pop(key))
    refused(step, rf"manifest.json is damaged: {key}: Field required")


def test_a_standing_has_known_parts_and_counts(step):
    change(step / "manifest.json", lambda tree: tree["standing"].update(step=-1))
    refused(step, "standing: a count is out of range")
    change(step / "manifest.json", lambda tree: tree["standing"].update(step=2, code="x"))
    refused(step, "standing.code: unknown")


def test_what_is_no_safetensors_file_is_named(step):
    tensors = step / "rank-00000.safetensors"
    assert load_file(tensors)
    tensors.write_bytes(b"\xff" * tensors.stat().st_size)
    seal(step)
    refused(step, "rank-00000.safetensors: it cannot be read")


def test_the_working_folder_is_text(step):
    change(step / "manifest.json", lambda tree: tree.update(working_folder=[]))
    refused(step, "manifest.json is damaged: working_folder")
