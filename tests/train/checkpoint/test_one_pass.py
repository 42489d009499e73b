"""Files that are verified and copied in one pass: every element lands where a reader by name puts it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from megarc.model import Record
from megarc.parallel import Box, cut, size, whole
from megarc.train.checkpoint import disk_blocks, layout
from megarc.train.checkpoint.fragment_files import FragmentFiles
from megarc.train.checkpoint.fragments import Fragment, divided
from megarc.train.checkpoint.layout import Checkpoint, Placed
from megarc.train.checkpoint.one_pass import OnePass

SHAPE = [40, 60]
PARTS = ("master", "exp_avg")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(disk_blocks, "READ", disk_blocks.SECTOR)


@pytest.fixture
def stored(tmp_path):
    """A matrix by halves of its columns, and a vector, in two files; what lies where."""
    full = {part: torch.randn(SHAPE) for part in PARTS}
    gain = {part: torch.randn(3000) for part in PARTS}
    placed = {"matrix": [], "gain": []}
    files = {}
    for number, (left, right) in enumerate([(0, 24), (24, 60)]):
        name = f"rank-{number:05d}.safetensors"
        tensors = {f"matrix/{part}": full[part][:, left:right].reshape(-1) for part in PARTS}
        placed["matrix"].append(Placed(name, SHAPE, [Box(0, 40, left, right)]))
        if number == 0:
            tensors |= {f"gain/{part}": gain[part] for part in PARTS}
            placed["gain"].append(Placed(name, [3000], whole([3000])))
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / name)
        files[name] = {"sha256": layout.digest_of(tmp_path / name)}
    return Checkpoint(tmp_path, {"files": files}), placed, full, gain


def wanted(boxes, of, shape, fill=float("nan")):
    return Fragment(
        of, Record(tuple(shape), "gain", tuple(whole(shape)), False), boxes,
        {part: torch.full((size(boxes),), fill) for part in PARTS},
    )  # fmt: skip


BOXES = {
    "all": whole(SHAPE),
    "rows": [Box(7, 31, 0, 60)],
    "columns across both files": [Box(0, 40, 10, 50)],
    "a range of elements": cut(whole(SHAPE), 133, 1777),
    "a range of one half": cut([Box(0, 40, 0, 24)], 50, 901),
    "one half as it is": [Box(0, 40, 24, 60)],
    "nothing of the first file": [Box(3, 9, 30, 44)],
}


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("name", BOXES)
def test_what_is_read_in_one_pass_is_what_is_there(stored, name, direct):
    checkpoint, placed, full, gain = stored
    fragments = [wanted(BOXES[name], "matrix", SHAPE), wanted(cut(whole([3000]), 11, 2950), "gain", [3000])]
    one = OnePass(checkpoint, placed, fragments, None)
    assert one.run(sorted(checkpoint.manifest["files"]), direct=direct) is None
    assert len(one.filled) == 2 * 3  # both parts of the matrix in two files, and of the vector in one
    for part in PARTS:
        boxes = [full[part][box.top : box.bottom, box.left : box.right].reshape(-1) for box in BOXES[name]]
        assert torch.equal(fragments[0].state[part], torch.cat(boxes))
        assert torch.equal(fragments[1].state[part], gain[part][11:2950])


def test_other_numbers_are_converted(stored):
    checkpoint, placed, full, _ = stored
    fragment = wanted(whole(SHAPE), "matrix", SHAPE)
    fragment.state["master"] = torch.zeros(size(fragment.boxes), dtype=torch.float64)
    OnePass(checkpoint, placed, [fragment], None).run(sorted(checkpoint.manifest["files"]), direct=True)
    assert torch.equal(fragment.state["master"], full["master"].double().view(-1))


def test_only_the_parts_that_are_wanted(stored):
    checkpoint, placed, full, _ = stored
    fragment = wanted(whole(SHAPE), "matrix", SHAPE)
    one = OnePass(checkpoint, placed, [fragment], ("master",))
    assert one.run(sorted(checkpoint.manifest["files"]), direct=False) is None
    assert {part for *_, part in one.filled} == {"master"}
    assert torch.equal(fragment.state["master"], full["master"].view(-1))
    assert fragment.state["exp_avg"].isnan().all()


@pytest.mark.parametrize("at", [3, 40, -5])
def test_a_flipped_byte_is_found(stored, at):
    checkpoint, placed, *_ = stored
    path = checkpoint.folder / "rank-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    one = OnePass(checkpoint, placed, [wanted(whole(SHAPE), "matrix", SHAPE)], None)
    assert one.run(sorted(checkpoint.manifest["files"]), direct=True) == "rank-00001.safetensors"


def test_what_no_tensor_of_the_file_fits_is_left_to_the_reader_by_name(stored):
    checkpoint, placed, *_ = stored
    fragment = wanted(whole(SHAPE), "matrix", SHAPE)
    placed["matrix"][0] = Placed("rank-00000.safetensors", SHAPE, [Box(0, 40, 0, 25)])
    one = OnePass(checkpoint, placed, [fragment], None)
    assert one.run(sorted(checkpoint.manifest["files"]), direct=False) is None
    assert {file for file, *_ in one.filled} == {"rank-00001.safetensors"}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_divided_fragments_are_the_same_elements_in_equal_files(tmp_path, count):
    parts = [
        wanted([Box(0, 10, 0, 30)], "a", [10, 30]),
        wanted(whole([7]), "b", [7]),
        wanted(whole([999]), "c", [999]),
    ]
    for part in parts:
        for tensor in part.state.values():
            tensor.copy_(torch.randn_like(tensor))
    lists = divided(parts, count)
    assert len(lists) == count
    sizes = [sum(size(part.boxes) for part in one) for one in lists]
    assert max(sizes) - min(sizes) <= 1
    placed, files = {}, {}
    for number, one in enumerate(lists):
        name = f"rank-{number:05d}.safetensors"
        tensors = {f"{part.name}/{key}": tensor.clone() for part in one for key, tensor in part.state.items()}
        save_file(tensors, tmp_path / name)
        assert load_file(tmp_path / name).keys() == tensors.keys()
        files[name] = {}
        for part in one:
            placed.setdefault(part.name, []).append(Placed(name, list(part.record.shape), part.boxes))
    with FragmentFiles(Checkpoint(tmp_path, {"files": files})) as read:
        for part in parts:
            for key, values in part.state.items():
                found = torch.full_like(values, float("nan"))
                for source in placed[part.name]:
                    read.read(source, part.name, key, found, part.boxes)
                assert torch.equal(found, values)


@pytest.mark.parametrize(
    ("writers", "second", "readers"), [(4, 0, 4), (4, 4, 4), (4, 4, 2), (1, 1, 2), (3, 0, 8), (5, 2, 1)]
)
def test_each_file_is_verified_by_one_reader_and_where_as_many_wrote_by_its_writer(
    tmp_path, writers, second, readers
):
    numbers = [*range(writers), *(1_000_000 + rank for rank in range(second))]
    names = {f"rank-{number:05d}.{kind}" for number in numbers for kind in ("json", "safetensors")}
    checkpoint = Checkpoint(tmp_path, {"files": dict.fromkeys(names)})
    shares = [checkpoint.share(reader, readers) for reader in range(readers)]
    assert sorted(name for share in shares for name in share) == sorted(names)
    if readers == writers and second in (0, writers):
        assert all({layout.rank_of(name) for name in share} == {rank} for rank, share in enumerate(shares))
    pairs = [len(share) // 2 for share in shares]
    assert max(pairs) - min(pairs) <= 1
