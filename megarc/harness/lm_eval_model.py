"""A model for lm-eval (EleutherAI): what it asks for, by the windows in which our models read and write.

The prompt is R and the continuation C, or with ``mask=causal`` no row is R. This is the one file that imports
lm_eval, which is the extra ``lm-eval``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from megarc.corpus import load_tokenizer
from megarc.data import Pair
from megarc.errors import UserError
from megarc.inference import Prompt, Sampling, StopStrings, answers, likelihoods
from megarc.train import (
    SavedModel,
    end_of_document,
    find_tokenizer,
    load_model,
    padding_ids,
    same_tokenizer,
)

# Before datasets is imported, which reads them once: tasks are local, nothing is fetched.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
try:
    import lm_eval
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.tasks import TaskManager
except ImportError as error:
    raise UserError(f"lm-eval's tasks need: pip install 'megarc[lm-eval]' ({error})") from None

log = logging.getLogger("megarc")

_TOKENS = 256  # that an answer may have where a task does not say


@register_model("megarc")
class MegarcLM(TemplateLM):
    """A run, or a checkpoint in it.

    Args:
        run: its folder.
        mask: ``window``, or ``causal``: the same windows without R.
        tokenizer: its file; the run's own unless given.
        device: cpu, or cuda, also with a number; CUDA where there is one unless given.
        batch_size, max_batch_size: taken, and without effect: passes are filled by rows.
    """

    def __init__(
        self,
        run: str | Path | SavedModel,
        mask: str = "window",
        tokenizer: str | Path | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if mask not in ("window", "causal"):
            raise UserError(f"mask is {mask!r}; it must be window or causal")
        saved = run if isinstance(run, SavedModel) else load_model(Path(run), device or _device_here())
        self._tokenizer = load_tokenizer(tokenizer or find_tokenizer(saved))
        same_tokenizer(saved, self._tokenizer, "the tokenizer")
        self._model, self._window = saved.model, saved.config.window.build()
        self._causal, self._end = mask == "causal", end_of_document(saved, self._tokenizer)
        self._never = padding_ids(saved, self._tokenizer)

    @property
    def eot_token_id(self) -> int:
        """The token between documents; an empty context is this token."""
        return self._end

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's cache of requests is named after."""
        return self._tokenizer.digest

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **keys: Any) -> list[int]:
        """Ids; there are no special ones to add."""
        ids: list[int] = self._tokenizer.encode(string).tolist()
        return ids

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **keys: Any
    ) -> list[tuple[float, bool]]:
        pairs = [Pair(context or [self._end], continuation) for _, context, continuation in requests]
        return [(one.nats, one.greedy) for one in self._likelihoods(pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, each behind a token between documents; windows move by their stride."""
        pairs = [Pair([self._end], self.tok_encode(request.args[0])) for request in requests]
        return [one.nats for one in self._likelihoods(pairs)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to a stop string of their own; the end of a document ends each too."""
        if self._causal and self._window.recent:
            raise UserError("mask=causal scores what is given; tasks that generate need mask=window")
        groups: dict[tuple[Any, ...], list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(_rules(request.args[1]), []).append(number)
        found = [""] * len(requests)
        for (stops, tokens, temperature, top_p), numbers in groups.items():
            sampling = Sampling(temperature, top_p=top_p, stop=self._end, never=self._never)
            prompts = [
                Prompt(n, "", self.tok_encode(requests[n].args[0]) or [self._end], tokens) for n in numbers
            ]
            rule = StopStrings(self._tokenizer, stops)
            for one in answers(self._model, self._tokenizer, prompts, self._window, sampling, rule):
                found[one["id"]] = one["text"]
        return found

    def _likelihoods(self, pairs: Sequence[Pair]) -> list[Any]:
        return likelihoods(self._model, pairs, self._window, causal=self._causal, never=self._never)


def _device_here() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _rules(keys: dict[str, Any]) -> tuple[tuple[str, ...], int, float, float]:
    """Stop strings, tokens at most, temperature and top_p of a request."""
    until = keys.get("until") or []
    stops = tuple(one for one in ([until] if isinstance(until, str) else until) if one)
    temperature = float(keys.get("temperature", 0.0)) if keys.get("do_sample", True) else 0.0
    return stops, int(keys.get("max_gen_toks", _TOKENS)), temperature, float(keys.get("top_p", 1.0))


def run_lm_eval(
    saved: SavedModel,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    causal: bool = False,
    tokenizer: Path | None = None,
) -> dict[str, dict[str, float]]:
    """lm-eval's metrics of each task: the numbers, by name without the filter ``none``.

    Args:
        tasks: names; or YAML files, whose tasks are the only ones that are then known.
        folder: a folder of task files that are known beside lm-eval's own.

    Raises:
        UserError: where a task is not known, or its data are not on this machine.
    """
    folder, names = _known(tasks, folder)
    manager = TaskManager(
        include_path=None if folder is None else str(folder), include_defaults=folder is None
    )
    model = MegarcLM(saved, "causal" if causal else "window", tokenizer)
    try:
        found: Any = lm_eval.simple_evaluate(
            model=model, tasks=names, task_manager=manager, bootstrap_iters=0, log_samples=False
        )
    except (KeyError, ValueError, OSError, ConnectionError) as error:
        raise UserError(
            f"lm-eval could not run {', '.join(names)}: {error}; tasks must be known and their data local"
        ) from error
    return {name: _numbers(metrics) for name, metrics in found["results"].items()}


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        key.removesuffix(",none"): float(value)
        for key, value in metrics.items()
        if isinstance(value, int | float) and "stderr" not in key and "," in key
    }


def _known(tasks: Sequence[str], folder: Path | None) -> tuple[Path | None, list[str]]:
    """The folder of task files, and the tasks' names."""
    import yaml

    names = []
    for task in tasks:
        if not task.endswith((".yaml", ".yml")):
            names.append(task)
            continue
        path = Path(task)
        try:
            text = path.read_text(encoding="utf-8")
            facts = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  (it makes nothing but text)
            names.append(str(facts["task"]))
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a task of lm-eval: {error}") from None
        if folder not in (None, path.parent):
            raise UserError(f"{path} lies beside other task files than {folder}; give one folder at a time")
        folder = path.parent
    return folder, names


def command() -> None:
    """lm-eval's own command line, with the model ``megarc``."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
