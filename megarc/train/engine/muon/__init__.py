"""Muon (Jordan et al. 2024): the momentum of each of the blocks' matrices, orthogonalised, is its update.

In: this rank's parts of masters and gradients. Out: updated masters and momenta. A matrix is orthogonalised whole, by
one rank of its pipeline stage, whatever ZeRO stage and tensor ranks its parts lie on; `sharing.py` says which rank.
"""

from megarc.train.engine.muon.muon import OF_EXPERTS, Muon, call_of
from megarc.train.engine.muon.newton_schulz import orthogonalised
from megarc.train.engine.muon.sharing import Holdings, Matrix, Place, Sharing, matrices_of

__all__ = [
    "OF_EXPERTS",
    "Holdings",
    "Matrix",
    "Muon",
    "Place",
    "Sharing",
    "call_of",
    "matrices_of",
    "orthogonalised",
]
