"""Compressors as predictors."""

import bz2
import gzip
import lzma
import math

import numpy as np
import pytest

from megarc.science.ladder import compressed, compressors, with_dictionary
from megarc.science.ladder.compressors import pieces

REPEATED = np.tile(np.random.default_rng(0).integers(0, 2048, 500, dtype=np.uint16), 8).tobytes()
NOISE = np.random.default_rng(1).integers(0, 256, 20_000, dtype=np.uint8).tobytes()


def test_each_finds_repeats_and_none_compresses_noise():
    found = compressors()
    assert {one.name for one in found} >= {"gzip -9", "bzip2 -9", "xz -9e", "zstd -19"}
    for one in found:
        assert one.size(REPEATED) < 0.5 * len(REPEATED), one.name
        assert one.size(NOISE) > 0.999 * len(NOISE), one.name


def test_sizes_are_those_of_the_files_without_their_headers():
    sizes = {one.name: one.size(REPEATED) for one in compressors()}
    assert sizes["gzip -9"] == len(gzip.compress(REPEATED, 9)) - 18  # header 10, checksum and length 8
    assert sizes["bzip2 -9"] == len(bz2.compress(REPEATED, 9))
    assert 0 < len(lzma.compress(REPEATED, preset=9 | lzma.PRESET_EXTREME)) - sizes["xz -9e"] < 80


def test_ppmd_gives_back_what_it_was_given():
    pyppmd = pytest.importorskip("pyppmd")
    one = next(one for one in compressors() if "PPMd" in one.name)
    writer = pyppmd.Ppmd7Encoder(16, 1 << 20)
    data = writer.encode(REPEATED) + writer.flush()
    assert one.size(REPEATED) == len(data)
    assert pyppmd.Ppmd7Decoder(16, 1 << 20).decode(data, len(REPEATED)) == REPEATED


def test_a_row_is_eight_bits_a_byte_and_pieces_cost_more():
    gzip9 = compressors()[0]
    whole = compressed(gzip9, REPEATED, 4000, "u16 ids", 3.0)
    assert whole.bits_per_token == pytest.approx(8 * gzip9.size(REPEATED) / 4000)
    assert whole.bits_per_byte == pytest.approx(whole.bits_per_token / 3)
    assert whole.nats_per_token == pytest.approx(whole.bits_per_token * math.log(2))
    assert b"".join(pieces(REPEATED, 700)) == REPEATED
    assert compressed(gzip9, REPEATED, 4000, "u16 ids", None, 256).nats_per_token > 2 * whole.nats_per_token


def test_a_dictionary_helps_short_pieces_and_needs_samples():
    samples = list(pieces(REPEATED * 4, 250))
    trained = with_dictionary(samples)
    plain = next(one for one in compressors() if one.name == "zstd -19")
    assert trained is not None and trained.size(samples[1]) < 0.5 * plain.size(samples[1])
    assert with_dictionary([]) is None and with_dictionary([b"ab"]) is None
