"""The tokenizer of a model from elsewhere."""

from __future__ import annotations

from pathlib import Path

from megarc.corpus import TokenizerFacts, load_tokenizer
from megarc.errors import UserError
from megarc.inference.huggingface.read_config import Foreign


def own_tokenizer(folder: Path, foreign: Foreign) -> tuple[Path, TokenizerFacts] | None:
    """The file of the tokenizer in ``folder`` and what it says of itself; None where there is none.

    Raises:
        UserError: where it cannot be read, or has tokens that the model does not know.
    """
    names = ("tokenizer.json", "tokenizer.model")
    file = next((path for name in names if (path := folder / name).exists()), None)
    if file is None:
        return None
    facts = load_tokenizer(file).facts()
    if facts.vocabulary_size > foreign.model.tokens:
        raise UserError(
            f"{file} has {facts.vocabulary_size} tokens, and config.json says {foreign.model.tokens}: it is "
            "the tokenizer of another model"
        )
    return file, facts
