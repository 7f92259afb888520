"""Stacks of blocks: every strategy, one's own blocks, dropout, and what is refused."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from irevrnn import Block, Dropout, IRevBlock, IRevRNN, IRevRNNCell, IRevStack, check_stepwise
from irevrnn.kernels import reference
from irevrnn.strategies.rules import CHUNKWISE
from tests.cases import assert_same_bits
from tests.library.convolution import Convolution

pytestmark = pytest.mark.usefixtures("kernels")
CHUNKED = ["checkpoint", "reversible", "store_fixed"]
every_strategy = pytest.mark.parametrize("memory", ["store", "recompute", *CHUNKED])
T, B, WIDTH, H = 1003, 3, 6, 9


def gated(**options):
    return IRevBlock(WIDTH, H, dropout=0.1, **options)


def own(**options):
    return Convolution(WIDTH, H, **options)


KINDS = {
    "gated": lambda: [nn.Linear(4, WIDTH), gated(norm=None), *(gated() for _ in range(3))],
    "own": lambda: [nn.Linear(4, WIDTH), *(own() for _ in range(4))],
    "mixed": lambda: [
        nn.Linear(4, WIDTH), gated(), own(forgets=False), nn.GELU(),
        gated(forgets=False, num_couplings=2), Dropout(0.1), gated(activation="leaky_relu"),
        nn.Linear(WIDTH, 3),
    ],
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


def make_stack(kind, memory="recompute", dtype=torch.float32):
    torch.manual_seed(0)
    return IRevStack(KINDS[kind](), memory).to(dtype)


def make_input(steps=T, dtype=torch.float32, features=4):
    drawn = torch.Generator().manual_seed(1)
    return torch.randn(B, steps, features, generator=drawn, dtype=dtype)


def outcome(model, x, memory, between=lambda: None, **options):
    """The output, the final states and every gradient; dropout is drawn from the same seed."""
    model = copy.deepcopy(model)
    model.memory = memory
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    output, (h_n, c_n) = model(x, **options)
    between()
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    ((output * weights).sum() + h_n.square().mean() + c_n.mean()).backward()
    return [output, h_n, c_n, x.grad, *(p.grad for p in model.parameters())]


def same(got, wanted):
    return all(torch.equal(g, w) for g, w in zip(got, wanted, strict=True))


# --- inference -----------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["reversible", "store_fixed"])
@pytest.mark.parametrize("kind", ["gated", "mixed"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, "frozen"])
@pytest.mark.filterwarnings("ignore:states of block")
def test_without_gradients_fixed_point_gives_the_bits_of_recompute(memory, kind, context):
    model, x = make_stack(kind, memory).eval(), make_input()
    x[0, 5] = 1e9  # beyond the range of fixed point
    if context == "frozen":
        model.requires_grad_(False)
        context = torch.enable_grad
    with context():
        got = model(x, lengths=[T, 7, 500])
    model.memory = "recompute"
    with context():
        wanted = model(x, lengths=[T, 7, 500])
    assert_same_bits([got[0], *got[1]], [wanted[0], *wanted[1]])


def test_inference_with_reversible_needs_no_kernels_and_no_small_weights(monkeypatch):
    monkeypatch.setenv("IREVRNN_BACKEND", "python")
    model = IRevStack([IRevBlock(4, 3)], "reversible", "1MB")
    nn.init.constant_(model.blocks[0].recurrent_weight, 1.01)
    x = make_input(30)
    with torch.no_grad():
        output, _ = model(x)
    model.memory_budget, model.memory = None, "recompute"
    assert torch.equal(output, model(x)[0])


def test_long_inference_with_reversible_runs_in_chunks(monkeypatch):
    monkeypatch.setattr("irevrnn.modules.base_stack.WHOLE", 1000)
    model, x = make_stack("gated", "reversible").eval(), make_input(5000)
    longest = []
    model.blocks[0].register_forward_hook(lambda *_: longest.append(len(_[-1])))
    with torch.no_grad():
        output, _ = model(x)
        assert len(longest) > 1
        model.memory = "recompute"
        torch.testing.assert_close(output, model(x)[0])


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("memory", "budget"), [
    *((memory, None) for memory in ("store", "recompute", *CHUNKED)), ("auto", "1GB"),
    ("checkpoint", "2MB"),
])  # fmt: skip
@pytest.mark.parametrize("form", ["batch first", "time first", "one", "lengths", "packed", "last"])
def test_an_embedding_inside_gives_what_one_outside_gives(memory, budget, form):
    torch.manual_seed(0)
    embedding = nn.Embedding(20, WIDTH)
    model = IRevStack([embedding, IRevBlock(WIDTH, H), IRevBlock(WIDTH, H)], memory, budget)
    tokens = torch.randint(20, (B, 200), dtype=torch.int32 if form == "one" else torch.int64)
    options = {}
    if form == "time first":
        model.batch_first, tokens = False, tokens.t()
    elif form == "one":
        tokens = tokens[0]
    elif form == "lengths":
        options = {"lengths": [200, 7, 100]}
    elif form == "packed":
        tokens = pack_sequence([tokens[0], tokens[1, :50]])
    elif form == "last":
        options = {"return_sequence": False, "resets": torch.rand(B, 200) < 0.1}
    outer = IRevStack(list(model.blocks)[1:], memory, budget, model.batch_first)
    features = tokens._replace(data=embedding(tokens.data)) if form == "packed" else None
    results = []
    for run, x in ((model, tokens), (outer, embedding(tokens) if features is None else features)):
        output, (h_n, c_n) = run(x, **options)
        output = output.data if form == "packed" else output
        loss = output.square().sum() + h_n.sum() + c_n.sum()
        results.append([output, h_n, *torch.autograd.grad(loss, [*model.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("change", "error", "message"), [
    (lambda x: x.float(), RuntimeError, "indices.*Long, Int; but got torch.FloatTensor"),
    (lambda x: x[..., None], ValueError, r"\(batch, seq\) or \(seq\); got shape \(3, 9, 1\)"),
    (lambda x: x[0, 0], ValueError, r"must be \(batch, seq\) or .*; got shape \(\)"),
    (lambda x: x[:, :0], ValueError, r"at least one step; got shape \(3, 0\)"),
    (lambda x: pack_sequence([x[0, :, None]]), ValueError, r"of rows \(N\); got shape \(9, 1\)"),
])  # fmt: skip
def test_what_an_embedding_does_not_read(change, error, message):
    model = IRevStack([nn.Embedding(20, WIDTH), IRevBlock(WIDTH, H)])
    with pytest.raises(error, match=message):
        model(change(torch.ones(3, 9, dtype=torch.int64)))


def test_tokens_may_be_compiled_exported_and_reported():
    model = IRevStack([nn.Sequential(nn.Embedding(20, WIDTH), nn.LayerNorm(WIDTH)), gated()]).eval()
    tokens = torch.randint(20, (B, 40))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for run in (compiled, torch.export.export(model, (tokens,)).module()):
        torch.testing.assert_close(run(tokens)[0], model(tokens)[0])
    assert "reversible" in str(model.memory_report(tokens))


@pytest.mark.parametrize("memory", CHUNKED)
def test_frequencies_of_tokens_are_those_of_all_steps(memory):
    with pytest.raises(ValueError, match=r"scale_grad_by_freq=True in block 0 \(Embedding\)"):
        IRevStack([nn.Embedding(9, WIDTH, scale_grad_by_freq=True), gated()], memory)


# --- strategies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("norm", ["layer", None])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gated_block_by_hand(gate, residual, norm, bias):
    block = IRevBlock(WIDTH, H, gate=gate, residual=residual, norm=norm, bias=bias).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, rest = torch.randn(20, B, WIDTH, dtype=torch.float64), torch.zeros(B, H).double()
    read, inner, outer = x, block.input_projection, block.output_projection
    if norm:
        read = (x - x.mean(-1, True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        read = read * block.norm.weight + block.norm.bias
    z = block.scale * (read @ inner.weight.T + (inner.bias if bias else 0))
    of_block = block.recurrent_weight, block.coupling_a, block.coupling_b
    h, *states = reference.scan(z, rest, rest, *of_block, "identity", "identity")
    y = h * (1 + torch.erf(h / 2**0.5)) / 2 @ outer.weight.T + (outer.bias if bias else 0)
    if gate:
        y = y[..., :WIDTH] * torch.sigmoid(y[..., WIDTH:])
    output, (h_n, c_n) = IRevStack([block], "store", batch_first=False)(x)
    torch.testing.assert_close(output, x + y if residual else y)
    torch.testing.assert_close((h_n[0], c_n[0]), tuple(states))


@every_kind
@pytest.mark.parametrize("options", [{}, {"return_sequence": False}], ids=str)
def test_reversible_and_store_fixed_give_the_same_bits(kind, options):
    model, x = make_stack(kind), make_input()
    wanted = outcome(model, x, "store_fixed", **options)
    disturbed = partial(torch.manual_seed, 99)
    assert_same_bits(outcome(model, x, "reversible", disturbed, **options), wanted)
    control = make_input()
    control[0, 0, 0] = torch.nextafter(control[0, 0, 0], torch.tensor(9.0))
    assert not same(outcome(model, control, "reversible", **options), wanted)


@every_kind
@pytest.mark.parametrize("options", [{}, {"return_sequence": False}], ids=str)
def test_checkpoint_equals_recompute_but_for_the_order_of_sums(kind, options):
    model, x = make_stack(kind, dtype=torch.float64), make_input(dtype=torch.float64)
    store = outcome(model, x, "store", **options)
    recompute = outcome(model, x, "recompute", **options)
    checkpoint = outcome(model, x, "checkpoint", partial(torch.manual_seed, 99), **options)
    assert_same_bits(recompute, store)
    for got, wanted in zip(checkpoint, recompute, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9 * wanted.abs().max().item())


@every_kind
def test_gradcheck(kind):
    model, x = make_stack(kind, dtype=torch.float64), make_input(7, torch.float64)
    names = [name for name, _ in model.named_parameters()]

    def run(x, *parameters):
        torch.manual_seed(5)
        named = dict(zip(names, parameters, strict=True))
        output, (h_n, c_n) = torch.func.functional_call(model, named, (x,))
        return output, h_n, c_n

    inputs = [t.detach().requires_grad_() for t in (x, *model.parameters())]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@every_strategy
@every_kind
def test_pieces_give_what_the_whole_gives(memory, kind):
    model, x = make_stack(kind, memory).eval(), make_input(300)
    whole, (h_n, c_n) = model(x)
    parts, hidden = [], None
    for part in x.split(113, dim=1):
        output, hidden = model(part, hidden)
        parts.append(output)
    near = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(torch.cat(parts, 1), whole, **near)
    torch.testing.assert_close(hidden, (h_n, c_n), **near)
    last, _ = model(x, return_sequence=False)
    torch.testing.assert_close(last, whole[:, -1], rtol=1e-4, atol=1e-4)


@every_strategy
def test_states_of_blocks_of_different_sizes_follow_their_sequences(memory):
    model, x = IRevStack([IRevBlock(4, 3), IRevBlock(4, 8)], memory), make_input(50)
    lengths = torch.tensor([33, 50, 7])
    hidden = tuple([torch.randn(B, size) for size in (3, 8)] for _ in "hc")
    output, (h_n, c_n) = model(x, hidden, lengths=lengths)
    near = {"rtol": 1e-4, "atol": 1e-4}
    for row, length in enumerate(lengths):
        own = tuple([state[row] for state in states] for states in hidden)
        alone, (h, c) = model(x[row, :length], own)
        torch.testing.assert_close(output[row, :length], alone, **near)
        assert not output[row, length:].any()
        for many, one in zip((*h_n, *c_n), (*h, *c), strict=True):
            torch.testing.assert_close(many[row], one, **near)


def test_shared_blocks_and_parameters_get_all_their_gradients():
    block, other = (IRevBlock(4, 8, longest_period=None) for _ in range(2))
    other.coupling_a = other.coupling_b = block.coupling_a
    model, x = IRevStack([block, other, block]).double(), make_input(150, torch.float64)
    wanted = outcome(model, x, "recompute")
    for got, want in zip(outcome(model, x, "checkpoint"), wanted, strict=True):
        torch.testing.assert_close(got, want)
    assert_same_bits(outcome(model, x, "reversible"), outcome(model, x, "store_fixed"))


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_is_the_same_under_every_strategy():
    """Identity blocks show the mask itself."""
    model = IRevStack([Dropout(0.5), IRevBlock(4, 2), Dropout(0.3)])
    with torch.no_grad():
        model.blocks[1].output_projection.weight.zero_()
        model.blocks[1].output_projection.bias.zero_()
    x = torch.ones(B, 400, 4)
    masks = {}
    for memory in ("store", "recompute", *CHUNKED):
        model.memory = memory
        torch.manual_seed(0)
        masks[memory] = model(x)[0]
    assert all(torch.equal(mask, masks["store"]) for mask in masks.values())
    mask = masks["store"]
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    assert torch.unique(mask).tolist() == [0.0, pytest.approx(1 / 0.35)]
    torch.manual_seed(1)
    assert not torch.equal(model(x)[0], mask)


@pytest.mark.parametrize("memory", CHUNKED)
def test_dropout_behind_the_last_recurrence_is_replayed(memory, monkeypatch):
    """No state depends on its mask, which the gradient has to have all the same."""
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: 16)
    torch.manual_seed(0)
    head = nn.Linear(4, 4)
    output, _ = IRevStack([IRevBlock(4, 3), head, nn.Dropout(0.5)], memory)(make_input(60))
    output.sum().backward()
    torch.testing.assert_close(head.bias.grad, 2.0 * output.ne(0).float().sum((0, 1)))


def test_dropout_outside_of_a_stack():
    output = Dropout(0.5)(torch.ones(5, 3, 64))
    assert torch.equal(output, output[:1].expand_as(output))  # one mask for all steps
    assert set(output.unique().tolist()) == {0.0, 2.0} and not torch.equal(
        output[0, 0], output[0, 1]
    )
    one, other, *_ = Dropout(0.5)(torch.ones(8, 64))
    assert not torch.equal(one, other)


# --- memory ---------------------------------------------------------------------------------------


def test_weights_that_forget_are_refused_where_nothing_may_be_forgotten():
    keeps, forgets = IRevStack([IRevBlock(4, 6, forgets=False)]), IRevStack([IRevBlock(4, 6)])
    keeps.load_state_dict(keeps.state_dict())
    forgets.load_state_dict(keeps.state_dict())
    forgets.load_state_dict(IRevStack([IRevBlock(4, 6)]).state_dict())
    with pytest.raises(RuntimeError, match="blocks.0.recurrent_weight must be 1 with forgets="):
        keeps.load_state_dict(IRevStack([IRevBlock(4, 6)]).state_dict())
    assert (keeps.blocks[0].recurrent_weight == 1).all()


# --- bad input ------------------------------------------------------------------------------------


class Wrong(Block):
    """A block whose methods give something else than they should."""

    def __init__(self, project=None, output=None):
        super().__init__(5)
        self.inner = nn.Linear(4, 5)
        self.wrong_project, self.wrong_output = project, output

    def project(self, x):
        z = self.inner(x)
        return self.wrong_project(z) if self.wrong_project else z

    def output(self, x, h):
        return self.wrong_output(h) if self.wrong_output else h


@every_strategy
@pytest.mark.parametrize(("block", "error", "message"), [
    (Wrong(project=lambda z: z[..., :3]), ValueError, r"project must treat .* 5\); got \(20, 3, 3"),
    (Wrong(project=lambda z: z.double()), ValueError, "project must return the dtype .*float64"),
    (Wrong(project=lambda z: None), TypeError, "project must return a torch.Tensor; got NoneType"),
    (Wrong(output=lambda h: h[1:]), ValueError, r"output must treat .* \(20, 3, features\); got"),
    (Wrong(output=lambda h: h.sum(-1)), ValueError, r"output must treat each step by itself"),
    (Wrong(output=lambda h: (h, h)), TypeError, "output must return a torch.Tensor; got tuple"),
])  # fmt: skip
def test_a_block_that_returns_something_else(memory, block, error, message):
    model = IRevStack([nn.Identity(), block], memory)
    with pytest.raises(error, match=rf"block 1 \(Wrong\): {message}"):
        model(make_input(20))


@pytest.mark.parametrize(("blocks", "error", "message"), [
    ([], ValueError, "blocks must hold at least one with a recurrence; got an empty list"),
    ([nn.Linear(3, 4)], ValueError, r"at least one with a recurrence; got .*block 0 \(Linear\)"),
    ([IRevRNN(3, 4), IRevBlock(4, 3)], TypeError, r"block 0 \(IRevRNN\) has a strategy of its own"),
    ([IRevBlock(4, 3), IRevRNNCell(4, 4)], TypeError, r"\(IRevRNNCell\) has a .* or runs single"),
    ([nn.BatchNorm1d(4), IRevBlock(4, 3)], TypeError,
     r"block 0 \(BatchNorm1d\) would take sequences .* IRevBlock with norm='batch'"),
    ([IRevBlock(4, 3), nn.Sequential(nn.ReLU(), nn.Sequential(nn.BatchNorm1d(4)))], TypeError,
     r"block 1 \(Sequential\), Sequential, BatchNorm1d would take sequences or steps for channels"),
    ([nn.Conv1d(4, 4, 3, padding=1), IRevBlock(4, 3)], TypeError,
     r"block 0 \(Conv1d\) would take sequences .* run it before or behind the stack"),
    ([nn.Dropout1d(), IRevBlock(4, 3)], TypeError,
     r"block 0 \(Dropout1d\) would take .* take .* nn.Dropout or irevrnn.Dropout"),
])  # fmt: skip
def test_blocks_that_make_no_stack(blocks, error, message):
    with pytest.raises(error, match=message):
        IRevStack(blocks)


def test_a_block_is_no_module_of_a_sequence():
    """By itself it would not know which dimension is time."""
    model = nn.Sequential(nn.Linear(1, 4), IRevBlock(4, 3))
    with pytest.raises(NotImplementedError, match="IRevBlock runs in a stack alone.*IRevStack"):
        model(torch.randn(2, 10, 1))


H3, H8 = torch.zeros(B, 3), torch.zeros(B, 8)


@pytest.mark.parametrize(("hidden", "error", "message"), [
    (([H3, H8], [H3]), ValueError, r"c_0 must have 2 states, one for each .*; got 1 \(list\)"),
    (([H3], [H8]), ValueError, r"h_0 must have 2 states, one for each .*; got 1 \(list\)"),
    (H3, TypeError, r"hidden must be a pair \(h_0, c_0\); got Tensor"),
    (((H3, H8), (H3, H3)), ValueError, r"c_0\[1\] must have shape \(3, 8\) = \(batch, hidden"),
])  # fmt: skip
def test_states_that_do_not_fit(hidden, error, message):
    with pytest.raises(error, match=message):
        IRevStack([IRevBlock(4, 3), IRevBlock(4, 8)])(make_input(5), hidden)


# --- check_stepwise -------------------------------------------------------------------------------


class Mixing(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(-2, keepdim=True)


class Counting(nn.Module):
    """A module with a state of its own."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize("module", [
    gated(), own(), nn.Linear(WIDTH, 2), nn.LayerNorm(WIDTH), nn.GELU(),
    nn.Sequential(nn.Linear(WIDTH, 2), nn.Dropout(0.5)), gated(norm="batch").eval(),
], ids=lambda module: type(module).__name__)  # fmt: skip
def test_modules_that_treat_each_step_by_itself(module):
    check_stepwise(module, torch.randn(20, B, WIDTH))


