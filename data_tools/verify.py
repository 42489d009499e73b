"""Reads a corpus through and says whether it is whole; makes a manifest for one that has none."""

from __future__ import annotations

import argparse

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.corpus import corpus_name, load_manifest, load_tokenizer, make_manifest, verify
from megarc.errors import UserError, run_script

EXAMPLES = """
examples:
  python data_tools/verify.py corpora/web_train corpora/web_valid
  python data_tools/verify.py megatron/my_text_document --make-manifest --tokenizer-model tokenizer.model
"""

UNVERIFIED = "cannot be verified: it has no manifest"
WHAT_TO_DO = (
    "its structure holds, but nothing says what its tokens should be. For later changes to be seen:\n"
    "  python data_tools/verify.py {prefix} --make-manifest --tokenizer-model TOKENIZER"
)


def main() -> None:
    arguments = parser().parse_args()
    if arguments.make_manifest:
        tokenizer = (
            load_tokenizer(arguments.tokenizer_model, arguments.eod_token)
            if arguments.tokenizer_model
            else None
        )
        for prefix in arguments.corpus:
            manifest = make_manifest(prefix, tokenizer)
            print(f"{prefix}.json: {manifest.documents} documents, {manifest.tokens} tokens")
        return
    wrong = 0
    for prefix in arguments.corpus:
        problems = verify(prefix)
        wrong += bool(problems)
        known = load_manifest(corpus_name(prefix)) is not None
        print(f"{prefix}: {'NOT WHOLE' if problems else 'whole' if known else UNVERIFIED}")
        for problem in problems:
            print(f"  {problem}")
        if not known and not problems:
            print(f"  {WHAT_TO_DO.format(prefix=prefix)}")
    if wrong:
        raise UserError(f"{wrong} of {len(arguments.corpus)} corpora are not whole")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="+", metavar="P", help="P.bin, P.idx and P.json")
    parser.add_argument("--make-manifest", action="store_true", help="write P.json for a corpus without one")
    parser.add_argument("--tokenizer-model", metavar="T", help="the tokenizer that the corpus was made with")
    parser.add_argument(
        "--eod-token", metavar="TOKEN", help="with --make-manifest: the token that ends a document, or its id"
    )
    return parser


if __name__ == "__main__":
    run_script(main)
