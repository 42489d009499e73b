"""Documents with code in them to transcripts.

In: files as ``preprocess.py`` reads them, languages, a sandbox. Out: JSON lines of marked text, in which each
piece is followed by its real output; and a report of what became of each piece.
"""

from megarc.interpreter.transcripts.code_blocks import find_code
from megarc.interpreter.transcripts.interpret_corpus import Report, Request, interpret
from megarc.interpreter.transcripts.normalise_output import normalised, settled, shortened
from megarc.interpreter.transcripts.transcribe import Settings, Transcript, transcribe

__all__ = [
    "Report",
    "Request",
    "Settings",
    "Transcript",
    "find_code",
    "interpret",
    "normalised",
    "settled",
    "shortened",
    "transcribe",
]
