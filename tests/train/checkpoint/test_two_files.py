"""A rank that holds much writes two files side by side: together they are its state, for whoever reads it."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from support.runs import config

from megarc.config import build
from megarc.errors import UserError
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.science import MAKERS
from megarc.train import RunConfig, open_train, resolve
from megarc.train.checkpoint import (
    Level,
    Saver,
    Standing,
    full_masters,
    held,
    latest,
    load,
    newest_local,
    save,
)
from megarc.train.engine import build_engine


@pytest.fixture(scope="module")
def engine():
    groups = connect(meet(ALONE), "cpu")
    keys = build(RunConfig, config("unused", 1, 4), "test")
    yield build_engine(resolve(keys, open_train(keys, MAKERS), groups.topology), groups)
    disconnect()


@pytest.fixture
def saved(engine, tmp_path, monkeypatch):
    """A folder of two files a rank, and a copy of the state that it holds; the engine's is then overwritten."""
    monkeypatch.setattr(save, "_LARGE", 0)
    for fragment in held(engine):
        for tensor in fragment.state.values():
            tensor.normal_()
    saver = Saver(engine.groups, background=False)
    saver.save(engine, Standing(3, 24), {"config": {}}, Level.shared(tmp_path, engine.groups, keep=1))
    state = {(one.name, part): tensor.clone() for one in held(engine) for part, tensor in one.state.items()}
    for fragment in held(engine):
        for tensor in fragment.state.values():
            tensor.fill_(-1)
    return latest(tmp_path), state


def test_both_are_in_the_manifest_and_half_of_the_bytes_in_each(saved):
    sizes = {name: facts["size"] for name, facts in saved[0].manifest["files"].items()}
    stems = ("rank-00000", "rank-1000000")
    assert sizes.keys() == {f"{stem}.{kind}" for stem in stems for kind in ("json", "safetensors")}
    one, two = (sizes[f"{stem}.safetensors"] for stem in stems)
    assert abs(one - two) < 0.1 * one
    assert {path.name for path in saved[0].folder.iterdir()} == {*sizes, "manifest.json"}


def test_what_is_loaded_is_what_was_saved(saved, engine):
    checkpoint, state = saved
    assert load(checkpoint, engine).step == 3
    found = {(one.name, part): tensor for one in held(engine) for part, tensor in one.state.items()}
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    masters = dict(full_masters(checkpoint))
    assert all(torch.equal(masters[name], state[name, part]) for name, part in state if part == "master")


def test_weights_alone_leave_the_moments_at_zero(saved, engine):
    checkpoint, state = saved
    load(checkpoint, engine, moments=False)
    for fragment in held(engine):
        for part, tensor in fragment.state.items():
            wanted = state[fragment.name, part] if part == "master" else torch.zeros_like(tensor)
            assert torch.equal(tensor, wanted), (fragment.name, part)


@pytest.mark.parametrize("name", ["rank-00000", "rank-1000000"])
@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_damage_to_any_of_them_is_named(saved, engine, name, kind):
    path = saved[0].folder / f"{name}.{kind}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} is damaged: its digest"):
        load(saved[0], engine)


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_what_a_disk_does_not_give_is_named_and_a_host_of_its_own_looks_elsewhere(
    saved, engine, kind, monkeypatch
):
    bad, read = saved[0].folder / f"rank-1000000.{kind}", os.preadv

    def failing(descriptor, *rest):
        if Path(f"/proc/self/fd/{descriptor}").readlink() == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, *rest)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(UserError, match=f"{bad} cannot be read: .*Input/output error; bring it back"):
        load(saved[0], engine)
    local = Level(saved[0].folder.parent, members=(0,), keep=1)
    assert newest_local(local, engine, None) is None
    monkeypatch.undo()
    assert newest_local(local, engine, None) == saved[0]


def test_a_second_file_that_is_missing_is_named(saved):
    (saved[0].folder / "rank-1000000.safetensors").unlink()
    with pytest.raises(UserError, match=r"rank-1000000.safetensors should have .* and is missing"):
        latest(saved[0].folder.parent)


def test_small_states_are_one_file(engine, tmp_path):
    saver = Saver(engine.groups, background=False)
    saver.save(engine, Standing(1, 8), {"config": {}}, Level.shared(tmp_path, engine.groups, keep=1))
    assert json.loads((latest(tmp_path).folder / "rank-00000.json").read_text())["others"] == []
    assert len(latest(tmp_path).manifest["files"]) == 2
