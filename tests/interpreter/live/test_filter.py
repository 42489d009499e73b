"""A piece stays where its output makes the text behind it likelier."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from megarc.corpus import Segment, load_tokenizer
from megarc.interpreter.live import Judge
from megarc.model import ModelConfig, Transformer, initialise
from megarc.window import Window

TOKENIZER = load_tokenizer("bytes")


class Copying(torch.nn.Module):
    """Half a nat for a token that the window has shown before its own rows of C, two nats for another."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.windows: list[tuple[list[int], slice, int]] = []

    def forward(self, tokens: torch.Tensor, rows: slice, recent: int) -> SimpleNamespace:
        (row,) = tokens.tolist()
        self.windows.append((row, rows, recent))
        seen, targets = row[: rows.start + 1], row[rows.start + 1 :]
        return SimpleNamespace(nll=torch.tensor([[0.5 if one in seen else 2.0 for one in targets]]))


def piece(code: str, output: str) -> list[Segment]:
    return [Segment("code", code, "python"), Segment("output", output)]


@pytest.mark.parametrize("window", [Window(64, 8, 8), Window(0, 72, 72)])
def test_pieces_that_help_stay(window: Window) -> None:
    helps, useless, said = piece("6*7", "42"), piece("1", "99"), piece("42", "42")
    segments = [
        Segment("text", "ab"),
        *useless,
        Segment("text", "ab"),
        *said,
        *helps,
        Segment("text", "42 xyzuv"),
    ]
    judge = Judge(Copying(), window, TOKENIZER, threshold=0.1)  # type: ignore[arg-type]
    gains = judge.gains(segments)
    assert [gain is None for gain in gains] == [True, False, True, True, False, True, False, True, True]
    assert gains[1] == 0.0 and gains[4] == 0.0 and gains[6] == 0.0  # 42 was there before already
    alone = [Segment("text", "ab"), *useless, *helps, Segment("text", "42 xyzuv")]
    gains = judge.gains(alone)
    # Weights 1, .8 of 3: both digits are 1.5 nats cheaper.
    assert gains[3] == pytest.approx(1.5 * 1.8 / 3) and gains[1] == 0.0
    kept, good, bad = judge.filtered(alone)
    assert (good, bad) == (1, 1)
    assert kept == [Segment("text", "ab"), Segment("text", "1"), *helps, Segment("text", "42 xyzuv")]
    assert Judge(Copying(), window, TOKENIZER, threshold=2.0).filtered(alone)[1] == 0  # type: ignore[arg-type]


def test_nothing_behind_a_piece_gains_nothing_and_windows_fit() -> None:
    model = Copying()
    judge = Judge(model, Window(20, 3, 3), TOKENIZER)  # type: ignore[arg-type]
    assert judge.gains(piece("1", "2")) == [0.0, None]
    assert (
        judge.gains([Segment("text", "x" * 500), *piece("1", "2"), Segment("text", "2345678")])[1] is not None
    )
    for row, rows, recent in model.windows:
        assert len(row) <= 24 and recent == rows.start <= 20 and rows.stop - rows.start <= 3


def test_losses_are_a_models() -> None:
    config = ModelConfig(layers=1, hidden=32, heads=4, vocabulary=TOKENIZER.vocabulary_size)
    model = Transformer(config)
    initialise(model, config, 0)
    judge = Judge(model.eval(), Window(16, 8, 8), TOKENIZER)
    gain = judge.gains([*piece("6*7", "42"), Segment("text", " is it")])[0]
    assert gain is not None and gain != 0.0 and abs(gain) < 5
