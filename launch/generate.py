"""Continues a text with a trained model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import whole_number, widths
from megarc.errors import UserError, run_script
from megarc.interpreter.options import add_interpreter_options, open_interpreters
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.corpus import Tokenizer
    from megarc.inference import Prompt, Sampling
    from megarc.interpreter.live import Written
    from megarc.parallel import Groups
    from megarc.progress import Bar
    from megarc.train import SavedModel

EXAMPLES = """examples:
  python launch/generate.py --run runs/mine --prompt 'def main('
  python launch/generate.py --run runs/mine --prompt 'Once' --tokens 400 --temperature 0.8 --top-p 0.95
  python launch/generate.py --run runs/mine --prompt-file story.txt --temperature 0
  cat story.txt | python launch/generate.py --run runs/mine --prompt - --refresh 16
  python launch/generate.py --tiers runs/tiers/two --prompt 'import '
  python launch/generate.py --run runs/mine --prompt '123*456' --interpreter python,coq
  python launch/generate.py --run runs/mine --prompts questions.jsonl --to answers.jsonl --tokens 64 --stop $'\\n\\n'
  torchrun --nproc-per-node 2 -- launch/generate.py --run runs/large --prompts questions.jsonl --to answers.jsonl
  torchrun --nproc-per-node 4 -- launch/generate.py --run runs/long --context 4 --prompt-file book.txt
  python launch/generate.py --run runs/mine --prompts questions.jsonl --interpreter python > answers.jsonl

--prompts takes JSON lines with the key prompt, and optionally id and tokens. Texts of all lengths are generated side
by side; an answer is a JSON line with the keys id, prompt, text, tokens and end (stop_string, end_of_document or
length), with --logprobs also ids and logprobs (nats, under the model itself). With --to, the same command
resumes a killed one. Several ranks (torchrun) share one model by tensor parallelism; of these, --context K share the
rows of each window, with the keys and values of a long R. See docs/generation.md.

With --tiers, every tier of a stack writes its roll-outs where the text ends, bottom first; the top tier continues
by up to c tokens (--refresh), and all write again. The tokenizer is the one that the run's corpus was packed with;
--tokenizer-model gives its file if it was moved.

