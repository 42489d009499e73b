"""Nothing behind the boundary is seen before it; and the test would find it."""

import numpy as np
import pytest

from megarc.corpus import IndexedWriter, dtype_for
from megarc.data import SourceConfig, WindowConfig, open_source
from megarc.science import MAKERS
from megarc.tiers import Rollouts, check_leaks, make_rollouts
from megarc.tiers.leak_test import Leak, Tampered
from megarc.tiers.rollout_job import Job


def test_no_leak_in_the_stored_files(built):
    lines = list(check_leaks(built, MAKERS))
    assert len(lines) == 3 + 2 + 3 and all("every" in line for line in lines)


def test_every_token_behind_the_boundary_is_another(built):
    source, window = open_source(built.split("top"), built.window.build(), MAKERS), built.window.build()
    k = np.arange(20)
    one, other = source.read_many(k).tokens, Tampered(source, window).read_many(k).tokens
    assert (one[:, :51] == other[:, :51]).all() and (one[:, 51:] != other[:, 51:]).all()


def test_a_writer_that_sees_a_token_too_many_is_found(built, monkeypatch):
    write = Job.write

    def peeping(job, boundaries, text=None):
        if text is None:
            return write(job, boundaries)
        return write(job, boundaries, np.roll(text, -1, axis=1))  # the boundary is a token further

    monkeypatch.setattr(Job, "write", peeping)
    with pytest.raises(Leak, match="see beyond the boundary"):
        list(check_leaks(built, MAKERS))


def test_on_a_text_a_changed_token_changes_later_boundaries_only(built, groups, tmp_path, monkeypatch):
    """End to end: another text on disk, another file of roll-outs, compared boundary by boundary."""
    from megarc.tiers import rollout_job

    text = np.random.default_rng(0).integers(0, 110, 400)
    at = 12 + 6 * 20 + 1  # the first token behind boundary 20 of windows [12 | 6]
    other = text.copy()
    other[at:] = (other[at:] + 1 + np.random.default_rng(1).integers(0, 109, len(text) - at)) % 110
    tags = rollout_job.Tags.of(
        open_source(built.split("top"), built.window.build(), MAKERS).facts.reserved, "the task"
    )
    # a bare corpus has no manifest that tells them
    monkeypatch.setattr(rollout_job.Tags, "of", lambda *_: tags)
    made = []
    for name, tokens in (("one", text), ("other", other)):
        with IndexedWriter(tmp_path / name, dtype_for(125)) as writer:
            writer.add(tokens)
            writer.finish()
        job = built.job("bottom", "top").model_copy(
            update={
                "of": SourceConfig(path=tmp_path / name),
                "window": WindowConfig(recent=12, causal=6, stride=6),
                "to": tmp_path / f"rollouts-{name}",
            }
        )
        made.append(make_rollouts(job, groups, MAKERS))
    same = (made[0].tokens == made[1].tokens).all(axis=(1, 2))
    assert len(same) == Rollouts(tmp_path / "rollouts-one").facts.boundaries == 64
    assert same[:21].all() and not same[21:].all()
    assert (made[0].log_probabilities[:21] == made[1].log_probabilities[:21]).all()
