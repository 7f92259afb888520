"""ThroughTime: any recurrent network, with the gradients of full backpropagation."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from irevrnn import IRevBlock, IRevRNN, IRevStack, ThroughTime
from tests.cases import assert_same_bits
from tests.library.own_network import OwnNetwork

FEATURES, HIDDEN, STEPS, BATCH = 5, 7, 2000, 3
LENGTHS = [1990, 2000, 700]
NETWORKS = {
    "lstm": lambda: nn.LSTM(FEATURES, HIDDEN, 2),
    "gru": lambda: nn.GRU(FEATURES, HIDDEN),
    "rnn": lambda: nn.RNN(FEATURES, HIDDEN, 2),
    "own": lambda: OwnNetwork(FEATURES, HIDDEN),
}
every_network = pytest.mark.parametrize("kind", NETWORKS)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Chunks that do not divide the length."""
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: 300)


def make(kind):
    torch.manual_seed(0)
    return NETWORKS[kind]().double()


def draw(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def tensors(nested):
    if isinstance(nested, torch.Tensor):
        return [nested]
    if isinstance(nested, PackedSequence):
        return [nested.data]
    return [x for part in nested for x in tensors(part)]


def detached(state):
    return state.detach() if isinstance(state, torch.Tensor) else tuple(map(detached, state))


def gradients(module, inputs, outputs):
    """Gradients of inputs and parameters for a loss of all that is returned."""
    weights = (torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y) for y in outputs)
    loss = sum((y * w).sum() + y.square().mean() for y, w in zip(outputs, weights, strict=True))
    return torch.autograd.grad(loss, [*inputs, *module.parameters()])


def assert_exact(got, wanted):
    """Within 1e-10 of the largest gradient of a tensor."""
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-10 * other.abs().max().clamp(min=1e-3)


def compare(rnn, x, state=None):
    """Compare with the network itself, which saves every step."""
    inputs = [x.requires_grad_()]
    inputs += [] if state is None else [y.requires_grad_() for y in tensors(state)]
    results = []
    for module in (rnn, ThroughTime(rnn)):
        y, after = module(x, state)
        outputs = [y, *tensors(after)]
        results.append([*outputs, *gradients(rnn, inputs, outputs)])
    assert_exact(*reversed(results))
    return results[0]


@every_network
def test_gradients_are_those_of_full_backpropagation(kind):
    rnn = make(kind)
    compare(rnn, draw(STEPS, BATCH, FEATURES))
    _, state = rnn(draw(4, BATCH, FEATURES))
    compare(rnn, draw(STEPS, BATCH, FEATURES), detached(state))


def test_control_a_truncated_gradient_is_another():
    rnn, x = make("own"), draw(STEPS, BATCH, FEATURES).requires_grad_()
    wanted = gradients(rnn, [x], [rnn(x)[0]])
    first, state = rnn(x[:300])
    rest, _ = rnn(x[300:], detached(state))
    with pytest.raises(AssertionError):
        assert_exact(gradients(rnn, [x], [torch.cat([first, rest])]), wanted)


@pytest.mark.parametrize("options", [
    {"batch_first": True}, {"proj_size": 3}, {"proj_size": 3, "batch_first": True, "bias": False},
])  # fmt: skip
def test_options_of_an_lstm(options):
    torch.manual_seed(0)
    rnn = nn.LSTM(FEATURES, HIDDEN, 2, **options).double()
    shape = (BATCH, STEPS) if rnn.batch_first else (STEPS, BATCH)
    state = draw(2, BATCH, rnn.proj_size or HIDDEN), draw(2, BATCH, HIDDEN)
    compare(rnn, draw(*shape, FEATURES), state)
    compare(rnn, draw(STEPS, FEATURES), tuple(s[:, 0].contiguous() for s in state))  # no batch


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("ordered", [True, False])
def test_packed_sequences(kind, ordered):
    rnn, x = make(kind), draw(STEPS, BATCH, FEATURES).requires_grad_()
    lengths = sorted(LENGTHS, reverse=True) if ordered else LENGTHS
    packed = pack_padded_sequence(x, lengths, enforce_sorted=ordered)
    results = []
    for module in (rnn, ThroughTime(rnn)):
        y, after = module(packed)
        assert isinstance(y, PackedSequence)
        outputs = [pad_packed_sequence(y)[0], *tensors(after)]
        results.append([*outputs, *gradients(rnn, [x], outputs)])
        packed = pack_padded_sequence(x, lengths, enforce_sorted=ordered)
    assert_exact(*reversed(results))


def alone(rnn, x, lengths, resets):
    """Outputs and last states of each sequence by itself, piece by piece, from states of 0."""
    outputs, finals = torch.zeros(0), []
    columns = []
    for i, length in enumerate(lengths):
        begins = [0, *(int(t) for t in resets[1:length, i].nonzero() + 1), length]
        pieces = []
        for first, last in itertools.pairwise(begins):
            y, state = rnn(x[first:last, i : i + 1])
            pieces.append(y)
        y = torch.cat(pieces)
        columns.append(torch.cat([y, y.new_zeros(len(x) - length, *y.shape[1:])]))
        finals.append(tensors(state))
    outputs = torch.cat(columns, 1)
    dims = [1] * len(finals[0]) if isinstance(rnn, nn.RNNBase) else [0] * len(finals[0])
    return [outputs, *map(torch.cat, zip(*finals, strict=True), dims)]


