"""Documents with code in them to transcripts."""

from megarc.interpreter.transcripts.normalise import normalised, settled, shortened

__all__ = ["normalised", "settled", "shortened"]
