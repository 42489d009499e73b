"""A trained model out of a run folder, whole, on one process: for evaluation, generation, export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import torch

from megarc.config import WORKING_FOLDER, build, found_again
from megarc.corpus import Tokenizer, TokenizerFacts, find_tokenizer_file
from megarc.data import WindowConfig
from megarc.errors import UserError
from megarc.model import Transformer, cost_of, named_values, narrowed, record_of, splits
from megarc.parallel import TensorParallel
from megarc.train.checkpoint.layout import MANIFEST, Checkpoint, latest, open_checkpoint
from megarc.train.checkpoint.load import full_masters
from megarc.train.config import RunConfig
from megarc.train.folder import RunFolder, beside_corpora, kept_facts, of_corpora
from megarc.train.run_position import Standing
from megarc.train.schedule import Lengths


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model in evaluation mode, the configuration of its run, and where the run stood."""

    model: Transformer
    config: RunConfig
    standing: Standing
    checkpoint: Path


def find_checkpoint(path: Path) -> Checkpoint:
    """The newest checkpoint of a run folder, or the folder of one, whatever its name.

    Raises:
        UserError: where there is none, or it is not whole.
    """
    if (path / MANIFEST).exists() or path.name.startswith("step-"):
        return open_checkpoint(path)
    newest = latest(RunFolder(path).checkpoints)
    if newest is None and (path / "model.safetensors").exists():
        raise UserError(
            f"{path} holds an exported model, not a run; give the folder of the run that it was made from"
        )
    if newest is None:
        if RunFolder(path.parent).checkpoints == path and latest(path) is not None:
            raise UserError(
                f"{path} is the folder of a run's checkpoints; give the run folder, {path.parent}"
            )
        what = "has no whole checkpoint; has the run saved yet?" if path.is_dir() else "does not exist"
        raise UserError(f"the run folder {path} {what}")
    return newest


def run_config(checkpoint: Checkpoint) -> RunConfig:
    """The configuration of the run that saved it; its relative paths are found from other working folders too."""
    config = build(RunConfig, checkpoint.manifest["config"], str(checkpoint.folder / MANIFEST))
    folder = checkpoint.manifest.get(WORKING_FOLDER)
    return config if folder is None else found_again(config, Path(folder))


def load_model(
    path: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tensor: TensorParallel | None = None,
    *,
    average: bool = False,
    widths: Sequence[Fraction] | None = None,
) -> SavedModel:
    """The model of ``find_checkpoint(path)``.

    Args:
        tensor: this rank's place among those that the model is split over; None: it is whole.
        average: with the weights that the run averaged.
        widths: cut out of a nested model, one for all layers or one for each; None: it is whole.

    Raises:
        UserError: as that does, or where ``device`` is not there, the model cannot be split so, the run kept no
            average, or the model does not have this width.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda is asked for, but torch sees no GPU here; use cpu")
    found = find_checkpoint(path).check()
    config = run_config(found)
    if config.window.stages:
        config = _as_it_stood(config, found.standing.samples)
    _check_size(found, config)
    parameters = full_masters(found, average=average)
    if widths is not None:
        narrow, cut = narrowed(config.model, widths)
        config = config.model_copy(update={"model": narrow})
        parameters = ((name, cut(name, values)) for name, values in parameters)
    for split in splits(config.model) if tensor is not None else []:
        if tensor is not None and not split.fits(tensor.size):
            raise UserError(
                f"{split.key} is {split.number}, which {tensor.size} tensor ranks cannot share out"
            )
    model = Transformer(config.model, tensor=tensor)
    missing = dict(named_values(model))
    with torch.no_grad():
        for name, values in parameters:
            parameter = missing.pop(name, None)
            if parameter is None or values.numel() != torch.Size(record_of(parameter).shape).numel():
                raise UserError(
                    f"{found.folder}: {name} is not a parameter of its manifest's model; use another copy"
                )
            parameter.copy_(_own_part(parameter, values))
    if missing:
        raise UserError(f"{found.folder} lacks {min(missing)} of its manifest's model; use another copy")
    return SavedModel(model.to(device, dtype).eval(), config, found.standing, found.folder)


def _check_size(checkpoint: Checkpoint, config: RunConfig) -> None:
    """Before memory is taken: the manifest's model must not be larger than what its files can hold."""
    stored = sum(facts["size"] for facts in checkpoint.manifest["files"].values()) // 4
    told = cost_of(config.model, config.window.build()).parameters
    if told > stored:
        raise UserError(
            f"{checkpoint.folder}: its manifest describes a model of {told} parameters, and its files have room for "
            f"{stored}; it is damaged, use another copy"
        )