With --interpreter, each piece of code that the model completes is run in a sandbox, and its output is appended to the
text. The model cannot draw <out>: what follows it comes from the interpreter. With --prompts too, the answers are
JSON lines with the keys prompt, text (marked) and calls, in the order of the prompts. See docs/interpreter.md."""

_TOGETHER = 32  # texts that are written at once


def main() -> int:
    arguments = parser().parse_args()
    check(arguments)
    from megarc.inference import ranks_in_use

    with ranks_in_use(arguments.device, arguments.context) as groups:
        if groups is not None and (arguments.tiers or arguments.interpreter):
            raise UserError(
                "--tiers and --interpreter run on one rank; start them with python, without a launcher"
            )
        return generate(arguments, groups)


def check(arguments: argparse.Namespace) -> None:
    """Options that do not go together."""
    if arguments.interpreter or arguments.tiers:
        for name in ("to", "stop", "logprobs"):
            if getattr(arguments, name):
                raise UserError(f"--{name} goes with one model without an interpreter; leave it out")
    if (arguments.to or arguments.logprobs) and not arguments.prompts:
        raise UserError("--to and --logprobs go with --prompts FILE; give that")
    if arguments.tiers and (arguments.average or arguments.width):
        raise UserError("--average and --width go with one model; give --run, not --tiers")
    if arguments.tiers and arguments.prompts:
        raise UserError("--prompts goes with one model; give --run, not --tiers")
    if arguments.tiers and arguments.repetition_penalty != 1:
        raise UserError("--repetition-penalty goes with one model; give --run, not --tiers")


def generate(arguments: argparse.Namespace, groups: Groups | None) -> int:
    """Answers on standard output, or in a file."""
    from megarc.corpus import load_tokenizer
    from megarc.inference import Sampling
    from megarc.parallel import TensorParallel
    from megarc.train import end_of_document, find_tokenizer, load_model, padding_ids, same_tokenizer

    saved = load_model(
        arguments.run or top_run(arguments.tiers),
        arguments.device,
        tensor=TensorParallel.of(groups) if groups else None,
        average=arguments.average,
        widths=arguments.width,
    )
    tokenizer = load_tokenizer(arguments.tokenizer_model or find_tokenizer(saved))
    same_tokenizer(saved, tokenizer, "the tokenizer")
    sampling = Sampling(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        refresh=arguments.refresh,
        stop=None if arguments.no_stop else end_of_document(saved, tokenizer),
        never=padding_ids(saved, tokenizer),
        min_p=arguments.min_p,
        repetition=arguments.repetition_penalty,
    )
    if arguments.interpreter:
        interpret(arguments, saved, tokenizer, sampling)
    elif arguments.prompts:
        answer_all(arguments, saved, tokenizer, sampling, groups)
    else:
        print_one(arguments, saved, tokenizer, sampling, groups)
    return 0


def print_one(
    arguments: argparse.Namespace,
    saved: SavedModel,
    tokenizer: Tokenizer,
    sampling: Sampling,
    groups: Groups | None,
) -> None:
    """One prompt and what follows it."""
    from megarc.inference import StopStrings, Writing, write
    from megarc.progress import progress

    prompt = read_prompt(arguments)
    ids = tokenizer.encode(prompt).tolist()
    if not ids:
        raise UserError("the prompt is empty; give --prompt some text")
    stops = StopStrings(tokenizer, arguments.stop)
    first = groups is None or groups.first
    quiet = not sys.stderr.isatty() or not first
    with progress("generating", arguments.tokens, unit="tokens", quiet=quiet) as bar:
        if arguments.tiers:
            text = through_tiers(arguments, tokenizer, ids, sampling, bar)
        else:
            one = Writing(ids, arguments.tokens, 0, sampling.seed, sampling.stop)
            one.ends = lambda new: stops.ended(ids, new)
            window = saved.config.window.build()
            list(write(saved.model, [one], window, sampling, slots=1, progress=bar.advance))
            text = one.ids
    if first:
        whole, head = tokenizer.decode(text), tokenizer.decode(ids)
        print(head + stops.cut(whole[len(head) :]) if whole.startswith(head) else whole)


def answer_all(
    arguments: argparse.Namespace,
    saved: SavedModel,
    tokenizer: Tokenizer,
    sampling: Sampling,
    groups: Groups | None,
) -> None:
    """The answers to --prompts, into --to or in the prompts' order on standard output."""
    from dataclasses import asdict

    from megarc.inference import Answers, StopStrings, answers, digest, read_prompts
    from megarc.parallel import broadcast_object, together
    from megarc.parallel.tensor import ALONE
    from megarc.progress import progress

    group = groups.world if groups else ALONE
    first = group.rank == 0
    prompts = together(lambda: read_prompts(arguments.prompts, tokenizer, arguments.tokens), group)
    stops = StopStrings(tokenizer, arguments.stop)
    job = {
        "model": str(saved.checkpoint.absolute()),
        "prompts": digest(*(f"{one.name!r} {one.tokens} {one.text}" for one in prompts)),
        "sampling": json.loads(json.dumps(asdict(sampling))),
        "stop": arguments.stop,
        "logprobs": arguments.logprobs,
    }
    file = together(lambda: Answers(arguments.to, job) if arguments.to and first else None, group)
    done = broadcast_object(list(file.done) if file else [], group)
    missing = [number for number, one in enumerate(prompts) if one.name not in set(done)]
    total = sum(one.tokens for one in prompts)
    begun = sum(prompts[number].tokens for number in range(len(prompts))) - sum(
        prompts[n].tokens for n in missing
    )
    with ExitStack() as stack:
        lines = stack.enter_context(file.writing()) if file else None
        ordered = InOrder(prompts, first and not arguments.to)
        bar = stack.enter_context(progress("generating", total, done=begun, unit="tokens", quiet=not first))
        for answer in answers(
            saved.model, tokenizer, [prompts[number] for number in missing], saved.config.window.build(),
            sampling, stops, numbers=missing, logprobs=arguments.logprobs, slots=arguments.slots,
            progress=bar.advance,
        ):  # fmt: skip
            if lines:
                lines.add(answer)
            ordered.add(answer)
    if file:
        file.finish([one.name for one in prompts])


class InOrder:
    """Prints answers in the order of their prompts, as soon as those before them are there."""

    def __init__(self, prompts: Sequence[Prompt], speaks: bool) -> None:
        self._names, self._speaks = [one.name for one in prompts], speaks
        self._waiting: dict[Any, Any] = {}

    def add(self, answer: dict[str, Any]) -> None:
        self._waiting[answer["id"]] = answer
        while self._speaks and self._names and self._names[0] in self._waiting:
            print(json.dumps(self._waiting.pop(self._names.pop(0)), ensure_ascii=False), flush=True)


def interpret(
    arguments: argparse.Namespace, saved: SavedModel, tokenizer: Tokenizer, sampling: Sampling
) -> None:
    """Texts with code that is run: one, or those of --prompts as JSON lines."""
    from megarc.inference import read_prompts
    from megarc.progress import progress

    if arguments.prompts:
        prompts = [one.text for one in read_prompts(arguments.prompts, tokenizer, arguments.tokens)]
    else:
        prompts = [read_prompt(arguments)]
    total = arguments.tokens * len(prompts)
    with progress("generating", total, unit="tokens", quiet=not sys.stderr.isatty()) as bar:
        written = with_interpreter(arguments, saved, tokenizer, prompts, sampling, bar)
        for prompt, one in zip(prompts, written, strict=True):
            print(
                answer(prompt, one, tokenizer) if arguments.prompts else in_words(arguments, one, tokenizer)
            )


def through_tiers(
    arguments: argparse.Namespace, tokenizer: Tokenizer, ids: Any, sampling: Sampling, bar: Bar
) -> Iterable[int]:
    """Ids ``ids`` [p], continued by a stack."""
    from megarc.tiers import LiveStack, open_stack

    stack = LiveStack(
        open_stack(arguments.tiers),
        tokenizer.reserved,
        tokenizer.digest,
        arguments.device,
        tokenizer.vocabulary_size,
    )
    return stack.generate(list(ids), arguments.tokens, sampling, progress=bar.advance)


