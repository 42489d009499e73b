"""Prompts answered by a model: as dictionaries that become JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from megarc.corpus import Tokenizer
from megarc.inference.generate import SLOTS, Writing, write
from megarc.inference.prompts import Prompt
from megarc.inference.sampling import Sampling
from megarc.inference.stop_strings import StopStrings, added
from megarc.model import Transformer
from megarc.window import Window


def answers(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    window: Window,
    sampling: Sampling,
    stops: StopStrings,
    *,
    numbers: Sequence[int] | None = None,
    logprobs: bool = False,
    slots: int = SLOTS,
    progress: Callable[[int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Each prompt's answer as soon as it has ended, with the keys id, prompt, text, tokens and end.

    ``text`` ends before the stop string or the end of the document; ``end`` says what ended it: ``stop_string``,
    ``end_of_document`` or ``length``.

    Args:
        numbers: of the prompts, where they are some of many: they decide the draws.
        logprobs: the keys ``ids`` and ``logprobs`` too: each token drawn, and its log-probability in nats.
    """

    def texts() -> Iterator[Writing]:
        for place, prompt in enumerate(prompts):
            number = place if numbers is None else numbers[place]
            text = Writing(prompt.ids, prompt.tokens, number, sampling.seed, sampling.stop)
            text.ends = lambda new, ids=prompt.ids: stops.ended(ids, new)
            asked[id(text)] = prompt
            yield text

    asked: dict[int, Prompt] = {}
    for text in write(model, texts(), window, sampling, slots=slots, progress=progress):
        prompt, new = asked.pop(id(text)), text.new
        ended = new[-1] == sampling.stop
        whole = added(tokenizer, prompt.ids, new[:-1] if ended else new)
        cut = stops.cut(whole)
        end = "end_of_document" if ended else "stop_string" if len(cut) < len(whole) else "length"
        answer: dict[str, Any] = {"id": prompt.name, "prompt": prompt.text, "text": cut}
        answer |= {"tokens": len(new), "end": end}
        if logprobs:
            answer |= {"ids": new, "logprobs": text.likely}
        yield answer
