"""Making roll-outs: what is stored, by whom, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from megarc.data import SourceConfig, open_source
from megarc.errors import UserError
from megarc.inference import Sampling
from megarc.inference.generate import continuations, generate
from megarc.science import MAKERS
from megarc.tiers import LiveStack, Rollouts, make_rollouts, makers
from megarc.tiers.rollout_layout import Tags
from megarc.tiers.rollout_shards import Shards
from megarc.tiers.rollout_writer import TierWriter
from megarc.tiers.sampling import draws
from megarc.train import hold, load_model


def test_log_probabilities_are_those_of_the_writer(built):
    """Of the middle tier's roll-outs, by a whole forward pass over what it read and wrote."""
    stored = Rollouts(built.prefix("middle", "top"))
    saved, window = load_model(built.run("middle").folder), built.run("middle").window.build()
    reading = built.reading_source("middle", "top", drop=0.0)
    source = open_source(reading, window, makers(MAKERS))
    for k in range(5):
        sample = source.read(k)
        read = torch.as_tensor(sample.tokens[: window.recent + 1])
        places = torch.as_tensor(sample.positions)
        for tokens, likely in zip(stored.tokens[k], stored.log_probabilities[k], strict=True):
            wrote = torch.as_tensor(tokens.astype(np.int64))
            text = torch.cat([read, wrote[:-1]])[None]
            with torch.no_grad():
                logits = saved.model.logits(
                    text, slice(window.recent, None), window.recent, positions=places[None, : text.shape[1]]
                )
            expected = logits[0].log_softmax(-1).gather(-1, wrote[:, None])[:, 0]
            assert np.allclose(likely, expected, atol=1e-5)


def test_greedy_roll_outs_are_what_generate_writes(built):
    saved = load_model(built.run("bottom").folder)
    window = saved.config.window.build()
    text = torch.randint(0, 100, (3, 13), generator=torch.Generator().manual_seed(0))
    greedy = Sampling(temperature=0)
    tokens, _ = continuations(saved.model, text, window.recent, torch.zeros(3, 2, 6), greedy)
    expected = generate(saved.model, text, window, 6, greedy)[:, 13:]
    assert torch.equal(tokens, expected[:, None].expand(-1, 2, -1))


def test_draws_follow_the_models_probabilities(built):
    saved = load_model(built.run("bottom").folder)
    text = torch.randint(0, 100, (1, 13), generator=torch.Generator().manual_seed(1))
    uniforms = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for sampling in (Sampling(), Sampling(temperature=0.5), Sampling(top_k=5), Sampling(never=(3, 9))):
        tokens, likely = continuations(saved.model, text, 12, uniforms.view(1, 4000, 1), sampling)
        with torch.no_grad():
            logits = saved.model.logits(text, slice(-1, None), 12)[0, 0]
        scaled = logits / sampling.temperature
        if sampling.top_k:
            scaled[scaled < scaled.topk(5).values[-1]] = float("-inf")
        scaled[list(sampling.never)] = float("-inf")
        counts = torch.bincount(tokens.flatten(), minlength=len(logits))
        assert (counts / 4000 - scaled.softmax(-1)).abs().max() < 1e-3
        assert torch.allclose(likely.flatten(), logits.log_softmax(-1)[tokens.flatten()], atol=1e-5)


def test_no_writer_draws_an_id_without_a_token(built):
    facts = open_source(built.split("top"), built.window.build(), MAKERS).facts
    writes, tags = built.tier("bottom").writes, Tags.of(facts.reserved, "text")
    saved, text = load_model(built.run("bottom").folder), np.random.default_rng(0).integers(0, 60, (40, 51))
    uniforms = draws(0, 0, np.arange(40), writes)
    for known, beyond in ((None, True), (60, False)):
        writer = TierWriter(saved, writes, tags, torch.device("cpu"), known)
        assert (writer.write(text, [], uniforms)[0].max() >= 60) == beyond
    live = LiveStack(built, facts.reserved, known=60)
    assert max(live.generate(text[0].tolist(), 20, Sampling(seed=1))) < 60


def test_no_roll_out_holds_what_frames_roll_outs(built):
    reserved = set(open_source(built.split("top"), built.window.build(), MAKERS).facts.reserved.values())
    for name in ("bottom", "middle"):
        assert not reserved & set(Rollouts(built.prefix(name, "top")).tokens.flatten().tolist())


def test_draws_are_looked_up(built):
    writes = built.tier("bottom").writes
    many = draws(3, 0, np.arange(2000), writes)
    assert many.shape == (2000, 3, 5) and many.min() >= 0 and many.max() < 1
    assert abs(many.mean() - 0.5) < 0.01
    assert (draws(3, 0, [1234], writes)[0] == many[1234]).all()
    assert (draws(3, 1, [1234], writes)[0] != many[1234]).any()


def copy(built, tmp_path, **changes):
    job = built.job("middle", "top").model_copy(update={"to": tmp_path / "copy", **changes})
    for path in Path(built.folder / "rollouts").glob("middle-for-top*"):
        shutil.copy(path, tmp_path / path.name.replace("middle-for-top", "copy"))
    return job


