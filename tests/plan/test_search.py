"""Layouts, links and steps: properties that hold for any device, and what is refused."""

import re
from dataclasses import replace

import pytest
import yaml

from megarc.config import build, to_dict
from megarc.errors import UserError
from megarc.model import cost_of
from megarc.parallel import Topology
from megarc.plan import PARTS, Planner, best_three, find_device, parse_layout, what_would_fit, work
from megarc.plan.links import Link, Links
from megarc.plan.muon_time import muon_exchanged, muon_matrices
from megarc.plan.muon_traffic import muon_traffic
from megarc.plan.time_to_train import time_over_gpus
from megarc.train import RunConfig, check_experts

DEVICE = find_device("h100-80g")


def config(**keys):
    tree = {
        "model": {"layers": 2, "hidden": 256, "heads": 2, "vocabulary": 1000},
        "window": {"recent": 64, "causal": 64}, "batch": {"size": 8}, "precision": "bf16", "length": "1000 steps",
    }  # fmt: skip
    return build(RunConfig, {**tree, **keys}, "test")


@pytest.fixture(scope="module")
def planner():
    return Planner(config(), DEVICE)


def test_collectives_are_alpha_beta():
    """Thakur et al. 2005: a ring moves 2(n-1)/n of the bytes, in 2(n-1) messages; a tree is short for few bytes."""
    link = Link(bandwidth=1e9, latency=1e-5, ranks=8)
    assert link.seconds("gather", 8e9) == pytest.approx(7 * 1e-5 + 7.0)
    assert link.seconds("reduce", 8e9) == pytest.approx(14 * 1e-5 + 14.0)
    assert link.seconds("reduce", 8.0) == pytest.approx(6 * 1e-5, rel=1e-2)
    assert Link(1e9, 1e-5, 1).seconds("reduce", 8e9) == 0


def test_links_follow_the_place_of_ranks():
    links = Links.of(Topology.fit(64, tensor=8, pipeline=2), DEVICE)
    assert links.tensor.bandwidth > 5 * links.data.bandwidth  # inside a node against one adapter
    wide = Links.of(Topology.fit(64), DEVICE)
    assert wide.data.bandwidth == pytest.approx(min(450e9, 8 * 50e9) * 0.8)  # eight adapters a node


def test_attention_is_as_fast_as_its_engine():
    """Hopper's cuDNN kernels against FlashAttention 2; an Ampere has none that are faster."""
    hopper, ampere = DEVICE, find_device("a100-80g")

    def ratio(device):
        flash, auto = (device.attention_seconds(1e15, 8192, False, 2, way) for way in ("split_flash", "auto"))
        return flash / auto

    assert ratio(hopper) == pytest.approx(1.6, rel=1e-3) and ratio(ampere) == 1
    slow, fast = (
        Planner(config(execution={"attention": way}), hopper).plan(parse_layout("micro=2", config(), 2)[0])
        for way in ("split_flash", "auto")
    )
    assert slow.step.parts["attention"] > fast.step.parts["attention"]  # in so small a model, by little
    assert slow.step.parts["products"] == fast.step.parts["products"]


def test_all_layouts_divide_and_the_best_is_first(planner):
    plans = planner.all(4)
    assert {plan.layout.tensor for plan in plans} == {1, 2}  # heads are 2
    assert {plan.layout.pipeline for plan in plans} == {1, 2}
    for plan in plans:
        layout = plan.layout
        assert (
            layout.topology.world == 4 and planner.config.batch.size % (layout.data * layout.micro_batch) == 0
        )
        assert layout.zero == 1 or layout.pipeline == 1
        assert plan.step.seconds == pytest.approx(sum(plan.step.parts.values()))
        assert (plan.step.parts["bubble"] > 0) == (layout.pipeline > 1)
    seconds = [plan.step.seconds for plan in plans if plan.fits]
    assert seconds == sorted(seconds) and len(seconds) == len(plans)
    assert plans[0].facts()["step_seconds"] == seconds[0]
    # Built again through its own words, a layout gives the same plan.
    layout, whole = parse_layout(str(plans[3].layout), planner.config, 4)
    assert whole and planner.plan(layout).step.seconds == plans[3].step.seconds


def test_every_part_of_a_step_has_words(planner):
    """Where it is the largest part but products, the best layout's sentence names it."""
    plan = planner.plan(parse_layout("micro=2", planner.config, 4)[0])
    for name in PARTS:
        step = replace(plan.step, parts={**dict.fromkeys(PARTS, 0.0), name: 1.0})
        ((_, why),) = best_three([replace(plan, step=step)])
        assert "the largest other part is" in why


