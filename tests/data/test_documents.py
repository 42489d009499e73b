from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megarc.corpus import IndexedCorpus, IndexedWriter
from megarc.data.documents import begun, segments


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=30))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_documents_of_a_corpus_on_disk(tmp_path: Path, lengths: list[int]) -> None:
    """Empty ones too, anywhere: their beginnings, how many have begun, and which tokens belong together."""
    total = sum(lengths)
    with IndexedWriter(tmp_path / "c", np.uint16) as writer:
        writer.add(np.arange(total, dtype=np.uint16), lengths)
        writer.finish()
    corpus = IndexedCorpus(tmp_path / "c")
    starts = np.cumsum(lengths) - lengths
    assert (corpus.document_starts(np.arange(len(lengths))) == starts).all()
    places = np.arange(-1, total + 2)
    assert (begun(corpus, places) == np.searchsorted(starts, places, side="right")).all()
    if total:
        owner = np.repeat(np.arange(len(lengths)), lengths)
        got = segments(corpus, np.asarray([0]), total)[0]
        assert ((owner[:, None] == owner) == (got[:, None] == got)).all()
