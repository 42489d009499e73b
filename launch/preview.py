"""Prints the samples that a run reads next: where each comes from, and its text with R, C and loss in colours."""

from __future__ import annotations

import argparse
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import parsed, whole_number
from megarc.errors import UserError, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.data import Stream
    from megarc.report.preview import Decode
    from megarc.train import RunConfig, Standing

EXAMPLES = """examples:
  python launch/preview.py --config configs/runs/tiny.yaml                  what a new run begins with
  python launch/preview.py --run runs/tiny --samples 8                     what a run reads next, from its checkpoint on
  python launch/preview.py --run runs/tiny --from 120000 --samples 1        sample 120,000 of its order
  python launch/preview.py --config FILE window.recent=0 data.documents=isolate      with other keys
  python launch/preview.py --config FILE --valid --html samples.html        held-out windows, as a page"""


def main() -> int:
    arguments = parsed(parser())
    from megarc.atomic_write import written_atomically
    from megarc.report.preview import as_html, as_text, shown

    config = keys(arguments)
    stream, first = standing(opened(config, valid=arguments.valid), arguments, config)
    count = min(arguments.samples, len(stream) - first)
    if count < 1:
        raise UserError(f"--from {first}: the stream has samples 0 to {len(stream) - 1}")
    samples = shown(stream, range(first, first + count), decoder(arguments, config))
    if arguments.html:
        with written_atomically(arguments.html) as file:
            file.write(as_html(samples, stream).encode())
        print(f"{count} samples are in {arguments.html}")
        return 0
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(as_text(samples, stream, marks=console.color_system is None))
    return 0


def keys(arguments: argparse.Namespace) -> RunConfig:
    """Those of the run."""
    from megarc.config import load
    from megarc.train import RunConfig, RunFolder

    if (arguments.run is None) == (arguments.config is None):
        raise UserError("give either --config FILE or --run FOLDER; see --help for examples")
    file = arguments.config if arguments.run is None else RunFolder(arguments.run).config
    return load(RunConfig, file, arguments.overrides)


def standing(stream: Stream, arguments: argparse.Namespace, config: RunConfig) -> tuple[Stream, int]:
    """The stream in the phase of the run, and the sample of its order that is shown first."""
    from megarc.data import Gaps

    found = None if arguments.valid else position(stream, arguments, config)
    if found is None:
        return stream, arguments.first or 0
    stream = stream.in_phase(found.phase)
    if arguments.first is not None:
        return stream, arguments.first
    return stream, Gaps.of(found.skipped, found.begin).runs(found.samples, 1)[0][0]


def position(stream: Stream, arguments: argparse.Namespace, config: RunConfig) -> Standing | None:
    """Where the run stands by its newest checkpoint, or by the one that it starts from; None: at its start."""
    from megarc.train import find_checkpoint, standing_from

    if arguments.run is not None:
        with suppress(UserError):  # it has not saved yet
            return find_checkpoint(arguments.run).standing
    if config.start_from is None:
        return None
    there = find_checkpoint(config.start_from)
    return standing_from(there.standing, config, stream, there.manifest["config"])


def opened(config: RunConfig, *, valid: bool) -> Stream:
    """What the run reads, of every kind of source that a run knows."""
    from megarc.science import MAKERS
    from megarc.tiers import makers
    from megarc.train import open_heldout, open_train

    return (open_heldout if valid else open_train)(config, makers(MAKERS))


def decoder(arguments: argparse.Namespace, config: RunConfig) -> Decode:
    """Ids to text; to numbers where no tokenizer is found."""
    from megarc.corpus import load_tokenizer
    from megarc.train import RunFolder, tokenizer_file

    folder = RunFolder(arguments.run or config.folder)
    path = arguments.tokenizer or tokenizer_file(folder.checkpoints / "any", config)
    if path is None:
        return lambda ids: " ".join(map(str, ids)) + " "
    tokenizer = load_tokenizer(path)
    return lambda ids: tokenizer.decode(ids)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=user_path, metavar="FILE", help="configuration of a run, as for pretrain.py"
    )
    parser.add_argument(
        "--run",
        type=user_path,
        metavar="FOLDER",
        help="a run folder; begins with the next sample of that run",
    )
    parser.add_argument(
        "--samples", type=partial(whole_number, least=1), default=3, metavar="N", help="number of samples (3)"
    )
    parser.add_argument(
        "--from",
        dest="first",
        type=partial(whole_number, least=0),
        metavar="K",
        help="number of the first sample (the run's next one; 0 for a new run)",
    )
    parser.add_argument("--valid", action="store_true", help="held-out windows instead of training samples")
    parser.add_argument(
        "--tokenizer",
        type=user_path,
        metavar="T",
        help="tokenizer file (default: the one beside the corpora)",
    )
    parser.add_argument("--html", type=user_path, metavar="FILE", help="write a page instead of printing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that win over the file's")
    return parser


if __name__ == "__main__":
    run_script(main)