@every_network
@pytest.mark.parametrize("with_lengths", [True, False])
@pytest.mark.parametrize("with_resets", [True, False])
def test_lengths_and_resets(kind, with_lengths, with_resets):
    rnn, x = make(kind), draw(STEPS, BATCH, FEATURES).requires_grad_()
    resets = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    if with_resets:
        resets[[0, 1, 299, 300, 301, 1500], [0, 1, 2, 0, 1, 1]] = True
    lengths = LENGTHS if with_lengths else [STEPS] * BATCH
    y, after = ThroughTime(rnn)(
        x, lengths=LENGTHS if with_lengths else None, resets=resets if with_resets else None
    )
    outputs = [y, *tensors(after)]
    got = [*outputs, *gradients(rnn, [x], outputs)]
    outputs = alone(rnn, x, lengths, resets)
    assert_exact(got, [*outputs, *gradients(rnn, [x], outputs)])


@pytest.mark.parametrize(("kind", "memory"), [
    *((kind, "checkpoint") for kind in NETWORKS), ("own", "recompute"),
])  # fmt: skip
def test_between_gated_blocks(kind, memory):
    """Under ``recompute`` the network saves what it saves; ``store`` is the reference."""
    torch.manual_seed(0)
    blocks = [IRevBlock(FEATURES, 6), NETWORKS[kind](), nn.Linear(HIDDEN, 4), IRevBlock(4, 6)]
    model = IRevStack(blocks, "store").double()
    x = draw(BATCH, STEPS, FEATURES).requires_grad_()
    resets = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    resets[0, 400] = resets[2, 301] = True
    h = draw(BATCH, 6)
    _, state = make(kind)(draw(4, BATCH, FEATURES))
    hidden = (h, h), detached(state), None
    for options in ({}, {"lengths": LENGTHS, "resets": resets}, {"hidden": hidden}):
        results = []
        for model.memory in ("store", memory):
            output, after = model(x, **options)
            assert len(after) == 3 and type(after[1]) is type(state)
            outputs = [output, *tensors(after)]
            results.append([*outputs, *gradients(model, [x], outputs)])
            last, _ = model(x, **options, return_sequence=False)
            ends = [n - 1 for n in options.get("lengths", [STEPS] * BATCH)]
            torch.testing.assert_close(last, output[range(BATCH), ends])
        assert_exact(*reversed(results))


def test_the_strategy_of_a_stack_replaces_its_own():
    rnn, block = nn.GRU(4, 4), IRevBlock(4, 3)
    x = torch.randn(2, 700, 4)
    wanted, _ = IRevStack([rnn, block], "checkpoint")(x)
    model = IRevStack([ThroughTime(rnn, "store"), block], "checkpoint")
    assert torch.equal(model(x)[0], wanted)
    assert IRevStack([ThroughTime(rnn)])(x)[0].shape == (2, 700, 4)  # no block is needed
    with pytest.raises(ValueError, match=r"inverts steps, which block 0 \(GRU\) cannot"):
        IRevStack([rnn, IRevBlock(4, 3)], "reversible")


def test_random_numbers_are_replayed():
    """The gradient is that of the masks that the forward pass drew, chunk by chunk."""
    torch.manual_seed(0)
    rnn, x = nn.LSTM(FEATURES, HIDDEN, 2, dropout=0.5).double(), draw(700, BATCH, FEATURES)
    x.requires_grad_()
    torch.manual_seed(1)
    got = gradients(rnn, [x], [ThroughTime(rnn)(x)[0]])
    torch.manual_seed(1)
    outputs, state = [], None
    for part in x.split(300):
        y, state = rnn(part, state)
        outputs.append(y)
    assert_exact(got, gradients(rnn, [x], [torch.cat(outputs)]))


def test_autocast():
    rnn, x = make("own").float(), draw(700, BATCH, FEATURES).float()
    wanted = gradients(rnn, [], [rnn(x)[0]])
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = ThroughTime(rnn)(x)
        assert_same_bits(y, rnn(x)[0])
    for one, other in zip(gradients(rnn, [], [y]), wanted, strict=True):
        assert 0 < (one - other).norm() < 0.2 * other.norm()  # in half precision, yet no noise


def test_hooks_on_parameters_run_once_and_see_the_whole_gradient():
    rnn, x = make("gru"), draw(STEPS, BATCH, FEATURES)
    wanted = gradients(rnn, [], [rnn(x)[0]])
    seen = []
    rnn.weight_hh_l0.register_hook(lambda g: seen.append(g) or 2 * g)
    got = gradients(rnn, [], [ThroughTime(rnn)(x)[0]])
    pairs = zip(wanted, rnn.parameters(), strict=True)
    doubled = [2 * g if p is rnn.weight_hh_l0 else g for g, p in pairs]
    assert len(seen) == 1
    assert_exact(got, doubled)
    ThroughTime(rnn)(x)[0].sum().backward()
    assert len(seen) == 2 and rnn.weight_hh_l0._backward_hooks  # they are there again


