"""`launch/pretrain.py`, the page: what it makes of a run's end."""

import runpy

import pytest
from support.scripts import ROOT

from megarc.train import RunFolder


def test_a_run_without_a_loss_ends_well_without_a_plot(tmp_path, monkeypatch, capsys):
    """``length=0 steps`` saves initial weights; it was finished, and exited as a user's mistake."""
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    draw = runpy.run_path(str(ROOT / "launch/pretrain.py"), run_name="page")["draw"]
    folder = RunFolder(tmp_path / "none")
    folder.path.mkdir()
    folder.metrics.write_bytes(b"")
    draw(folder)
    assert "no plot: the run none has logged no loss yet" in capsys.readouterr().err
    folder.metrics.write_bytes(b'{"step": 1, "processed_tokens": 8, "train/nats_per_token": 2.0}\n')
    draw(folder)
    assert (folder.plots / "loss.png").exists()


@pytest.mark.parametrize("word", ["0", "1", "-3", "x"])
def test_a_half_of_verified_steps_is_one_at_least(word, monkeypatch, capsys):
    """0 steps trained the run, and 1 ended in a traceback."""
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    page = runpy.run_path(str(ROOT / "launch/pretrain.py"), run_name="page")
    with pytest.raises(SystemExit):
        page["parser"]().parse_args([f"--verify-determinism={word}"])
    assert f"'{word}' is not a whole number of 2 or more" in capsys.readouterr().err
    assert page["parser"]().parse_args(["--verify-determinism", "2"]).verify_determinism == 2
