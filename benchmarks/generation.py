"""How fast texts are written: by launch/generate.py's loop, as it was before the loop, and by transformers.

    python benchmarks/generation.py                docs/generation.md's table: 64 prompts, configs/models/10M.yaml
    python benchmarks/generation.py --prompts 4 --tokens 6 --repeats 1     that it runs

Prompts of 8 to 120 tokens; a text ends before a stop string that one token in 64 completes, or after 96 tokens. All
write greedily in this process, in turn, with the threads of OMP_NUM_THREADS; seconds are CPU time, the best of
--repeats. Tokens are those that the answers keep.

one by one      a loop of launch/generate.py --prompt at commit 9d81290: its ``generate`` of one text, kept below
alike together  its --prompts at that commit (with --interpreter): 32 texts, those with equally long windows together
transformers    ``generate`` of the exported model: batches of 16 in the file's order, padded on the left; tokens that
                complete the stop string end a sequence
roll-outs       ``continuations`` of 128 beginnings, K roll-outs of m tokens each, before and now
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from options import options

from megarc.attention import Cache, attend_cached
from megarc.config import load
from megarc.errors import run_script
from megarc.inference import Sampling, Writing, continuations, export, write
from megarc.model import ModelConfig, Transformer, initialise, record_of
from megarc.report import table
from megarc.train import RunConfig
from megarc.window import Window

ROOT = Path(__file__).resolve().parents[1]
GREEDY = Sampling(temperature=0)
ROLLOUTS = {
    "2 layers of 64, window 112 + 16, K 2": (ModelConfig(layers=2, hidden=64, heads=4, vocabulary=2048), 112, 2, 16),
    "4 layers of 128, window 256 + 64, K 4": (ModelConfig(layers=4, hidden=128, heads=4, vocabulary=4096), 256, 4, 64),
    "4 layers of 128, window 256 + 64, K 8": (ModelConfig(layers=4, hidden=128, heads=4, vocabulary=4096), 256, 8, 64),
}  # fmt: skip


def main() -> int:
    parser = options(__doc__, "generation.json")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow", type=int, help="prompts that the arms of before answer: the first (all)")
    parser.add_argument(
        "--part", choices=("texts", "rollouts"), help="this part alone; the results keep the other's"
    )
    arguments = parser.parse_args()
    facts = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    facts |= {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
              "torch": torch.__version__}  # fmt: skip
    if arguments.part != "rollouts":
        facts["texts"] = texts(arguments)
    if arguments.part != "texts":
        facts["rollouts"] = rollouts(arguments)
    arguments.out.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


def texts(arguments: argparse.Namespace) -> dict:
    """Tokens a CPU second of each arm."""
    config = load(RunConfig, ROOT / "configs/models/10M.yaml", ["model.vocabulary=8192"]).model
    # Wider initial weights: texts do not fall into a loop at once, and no two tokens are as likely as each other.
    model = made(config.model_copy(update={"initial_std": 0.1}))
    window, job = Window.plain(256), Job(arguments.prompts, arguments.tokens)
    with tempfile.TemporaryDirectory() as folder:
        theirs = exported(model, window, Path(folder))
    arms = {
        "transformers, batch 16": lambda: by_transformers(theirs, job),
        "before, one by one": lambda: one_by_one(model, window, job.first(arguments.slow)),
        "before, alike together": lambda: alike_together(model, window, job.first(arguments.slow)),
        "now, the loop": lambda: by_the_loop(model, window, job),
    }
    found = measured(arms, arguments.repeats)
    everything = found["now, the loop"][1]
    assert all(some == everything[: len(some)] for _, some in found.values()), "the texts differ"
    kept = sum(map(len, everything))
    rows = {name: {"tokens_per_second": sum(map(len, some)) / seconds, "prompts": len(some)}
            for name, (seconds, some) in found.items()}  # fmt: skip
    now = rows["now, the loop"]["tokens_per_second"]
    print(table(["", "tokens/CPU-s", "the loop is faster by"],
                [[name, round(row["tokens_per_second"]), f"{now / row['tokens_per_second']:.2f}"]
                 for name, row in rows.items()]))  # fmt: skip
    return {"tokens": kept, "prompts": arguments.prompts, "most_tokens": arguments.tokens, "greedy_texts_equal": True,
            "arms": rows}  # fmt: skip


def rollouts(arguments: argparse.Namespace) -> dict:
    """Tokens a CPU second, before and now."""
    boundaries, found = max(2, 2 * arguments.prompts), {}
    for name, shape in ROLLOUTS.items():
        found[name] = rolled(*shape, boundaries, arguments.repeats)
    rows = [[name, round(old), round(new), f"{new / old:.2f}"] for name, (old, new) in found.items()]
    print(table(["roll-outs", "before, tokens/CPU-s", "now", "ratio"], rows))
    return found


class Job:
    """Prompts, and the ids that end a text."""

    def __init__(self, prompts: int, tokens: int) -> None:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(8, 121, (prompts,), generator=generator).tolist()
        self.prompts = [torch.randint(1, 8192, (length,), generator=generator).tolist() for length in lengths]
        self.ends, self.tokens = set(range(64, 8192, 64)), tokens

    def first(self, count: int | None) -> Job:
        """The same job with the first prompts alone."""
        job = copy.copy(self)
        job.prompts = self.prompts[:count]
        return job

    def cut(self, new: list[int]) -> list[int]:
        """``new`` up to the first end, with it."""
        return new[: next((place + 1 for place, one in enumerate(new) if one in self.ends), self.tokens)]


def made(config: ModelConfig) -> Transformer:
    model = Transformer(config)
    initialise(model, config, 1)
    return model.eval()


def measured(arms: dict[str, Callable[[], list]], repeats: int) -> dict[str, tuple[float, list]]:
    """Least CPU seconds of each arm, in turn, and what it gave."""
    found = {}
    for _ in range(repeats):
        for name, arm in arms.items():
            begun = time.process_time()
            result = arm()
            seconds = time.process_time() - begun
            print(f"{name}: {seconds:.2f} s of CPU", file=sys.stderr, flush=True)
            found[name] = (min(seconds, found[name][0] if name in found else seconds), result)
    return found


def by_the_loop(model: Transformer, window: Window, job: Job) -> list[list[int]]:
    texts = [
        Writing(ids, job.tokens, number, ends=lambda new: new[-1] in job.ends)
        for number, ids in enumerate(job.prompts)
    ]
    list(write(model, iter(texts), window, GREEDY))
    return [text.new for text in texts]


# ---- as it was at 9d81290


@torch.inference_mode()
def one_by_one(model: Transformer, window: Window, job: Job) -> list[list[int]]:
    """``generate`` of each prompt: a window begins with the newest tokens, each further one is a row of the cache."""
    found = []
    for prompt in job.prompts:
        text = torch.tensor([prompt])
        end, ended = len(prompt) + job.tokens, False
        while text.shape[1] < end and not ended:
            begun, room = window.opening(text.shape[1])
            cache = model.empty_cache(1, window.rows)
            recent = min(window.recent, begun - 1)
            logits = model.logits(text[:, -begun:], slice(-1, None), recent, cache=cache)[:, 0]
            for place in range(room):
                drawn = logits.float().argmax(-1)
                text = torch.cat((text, drawn[:, None]), dim=1)
                ended = int(drawn) in job.ends
                if ended or text.shape[1] == end or place == room - 1:
                    break
                logits = model.logits(text[:, -1:], slice(-1, None), 0, cache=cache)[:, 0]
        found.append(text[0, len(prompt) :].tolist())
    return found


@torch.inference_mode()
def alike_together(model: Transformer, window: Window, job: Job) -> list[list[int]]:
    """``write_together`` of 32 texts at once: those whose windows begin with equally many tokens are a batch."""
    texts = [list(prompt) for prompt in job.prompts]
    for first in range(0, len(texts), 32):
        some = range(first, min(first + 32, len(texts)))
        active = list(some)
        while active:
            alike: dict[int, list[int]] = {}
            for one in active:
                alike.setdefault(window.opening(len(texts[one]))[0], []).append(one)
            for begun, numbers in alike.items():
                room = window.opening(len(texts[numbers[0]]))[1]
                left = max(job.tokens - len(texts[n]) + len(job.prompts[n]) for n in numbers)
                drawn = window_of(model, window, [texts[n][-begun:] for n in numbers], min(room, left), job)
                for number, row in zip(numbers, drawn, strict=True):
                    texts[number] += job.cut(row)[
                        : job.tokens - len(texts[number]) + len(job.prompts[number])
                    ]
            active = [
                n for n in some
                if texts[n][-1] not in job.ends and len(texts[n]) < len(job.prompts[n]) + job.tokens
            ]  # fmt: skip
    return [text[len(prompt) :] for text, prompt in zip(texts, job.prompts, strict=True)]


def window_of(
    model: Transformer, window: Window, texts: list[list[int]], room: int, job: Job
) -> list[list[int]]:
    """Up to ``room`` tokens more of each; fewer once each has drawn an end."""
    begun, ends = len(texts[0]), torch.tensor(sorted(job.ends))
    cache = model.empty_cache(len(texts), begun + room)
    logits = model.logits(torch.tensor(texts), slice(-1, None), min(window.recent, begun - 1), cache=cache)[
        :, 0
    ]
    tokens, ended = [], torch.zeros(len(texts), dtype=torch.bool)
    for place in range(room):
        drawn = logits.float().argmax(-1)
        logits.float().log_softmax(-1).gather(-1, drawn[:, None])
        tokens.append(drawn)
        ended |= torch.isin(drawn, ends)
        if bool(ended.all()) or place == room - 1:
            break
        logits = model.logits(drawn[:, None], slice(-1, None), 0, cache=cache)[:, 0]
    return torch.stack(tokens, 1).tolist()


class Repeated(Cache):
    """A cache where each text of another stands several times, as roll-outs were made from."""

    def __init__(self, other: Cache, times: int, rows: int) -> None:
        layers, batch, kv_heads, _, head_dim = other.k.shape
        held = other.length
        super().__init__(layers, batch * times, kv_heads, held + rows, head_dim, other.k.dtype, "cpu")
        for own, theirs in ((self.k, other.k), (self.v, other.v)):
            own[:, :, :, :held] = theirs[:, :, :, :held].repeat_interleave(times, dim=1)
        self._held = [held] * layers

    def attend(self, layer, q, k, v, seen, heads):
        k, v = self.append(layer, k, v)
        return attend_cached(q, k, v, 0, engine=heads.engine)


@torch.inference_mode()
def continuations_before(model, beginning, recent, uniforms, sampling):
    batch, count, length = uniforms.shape
    cache = model.empty_cache(batch, beginning.shape[1])
    logits = model.logits(beginning, slice(-1, None), recent, cache=cache)[:, 0]
    cache, logits = Repeated(cache, count, length), logits.repeat_interleave(count, 0)
    numbers, tokens, likely = uniforms.reshape(batch * count, length), [], []
    for place in range(length):
        allowed = logits.float() / sampling.temperature
        allowed = allowed.index_fill(-1, torch.tensor(sampling.never), float("-inf"))
        upto = allowed.double().softmax(-1).cumsum(-1)
        total = upto[:, -1:]
        wanted = torch.minimum(
            numbers[:, place, None] * total, torch.nextafter(total, torch.zeros_like(total))
        )
        drawn = torch.searchsorted(upto, wanted, right=True)[:, 0]
        tokens.append(drawn)
        likely.append(logits.float().log_softmax(-1).gather(-1, drawn[:, None])[:, 0])
        if place + 1 < length:
            logits = model.logits(drawn[:, None], slice(-1, None), 0, cache=cache)[:, 0]
    return torch.stack(tokens, 1).reshape(batch, count, -1), torch.stack(likely, 1)


def rolled(
    config: ModelConfig, recent: int, count: int, length: int, batch: int, repeats: int
) -> tuple[float, float]:
    """Tokens a CPU second of roll-outs, before and now."""
    model = made(config.model_copy(update={"initial_std": 0.1}))
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(0, config.tokens, (batch, recent + 1), generator=generator)
    uniforms = torch.rand(batch, count, length, dtype=torch.float64, generator=generator)
    sampling = Sampling(never=tuple(range(6)))

    def parts(function):
        return [function(model, text[n : n + 64], recent, uniforms[n : n + 64], sampling)[0].tolist()
                for n in range(0, batch, 64)]  # fmt: skip

    found = measured(
        {"before": lambda: parts(continuations_before), "now": lambda: parts(continuations)}, repeats
    )
    (before, old), (after, new) = found["before"], found["now"]
    same = (torch.tensor(old[0]) == torch.tensor(new[0])).float().mean()
    assert same > 0.99, f"only {same:.3f} of the tokens are those of before"
    return batch * count * length / before, batch * count * length / after


# ---- the peer


def exported(model: Transformer, window: Window, folder: Path):
    """The model as transformers reads it."""
    from transformers import AutoModelForCausalLM

    parameters = ((name, value.detach().flatten()) for name, value in model.named_parameters())
    assert all(record_of(value).shape for value in model.parameters())
    export(parameters, model.config, window, folder, layout="huggingface")
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@torch.inference_mode()
def by_transformers(model, job: Job) -> list[list[int]]:
    found = []
    for first in range(0, len(job.prompts), 16):
        some = job.prompts[first : first + 16]
        longest = max(map(len, some))
        ids = torch.tensor([[0] * (longest - len(one)) + one for one in some])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in some])
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=job.tokens, do_sample=False, pad_token_id=0,
            eos_token_id=sorted(job.ends),
        )  # fmt: skip
        found += [job.cut(row) for row in out[:, longest:].tolist()]
    return found


if __name__ == "__main__":
    run_script(main)