def test_recomputation_costs_time_and_saves_memory(planner):
    def plan(words):
        return planner.plan(parse_layout(f"micro=2,{words}", planner.config, 4)[0])

    none, full = plan("recompute=none"), plan("recompute=full")
    assert full.step.parts["products"] > 1.02 * none.step.parts["products"]
    assert full.memory.activations < 0.5 * none.memory.activations
    assert plan("zero=3").memory.weights == pytest.approx(none.memory.weights / 4)


@pytest.mark.parametrize(
    ("gpus", "words"), [(1, "micro=1"), (4, "tensor=2,micro=1"), (2, "pipeline=2,micro=1")]
)
def test_muons_iterations_are_the_flops_of_newton_schulz(gpus, words):
    """Two products of 2r²c FLOPs and one of 2r³, five times, of each matrix, shared by a stage's ranks."""
    rate = 1e12
    measured = DEVICE.measured.model_copy(update={"products": [(1.0, rate)]})
    device = DEVICE.model_copy(update={"measured": measured, "operator_seconds": 0.0})

    def update(name):
        run = config(optimizer={"name": name})
        planner = Planner(run, device)
        return planner.plan(parse_layout(words, run, gpus)[0]).step.parts["update"]

    hidden, ffn, layers = 256, config().model.width_of_ffn, 2
    one = 4 * (4 * hidden**3 + 2 * hidden**3) + 3 * (4 * hidden**2 * ffn + 2 * hidden**3)
    assert update("muon") - update("adamw") == pytest.approx(5 * layers * one / gpus / rate)


@pytest.mark.parametrize(
    ("gpus", "keys", "near"),
    [
        (4, {"tensor": 2, "zero": 0}, 0),  # exact
        (2, {"tensor": 2, "zero": 1}, 0),
        (4, {"tensor": 2, "zero": 1}, 0.1),
        (4, {"zero": 3}, 0.3),  # at most: parts of q, k and v lie together
        (4, {"tensor": 2, "zero": 0, "expert": 2}, 0),
        (4, {"tensor": 2, "zero": 1, "expert": 2}, 0.1),
        (8, {"tensor": 2, "zero": 2, "expert": 2}, 0.1),
    ],
)
def test_muons_exchange_is_what_its_ranks_send_on_the_average(gpus, keys, near):
    """``muon_traffic`` counts each rank's parts as the engine lays them out; ranks send unequal numbers."""
    model = {"model": EXPERTS} if "expert" in keys else {}
    run = config(optimizer={"name": "muon"}, parallel=keys, precision="fp32", **model)
    topology = Topology.fit(gpus, tensor=keys.get("tensor", 1))
    sent = [one for rank in range(gpus) for one in muon_traffic(run, topology, rank)]
    found = muon_exchanged(muon_matrices(run), run, topology)
    for each, total in zip(found, map(sum, zip(*sent, strict=True)), strict=True):
        assert each == pytest.approx(total / gpus, rel=near or 1e-9)


def test_an_average_of_weights_costs_its_bytes(planner):
    """Two float32 numbers read and one written, of each element that a rank owns."""
    kept = config(average={"decay": 0.999})
    words = "micro=2,zero=1"
    plans = [each.plan(parse_layout(words, each.config, 4)[0]) for each in (planner, Planner(kept, DEVICE))]
    elements = cost_of(kept.model, kept.window.build()).parameters / 4
    longer = plans[1].step.parts["update"] - plans[0].step.parts["update"]
    assert longer == pytest.approx(12 * elements / DEVICE.memory_rate)


def test_ranks_beside_each_other_are_as_slow_as_measured():
    measured = DEVICE.measured.model_copy(
        update={"products": [(1.0, 1e12)], "memory": [(1.0, 1e11)], "crowded": (1.5, 2.0)}
    )
    device = DEVICE.model_copy(update={"measured": measured, "kind": "cpu"})
    run = config(precision="fp32")

    def parts(gpus):
        return Planner(run, device).plan(parse_layout("micro=2,zero=0", run, gpus)[0]).step.parts

    one, two = parts(1), parts(2)
    assert two["products"] == pytest.approx(1.5 * one["products"] / 2)  # half as many micro-batches each


