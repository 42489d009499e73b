"""The writer of a rank's file: safetensors reads back what was given, and the digest is the file's."""

import hashlib
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from megarc.train.checkpoint import tensor_file
from megarc.train.checkpoint.tensor_file import write_tensors


def test_safetensors_reads_what_was_written_and_the_digest_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "_CHUNK", 1000)
    monkeypatch.setattr(tensor_file, "_SYNC_EVERY", 3000)
    kinds = [torch.bool, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.float64]
    tensors = {f"ü{n}/{kind}": torch.randn(n).mul(50).to(kind) for n in (1, 7, 1501) for kind in kinds}
    tensors |= {"scalar": torch.tensor(3.5), "none": torch.empty(0), "grid": torch.randn(3, 5, 2)}
    size, digest = write_tensors(tmp_path / "x", tensors)
    content = (tmp_path / "x").read_bytes()
    assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
    read = load_file(tmp_path / "x")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.get_slice("grid")[1:].shape == (2, 5, 2)
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_no_tensor_is_a_file_too(tmp_path):
    write_tensors(tmp_path / "x", {})
    assert load_file(tmp_path / "x") == {}


def test_a_disk_that_takes_no_more_is_an_error(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_tensors(tmp_path / "x", {"a": torch.zeros(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
