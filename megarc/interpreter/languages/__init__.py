"""Interpreters behind one small interface.

In: a ``Sandbox``, the name of a language, pieces of source. Out: for each piece an ``Outcome``: what the real
interpreter answered, as text that can be shown and packed, and how it ended.
"""

from megarc.interpreter.languages.base import Language, Outcome, Session, Variation
from megarc.interpreter.languages.clean_output import clean
from megarc.interpreter.languages.registry import KNOWN, LanguagesConfig, open_languages
from megarc.interpreter.languages.restarting_session import Enduring

__all__ = [
    "KNOWN",
    "Enduring",
    "Language",
    "LanguagesConfig",
    "Outcome",
    "Session",
    "Variation",
    "clean",
    "open_languages",
]
