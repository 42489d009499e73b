"""Runs the code in a corpus and writes it with its real output: code, output, text, code, output, ..."""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import whole_number
from megarc.errors import run_script
from megarc.interpreter.languages import KNOWN
from megarc.interpreter.options import add_interpreter_options, open_interpreters
from megarc.interpreter.transcripts import Request, Settings, interpret
from megarc.paths import user_path

EXAMPLES = """
examples:
  # sessions at Python's prompt and fenced blocks, in documentation and docstrings
  python data_tools/interpret.py --input docs/ lib/ --output transcripts.jsonl --languages python --workers 4
  # Coq's files sentence by sentence, SMT-LIB in Markdown
  python data_tools/interpret.py --input proofs/ notes.md --output proofs.jsonl --languages coq,smt
  # then pack them: marks become reserved tokens
  python data_tools/preprocess.py --input transcripts.jsonl --transcripts --append-eod ...

Each piece is run twice; the second run has another hash seed, time zone and host name. If the outputs differ, the piece
stays text. After a kill, the same command resumes from O.cache. O.report.json counts pieces by result.
"""


def main() -> None:
    arguments = parser().parse_args()
    languages, sandbox = open_interpreters(arguments, arguments.languages)
    request = Request(
        inputs=arguments.input,
        output=arguments.output,
        languages=languages,
        sandbox=sandbox,
        settings=Settings(arguments.characters, arguments.failures == "keep", arguments.quiet == "keep"),
        workers=arguments.workers,
        exclude=arguments.exclude,
        json_key=arguments.json_key,
        whole=arguments.whole,
    )
    report = interpret(request)
    print(f"{request.output}: {report.written} of {report.documents} documents, with these pieces:")
    for language, what, count in report.rows():
        print(f"  {language}: {count} {what}")
    if report.rejects:
        print(f"  {report.rejected()}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="F",
        help="files, folders, globs, @LIST, -; as preprocess.py's",
    )
    parser.add_argument("--exclude", nargs="+", default=[], metavar="PATTERN", help="paths to pass over")
    parser.add_argument(
        "--json-key", default="text", metavar="KEY", help="key of the text in JSON lines (text)"
    )
    parser.add_argument(
        "--output", type=user_path, required=True, metavar="O", help="JSON lines of marked text"
    )
    parser.add_argument(
        "--languages", default="python", metavar="L", help=f"some of {', '.join(KNOWN)}, by commas (python)"
    )
    parser.add_argument("--workers", type=whole_number, default=1, metavar="W", help="documents at once (1)")
    parser.add_argument(
        "--characters",
        type=whole_number,
        default=2000,
        metavar="N",
        help="cut an output after so many (2000)",
    )
    parser.add_argument(
        "--failures", choices=("keep", "drop"), default="keep", help="pieces whose output is an error (keep)"
    )
    parser.add_argument(
        "--quiet", choices=("keep", "drop"), default="keep", help="pieces without any output (keep)"
    )
    parser.add_argument("--whole", action="store_true", help="write documents without a kept piece too")
    add_interpreter_options(parser.add_argument_group("interpreters and sandbox"))
    return parser


if __name__ == "__main__":
    run_script(main)
