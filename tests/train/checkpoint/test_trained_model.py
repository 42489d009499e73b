"""Which checkpoint a path means."""

from pathlib import Path

import pytest

from megarc.errors import UserError
from megarc.train import find_checkpoint

RUN = Path(__file__).parent / "run_of_0.1.0" / "run"


def test_a_run_a_checkpoint_and_the_folder_of_checkpoints():
    newest = find_checkpoint(RUN).folder
    assert newest.parent == RUN / "checkpoints"
    assert find_checkpoint(newest).folder == newest
    with pytest.raises(UserError, match=f"give the run folder, {RUN}"):
        find_checkpoint(RUN / "checkpoints")