def test_context_ranks_share_a_windows_work():
    """Half the pairs, half the rows' products, and keys and values of all rows, forward and backward, over the link."""
    run = config(window={"recent": 512, "causal": 512}, batch={"size": 1}, precision="fp32")
    planner = Planner(run, DEVICE)
    one, two = (
        planner.plan(parse_layout(words, run, gpus)[0])
        for words, gpus in (("zero=0", 1), ("context=2,zero=0", 2))
    )
    assert (two.layout.context, two.layout.data, two.layout.topology.world) == (2, 1, 2)
    assert str(two.layout) == "tensor=1,context=2,pipeline=1,data=1,zero=0,micro=1,recompute=none"

    def flops(layout):
        work = planner.traces.work(1, False, "none", 1, layout.context)
        kinds = {"attention": 0.0, "product": 0.0}
        for count, block in work.blocks:
            for one in block.one:
                kinds[one.kind] = kinds.get(one.kind, 0.0) + count * one.flops
        return kinds

    whole, half = flops(one.layout), flops(two.layout)
    assert half["attention"] == pytest.approx(whole["attention"] / 2)
    assert half["product"] == pytest.approx(whole["product"] / 2)
    # bytes of the window's keys and values in a layer: heads are 2 of 128
    layers, keys = 2, 2 * 1024 * 256 * 4
    link = Links.of(two.layout.topology, DEVICE).context
    assert two.step.parts["context"] == pytest.approx(layers * 2 * link.seconds("gather", keys))
    assert two.memory.activations < 0.8 * one.memory.activations
    assert two.layout.config(run).parallel.context == 2


def test_context_is_tried_where_nothing_fits_without():
    """One sample a step leaves one data rank, and one layer one stage: two GPUs can only share the rows."""
    model = {"layers": 1, "hidden": 256, "heads": 1, "vocabulary": 1000}
    run = config(model=model, window={"recent": 1 << 13, "causal": 1 << 13}, batch={"size": 1})
    small = DEVICE.model_copy(update={"memory_gib": 0.165, "reserved_gib": 0.0})
    plans = Planner(run, small).all(2, offload=False)
    assert {plan.layout.context for plan in plans} == {2}
    assert plans[0].fits and not plans[-1].fits
    unlike = config(model={**model, "mixers": "crf"}, window={"recent": 8, "causal": 8}, batch={"size": 1})
    with pytest.raises(UserError, match="not a multiple of the data ranks of any layout of 2 GPUs"):
        Planner(unlike, small).all(2)


EXPERTS = {"layers": 2, "hidden": 128, "heads": 2, "vocabulary": 500, "experts": {"count": 4, "width": 512}}


def test_ranks_that_share_experts_hold_fewer_and_send_rows():
    run = config(model=EXPERTS)
    planner = Planner(run, DEVICE)
    one, two = (planner.plan(parse_layout(f"micro=1,zero=1,expert={ranks}", run, 4)[0]) for ranks in (1, 2))
    routed = 2 * 4 * 3 * 128 * 512  # elements: layers, experts, matrices
    assert one.memory.weights - two.memory.weights == 2 * routed / 2
    assert one.memory.moments == two.memory.moments  # half as many experts, over half as many ranks
    rows = 2 * 128 * 2  # bytes of one row, bf16, and the two experts that it goes to
    link = Links.of(two.layout.topology, DEVICE, 2).expert
    least = 2 * 2 * 4 * link.exchange(128 * rows / 2)  # micro-batches of 128 rows, layers, four times
    assert least < two.step.parts["experts"] < 7 / 4 * least  # three more are weights and counts
    assert one.step.parts["experts"] == 0
    assert str(two.layout) == "tensor=1,pipeline=1,expert=2,data=4,zero=1,micro=1,recompute=none"
    assert two.layout.config(run).parallel.expert == 2


def test_the_search_tries_experts_where_the_configuration_allows_them():
    """What ``check_experts`` refuses is no layout."""
    run = config(model=EXPERTS)
    plans = Planner(run, DEVICE).all(4)
    found = {plan.layout.expert for plan in plans}
    assert found == {1, 2, 4}
    for plan in plans:
        parallel = plan.layout.config(run).parallel
        check_experts(run.model, run.execution, parallel, run.optimizer)
        assert plan.layout.data % plan.layout.expert == 0
    assert parse_layout(str(next(plan for plan in plans if plan.layout.expert == 4).layout), run, 4)[1]


def test_the_search_that_traces_few_chunks_finds_the_same(monkeypatch):
    model = {"layers": 1, "hidden": 256, "heads": 1, "vocabulary": 1000}
    window = {"recent": 32, "causal": 32}
    run = config(model=model, window=window, batch={"size": 2}, execution={"head_rows": 4})
    small = DEVICE.model_copy(update={"memory_gib": 0.001})
    few = Planner(run, small).all(2, offload=False)
    monkeypatch.setattr(work, "_MANY", 10**9)
    everything = Planner(run, small).all(2, offload=False)
    assert {plan.layout.context for plan in few} == {1, 2}
    assert [plan.facts() for plan in few] == [plan.facts() for plan in everything]


def test_what_fits_nowhere_says_what_would():
    small = DEVICE.model_copy(update={"memory_gib": 1.505})
    planner = Planner(config(), small)
    plans = planner.all(2)
    assert not any(plan.fits for plan in plans)
    assert any(plan.layout.offload == "all" for plan in plans)
    said = what_would_fit(planner, plans, 2)
    assert "a device has 1.5 GiB. What would fit:" in said and "--device v100-16g" in said


