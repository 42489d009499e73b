"""A corpus of a trillion tokens, all of them zeros in a file that is a hole."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from megarc.data import DataConfig, SourceConfig, Stream, open_stream, page_cache
from megarc.window import Window

TOKENS, DOCUMENTS = 10**12, 10**9
WINDOW = Window(512, 512, 512)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Empty but for the last document, which holds all tokens, so that both files agree."""
    prefix = tmp_path / "web"
    with prefix.with_suffix(".idx").open("wb") as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, DOCUMENTS, DOCUMENTS + 1))
        file.seek(34 + 4 * DOCUMENTS - 4)
        file.write(struct.pack("<i", 10**9))
        file.seek(34 + 12 * DOCUMENTS - 8)
        file.write(struct.pack("<q", 2 * (TOKENS - 10**9)))
        file.seek(34 + 20 * DOCUMENTS)
        file.write(struct.pack("<q", DOCUMENTS))
    with prefix.with_suffix(".bin").open("wb") as file:
        file.truncate(2 * TOKENS)
    return prefix


def opened(prefix: Path) -> Stream:
    return open_stream(DataConfig(train=[SourceConfig(path=prefix)]), "train", WINDOW, seed=0)


def test_opening_and_reading_far_in_takes_no_memory_and_no_file(prefix: Path) -> None:
    before = sorted(prefix.parent.iterdir())
    tracemalloc.start()
    stream = opened(prefix)
    batch = stream.read(10**12, 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(stream.sources[0]) == WINDOW.count(TOKENS)
    assert batch.tokens.shape == (64, 1025)
    assert not batch.tokens.any()
    assert peak < 20 * 2**20
    assert sorted(prefix.parent.iterdir()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_pages_stay_few(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resident() -> int:
        fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return sum(int(fields[name].split()[0]) for name in ("RssFile", "RssShmem")) // 1024

    monkeypatch.setattr(page_cache, "_WINDOWS_KEPT", 256)
    stream = opened(prefix)
    before = resident()
    for k in range(0, 4096, 128):
        stream.read(k, 128)
    kept = resident() - before
    monkeypatch.setattr(page_cache, "_WINDOWS_KEPT", 10**9)
    for k in range(0, 4096, 128):
        stream.read(k, 128)
    assert kept < 20
    assert resident() - before > 2 * max(kept, 5)  # without letting go they would have become many


def test_blocks_of_a_blend_hold_far_in(prefix: Path, packed) -> None:  # type: ignore[no-untyped-def]
    small = packed("small", [5000])
    sources = [SourceConfig(path=prefix, weight=3.0), SourceConfig(path=small, weight=1.0)]
    stream = open_stream(DataConfig(train=sources), "train", WINDOW, seed=0)
    first = 65_536 * 10**7
    counted = sum(int(stream.read(first + k, 1024).tokens.any(axis=1).sum()) for k in range(0, 65_536, 1024))
    assert counted == 16_384
    assert np.unique(stream.read(first, 64).samples).size == 64
