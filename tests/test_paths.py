"""Paths: one rule, relative to the working folder; what a run folder keeps is found from another one."""

from pathlib import Path

import pytest

from megarc.config import Config, PathKey, build, found_again, key, load, to_kept_yaml
from megarc.data import DataConfig
from megarc.errors import UserError
from megarc.paths import user_path
from megarc.train import RunConfig


def test_home_and_names_are_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    for given, meant in {
        "~/runs/a": "/home/me/runs/a",
        "$DISK/x": "/disk/x",
        "a/${DISK}b": "a//diskb",
        "runs/a": "runs/a",
        "a~b": "a~b",
    }.items():
        assert user_path(given) == Path(meant)
        assert load(RunConfig, None, [f"folder={given}"]).folder == Path(meant)
    for unset in ("$UNSET_NAME/x", "a/${UNSET_NAME}", "~nobody-of-that-name/x"):
        with pytest.raises(UserError, match="the path"):
            user_path(unset)
    with pytest.raises(UserError, match=r"'folder': the path '\$UNSET_NAME/x': \$UNSET_NAME is not set"):
        load(RunConfig, None, ["folder=$UNSET_NAME/x"])
    with pytest.raises(UserError, match=r"train.0.path.*\$UNSET_NAME is not set"):
        build(DataConfig, {"train": [{"path": "$UNSET_NAME"}]}, "test")


def test_a_disk_of_each_host_is_filled_in_there_and_not_before(monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    config = load(RunConfig, None, ["checkpoint.local=$TMPDIR/megarc"])
    assert config.checkpoint.local == Path("$TMPDIR/megarc")


def test_what_is_kept_is_found_from_another_folder(tmp_path, monkeypatch):
    """The prefix of a corpus and a run folder; what is nowhere stays as it is; what is here too is taken here."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        (folder / "my").mkdir(parents=True)
    (here / "my" / "train.bin").touch()
    (here / "my" / "both.bin").touch()
    (there / "my" / "both.bin").touch()
    (here / "runs" / "a").mkdir(parents=True)
    options = {"of": {"path": "my/train"}, "rollouts": ["my/train", "my/gone"], "arm": "read"}
    sources = [{"path": "my/train"}, {"path": "my/both"}, {"path": "my/gone", "options": options}]
    tree = {"folder": "runs/a", "start_from": "runs/gone", "data": {"train": sources}}
    config = build(RunConfig, tree, "test")
    monkeypatch.chdir(here)
    kept = tmp_path / "config.yaml"
    kept.write_text(to_kept_yaml(config))
    assert load(RunConfig, kept) == config
    monkeypatch.chdir(there)
    for found in (load(RunConfig, kept), found_again(config, here)):
        paths = [str(source.path) for source in found.data.train]
        assert paths == [str(here / "my/train"), "my/both", "my/gone"]
        assert found.data.train[2].options == {
            "of": {"path": str(here / "my/train")}, "rollouts": [str(here / "my/train"), "my/gone"], "arm": "read"
        }  # fmt: skip
        assert (found.folder, found.start_from) == (here / "runs/a", Path("runs/gone"))


class Tier(Config):
    data: PathKey = key(Path("x"), "")


class Stack(Config):
    tiers: dict[str, Tier] = key({}, "")


def test_paths_below_names_are_found_too(tmp_path):
    (tmp_path / "my-only-corpus.idx").touch()
    stack = build(Stack, {"tiers": {"top": {"data": "my-only-corpus"}}}, "test")
    assert found_again(stack, tmp_path).tiers["top"].data == tmp_path / "my-only-corpus"


@pytest.mark.parametrize("name", ["seed", "model.layers", "data.short_recent"])
def test_numbers_beyond_64_bits_are_named(name):
    with pytest.raises(UserError, match=f"'{name}' is an integer that needs more than 64 bits"):
        load(RunConfig, None, [f"{name}={2**64}"])
    if name == "seed":
        assert load(RunConfig, None, [f"seed={2**64 - 1}"]).seed == 2**64 - 1
