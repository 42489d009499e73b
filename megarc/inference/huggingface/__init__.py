"""Models of Hugging Face's layout, both ways.

In: a folder with config.json and safetensors, or a model of ours. Out: the same model of ours, or such a folder.
One table of families (``families.py``) says the names of tensors and keys for both directions, so what can be
written can be read. Nothing here imports transformers, except ``modeling_megarc.py``, which is never imported: it is
copied into exported folders.
"""

from megarc.inference.huggingface.own_tokenizer import own_tokenizer
from megarc.inference.huggingface.read_config import Foreign, read_config
from megarc.inference.huggingface.read_weights import read_weights
from megarc.inference.huggingface.tensor_names import pieces_of, zeros_of
from megarc.inference.huggingface.write_config import MODELING, describe

__all__ = [
    "MODELING",
    "Foreign",
    "describe",
    "own_tokenizer",
    "pieces_of",
    "read_config",
    "read_weights",
    "zeros_of",
]
