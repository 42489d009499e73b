"""Text packed while it is read: training begins when the first of it is packed.

In: files of text, a tokenizer, a folder for packed text. Out: ``StreamedText``, tokens that are there from the front on
and grow. `sections.py` says which part of the inputs comes when; `packer.py`, a process of its own, packs one section
after the other into the folder, with the very steps of packing first; `text.py` reads them, and waits where it must.
"""

from megarc.corpus.streamed.sections import TextRequest
from megarc.corpus.streamed.text import StreamedText

__all__ = ["StreamedText", "TextRequest"]