@pytest.mark.parametrize(("module", "message"), [
    (Mixing(), "Mixing.forward does not treat each step by itself: .* mixes steps"),
    (Counting(), "Counting.forward does not treat each step by itself: .* keeps a state"),
    (gated(norm="batch"), "IRevBlock.project does not treat each step by itself"),
    (nn.Flatten(1), r"Flatten.forward must map \(T, B, in\) to \(T, B, out\)"),
    (Wrong(output=lambda h: h.cumsum(0)), "Wrong.output does not treat"),
    (Centred(), r"Centred.forward must take packed .* mixes sequences"),
    (nn.Conv1d(B, B, 3, padding=1), r"Conv1d.forward must take packed steps, \(N, in\).* raised"),
    (nn.BatchNorm1d(B).eval(), "BatchNorm1d.forward must take packed steps"),
], ids=lambda case: type(case).__name__)  # fmt: skip
def test_modules_that_do_not(module, message):
    x = torch.randn(20, B, 4 if isinstance(module, Wrong) else WIDTH)
    state = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=message):
        check_stepwise(module, x)
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())


X = torch.randn(20, B, WIDTH)


@pytest.mark.parametrize(("module", "x", "message"), [
    (gated(), X / 0, r"IRevBlock\.project must give finite numbers"),
    (gated(), X[:2], "T at least 3 and nothing of size 0; got shape"),
])  # fmt: skip
def test_what_check_stepwise_wants(module, x, message):
    with pytest.raises(ValueError, match=message):
        check_stepwise(module, x)


