"""What the samples of skipped steps say, read again from the run's training data."""

from __future__ import annotations

import re
from collections.abc import Mapping

from megarc.corpus import load_tokenizer
from megarc.data import Maker
from megarc.errors import UserError
from megarc.report.run_page.history import RunHistory
from megarc.train import find_checkpoint, open_train, tokenizer_file

_SAMPLES = re.compile(r"\bsamples (\d+)\.\.")
_MOST_STEPS = 20
_SHOWN = 300  # characters


def skipped_texts(run: RunHistory, makers: Mapping[str, Maker] | None = None) -> dict[int, str]:
    """By skipped step, how its first sample begins: text, or ids where the run's tokenizer is not at hand.

    Empty where nothing was skipped, and where the log's numbers cannot be looked up any more: the data are gone, or
    the run has begun a new phase with other data.
    """
    found: dict[int, str] = {}
    if not run.skipped:
        return found
    try:
        stream = open_train(run.config, makers)
        standing = find_checkpoint(run.folder.path).standing
        path = tokenizer_file(run.folder.checkpoints / "any", run.config)
        tokenizer = None if path is None else load_tokenizer(path)
    except UserError:
        return found
    if standing.phase or standing.begin:
        return found
    for _, step, words in run.skipped[:_MOST_STEPS]:
        number = _SAMPLES.search(words)
        if number is None or int(number[1]) >= len(stream):
            continue
        ids = stream.read(int(number[1]), 1).tokens[0].tolist()
        text = str(ids) if tokenizer is None else tokenizer.decode(ids)
        found[step] = f"sample {number[1]}: {text[:_SHOWN]}"
    return found
