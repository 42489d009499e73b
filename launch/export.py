"""Turns a run's checkpoint into a folder with one model: ours, or Hugging Face's layout."""

from __future__ import annotations

import argparse
import math

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import widths
from megarc.errors import run_script
from megarc.paths import user_path

EXAMPLES = """examples:
  python launch/export.py --run runs/mine --to exported/mine
  python launch/export.py --run runs/mine --to exported/llama --layout huggingface --dtype bf16
  python launch/export.py --run runs/nested --to exported/small --width 1/4
  python launch/export.py --run runs/nested --to exported/mixed --width 1/4,1/2,1/2,1      a width for each layer

In Hugging Face's layout the model is a class of transformers (Llama, Qwen 2, Qwen 3,
Qwen 3 MoE, Mistral, Mixtral, GLM 4 MoE, OLMo 2 or SmolLM 3, as
the model's keys choose), and AutoModelForCausalLM loads the folder in two ways: as that class, which is plainly
causal; and for a window with R, with trust_remote_code=True, as MegarcForCausalLM, which applies the mask. A model
trained with R is another model when it is served as a plain causal one. --width cuts a dense model out of
one that was trained with model.nested (docs/nested.md). The run's tokenizer, its chat template and
its generation_config.json are copied beside it. See docs/exchange.md.
megarc.inference.load_exported(folder) reads either layout back."""


def main() -> int:
    arguments = parser().parse_args()
    import torch

    from megarc.corpus import copy_tokenizer, describe_tokenizer
    from megarc.inference import export
    from megarc.model import narrowed
    from megarc.train import ended_by, find_checkpoint, full_masters, run_config, tokenizer_file

    found = find_checkpoint(arguments.run).check()
    config = run_config(found)
    window, end = config.window.build(), ended_by(found.folder, config)
    model, parameters = config.model, full_masters(found, average=arguments.average)
    if arguments.width:
        model, cut = narrowed(model, arguments.width)
        parameters = ((name, cut(name, values)) for name, values in parameters)
    export(
        parameters,
        model,
        window,
        arguments.to,
        layout=arguments.layout,
        dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype],
        end=end,
        largest=None if arguments.shard is None else int(arguments.shard * 1e9),
    )
    print(f"{found.folder} -> {arguments.to}")
    tokenizer = tokenizer_file(found.folder, config)
    if tokenizer is not None and tokenizer.exists():
        copy = copy_tokenizer(tokenizer, arguments.to)
        if arguments.layout == "huggingface":
            describe_tokenizer(copy, end, window.rows, model.tokens)
        print(f"{tokenizer} -> {copy}")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=user_path, required=True, help="run folder, or a checkpoint in it")
    parser.add_argument("--to", type=user_path, required=True, help="folder that is written")
    parser.add_argument(
        "--average", action="store_true", help="write the run's averaged weights (average.decay, .last_k)"
    )
    parser.add_argument("--width", type=widths, metavar="W[,W]",
                        help="cut this width out of a nested model, or one for each layer (the widest)")  # fmt: skip
    parser.add_argument("--layout", choices=("megarc", "huggingface"), default="megarc", help="(megarc)")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="(fp32)")
    parser.add_argument(
        "--shard",
        type=gigabytes,
        metavar="GB",
        help="size of the largest file (5; our own layout always has one file)",
    )
    return parser


def gigabytes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size of a file; write 5 or 0.5, for instance")
    return found


if __name__ == "__main__":
    run_script(main)