def test_changes_that_would_fit_have_been_planned():
    """Of a layout that was asked for: each change that is named fits, planned by itself, and so do more GPUs."""
    run = config(model={"layers": 8, "hidden": 512, "heads": 4, "vocabulary": 1000}, batch={"size": 64})
    planner = Planner(run, DEVICE)
    asked = planner.plan(parse_layout("micro=32,zero=1", run, 2)[0])
    smaller = planner.plan(parse_layout("micro=1,recompute=full,zero=3", run, 2)[0])
    for limit, named in ((1.0001, {"micro=1,recompute=full,zero=3"}), (1.2, {"micro=1", "recompute=full"})):
        planner.device = DEVICE.model_copy(update={"memory_gib": limit * smaller.memory_gib})
        assert asked.memory_gib > planner.device.memory_gib
        said = what_would_fit(planner, [asked], 2)
        changes = dict(re.findall(r"(?:fit: |; )([a-z]+=[^ ]+) \(([\d.]+) GiB", said))
        assert set(changes) == named, said
        for words, gib in changes.items():
            plan = planner.plan(parse_layout(f"zero=1,micro=32,{words}", run, 2)[0])
            assert plan.fits and f"{plan.memory_gib:.1f}" == gib, words
    more = re.findall(r"--gpus (\d+) \(.*: ([\d.]+) GiB\)", said)
    assert more, said
    for gpus, gib in more:
        assert any(f"{plan.memory_gib:.1f}" == gib and plan.fits for plan in planner.thrifty(int(gpus)))
    planner.device = DEVICE.model_copy(update={"memory_gib": 0.01, "reserved_gib": 0.0})
    assert "--gpus" not in what_would_fit(planner, planner.all(2), 2)


def test_more_gpus_than_the_critical_batch_allows_buy_less(planner):
    free, none = time_over_gpus(planner, 8)
    points, knee = time_over_gpus(planner, 8, critical=4)  # the run's own batch of 8 is beyond it
    assert [point.gpus for point in points] == [1, 2, 4, 8, 16, 32, 64]
    assert none is None and knee == 1
    assert all(point.days >= other.days for point, other in zip(points, free, strict=True))
    assert points[-1].days > 1.5 * free[-1].days  # 64 data ranks need a batch of 64, worth far fewer samples
    assert planner.config.batch.size == 8  # as it was


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("context=3", "does not divide --gpus 8"),
        ("context=2,offload=optimizer", "parallel.offload is not supported"),
        ("expert=4", r"parallel\.expert 4 distributes experts, but model\.experts is not given"),
        ("expert=3", "expert 3 does not divide the 8 data ranks .* use 1, 2, 4, 8"),
        ("interleave=2", "no interleaved pipelines"),
        ("tensor=3", "does not divide --gpus 8"),
        ("tensor=4", "does not divide model"),
        ("pipeline=4", "more than model.layers 2"),
        ("pipeline=2,zero=3", "zero=1"),
        ("zero=0", "bf16 needs zero=1"),
        ("micro=5", "does not divide the 1 samples"),
        ("data=4", "leave data out"),
        ("recompute=some", "none, selective, full"),
        ("tensor", "is not part of a layout"),
        ("tensor=two", "is not a number"),
        ("tensor=²", "tensor=² is not a number of 1 or more"),
        ("zero=²", "zero=² is not a number of 0 or more"),
        pytest.param("tensor=" + "9" * 5000, "of at most nine digits", id="tensor=99.."),
    ],
)
def test_layouts_that_cannot_be(words, says):
    with pytest.raises(UserError, match=says):
        parse_layout(words, config(), 8)


def test_devices_and_numbers_of_gpus_that_cannot_be(planner, tmp_path):
    with pytest.raises(UserError, match="no device 'h900'; known: v100"):
        find_device("h900")
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    with pytest.raises(UserError, match=r"mine\.yaml.*memory_gib"):
        find_device(str(tmp_path / "mine.yaml"))
    with pytest.raises(UserError, match="no device 'xxx"):
        find_device("x" * 300)  # longer than a file's name may be
    zero = {**to_dict(find_device("cpu")), "measured": {"products": [[1e6, 0.0]]}}
    (tmp_path / "zero.yaml").write_text(yaml.safe_dump(zero))
    with pytest.raises(UserError, match=r"zero\.yaml.*measured\.products\.0\.1.*greater than 0"):
        find_device(str(tmp_path / "zero.yaml"))
    with pytest.raises(
        UserError, match=r"not a multiple of the data ranks of any layout of 7 GPUs.*batch\.size=7"
    ):
        planner.all(7)
