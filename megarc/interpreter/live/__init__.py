"""A model and an interpreter together. The only part of this room that imports torch.

In: a trained model, languages in a sandbox. Out: texts that both have written; pieces of a transcript that help.
"""

from megarc.interpreter.live.filter import Judge
from megarc.interpreter.live.generate import Call, Machine, Part, Written, write_together

__all__ = ["Call", "Judge", "Machine", "Part", "Written", "write_together"]
