"""Makes a run folder from a Hugging Face model, so that training continues from its weights."""

from __future__ import annotations

import argparse

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.errors import run_script
from megarc.paths import user_path

EXAMPLES = """examples:
  python launch/import.py --from downloads/SmolLM2-135M --run runs/smol
  python launch/pretrain.py --config runs/smol/continue.yaml base=configs/runs/tiny.yaml folder=runs/mine \\
      data.train=my/text_train window.recent=512

The command reads Llama (1 to 3.x, SmolLM), Qwen 2, 2.5, 3 and 3 MoE, Mistral and Mixtral without a sliding window,
OLMo 2, SmolLM 3 and GLM 4 MoE with whole heads rotated,
from a local folder with config.json, safetensors and the tokenizer's files. If megarc's layers cannot represent a key
exactly, the import is refused and the error names the key. Pack the text with the same tokenizer.

The run folder has one checkpoint, of step 0, with weights and no moments. evaluate.py, generate.py and export.py
read it as any other run; runs/x/continue.yaml has the keys of a run that begins there. See docs/exchange.md."""


def main() -> int:
    arguments = parser().parse_args()
    from megarc.config import build, to_dict
    from megarc.inference.huggingface import own_tokenizer, read_config, read_weights
    from megarc.train import RunConfig, write_imported

    foreign = read_config(arguments.source)
    weights = read_weights(arguments.source, foreign)
    tokenizer = own_tokenizer(arguments.source, foreign)
    rows = min(foreign.rows, 4096) if arguments.rows is None else arguments.rows
    window = {"recent": 0, "causal": rows, "stride": rows}
    model = to_dict(foreign.model)
    config = build(RunConfig, {"folder": str(arguments.run), "model": model, "window": window}, "--rows")
    place = write_imported(arguments.run, weights, config, tokenizer)
    for note in foreign.notes:
        print(note)
    if tokenizer is None:
        print(
            f"{arguments.source} has no tokenizer.json and no tokenizer.model: the run folder has no tokenizer"
        )
    print(f"{arguments.source} ({foreign.family.architecture}) -> {place}")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="source", type=user_path, required=True, metavar="FOLDER", help="the model's folder"
    )
    parser.add_argument(
        "--run", type=user_path, required=True, help="run folder that is written; it must not exist"
    )
    parser.add_argument(
        "--rows", type=int, help="rows of the causal window in which it is used as it is (max_position_embeddings, "
        "at most 4096)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    run_script(main)