# --- resets ---------------------------------------------------------------------------------------


def random_resets(steps, share=0.02):
    drawn = torch.Generator().manual_seed(4)
    resets = torch.rand(B, steps, generator=drawn) < share
    resets[0, 0] = resets[1, steps // 2] = True
    return resets


def pieces_of(resets):
    """Return, for a sequence's resets, where its pieces begin and end."""
    starts = sorted({0, *resets.nonzero().flatten().tolist()})
    return list(zip(starts, [*starts[1:], len(resets)], strict=True))


@every_strategy
@every_kind
def test_resets_equal_the_pieces_one_by_one(memory, kind):
    model, x = make_stack(kind, memory, torch.float64).eval(), make_input(150, torch.float64)
    if memory in ("reversible", "store_fixed"):
        model, x = model.float(), x.float()
    resets = random_resets(150)
    hidden = tuple(torch.randn(4, B, H, dtype=x.dtype) for _ in "hc")
    output, (h_n, c_n) = model(x.requires_grad_(), hidden, resets=resets)
    upstream = torch.randn_like(output)
    (gradient,) = torch.autograd.grad(output, x, upstream)
    exact = memory not in ("reversible", "store_fixed")
    near = {"rtol": 1e-9, "atol": 1e-9} if exact else {"rtol": 1e-3, "atol": 1e-3}
    for row in range(B):
        state = None if resets[row, 0] else tuple(each[:, row] for each in hidden)
        for start, end in pieces_of(resets[row]):
            part = x[row, start:end].detach().requires_grad_()
            piece, (h, c) = model(part, state)
            torch.testing.assert_close(output[row, start:end], piece, **near)
            (alone,) = torch.autograd.grad(piece, part, upstream[row, start:end])
            torch.testing.assert_close(gradient[row, start:end], alone, **near)
            state = None
        torch.testing.assert_close((h_n[:, row], c_n[:, row]), (h, c), **near)


@every_kind
def test_resets_and_reversal(kind):
    model, x, resets = make_stack(kind), make_input(), random_resets(T)
    wanted = outcome(model, x, "store_fixed", resets=resets)
    assert_same_bits(outcome(model, x, "reversible", resets=resets), wanted)
    assert not same(outcome(model, x, "reversible"), wanted)
    model, x = model.double(), x.double()
    wanted = outcome(model, x, "recompute", resets=resets)
    for got, want in zip(outcome(model, x, "checkpoint", resets=resets), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * want.abs().max().item())


@pytest.mark.parametrize("memory", ["store", "recompute", *CHUNKWISE])
def test_resets_of_padded_and_packed_sequences(memory):
    model, x = make_stack("gated", memory, torch.float64).eval(), make_input(80, torch.float64)
    lengths, resets = torch.tensor([33, 80, 7]), random_resets(80, 0.1)
    output, (h_n, _) = model(x, lengths=lengths, resets=resets)
    packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    marks = pack_padded_sequence(resets[..., None], lengths, True, False).data[:, 0]
    of_packed, _ = model(packed, resets=marks)
    unpacked, _ = pad_packed_sequence(of_packed, True)
    for row, length in enumerate(lengths):
        alone, (h, _) = model(x[row, :length], resets=resets[row, :length])
        torch.testing.assert_close(output[row, :length], alone)
        torch.testing.assert_close(unpacked[row, :length], alone)
        torch.testing.assert_close(h_n[:, row], h)


@every_strategy
@pytest.mark.parametrize("value", [1e3, 1e9, math.nan])
@pytest.mark.parametrize("lengths", [None, torch.tensor([40, 33, 7])])
def test_states_that_the_first_step_resets_are_not_read(memory, value, lengths):
    """Nor do they make the unit of fixed-point numbers coarser."""
    model, x, resets = make_stack("gated"), make_input(40), torch.zeros(B, 40, dtype=torch.bool)
    resets[0, 0] = resets[2, 0] = True
    with torch.no_grad():
        hidden = [torch.zeros_like(state) for state in model(x)[1]]
    wanted = outcome(model, x, memory, hidden=hidden, resets=resets, lengths=lengths)
    for state in hidden:
        state[:, 0] = state[:, 2] = value
    got = outcome(model, x, memory, hidden=hidden, resets=resets, lengths=lengths)
    assert_same_bits(got, wanted)


def test_resets_need_one_direction():
    model, x = IRevRNN(4, 5, bidirectional=True), torch.randn(2, 60, 4)
    with pytest.raises(ValueError, match="resets must be None with bidirectional=True"):
        model(x, resets=torch.ones(2, 60, dtype=torch.bool))


def test_hooks_of_a_plain_layer_run_once():
    layer, calls = IRevRNN(4, 4).layers[0], []
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    IRevStack([layer])(torch.randn(2, 10, 4))
    assert calls == [1]
