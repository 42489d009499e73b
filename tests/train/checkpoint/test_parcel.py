"""A checkpoint on its way to another host: whole with its digests right, or not there at all."""

import queue
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from orjson import dumps

from megarc.train.checkpoint import layout, parcel
from megarc.train.checkpoint.layout import open_checkpoint, write_manifest
from megarc.train.run_position import Standing


class Wires:
    """Channels between threads."""

    def __init__(self):
        self.queues = {}

    def of(self, rank):
        wires = self

        class Wire:
            def swap(self, out, to, into, source):
                if out is not None:
                    wires._queue(rank, to).put(out.clone())
                if into is not None:
                    into.copy_(wires._queue(source, rank).get(timeout=20))

        return Wire()

    def _queue(self, *ends):
        return self.queues.setdefault(ends, queue.Queue())


def saved(folder, rank, step=7, size=10_000):
    """A finished checkpoint of one rank."""
    place = layout.step_folder(folder, step)
    place.mkdir(parents=True)
    tensors = place / f"{layout.rank_name(rank)}.safetensors"
    tensors.write_bytes(torch.randint(0, 256, (size,), dtype=torch.uint8).numpy().tobytes())
    facts = {"tensors": tensors.name, "size": size, "sha256": layout.digest_of(tensors), "fragments": []}
    tensors.with_suffix(".json").write_bytes(dumps(facts))
    write_manifest(place, [rank], Standing(step, step * 8), {"config": {}})
    return place


def ring(folders, places):
    """Each host sends to the next and hears from the one before; what each got."""
    wires, count = Wires(), len(folders)
    with ThreadPoolExecutor(count) as pool:
        jobs = [
            pool.submit(
                parcel.pass_on, wires.of(me), folders[me], (me + 1) % count, places[me], (me - 1) % count
            )
            for me in range(count)
        ]
        return [job.result(timeout=30) for job in jobs]


@pytest.fixture
def disks(tmp_path):
    return [tmp_path / f"disk-{number}" for number in range(3)]


def same(one, other):
    return {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


@pytest.mark.parametrize("count", [2, 3])
def test_all_hosts_of_a_ring_send_and_receive_at_once(disks, monkeypatch, count):
    monkeypatch.setattr(parcel, "CHUNK", 999)
    folders = [saved(disk, rank, size=3_000 + 1_111 * rank) for rank, disk in enumerate(disks[:count])]
    places = [disk / "peers" for disk in disks[:count]]
    for me, (arrived, problem) in enumerate(ring(folders, places)):
        assert problem == "" and arrived == places[me] / "step-000000007"
        assert same(arrived, folders[me - 1]) and open_checkpoint(arrived).check()


def test_a_host_without_a_checkpoint_sends_nothing_and_still_receives(disks):
    folder = saved(disks[0], 0)
    (nothing, why), (arrived, _) = ring([folder, None], [disk / "peers" for disk in disks[:2]])
    assert (nothing, why) == (None, "") and same(arrived, folder)


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "rank-00000.json", "manifest.json"])
def test_a_bit_that_flips_on_the_way_makes_no_copy_and_the_earlier_one_stays(disks, name):
    first = saved(disks[0], 0, step=6)
    places = [disk / "peers" for disk in disks[:2]]
    ring([first, None], places)
    folder = saved(disks[0], 0)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    *_, (arrived, why) = ring([folder, None], places)
    assert arrived is None
    assert [path.name for path in places[1].iterdir()] == ["step-000000006"]
    assert name == "manifest.json" or f"{name} is damaged: its digest differs" in why


def test_a_sender_whose_disk_fails_on_the_way_makes_no_copy_and_nobody_waits(disks, monkeypatch):
    folder = saved(disks[0], 0)
    real = parcel.swap_words

    def cut(channel, words, to, source):
        answer = real(channel, words, to, source)
        (folder / "rank-00000.safetensors").write_bytes(b"short")  # after its size was announced
        return answer

    monkeypatch.setattr(parcel, "swap_words", cut)
    (nothing, _), (arrived, why) = ring([folder, None], [disk / "peers" for disk in disks[:2]])
    assert nothing is None and arrived is None and "rank-00000.safetensors is damaged: its digest" in why
    assert not list((disks[1] / "peers").iterdir())


def test_a_disk_without_room_says_so_before_anything_is_sent(disks, monkeypatch):
    folder = saved(disks[0], 0)
    full = shutil._ntuple_diskusage(1 << 30, 1 << 30, 1 << 19)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    *_, (arrived, why) = ring([folder, None], [disk / "peers" for disk in disks[:2]])
    assert arrived is None and f"{disks[1] / 'peers'} has 0.5 MiB free, and 1.0 are needed" in why
    assert not list((disks[1] / "peers").iterdir())


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_and_nobody_waits(disks, monkeypatch):
    monkeypatch.setattr(parcel, "CHUNK", 999)
    folder = saved(disks[0], 0)
    (disks[1] / "peers").mkdir(parents=True)
    real = parcel._Arriving.take

    def take(self, name, chunk):
        shutil.rmtree(self.folder, ignore_errors=True)  # as good as no disk
        real(self, name, chunk)

    monkeypatch.setattr(parcel._Arriving, "take", take)
    *_, (arrived, why) = ring([folder, None], [disk / "peers" for disk in disks[:2]])
    assert arrived is None and "could not write" in why and not list((disks[1] / "peers").iterdir())


@pytest.mark.parametrize(
    ("step", "name"), [("../step-000000007", "manifest.json"), ("step-000000007", "../../evil")]
)
def test_names_that_leave_the_folder_are_refused(disks, monkeypatch, step, name):
    folder = saved(disks[0], 0)
    real = parcel.swap_words

    def lie(channel, words, to, source):
        if isinstance(words, dict) and words["step"]:
            words = {"step": step, "sizes": {name: 3}}
        return real(channel, words, to, source)

    monkeypatch.setattr(parcel, "swap_words", lie)
    *_, (arrived, why) = ring([folder, None], [disk / "peers" for disk in disks[:2]])
    assert arrived is None and "is not a checkpoint" in why
    assert not (disks[1] / "step-000000007").exists() and not list((disks[1] / "peers").iterdir())
