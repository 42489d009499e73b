"""Byte ranges share the lines of a file out without overlap or gap."""

import io
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.corpus.inputs import lines as lines_module
from megarc.corpus.inputs.lines import lines_of

DATA = st.lists(st.sampled_from([b"", b"a", b"bc", b"defgh" * 3, b"\r", b"\xff"]), max_size=12).map(
    b"\n".join
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(data=DATA, cuts=st.sets(st.integers(1, 60), max_size=6), chunk=st.integers(1, 20))
def test_ranges_share_the_lines(data, cuts, chunk):
    lines_module.CHUNK_BYTES, before = chunk, lines_module.CHUNK_BYTES
    try:
        borders = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        found = []
        for start, stop in itertools.pairwise(borders):
            stream = io.BytesIO(data)
            stream.seek(start)
            found += lines_of(stream, start, stop - start)
    finally:
        lines_module.CHUNK_BYTES = before
    expected, offset = [], 0
    for line in data.splitlines(keepends=True) if b"\r" not in data else _split(data):
        expected.append((offset, line.removesuffix(b"\n"), line.endswith(b"\n")))
        offset += len(line)
    assert found == expected


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]] + [
        rest for rest in [data.split(b"\n")[-1]] if rest
    ]
