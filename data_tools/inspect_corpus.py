"""Shows what a corpus holds: counts, lengths, any document, any window with R, C and loss rows in colour."""

from __future__ import annotations

import argparse

import _needs  # noqa: F401  (ends where the packages are not there)
from rich.console import Console

from megarc.command import examples
from megarc.corpus import IndexedCorpus, Tokenizer, load_manifest, load_tokenizer
from megarc.corpus.indexed.describe import facts_of, legend, plot_lengths, window_in_colours
from megarc.errors import UserError, run_script
from megarc.paths import user_path
from megarc.window import Window

EXAMPLES = """
examples:
  python data_tools/inspect_corpus.py corpora/web_train --plot lengths.png
  python data_tools/inspect_corpus.py corpora/web_train --tokenizer-model tokenizer.model --document 17
  python data_tools/inspect_corpus.py corpora/web_train --tokenizer-model tokenizer.model \\
      --window 3 --recent 64 --causal 64
"""


def main() -> None:
    arguments = parser().parse_args()
    corpus = IndexedCorpus(arguments.corpus)
    console = Console(highlight=False, soft_wrap=True)
    for line in facts_of(corpus):
        console.print(line, markup=False)
    if arguments.plot:
        plot_lengths(corpus, arguments.plot)
        console.print(f"lengths: {arguments.plot}", markup=False)
    if arguments.document is None and arguments.window is None:
        return
    tokenizer = tokenizer_for(corpus, arguments.tokenizer_model)
    if arguments.document is not None:
        console.print(tokenizer.decode(corpus.document(arguments.document)), markup=False)
    if arguments.window is not None:
        stride = arguments.stride or arguments.causal
        window = Window(arguments.recent, arguments.causal, stride)
        console.print(legend(window))
        console.print(window_in_colours(corpus, window, arguments.window, tokenizer))


def tokenizer_for(corpus: IndexedCorpus, path: str | None) -> Tokenizer:
    if path is None:
        raise UserError("to show text, name the tokenizer: --tokenizer-model T")
    tokenizer, manifest = load_tokenizer(path), load_manifest(corpus.prefix)
    if manifest and manifest.tokenizer and manifest.tokenizer.digest != tokenizer.digest:
        raise UserError(f"{corpus.prefix} was packed with another tokenizer than {path}")
    return tokenizer


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", metavar="P", help="P.bin and P.idx, ours or Megatron's")
    parser.add_argument("--tokenizer-model", metavar="T", help="the tokenizer that the corpus was made with")
    parser.add_argument("--plot", type=user_path, metavar="PNG", help="a histogram of the documents' lengths")
    parser.add_argument("--document", type=int, metavar="N", help="decode a document")
    parser.add_argument("--window", type=int, metavar="K", help="decode a window, coloured")
    parser.add_argument("--recent", type=int, default=512, metavar="r", help="rows of R (512)")
    parser.add_argument("--causal", type=int, default=512, metavar="c", help="rows of C (512)")
    parser.add_argument("--stride", type=int, metavar="s", help="predictions a window (c)")
    return parser


if __name__ == "__main__":
    run_script(main)
