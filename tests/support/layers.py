"""What `worker.py` does for the job "layers": split layers against torch.nn, in float64."""

import torch
from torch import nn

from megarc.model import Head, ModelConfig, head_loss
from megarc.model.layers import ColumnLinear, Embedding, HeadsNorm, Norm, RowLinear
from megarc.model.mixers.attention import KeyValue
from megarc.model.parameter_record import record_of
from megarc.parallel import Groups, TensorParallel, all_reduce_max, all_reduce_sum

BATCH, ROWS, WIDTH, INNER, IDS = 2, 8, 12, 16, 32


def check(groups: Groups, sequence: bool) -> None:
    torch.set_default_dtype(torch.float64)
    tensor = TensorParallel(groups.tensor, sequence)
    for one in (feed_forward, key_value, heads_norm, embedding_and_loss, norm):
        torch.manual_seed(0)
        one(tensor)
    slices(groups.tensor)
    torch.set_default_dtype(torch.float32)
    if groups.first:
        print("layers agree")


def slices(group):
    """Of a tensor whose elements do not follow each other in memory, these are reduced and no others."""
    every = [torch.arange(12.0).view(3, 4) * (-2.0) ** rank for rank in range(group.size)]
    for reduce, expected in ((all_reduce_sum, sum(every)), (all_reduce_max, torch.stack(every).amax(0))):
        whole = every[group.rank].clone()
        assert torch.equal(reduce(whole[:, :-2], group), expected[:, :-2])
        assert torch.equal(whole, torch.cat((expected[:, :-2], every[group.rank][:, -2:]), 1))


def mine(full, tensor):
    """This rank's rows, where they are split between layers."""
    return full.chunk(tensor.size, 1)[tensor.rank] if tensor.sequence else full


def fill(parameter, full):
    """The shard of ``full`` that this rank has, by its record."""
    matrix = full.view(-1, full.shape[-1])
    pieces = [
        matrix[box.top : box.bottom, box.left : box.right].reshape(-1) for box in record_of(parameter).boxes
    ]
    with torch.no_grad():
        parameter.copy_(torch.cat(pieces).view(parameter.shape))


def shard(parameter, full):
    copy = parameter.detach().clone()
    copy.record = record_of(parameter)
    fill(copy, full)
    return copy


def same(one, other):
    assert torch.allclose(one, other, rtol=1e-10, atol=1e-12), (one - other).abs().max()


def feed_forward(tensor):
    """A column-parallel matrix of two parts, then a row-parallel one, with a bias."""
    up, down = nn.Linear(WIDTH, 2 * INNER, bias=False), nn.Linear(INNER, WIDTH)
    column = ColumnLinear(WIDTH, 2 * INNER, "hidden", tensor, parts=2)
    row = RowLinear(INNER, WIDTH, "residual", tensor, biased=True)
    fill(row.bias, down.bias)
    fill(column.weight, up.weight)
    fill(row.weight, down.weight)
    full = torch.randn(BATCH, ROWS, WIDTH, requires_grad=True)
    part = mine(full.detach(), tensor).clone().requires_grad_()
    gradient = torch.randn(BATCH, ROWS, WIDTH)

    a, b = up(full).chunk(2, -1)
    expected = down(a * b)
    expected.backward(gradient)
    a, b = column(tensor.enter(part)).chunk(2, -1)
    found = row(a * b)
    found.backward(mine(gradient, tensor))

    same(found, mine(expected, tensor))
    same(part.grad, mine(full.grad, tensor))
    same(column.weight.grad, shard(column.weight, up.weight.grad))
    same(row.weight.grad, shard(row.weight, down.weight.grad))
    same(row.bias.grad, down.bias.grad)


