"""Any Hugging Face causal model as the bottom tier. The one file that uses transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from megarc.corpus.indexed.digest import file_digest
from megarc.errors import UserError
from megarc.inference import look_up
from megarc.tiers.config import WritesConfig
from megarc.tiers.rollout_layout import Tags, Tokens
from megarc.tiers.rollout_store import Written
from megarc.tiers.sampling import sampling_of


class HuggingFaceWriter:
    """A folder that ``AutoModelForCausalLM`` reads, with the tokenizer's file in it.

    Args:
        tokenizer: digest of the one that the text was packed with; None where unknown.
        known: its tokens; None: as many as the model has ids.

    Raises:
        UserError: where transformers is missing, the folder is none, or its tokenizer is another.
    """

    def __init__(
        self,
        folder: Path,
        writes: WritesConfig,
        tags: Tags,
        device: torch.device,
        tokenizer: str | None,
        known: int | None = None,
    ) -> None:
        try:
            from transformers import AutoModelForCausalLM
        except ImportError:
            raise UserError(
                f"{folder} is a Hugging Face model, which needs: pip install transformers"
            ) from None
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} with a Hugging Face model")
        _same_tokenizer(folder, tokenizer)
        try:
            self.model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} cannot be read as a Hugging Face causal model: {error}") from None
        self.model = self.model.to(device).eval()
        self.device = device
        self.vocabulary = int(self.model.config.vocab_size)
        self.sampling = sampling_of(writes, tags, known, self.vocabulary)
        self.positions = getattr(self.model.config, "max_position_embeddings", None)
        self.digest = _digest(folder)

    @torch.inference_mode()
    def write(
        self, text: Tokens, below: Sequence[tuple[int, Tokens]], uniforms: npt.NDArray[np.float64]
    ) -> Written:
        """As ``Writer`` says; ``below`` is empty, for nothing stands below."""
        batch, count, length = uniforms.shape
        if self.positions is not None:
            text = text[:, -max(1, self.positions - length) :]
        given = torch.as_tensor(text).repeat_interleave(count, 0).to(self.device)
        numbers = torch.as_tensor(uniforms).reshape(batch * count, length).to(self.device)
        past, tokens, likely = None, [], []
        for place in range(length):
            out = self.model(input_ids=given, past_key_values=past, use_cache=True)
            past, logits = out.past_key_values, out.logits[:, -1]
            drawn = look_up(logits, self.sampling, numbers[:, place])
            tokens.append(drawn)
            likely.append(logits.float().log_softmax(-1).gather(-1, drawn[:, None])[:, 0])
            given = drawn[:, None]
        shape = (batch, count, length)
        found = (torch.stack(part, 1).reshape(shape).cpu().numpy() for part in (tokens, likely))
        return next(found), next(found)


def _same_tokenizer(folder: Path, wanted: str | None) -> None:
    if wanted is None:
        return
    candidates = [path for name in ("tokenizer.json", "*.model") for path in sorted(folder.glob(name))]
    if not any(file_digest(path) == wanted for path in candidates):
        found = ", ".join(path.name for path in candidates) or "none"
        raise UserError(
            f"{folder} has no tokenizer file that is the one the text was packed with (found: {found}); "
            "pack the text with the model's tokenizer.json"
        )


def _digest(folder: Path) -> str:
    """Of the weights' files and the configuration."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), folder / "config.json"])
    each = [f"{path.name} {file_digest(path)}" for path in files if path.exists()]
    return hashlib.sha256("\n".join(each).encode()).hexdigest()
