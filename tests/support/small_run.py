"""A small trained run, and pages of launch/ and data_tools/, in this process."""

import json
import runpy
import sys

from support.scripts import ROOT


def page(path, *words):
    """Runs a page's ``main`` as if it was typed."""
    folder, before = str((ROOT / path).parent), (list(sys.argv), list(sys.path))
    sys.argv, sys.path = [path, *map(str, words)], [folder, *sys.path]
    try:
        return runpy.run_path(str(ROOT / path), run_name="page")["main"]()
    finally:
        sys.argv, sys.path[:] = before


def make_run(folder):
    """A run on sums in bytes, ``folder / "run"``, scored on two tasks; window [R 12 | C 6], 2 steps."""
    text = folder / "text.jsonl"
    text.write_text("".join(f'{{"text": "{a}+{b}={a + b}. "}}\n' for a in range(20) for b in range(20)))
    page("data_tools/preprocess.py", "--input", text, "--output-prefix", folder / "sums",
         "--tokenizer-model", "bytes", "--append-eod")  # fmt: skip
    tasks = make_tasks(folder)
    page("launch/pretrain.py", *key_words(folder, folder / "run"), f"validation.tasks=[{tasks[0]},{tasks[1]}]",
         "validation.tasks_every=2 steps")  # fmt: skip
    return folder / "run"


def make_tasks(folder):
    """``choose.jsonl`` and ``cloze.jsonl``, with prompts and continuations of many lengths."""
    choose, cloze = folder / "choose.jsonl", folder / "cloze.jsonl"
    sums = [(a, b) for a in range(4) for b in range(3)]
    questions = [
        {"prompt": f"1+1=2. {a}+{b}=", "choices": [f"{a + b}. ", "77", f"{a + b + 1}"], "answer": 0}
        for a, b in sums
    ]
    choose.write_text("".join(json.dumps(line) + "\n" for line in questions))
    targets = [{"prompt": f"{a}", "target": f"+{b}={a + b}. 3+4=7"} for a, b in sums[:5]]
    cloze.write_text("".join(json.dumps(line) + "\n" for line in targets))
    return [choose, cloze]


def keys_tree(folder, run, steps=2):
    """Keys of a run on the corpus in ``folder``."""
    corpus = [{"path": str(folder / "sums")}]
    return {
        "folder": str(run),
        "length": f"{steps} steps",
        "device": "cpu",
        "window": {"recent": 12, "causal": 6, "stride": 6},
        "model": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "initial_std": 0.2},
        "batch": {"size": 4, "micro": 4},
        "data": {"train": corpus, "valid": corpus},
        "validation": {"windows": 4},
        "logging": {"peak_flops": 1e12},
    }


def key_words(folder, run, steps=2):
    """The same as words of a command line."""
    tree = keys_tree(folder, run, steps)
    return [f"{key}={json.dumps(value)}" for key, value in tree.items()]
