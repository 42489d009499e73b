"""The writer of a rank's file: safetensors reads back what was given, and the digest is the file's."""

import errno
import fcntl
import hashlib
import os
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from megarc.train.checkpoint import disk_blocks, tensor_file
from megarc.train.checkpoint.disk_blocks import SECTOR, aligned, read_blocks
from megarc.train.checkpoint.tensor_file import FileImage, stored_tensors

KINDS = [torch.bool, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.float64]


@pytest.fixture(params=["direct", "refused at the opening", errno.EINVAL, errno.EFAULT])
def disk(request, monkeypatch):
    """Blocks of one sector, on a disk that allows what goes past the page cache, or does not."""
    monkeypatch.setattr(disk_blocks, "BLOCK", SECTOR)
    monkeypatch.setattr(disk_blocks, "READ", SECTOR)
    monkeypatch.setattr(tensor_file, "BLOCK", SECTOR)
    if request.param == "refused at the opening":
        monkeypatch.setattr(disk_blocks, "_direct", lambda *_: None)
    if isinstance(request.param, int):  # refused at a block
        write, read, direct = os.pwrite, os.preadv, os.O_DIRECT

        def refusing(call):
            def checked(descriptor, memory, at):
                if at >= 2 * SECTOR and fcntl.fcntl(descriptor, fcntl.F_GETFL) & direct:
                    raise OSError(request.param, "refused")
                return call(descriptor, memory, at)

            return checked

        monkeypatch.setattr(os, "pwrite", refusing(write))
        monkeypatch.setattr(os, "preadv", refusing(read))


def written(path, tensors, image=None):
    image = image or FileImage()
    image.fill(tensors)
    return image.size, image.write(path)


def test_safetensors_reads_what_was_written_and_the_digest_is_right(disk, tmp_path):
    tensors = {f"ü{n}/{kind}": torch.randn(n).mul(50).to(kind) for n in (1, 7, 1501) for kind in KINDS}
    tensors |= {"scalar": torch.tensor(3.5), "none": torch.empty(0), "grid": torch.randn(3, 5, 2)}
    size, digest = written(tmp_path / "x", tensors)
    content = (tmp_path / "x").read_bytes()
    assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
    read = load_file(tmp_path / "x")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.get_slice("grid")[1:].shape == (2, 5, 2)
    assert int.from_bytes(content[:8], "little") % 8 == 0
    for name, one in stored_tensors(tmp_path / "x").items():
        assert (one.dtype, one.shape) == (tensors[name].dtype, list(tensors[name].shape))
        assert content[one.begin : one.end] == tensors[name].view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("size", [0, 1, SECTOR, 7 * SECTOR, 23 * SECTOR + 11])
@pytest.mark.parametrize("direct", [True, False])
def test_blocks_are_the_file_in_its_order(disk, tmp_path, size, direct):
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    found = b""
    for at, block in read_blocks(tmp_path / "x", direct=direct):
        assert at == len(found)
        found += bytes(block.numpy())
    assert found == content


def test_the_memory_is_used_again_and_nothing_of_an_earlier_file_stays(disk, tmp_path):
    image = FileImage()
    for length in (9000, 3, 20_000):
        tensors = {"a": torch.randn(length), "b": torch.randn(4, 9)[:, ::3]}
        written(tmp_path / "x", tensors, image)
        read = load_file(tmp_path / "x")
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_no_tensor_is_a_file_too(tmp_path):
    written(tmp_path / "x", {})
    assert load_file(tmp_path / "x") == {}
    assert stored_tensors(tmp_path / "x") == {}


def test_memory_is_aligned():
    for size in (0, 1, SECTOR, SECTOR + 1):
        memory = aligned(size)
        assert memory.data_ptr() % SECTOR == 0 and memory.numel() % SECTOR == 0 and memory.numel() >= size


def test_a_disk_that_takes_no_more_is_an_error(disk, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            written(tmp_path / "x", {"a": torch.zeros(50_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
