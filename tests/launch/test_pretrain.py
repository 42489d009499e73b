"""`launch/pretrain.py`, the page: what it makes of a run's end."""

import runpy

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