def test_parameters_may_be_shared_and_frozen():
    rnn, x = make("own"), draw(700, BATCH, FEATURES)
    readout = nn.Linear(HIDDEN, 3, bias=False).double()
    readout.weight = rnn.key.weight
    rnn.inner.bias.requires_grad_(False)
    results = []
    for module in (rnn, ThroughTime(rnn)):
        rnn.zero_grad()
        readout(module(x)[0]).square().sum().backward()
        results.append([p.grad.clone() for p in rnn.parameters() if p.requires_grad])
    assert_exact(*results)
    assert rnn.inner.bias.grad is None


def test_the_state_dict_is_that_of_the_network():
    rnn = make("lstm")
    model = ThroughTime(rnn)
    assert {f"rnn.{name}" for name in rnn.state_dict()} == model.state_dict().keys()
    twin = copy.deepcopy(model)
    x = draw(700, BATCH, FEATURES)
    assert torch.equal(twin(x)[0], model(x)[0])


@pytest.mark.parametrize("kind", ["lstm", "own"])
def test_checkpoints_of_several_levels_under_a_budget(kind):
    """The smaller the budget, the shorter the chunks, and then the fewer states are kept."""
    rnn, x = make(kind), draw(STEPS, BATCH, FEATURES).requires_grad_()
    wanted = gradients(rnn, [x], [rnn(x)[0]])
    model = ThroughTime(rnn, memory_budget="100MB")
    model(x)
    plans = [model.picked]
    for share in (0.5, 0.3, 0.2):  # of what the longest chunk needs beside code
        [(_, loaded)] = model._costs.values()
        model.memory_budget = int(loaded + share * (plans[0].peak - loaded))
        assert_exact(gradients(rnn, [x], [model(x)[0]]), wanted)
        plans.append(model.picked)
        assert model.picked.peak <= model.memory_budget
    chunks = [plan.chunk for plan in plans]
    assert chunks == sorted(chunks, reverse=True) and chunks[0] > chunks[-1]
    model.memory_budget = 1000
    with pytest.raises(ValueError, match=r"needs at least .*\(memory='checkpoint'\)"):
        model(x)


def test_auto_stores_what_fits():
    rnn, x = make("gru"), draw(STEPS, BATCH, FEATURES)
    model = ThroughTime(rnn, "auto", "1GB")
    output, _ = model(x)
    assert model.picked.memory == "store" and torch.equal(output, rnn(x)[0])
    report = model.memory_report(x)
    saved = {option.memory: option.saved for option in report.plans}
    assert saved["checkpoint"] < saved["store"] / 20
    assert "cannot" in report.reasons["reversible"] and "\ncheckpoint " in str(report)


class Returning(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, x, state=None):
        return self.result(x)


@pytest.mark.parametrize(("rnn", "error", "message"), [
    (nn.LSTM(4, 4, bidirectional=True), ValueError, r"rnn must read .*bidirectional=True: use two"),
    (nn.LSTMCell(4, 4), TypeError, "got LSTMCell"), (nn.Linear(4, 4), TypeError, "got Linear"),
    (IRevRNN(4, 4), TypeError, "got IRevRNN"), ("lstm", TypeError, "got str"),
])  # fmt: skip
def test_what_is_no_recurrent_network(rnn, error, message):
    with pytest.raises(error, match=message):
        ThroughTime(rnn)


@pytest.mark.parametrize(("result", "error", "message"), [
    (lambda x: x, TypeError, "must return a pair, .*; got Tensor"),
    (lambda x: (x[1:], x[0]), ValueError, r"an output for each of 30 steps.*\(29, 2, 4\)"),
    (lambda x: (x, {"h": x}), TypeError, "a state must be .* nested tuples .*; got dict"),
])  # fmt: skip
def test_what_a_network_must_return(result, error, message):
    with pytest.raises(error, match=message):
        ThroughTime(Returning(result))(torch.randn(30, 2, 4))


def test_bad_arguments():
    rnn = nn.GRU(4, 4)
    with pytest.raises(ValueError, match="memory must be one of store, checkpoint, auto; got 'rev"):
        ThroughTime(rnn, "reversible")
    with pytest.raises(ValueError, match="'auto' needs memory_budget"):
        ThroughTime(rnn, "auto")
    model = ThroughTime(rnn)
    for input, message in ((torch.randn(0, 2, 4), "at least one step"), (torch.ones(()), "step")):
        with pytest.raises(ValueError, match=message):
            model(input)
    stateless = ThroughTime(Returning(lambda x: (x, torch.zeros(3))))
    with pytest.raises(ValueError, match="must have one dimension for the batch"):
        stateless(torch.randn(30, 2, 4), lengths=[30, 20])
