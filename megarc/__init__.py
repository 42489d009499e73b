"""megarc: pretraining of language models whose window is split in two, [R | C].

Importing this package costs nothing (no torch). Come in by a room:
``corpus`` (text to tokens), ``data`` (tokens to batches), ``attention``,
``parallel``, ``model``, ``train``, ``inference``, ``science``, ``report``.
"""

__version__ = "0.1.0"