def with_interpreter(
    arguments: argparse.Namespace,
    saved: SavedModel,
    tokenizer: Tokenizer,
    prompts: list[str],
    sampling: Sampling,
    bar: Bar,
) -> Iterator[Written]:
    """Each of ``prompts``, continued by one model and by the output of its code."""
    from megarc.interpreter.live import Machine, write_together

    if arguments.tiers:
        raise UserError("--interpreter goes with one model; give --run, not --tiers")
    languages, sandbox = open_interpreters(arguments, arguments.interpreter)
    machine = Machine(sandbox, languages, arguments.calls)
    window = saved.config.window.build()
    # Each text keeps its interpreters until its batch ends.
    for first in range(0, len(prompts), _TOGETHER):
        ids = [tokenizer.encode(prompt).tolist() for prompt in prompts[first : first + _TOGETHER]]
        yield from write_together(
            saved.model,
            ids,
            window,
            arguments.tokens,
            tokenizer,
            machine,
            sampling,
            first=first,
            progress=bar.advance,
        )


def in_words(arguments: argparse.Namespace, written: Written, tokenizer: Tokenizer) -> str:
    """A text as marked text; its calls go to standard error."""
    for call in written.calls:
        status = call.outcome.status if call.outcome else f"not run: {arguments.calls} calls are the limit"
        print(f"{call.language}: {status}", file=sys.stderr)
    return written.marked(tokenizer)


def answer(prompt: str, written: Written, tokenizer: Tokenizer) -> str:
    """A text as a line of JSON."""
    calls = [
        {"language": call.language, "status": call.outcome.status if call.outcome else "not run"}
        for call in written.calls
    ]
    return json.dumps({"prompt": prompt, "text": written.marked(tokenizer), "calls": calls})


def top_run(stack: Path) -> Path:
    """The run folder of a stack's top tier."""
    from megarc.tiers import open_stack

    plan = open_stack(stack)
    return plan.run(plan.top).folder


def read_prompt(arguments: argparse.Namespace) -> str:
    """The prompt's text: given, in a file, or from standard input."""
    if arguments.prompt not in (None, "-"):
        return str(arguments.prompt)
    place = arguments.prompt_file or "standard input"
    try:
        read = sys.stdin.buffer.read() if arguments.prompt else arguments.prompt_file.read_bytes()
        return read.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt from {place} is not UTF-8: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read the prompt from {place}: {error.strerror}") from None


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=user_path, help="run folder, or a checkpoint in it")
    model.add_argument("--tiers", type=user_path, help="folder of a stack of tiers, or its YAML file")
    parser.add_argument(
        "--average", action="store_true", help="use the run's averaged weights (average.decay, .last_k)"
    )
    parser.add_argument(
        "--width",
        type=widths,
        metavar="W[,W]",
        help="width of a nested model, or one for each layer (the widest)",
    )
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", help="text to continue; - reads standard input")
    prompt.add_argument("--prompt-file", type=user_path, metavar="FILE", help="a file with that text")
    prompt.add_argument(
        "--prompts",
        type=user_path,
        metavar="FILE",
        help="JSON lines with the key prompt; also id, tokens",
    )
    parser.add_argument("--to", type=user_path, metavar="FILE", help="write the answers to --prompts there")
    parser.add_argument(
        "--tokens", type=whole_number, default=200, help="generate at most this many tokens (200)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="divides the logits; 0: always the likeliest token (0.8)",
    )
    parser.add_argument(
        "--top-k", type=int, default=0, help="draw among the K likeliest tokens; 0: all (0)", metavar="K"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=0.95,
        help="draw among the likeliest tokens that have this total probability (0.95)",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        default=0.0,
        help="leave out tokens below this share of the likeliest token's probability (0)",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        help="divide positive logits of tokens that the text already has, and multiply negative ones (1)",
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be given again"
    )
    parser.add_argument(
        "--logprobs", action="store_true", help="put token ids and log-probabilities in the answers"
    )
    parser.add_argument(
        "--slots", type=whole_number, default=64, help="texts that are generated at once (64)"
    )
    parser.add_argument(
        "--context",
        type=whole_number,
        default=1,
        metavar="K",
        help="ranks that share the rows of each window (1)",
    )
    parser.add_argument("--refresh", type=int, help="tokens after which the window moves (its stride)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (0)")
    parser.add_argument("--no-stop", action="store_true", help="continue after the end of a document")
    parser.add_argument("--tokenizer-model", type=user_path, metavar="T", help="T.model or tokenizer.json")
    machine = parser.add_argument_group("with an interpreter")
    machine.add_argument(
        "--interpreter", metavar="LANGUAGES", help="python, coq, smt, lean, separated by commas"
    )
    machine.add_argument(
        "--calls", type=int, default=16, metavar="N", help="run at most N pieces of code (16)"
    )
    add_interpreter_options(machine)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device that generates (cpu)"
    )
    return parser


if __name__ == "__main__":
    run_script(main)