def test_a_killed_job_goes_on_from_its_shards(built, groups, tmp_path, monkeypatch):
    job = built.job("middle", "top").model_copy(update={"to": tmp_path / "again"})
    whole, save = Rollouts(built.prefix("middle", "top")), Shards.save

    def killed_at_the_third(shards, shard, written):
        if shard == 2:
            raise KeyboardInterrupt
        save(shards, shard, written)

    monkeypatch.setattr(Shards, "save", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        make_rollouts(job, groups, MAKERS)
    monkeypatch.undo()
    with pytest.raises(UserError, match="unfinished: 2 shards are there"):
        Rollouts(job.to)
    (tmp_path / "again.parts" / "shard-000001.npz.partial").write_bytes(b"half")
    again = make_rollouts(job, groups, MAKERS)
    assert (again.tokens == whole.tokens).all()
    assert (again.log_probabilities == whole.log_probabilities).all()
    assert not (tmp_path / "again.parts").exists()


def test_one_job_at_a_time(built, groups, tmp_path):
    job = built.job("middle", "top").model_copy(update={"to": tmp_path / "held"})
    parts = tmp_path / "held.parts"
    parts.mkdir()
    with hold(parts / "lock"), pytest.raises(UserError, match="is in use by process"):
        make_rollouts(job, groups, MAKERS)
    # What another plan left is not taken for this one's.
    (parts / "plan").write_text("another")
    (parts / "shard-000000.npz").write_bytes(b"another's")
    made = make_rollouts(job, groups, MAKERS)
    assert (made.tokens == Rollouts(built.prefix("middle", "top")).tokens).all()


def test_what_is_there_is_not_made_again_and_others_are_refused(built, groups, tmp_path):
    job = copy(built, tmp_path)
    before = (tmp_path / "copy.bin").stat().st_mtime_ns
    make_rollouts(job, groups, MAKERS)
    assert (tmp_path / "copy.bin").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"seed 0 there, 5 now"):
        make_rollouts(job.model_copy(update={"seed": 5}), groups, MAKERS)


def test_the_sidecar_tells_all(built):
    facts = json.loads(Path(f"{built.prefix('middle', 'top')}.rollouts.json").read_text())
    assert (facts["tier"], facts["samples"], facts["tokens"], facts["seed"]) == (1, 2, 4, 0)
    assert len(facts["writer"]) == len(facts["content"]) == 64 and len(facts["reads"]) == 1
    assert facts["boundaries"] == 20 and facts["window"] == [50, 6, 6]


def other(built, **changes):
    return built.reading_source("middle", "top", **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"of": SourceConfig(kind="iterated_function", options={"seed": 5}, windows=20)}, "another corpus"),
        ({"of": SourceConfig(kind="iterated_function", options={"seed": 2}, windows=19)}, "another corpus"),
        ({"rollouts": [Path("no/where")]}, "no such roll-outs"),
        ({"history": 49}, "make window.recent longer"),
    ],
)
def test_roll_outs_of_another_source_are_refused(built, changes, said):
    with pytest.raises(UserError, match=said):
        open_source(other(built, **changes), built.run("middle").window.build(), makers(MAKERS))


def test_windows_too_short_for_the_roll_outs_are_refused(built):
    window = built.run("middle").window.model_copy(update={"recent": 20}).build()
    with pytest.raises(UserError, match="roll-outs take 21 rows with their tags, and R has 20"):
        open_source(other(built), window, makers(MAKERS))
    longer = built.run("middle").window.model_copy(update={"recent": 51}).build()
    with pytest.raises(UserError, match="more rows of R than the stack's"):
        open_source(other(built), longer, makers(MAKERS))


def test_damaged_files_are_refused(built, groups, tmp_path):
    job = copy(built, tmp_path)
    for name, said in ((".bin", "cut short"), (".idx", "is damaged"), (".rollouts.json", "cannot be read")):
        path = tmp_path / f"copy{name}"
        whole = path.read_bytes()
        path.write_bytes(whole[:-7])
        with pytest.raises(UserError, match=said):
            Rollouts(job.to)
        path.write_bytes(whole)
    tokens = np.fromfile(tmp_path / "copy.bin", np.uint16)
    tokens[::-1].tofile(tmp_path / "copy.bin")
    with pytest.raises(UserError, match="are not the roll-outs that"):
        Rollouts(job.to)
    tokens.tofile(tmp_path / "copy.bin")
    (tmp_path / "copy.logp.npy").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="make the roll-outs again"):
        _ = Rollouts(job.to).log_probabilities


def test_a_tier_without_a_checkpoint_or_with_too_short_a_window_is_refused(built, groups, tmp_path):
    job = built.job("bottom", "top").model_copy(update={"to": tmp_path / "x"})
    with pytest.raises(UserError, match="no/run does not exist"):
        make_rollouts(job.model_copy(update={"writer": Path("no/run")}), groups, MAKERS)
    long = job.writes.model_copy(update={"tokens": 7})
    with pytest.raises(UserError, match="6 rows that learned to predict"):
        make_rollouts(job.model_copy(update={"writes": long}), groups, MAKERS)