def _own_part(parameter: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a parameter's full ``values``, 1-D."""
    record = record_of(parameter)
    if not record.split:
        return values.view(parameter.shape)
    full = values.view(record.shape)
    return torch.cat([full[box.top : box.bottom, box.left : box.right] for box in record.boxes])


def _as_it_stood(config: RunConfig, samples: int) -> RunConfig:
    """``config`` with the window of the stage that the run stood in after ``samples`` samples, and no stages."""
    window = Lengths(config).shapes.piece(max(0, samples - 1)).window
    own = WindowConfig(recent=window.recent, causal=window.causal, stride=window.stride)
    return config.model_copy(update={"window": own})


class Vocabulary(Protocol):
    """A tokenizer, or what a manifest says of one."""

    @property
    def vocabulary_size(self) -> int:
        """Ids lie below it."""

    @property
    def digest(self) -> str:
        """SHA-256 of its file."""


def same_tokenizer(saved: SavedModel, tokenizer: Vocabulary | None, what: str) -> None:
    """Refuses a text or a tokenizer that the model was not trained with.

    Args:
        tokenizer: of ``what``; None where it is unknown.

    Raises:
        UserError: where vocabularies, or the tokenizers' digests, differ.
    """
    if tokenizer is None:
        return
    known = saved.config.model.tokens
    facts = tokenizer_facts(saved)
    digest = saved.standing.tokenizer or (facts.digest if facts else None)
    # An imported model may have more ids than its tokenizer has tokens.
    fewer = tokenizer.vocabulary_size < known and digest == tokenizer.digest
    if tokenizer.vocabulary_size != known and not fewer:
        raise UserError(
            f"{what} has a vocabulary of {tokenizer.vocabulary_size}, the model of {saved.checkpoint} one of "
            f"{known}; use the tokenizer that the model was trained with"
        )
    if digest not in (None, tokenizer.digest):
        raise UserError(
            f"{what} is of another tokenizer than the text which the model of {saved.checkpoint} was trained on "
            f"(SHA-256 {digest}), though of the same size; use that one"
        )


def tokenizer_facts(saved: SavedModel) -> TokenizerFacts | None:
    """What is known of the tokenizer that it was trained with: the run folder says it, or else the corpora."""
    return kept_facts(_tokenizer_folder(saved.checkpoint)) or of_corpora(saved.config.data)


def padding_ids(saved: SavedModel, tokenizer: Vocabulary) -> tuple[int, ...]:
    """Ids that the model has and ``tokenizer`` has not: an imported model's vocabulary may be padded."""
    return tuple(range(tokenizer.vocabulary_size, saved.config.model.tokens))


def end_of_document(saved: SavedModel, tokenizer: Tokenizer) -> int:
    """The token that ended documents where the model was trained, or else the tokenizer's own.

    Raises:
        UserError: where neither is known.
    """
    facts = tokenizer_facts(saved)
    if facts is not None and facts.end_of_document is not None:
        return facts.end_of_document
    return tokenizer.end_of_document


def find_tokenizer(saved: SavedModel) -> Path:
    """The tokenizer's file: in the run folder or beside a training corpus; the word ``bytes`` for that one.

    Raises:
        UserError: where none is found.
    """
    found = tokenizer_file(saved.checkpoint, saved.config, tokenizer_facts(saved))
    if found is None:
        raise UserError(
            f"the run's tokenizer is neither in {_tokenizer_folder(saved.checkpoint)} nor beside its corpora; "
            "copy it there, or give it with --tokenizer-model"
        )
    return found


def tokenizer_file(checkpoint: Path, config: RunConfig, facts: TokenizerFacts | None = None) -> Path | None:
    """The same, for a checkpoint's folder; None where none is found."""
    folder = _tokenizer_folder(checkpoint)
    facts = facts or kept_facts(folder) or of_corpora(config.data)
    if facts is None:
        return None
    if facts.kind == "bytes":
        return Path("bytes")
    return find_tokenizer_file(folder, facts.digest) or beside_corpora(config.data, facts)


def ended_by(checkpoint: Path, config: RunConfig) -> int | None:
    """The token that ended documents where a checkpoint's model was trained; None where that is not known."""
    facts = kept_facts(_tokenizer_folder(checkpoint)) or of_corpora(config.data)
    return None if facts is None else facts.end_of_document


def _tokenizer_folder(checkpoint: Path) -> Path:
    return RunFolder(checkpoint.absolute().parents[1]).tokenizer