def key_value(tensor):
    """Keys and values of two groups, with a bias: split over two ranks, replicated over four."""
    config = ModelConfig(hidden=WIDTH, heads=4, kv_heads=2, head_dim=6, vocabulary=IDS, attention_bias="qkv")
    whole = nn.Linear(WIDTH, 24)
    layer = KeyValue(config, tensor)
    fill(layer.weight, whole.weight)
    fill(layer.bias, whole.bias)
    full = torch.randn(BATCH, ROWS, WIDTH, requires_grad=True)
    gradient = torch.randn(2, BATCH, 4, ROWS, 6)  # of keys and values, as each query head sees them

    k, v = whole(full).view(BATCH, ROWS, 2, 2, 6).permute(2, 0, 3, 1, 4).repeat_interleave(2, 2)
    (k * gradient[0] + v * gradient[1]).sum().backward()
    part = mine(full.detach(), tensor).clone().requires_grad_()
    own_k, own_v = layer(tensor.enter(part))
    heads = slice(tensor.rank * 4 // tensor.size, (tensor.rank + 1) * 4 // tensor.size)
    repeat = (heads.stop - heads.start) // own_k.shape[1]
    own_k, own_v = own_k.repeat_interleave(repeat, 1), own_v.repeat_interleave(repeat, 1)
    (own_k * gradient[0][:, heads] + own_v * gradient[1][:, heads]).sum().backward()

    same(own_k, k[:, heads])
    same(part.grad, mine(full.grad, tensor))
    same(layer.weight.grad, shard(layer.weight, whole.weight.grad))
    same(layer.bias.grad, whole.bias.grad)


def heads_norm(tensor):
    """One norm over heads that are split, over groups that two ranks share, with a gain that is held whole."""
    for heads in (4, 2):  # of queries; of keys, which are replicated over four ranks
        theirs, ours = nn.RMSNorm(heads * 6, eps=1e-5), HeadsNorm(heads, 6, 1e-5, tensor)
        with torch.no_grad():
            ours.weight.copy_(theirs.weight.uniform_())
        full = torch.randn(BATCH, ROWS, heads * 6, requires_grad=True)
        gradient = torch.randn(BATCH, 4, ROWS, 6)  # as each query head sees it
        split = theirs(full).view(BATCH, ROWS, heads, 6).transpose(1, 2)
        (split.repeat_interleave(4 // heads, 1) * gradient).sum().backward()
        queries = slice(tensor.rank * 4 // tensor.size, (tensor.rank + 1) * 4 // tensor.size)
        first, own = tensor.rank * heads // tensor.size, max(1, heads // tensor.size)
        part = full.detach().view(BATCH, ROWS, heads, 6).transpose(1, 2)[:, first : first + own]
        part = part.clone().requires_grad_()
        found = ours(part)
        repeat = (queries.stop - queries.start) // own
        (found.repeat_interleave(repeat, 1) * gradient[:, queries]).sum().backward()
        same(found, split[:, first : first + own])
        same(ours.weight.grad, theirs.weight.grad)
        expected = full.grad.view(BATCH, ROWS, heads, 6).transpose(1, 2)[:, first : first + own]
        if heads >= tensor.size:
            same(part.grad, expected)  # else each of several ranks has a summand of it


def embedding_and_loss(tensor):
    """Vocabulary-parallel embedding, head and cross-entropy."""
    table, head = nn.Embedding(IDS, WIDTH), nn.Linear(WIDTH, IDS, bias=False)
    own_table, own_head = Embedding(IDS, WIDTH, tensor), ColumnLinear(WIDTH, IDS, "readout", tensor)
    fill(own_table.weight, table.weight)
    fill(own_head.weight, head.weight)
    tokens, targets = torch.randint(0, IDS, (2, BATCH, ROWS))

    logits = head(table(tokens))
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    weights = torch.randn(BATCH, ROWS)
    log_z = logits.logsumexp(-1)
    ((expected.view(BATCH, ROWS) + 0.1 * log_z.square()) * weights).sum().backward()
    chunked = Head(IDS, tensor, chunk=5)
    loss = head_loss(chunked, tensor.enter(own_table(tokens)), own_head.weight, targets, weights, z_loss=0.1)
    loss.objective.backward()

    same(loss.nll.flatten(), expected)
    best = logits.argmax(-1)
    wanted = torch.where(torch.rand(BATCH, ROWS) < 0.5, targets, best)
    with torch.no_grad():
        right = head_loss(chunked, tensor.enter(own_table(tokens)), own_head.weight, wanted).right
    assert right is not None and torch.equal(right, best == wanted)
    same(own_table.weight.grad, shard(own_table.weight, table.weight.grad))
    same(own_head.weight.grad, shard(own_head.weight, head.weight.grad))


def norm(tensor):
    """A gain that every rank holds whole; with split rows its gradients are summed."""
    theirs, ours = nn.RMSNorm(WIDTH, eps=1e-5), Norm(WIDTH, 1e-5, tensor, partial=tensor.sequence)
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.uniform_())
    full = torch.randn(BATCH, ROWS, WIDTH)
    gradient = torch.randn(BATCH, ROWS, WIDTH)
    theirs(full).backward(gradient)
    found = ours(mine(full, tensor))
    found.backward(mine(gradient, tensor))
    same(found, mine(theirs(full), tensor))
    same(ours.weight.grad, theirs.weight.grad)
