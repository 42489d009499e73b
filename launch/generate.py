"""Continues a text with a trained model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.errors import UserError, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.corpus import Tokenizer
    from megarc.inference import Sampling
    from megarc.interpreter.live import Written
    from megarc.progress import Bar
    from megarc.train import SavedModel

EXAMPLES = """examples:
  python launch/generate.py --run runs/mine --prompt 'def main('
  python launch/generate.py --run runs/mine --prompt 'Once' --tokens 400 --temperature 0.8 --top-p 0.95
  python launch/generate.py --run runs/mine --prompt-file story.txt --temperature 0
  cat story.txt | python launch/generate.py --run runs/mine --prompt - --refresh 16
  python launch/generate.py --tiers runs/tiers/two --prompt 'import '
  python launch/generate.py --run runs/mine --prompt '123*456' --interpreter python,coq
  python launch/generate.py --run runs/mine --prompts questions.jsonl --interpreter python > answers.jsonl

With --tiers, every tier of a stack writes its roll-outs where the text ends, bottom first; the top tier goes on
by up to c tokens (--refresh), and all write again. The tokenizer is the one that the run's corpus was packed with;
--tokenizer-model says where it lies now.

With --interpreter, code that the model closes is run in a sandbox, and its output goes on the text as given tokens;
<out> behind the prompt is the machine's, which the model can't draw. With --prompts too, the answers are JSON lines
with the keys prompt, text (marked) and calls, in the order of the prompts. See docs/interpreter.md."""

_TOGETHER = 32  # texts that are written at once


def main() -> int:
    arguments = parser().parse_args()
    if arguments.prompts and not arguments.interpreter:
        raise UserError("--prompts goes with --interpreter; give --prompt or --prompt-file")
    from megarc.corpus import load_tokenizer
    from megarc.inference import Sampling
    from megarc.progress import progress
    from megarc.train import end_of_document, find_tokenizer, load_model, same_tokenizer

    saved = load_model(arguments.run or top_run(arguments.tiers), arguments.device)
    tokenizer = load_tokenizer(arguments.tokenizer_model or find_tokenizer(saved))
    same_tokenizer(saved, tokenizer, "the tokenizer")
    prompts = read_prompts(arguments.prompts) if arguments.prompts else [read_prompt(arguments)]
    ids = tokenizer.encode(prompts[0])
    if not len(ids):
        raise UserError("the prompt is empty; give --prompt some text")
    sampling = Sampling(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        refresh=arguments.refresh,
        stop=None if arguments.no_stop else end_of_document(saved, tokenizer),
    )
    total = arguments.tokens * len(prompts)
    with progress("generating", total, unit="tokens", quiet=not sys.stderr.isatty()) as bar:
        if arguments.interpreter:
            written = with_interpreter(arguments, saved, tokenizer, prompts, sampling, bar)
            for prompt, one in zip(prompts, written, strict=True):
                print(
                    answer(prompt, one, tokenizer) if arguments.prompts else told(arguments, one, tokenizer)
                )
            return 0
        if arguments.tiers:
            text = through_tiers(arguments, tokenizer, ids, sampling, bar)
        else:
            text = alone(arguments, saved, ids, sampling, bar)
    print(tokenizer.decode(text))
    return 0


def alone(
    arguments: argparse.Namespace, saved: SavedModel, ids: Any, sampling: Sampling, bar: Bar
) -> Iterable[int]:
    """Ids ``ids`` [p], continued by one model."""
    import torch

    from megarc.inference import generate

    text = generate(
        saved.model,
        torch.as_tensor(ids.astype("int64"))[None],
        saved.config.window.build(),
        arguments.tokens,
        sampling,
        progress=bar.advance,
    )
    return text[0].cpu().numpy()


def through_tiers(
    arguments: argparse.Namespace, tokenizer: Tokenizer, ids: Any, sampling: Sampling, bar: Bar
) -> Iterable[int]:
    """Ids ``ids`` [p], continued by a stack."""
    from megarc.tiers import LiveStack, open_stack

    stack = LiveStack(open_stack(arguments.tiers), tokenizer.reserved, tokenizer.digest, arguments.device)
    return stack.generate(ids.tolist(), arguments.tokens, sampling, progress=bar.advance)


def with_interpreter(
    arguments: argparse.Namespace,
    saved: SavedModel,
    tokenizer: Tokenizer,
    prompts: list[str],
    sampling: Sampling,
    bar: Bar,
) -> Iterator[Written]:
    """Each of ``prompts``, continued by one model and by the output of its code."""
    from megarc.interpreter.languages import LanguagesConfig, open_languages
    from megarc.interpreter.live import Machine, write_together
    from megarc.interpreter.sandbox import Limits, open_sandbox

    if arguments.tiers:
        raise UserError("--interpreter goes with one model; give --run, not --tiers")
    config = LanguagesConfig(lean=arguments.lean, lean_folders=arguments.lean_folder)
    languages = open_languages(arguments.interpreter.split(","), config)
    limits = Limits(seconds=arguments.seconds)
    sandbox = open_sandbox(
        limits, without=arguments.no_sandbox, warn=lambda line: print(line, file=sys.stderr)
    )
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


def told(arguments: argparse.Namespace, written: Written, tokenizer: Tokenizer) -> str:
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


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file of JSON lines with the key ``prompt``.

    Raises:
        UserError: where it cannot be read, a line holds no prompt, or no line does.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read the prompts from {path}: {error.strerror}") from None
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = json.loads(line)["prompt"]
            prompt.encode()
        except (ValueError, KeyError, TypeError, AttributeError):
            prompt = ""
        if not prompt:
            raise UserError(f'{path}, line {number}: no prompt; a line is {{"prompt": "some text"}}')
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"{path} holds no prompts")
    return prompts


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=user_path, help="run folder, or a checkpoint in it")
    model.add_argument("--tiers", type=user_path, help="folder of a stack of tiers, or its YAML file")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", help="text to go on from; - reads standard input")
    prompt.add_argument("--prompt-file", type=user_path, metavar="FILE", help="a file with that text")
    prompt.add_argument(
        "--prompts",
        type=user_path,
        metavar="FILE",
        help="JSON lines with the key prompt; needs --interpreter",
    )
    parser.add_argument("--tokens", type=int, default=200, help="at most so many more (200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest (0.8)")
    parser.add_argument("--top-k", type=int, default=0, help="draw among so many likeliest; 0: all (0)")
    parser.add_argument(
        "--top-p", type=float, default=0.95, help="draw among the likeliest of this share (0.95)"
    )
    parser.add_argument("--refresh", type=int, help="tokens after which the window moves (its stride)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument("--no-stop", action="store_true", help="go on beyond the end of a document")
    parser.add_argument("--tokenizer-model", type=user_path, metavar="T", help="T.model or tokenizer.json")
    machine = parser.add_argument_group("with an interpreter")
    machine.add_argument("--interpreter", metavar="LANGUAGES", help="python, coq, smt, lean; some, by commas")
    machine.add_argument(
        "--calls", type=int, default=16, metavar="N", help="pieces that are run at most (16)"
    )
    machine.add_argument("--seconds", type=float, default=5.0, help="wall time of a piece (5)")
    machine.add_argument("--lean", metavar="COMMAND", help="command that starts Lean's REPL")
    machine.add_argument(
        "--lean-folder",
        type=user_path,
        action="append",
        default=[],
        metavar="D",
        help="a folder that Lean reads",
    )
    machine.add_argument(
        "--no-sandbox", action="store_true", help="run code with all that you may do, if need be"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    return parser


if __name__ == "__main__":
    run_script(main)
