"""Sequences too large for the caches, which the kernels write past them."""

import copy

import pytest
import torch

from irevrnn import scan
from tests.cases import assert_same_bits, assert_same_with_any_threads, make_inputs

STEPS = 288  # a half is whole segments, and small enough for the caches
SHAPES = [(32, 128), (33, 127), (257, 16)]  # whole lines; lines that are cut; narrow rows


def in_pieces(case, pieces, sizes=None, **options):
    """Outputs and gradients of a scan in pieces, each from the states of the one before."""
    z, h, c, u, a, b = (x.detach().requires_grad_() for x in case)
    leaves, outputs = (z, h, c, u, a, b), []
    steps = STEPS // pieces
    for part in range(pieces):
        if sizes is None:
            rows, counts = slice(part * steps, (part + 1) * steps), None
        else:
            counts = sizes[part * steps : (part + 1) * steps]
            first = int(sizes[: part * steps].sum())
            rows = slice(first, first + int(counts.sum()))
        out, h, c = scan(z[rows], h, c, u, a, b, batch_sizes=counts, **options)
        outputs.append(out)
    out = torch.cat(outputs)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    ((out * weight).sum() + h.sum() + c.sum()).backward()
    return out, h, c, *(x.grad for x in leaves)


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize(("batch", "hidden"), SHAPES)
def test_a_large_sequence_gives_the_bits_of_its_halves(kernels, batch, hidden, memory):
    case = make_inputs(STEPS, batch, hidden, 2, torch.float32)
    assert case[0].nbytes > 4 * 2**20 > case[0].nbytes / 2
    whole, halves = in_pieces(case, 1, memory=memory), in_pieces(case, 2, memory=memory)
    assert_same_bits(whole[:6], halves[:6])
    for got, wanted in zip(whole[6:], halves[6:], strict=True):  # summed in another order
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3 * wanted.abs().max().item())


@pytest.mark.parametrize(("batch", "hidden"), [(64, 128), (65, 127)])
def test_so_does_a_packed_one(kernels, batch, hidden):
    dense = make_inputs(STEPS, batch, hidden, 1, torch.float32)
    sizes = torch.linspace(batch, batch // 8, STEPS).long()
    rows = torch.cat([step[:size] for step, size in zip(dense[0].detach(), sizes, strict=True)])
    case = (rows, *dense[1:])
    assert rows.nbytes > 4 * 2**20
    out, h_n, c_n, grad_z, *_ = in_pieces(case, 1, sizes)
    # Each sequence by itself is small.
    lengths = (sizes.unsqueeze(1) > torch.arange(batch)).sum(0)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    ends = sizes.cumsum(0) - sizes
    for index in (0, 1, batch // 2, batch - 1):
        at = ends[: lengths[index]] + index
        z = rows[at].unsqueeze(1).requires_grad_()
        h_0, c_0 = (x[index : index + 1].detach() for x in dense[1:3])
        alone, h, c = scan(z, h_0, c_0, *(x.detach() for x in dense[3:]))
        ((alone[:, 0] * weight[at]).sum() + h.sum() + c.sum()).backward()
        assert torch.equal(out[at], alone[:, 0]) and torch.equal(grad_z[at], z.grad[:, 0])
        assert torch.equal(h_n[index], h[0]) and torch.equal(c_n[index], c[0])


def test_two_threads_see_what_both_have_written(kernels):
    case = make_inputs(STEPS, 32, 128, 1, torch.float32)
    assert_same_with_any_threads(lambda: in_pieces(case, 1), counts=(1, 2, 2, 2))


def test_large_results_are_tensors_like_any_other(kernels):
    out, _, _ = scan(*(x.detach() for x in make_inputs(STEPS, 32, 128, 1, torch.float32)))
    assert out.untyped_storage().nbytes() == out.nbytes
    kept = out.clone()
    assert torch.equal(out.resize_(STEPS + 1, 32, 128)[:STEPS], kept)
    assert torch.equal(copy.deepcopy(out)[:STEPS], kept)
    assert torch.equal(out.share_memory_()[:STEPS], kept)
