"""The layer on sequences of different length and in both directions, against each one alone."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_sequence, unpack_sequence

from experiments.bench.measure import saved_bytes
from irevrnn import IRevRNN
from irevrnn.recurrences.block import FORGOTTEN_BITS
from irevrnn.strategies.rules import CHUNKWISE, IN_FIXED_POINT
from tests.cases import assert_same_bits

pytestmark = pytest.mark.usefixtures("kernels")
LENGTHS = [17, 60, 1, 33, 60]  # not sorted
OPTIONS = (
    {}, {"batch_first": False}, {"norm": "layer", "residual": True, "num_layers": 3},
    {"activation": "leaky_relu", "num_layers": 1}, {"activation": "tanh", "num_layers": 1},
    {"bidirectional": True}, {"bidirectional": True, "residual": True, "num_layers": 3},
)  # fmt: skip
#: Every strategy, with the options that it takes.
CASES = [
    (memory, options) for options in OPTIONS for memory in ("store", "recompute", *CHUNKWISE)
    if not (memory in CHUNKWISE and "bidirectional" in options)
    and not (memory in IN_FIXED_POINT and options.get("activation", "relu") not in FORGOTTEN_BITS)
]  # fmt: skip


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    """Sequences end within chunks and between them."""
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: 16)


def make_model(memory="recompute", **keywords):
    torch.manual_seed(0)
    keywords = {"num_layers": 2, "num_couplings": 2, "dtype": torch.float64, **keywords}
    model = IRevRNN(3, 7, memory=memory, **keywords)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        model.clip_recurrent_weights_(0.99)
    return model


def make_sequences(model):
    """A list of inputs of the lengths above, and states, all with gradients."""
    generator = torch.Generator().manual_seed(1)
    draw = {"generator": generator, "dtype": torch.float64}
    sequences = [torch.randn(n, 3, **draw).requires_grad_() for n in LENGTHS]
    layers = model.num_layers * (1 + model.bidirectional)
    hidden = [torch.randn(layers, len(LENGTHS), 7, **draw).requires_grad_() for _ in range(2)]
    return sequences, hidden


def loss_of(outputs, states):
    """A loss in which each value of each sequence has a part of its own."""
    total = sum(((i + 1) * y.sin()).sum() for i, y in enumerate(outputs))
    return total + (states[0] * torch.linspace(0, 1, 7)).sum() + (2 * states[1]).sin().sum()


def one_by_one(model, sequences, hidden, return_sequence=True):
    outputs, h_n, c_n = [], [], []
    for index, x in enumerate(sequences):
        state = tuple(s[:, index] for s in hidden)
        output, (h, c) = model(x, state, return_sequence=return_sequence)
        outputs.append(output)
        h_n.append(h)
        c_n.append(c)
    return outputs, (torch.stack(h_n, 1), torch.stack(c_n, 1))


def padded(model, sequences, hidden, return_sequence=True):
    x = pad_sequence(sequences, model.batch_first)
    # What lies beyond the end must not matter.
    steps = torch.arange(x.shape[1 if model.batch_first else 0])
    beyond = steps >= torch.tensor(LENGTHS)[:, None]
    x = x.masked_fill((beyond if model.batch_first else beyond.T)[..., None], float("nan"))
    output, states = model(x, hidden, lengths=LENGTHS, return_sequence=return_sequence)
    if not return_sequence:
        return list(output), states
    rows = output.unbind(0 if model.batch_first else 1)
    assert all((row[n:] == 0).all() for row, n in zip(rows, LENGTHS, strict=True))
    return [row[:n] for row, n in zip(rows, LENGTHS, strict=True)], states


def packed(model, sequences, hidden, return_sequence=True):
    x = pack_sequence(sequences, enforce_sorted=False)
    output, states = model(x, hidden, return_sequence=return_sequence)
    return list(unpack_sequence(output) if return_sequence else output), states


def outcome(run, model, **keywords):
    """Outputs, states and all gradients."""
    sequences, hidden = make_sequences(model)
    outputs, states = run(model, sequences, hidden, **keywords)
    leaves = [*sequences, *hidden, *model.parameters()]
    gradients = torch.autograd.grad(loss_of(outputs, states), leaves)
    return [*outputs, *states, *gradients]


@pytest.mark.parametrize(("memory", "options"), CASES, ids=str)
@pytest.mark.parametrize("way", [padded, packed])
@pytest.mark.parametrize("return_sequence", [True, False])
def test_a_sequence_knows_nothing_of_the_others(memory, way, options, return_sequence):
    model = make_model(memory, **options)
    call = {"return_sequence": return_sequence}
    got, wanted = (outcome(run, model, **call) for run in (way, one_by_one))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-11)


def test_both_directions_are_two_stacks():
    """One layer: the second direction is a stack of its own on the sequence turned round."""
    both = make_model(bidirectional=True, num_layers=1)
    x, outcomes = torch.randn(4, 50, 3, dtype=torch.float64), []
    for layers, order in ((both.layers, x), (both.reverse_layers, x.flip(1))):
        one = make_model(num_layers=1)
        one.layers.load_state_dict(layers.state_dict())
        outcomes.append(one(order))
    (ahead, states), (back, states_back) = outcomes
    output, finals = both(x)
    assert_same_bits(output, torch.cat([ahead, back.flip(1)], 2))
    assert_same_bits(finals, [torch.cat(pair) for pair in zip(states, states_back, strict=True)])


def test_the_layout_is_that_of_lstm():
    ours, theirs = make_model(bidirectional=True), torch.nn.LSTM(
        3, 7, 2, batch_first=True, bidirectional=True, dtype=torch.float64
    )  # fmt: skip
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    shapes = [(y.shape, h.shape, c.shape) for y, (h, c) in (ours(x), theirs(x))]
    assert shapes[0] == shapes[1]
    # The forward direction ends at the last step, the other one at the first.
    y, (h_n, _) = ours(x)
    assert torch.equal(y[:, -1, :7], h_n[2]) and torch.equal(y[:, 0, 7:], h_n[3])


def test_batch_norm_sees_no_padding():
    model = make_model(norm="batch")
    x = torch.randn(5, 60, 3, dtype=torch.float64)
    model(x, lengths=LENGTHS)
    z = torch.cat([model.layers[0].projection(row[:n]) for row, n in zip(x, LENGTHS, strict=True)])
    momentum = 0.1
    torch.testing.assert_close(model.layers[0].norm.running_mean, momentum * z.mean(0))


def test_reversal_saves_nothing_for_padding(monkeypatch):
    """It stores the bits of the real steps alone: of one long sequence, and eight short ones."""
    monkeypatch.undo()  # in short chunks counts take more memory than words
    model = make_model("reversible", activation="identity", num_couplings=0)
    x = torch.randn(9, 2000, 3, dtype=torch.float64)
    packed = pack_padded_sequence(x, [2000] + [16] * 8, batch_first=True)
    [estimate] = [p.saved for p in model.memory_report(packed).plans if p.memory == "reversible"]
    measured = saved_bytes(lambda: model(packed), [*packed[:2], *model.parameters()])
    assert abs(measured - estimate) < 0.05 * estimate
    assert 2 * measured < saved_bytes(lambda: model(x), [x, *model.parameters()])


@pytest.mark.parametrize("lengths", [[60, 60], [61, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
def test_lengths_that_do_not_fit(lengths):
    message = "lengths must be 5 integers between 1 and the 60 steps"
    with pytest.raises(ValueError, match=message):
        make_model()(torch.randn(5, 60, 3, dtype=torch.float64), lengths=lengths)
    with pytest.raises(TypeError, match="lengths must be integers; got "):  # not rounded
        make_model()(torch.randn(5, 60, 3, dtype=torch.float64), lengths=[2.5] * 5)


@pytest.mark.parametrize("memory", ["recompute", "reversible"])
def test_another_default_device(memory):
    """Tensors that belong on the CPU stay there. The meta device stands for a GPU."""
    model = make_model(memory, dropout=0.5, bidirectional=memory == "recompute")
    x, resets = torch.randn(5, 60, 3, dtype=torch.float64), torch.rand(5, 60) < 0.1
    resets = None if model.bidirectional else resets

    def run():
        torch.manual_seed(0)
        output, _ = model(x, lengths=[60, 3, 7, 60, 9], resets=resets)
        return output, torch.autograd.grad(output.sum(), model.layers[0].recurrent_weight)[0]

    wanted = run()
    with torch.device("meta"):
        got = run()
    assert_same_bits(got, wanted)


def test_lengths_where_there_is_nothing_to_pad():
    model = make_model()
    x = torch.randn(60, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="lengths go with a batch; got input of shape"):
        model(x, lengths=[60])
    with pytest.raises(ValueError, match="lengths go with padded input; a PackedSequence has"):
        model(pack_sequence([x]), lengths=[60])
