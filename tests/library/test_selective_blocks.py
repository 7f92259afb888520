"""Blocks whose oscillators turn and forget as the input chooses: strategies, starts, bits."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from irevrnn import Block, IRevBlock, IRevStack, parameter_groups
from irevrnn.strategies import reversible
from tests.cases import assert_near, assert_same_bits, upstream

pytestmark = pytest.mark.usefixtures("kernels")
CHOICES = [
    {"turns": turns, "forgets": forgets, "input_gate": gate}
    for turns, forgets, gate in itertools.product(
        ("fixed", "input"), (True, False, "input"), (False, True)
    )
]
SELECTIVE = [choice for choice in CHOICES if "input" in (choice["turns"], choice["forgets"])]
STRATEGIES = ("store", "recompute", "checkpoint", "reversible", "store_fixed")
every_choice = pytest.mark.parametrize("choice", SELECTIVE, ids=str)


def make_stack(choice, memory="recompute", hot=0.3, dtype=torch.float32, **options):
    """Two blocks, with gates that choose something."""
    torch.manual_seed(0)
    blocks = [IRevBlock(6, 9, longest_period=50, **choice) for _ in range(2)]
    model = IRevStack([nn.Linear(3, 6), *blocks], memory, **options).to(dtype)
    for name, parameter in model.named_parameters():
        if "_gate.weight" in name:
            nn.init.normal_(parameter, 0, hot)
    return model


def outcome(model, *inputs, **options):
    """Output, states, and gradients of parameters and inputs."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    output, hidden = model(*inputs, **options)
    outputs = (output, *hidden)
    gradients = torch.autograd.grad(
        outputs, [*inputs, *model.parameters()], upstream(outputs), allow_unused=True,
        materialize_grads=True,
    )  # fmt: skip
    return [x.detach() for x in (*outputs, *gradients)]


def lengths_and_resets(steps, batch):
    generator = torch.Generator().manual_seed(0)
    resets = torch.rand(batch, steps, generator=generator) < 0.02
    return {"lengths": [steps, steps - 7, steps // 2, 1][:batch], "resets": resets}


# --- strategies ----------------------------------------------------------------------------------


@every_choice
@pytest.mark.parametrize("varied", [False, True], ids=["plain", "lengths and resets"])
def test_all_strategies_have_one_result(choice, varied):
    x, options = torch.randn(4, 300, 3), lengths_and_resets(300, 4) if varied else {}
    results = {m: outcome(make_stack(choice, m), x, **options) for m in STRATEGIES}
    assert_same_bits(results["reversible"], results["store_fixed"])
    for memory in ("store", "checkpoint", "reversible"):
        assert_near(results[memory], results["recompute"], 2e-4)


@every_choice
def test_gradients_in_double_precision(choice):
    """Against the reference, which autograd differentiates."""
    model, x = make_stack(choice, dtype=torch.float64), torch.randn(2, 60, 3, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IREVRNN_BACKEND", "python")
        wanted = outcome(model, x)
    assert_near(outcome(model, x), wanted, 1e-10)


@every_choice
def test_a_training_by_reversal_has_the_bits_of_one_that_stores_states(choice):
    def train(memory):
        model = make_stack(choice, memory)
        optimizer = torch.optim.AdamW(parameter_groups(model, 1e-2))
        model.clip_recurrent_weights_(after=optimizer)
        generator = torch.Generator().manual_seed(1)
        for _ in range(10):
            x = torch.randn(3, 200, 3, generator=generator)
            output, _ = model(x)
            optimizer.zero_grad()
            output.square().mean().backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    assert_same_bits(train("reversible"), train("store_fixed"))


@every_choice
@pytest.mark.parametrize("memory", ["recompute", "checkpoint"])
def test_pieces_of_a_sequence(choice, memory):
    model, x = make_stack(choice, memory), torch.randn(2, 90, 3)
    whole, hidden, outputs = model(x), None, []
    for piece in x.split([1, 40, 49], 1):
        output, hidden = model(piece, hidden)
        outputs.append(output)
    assert_near([torch.cat(outputs, 1), *hidden], [whole[0], *whole[1]], 1e-5)


@every_choice
def test_forms_of_the_input(choice):
    model, x = make_stack(choice), torch.randn(2, 30, 3)
    output, (h_n, _) = model(x)
    packed = nn.utils.rnn.pack_padded_sequence(x, [30, 30], batch_first=True)
    unpacked, _ = nn.utils.rnn.pad_packed_sequence(model(packed)[0], batch_first=True)
    assert_near([unpacked], [output], 1e-6)
    assert_near([model(x[0])[0]], [output[0]], 1e-5)
    last, _ = model(x, return_sequence=False)
    assert_near([last, h_n[0]], [output[:, -1], model(x)[1][0][0]], 1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert_near([model(x)[0]], [output], 0.1)
    assert_near([model.half()(x.half())[0]], [output], 0.1)


@every_choice
def test_copies_and_state_dicts(choice):
    model, x = make_stack(choice), torch.randn(2, 30, 3)
    output = model(x)[0]
    other = make_stack(choice, hot=0.1)
    other.load_state_dict(model.state_dict())
    assert_same_bits([copy.deepcopy(model)(x)[0], other(x)[0]], [output, output])


def test_a_budget_is_met():
    choice = {"turns": "input", "forgets": "input"}
    model = make_stack(choice, "reversible", memory_budget="50MB")
    assert_near(
        outcome(model, torch.randn(2, 3000, 3)),
        outcome(make_stack(choice), torch.randn(2, 3000, 3)),
        math.inf,
    )
    assert model.picked.memory == "reversible"


# --- starts --------------------------------------------------------------------------------------


@every_choice
def test_a_fresh_block_turns_and_forgets_alike_in_all_steps(choice):
    block = IRevBlock(6, 400, longest_memory=100, **choice)
    z, *chosen = block.project(torch.randn(50, 2, 6))
    plain = IRevBlock(6, 400, longest_memory=100, forgets=choice["forgets"] is not False)
    size = plain.project(torch.randn(50, 2, 6)).std().item()
    assert z.std().item() == pytest.approx(size, rel=0.3)
    if choice["turns"] == "input":
        assert_near([chosen.pop(0)], [block.angle.expand_as(z)], 1e-6)
    if choice["forgets"] == "input":
        decay = chosen.pop()
        assert_near([decay], [block.usual_decay().expand_as(z)], 1e-6)
    elif choice["forgets"]:
        decay = block.recurrent_weight
    if choice["forgets"]:
        tau, u = -0.5 / decay.log(), plain.recurrent_weight
        assert tau.min() > 0.9 and tau.max() < 101
        assert decay.square().median().item() == pytest.approx(u.median().item(), abs=0.05)
    periods = 2 * math.pi / block.angle
    assert periods.min() > 5.9 and periods.max() < 1001 and 50 < periods.median() < 120


def test_units_that_do_not_turn():
    block = IRevBlock(6, 9, longest_period=None, turns="input", forgets=True)
    assert (block.angle == 0).all() and block.recurrent_weight.min() > 0.5


def test_what_a_block_shows_of_itself():
    assert IRevBlock(4, 6).extra_repr() == "4, 6"
    shown = IRevBlock(4, 6, turns="input", input_gate=True).extra_repr()
    assert shown == "4, 6, turns='input', input_gate=True"


def test_parameter_groups():
    model = make_stack({"turns": "input", "forgets": "input", "input_gate": True})
    names = {p: name for name, p in model.named_parameters()}
    groups = parameter_groups(model, 1.0, 0.5, coupling_lr_scale=0.25, gate_lr_scale=0.125)
    found = {names[p]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == len(names)
    assert found["blocks.1.angle"] == (0.25, 0.0)
    for gate in ("read_gate", "angle_gate", "decay_gate"):
        assert found[f"blocks.1.{gate}.weight"] == (0.125, 0.5)
        assert found[f"blocks.1.{gate}.bias"] == (0.125, 0.0)
    assert found["blocks.1.input_projection.weight"] == (1.0, 0.5)


# --- blocks of one's own -------------------------------------------------------------------------


class Turning(Block):
    """A block that reads its angles from the input."""

    def __init__(self, result=None, **choice):
        super().__init__(4, **choice)
        self.result = result

    def project(self, x):
        parts = x.split(4, -1)
        return parts if self.result is None else self.result(parts)

    def output(self, x, h):
        return h


@pytest.mark.parametrize("memory", STRATEGIES)
def test_a_block_of_ones_own(memory):
    model = IRevStack([Turning(turns="input", forgets="input")], memory)
    x = torch.rand(2, 100, 12)
    h, c, outputs = torch.zeros(2, 4), torch.zeros(2, 4), []
    for z, angle, decay in (x_t.split(4, -1) for x_t in x.unbind(1)):
        cosine, sine = torch.cos(angle), torch.sin(angle)
        h, c = decay * (cosine * h - sine * c) + z, decay * (sine * h + cosine * c)
        outputs.append(h)
    output, (h_n, c_n) = model(x)
    assert_near([output, h_n[0], c_n[0]], [torch.stack(outputs, 1), h, c], 1e-5)


@pytest.mark.parametrize(("result", "error", "message"), [
    (lambda parts: parts[0], TypeError, r"project must return a tuple of 2 tensors.* got Tensor"),
    (lambda parts: (*parts, parts[0]), TypeError, r"must return a tuple of 2 tensors, z and what"),
    (lambda parts: (parts[0], parts[1][..., :2]), ValueError, "project must treat each step"),
    (lambda parts: (parts[0], parts[1].double()), ValueError, "must return the dtype"),
])  # fmt: skip
def test_a_block_that_returns_something_else(result, error, message):
    model = IRevStack([Turning(result, turns="input", forgets=False)])
    with pytest.raises(error, match=message):
        model(torch.randn(2, 10, 8))


@pytest.mark.parametrize(("options", "message"), [
    ({"turns": "free"}, "turns must be 'fixed' or 'input'; got 'free'"),
    ({"forgets": "never"}, "forgets must be True, False or 'input'; got 'never'"),
    ({"forgets": 2}, "forgets must be True, False or 'input'; got 2"),
    ({"turns": "input", "num_couplings": 2}, "num_couplings must be 1.* got .2, "),
    ({"turns": "input", "activation": "relu"}, "activation and .* 'identity'; got .1, 'relu'"),
    ({"forgets": "input", "coupling_activation": "tanh"}, "coupling_activation 'identity'; got"),
])  # fmt: skip
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        IRevBlock(4, 4, **options)


@pytest.mark.parametrize("memory", ["reversible", "store_fixed"])
@pytest.mark.parametrize("value", [math.nan, 1.5])
def test_impossible_decays_are_refused(memory, value):
    x = torch.rand(2, 30, 12)
    x[1, 17, 9] = value
    model = IRevStack([nn.Identity(), Turning(turns="input", forgets="input")], memory)
    with pytest.raises(OverflowError, match=r"block 1 \(Turning\), step 17"):
        model(x.requires_grad_())


class Alike(nn.Module):
    """A module that has what a stack needs of a block, and no more."""

    hidden_size, activation, coupling_activation = 4, "identity", "identity"

    def __init__(self):
        super().__init__()
        self.recurrent_weight = nn.Parameter(torch.full((4,), 0.9))
        self.coupling_a, self.coupling_b = (nn.Parameter(torch.zeros(1, 4)) for _ in range(2))

    def project(self, x):
        return x

    def output(self, x, h):
        return h


def test_a_module_that_looks_like_a_block():
    model, x = IRevStack([Alike()], "reversible"), torch.randn(2, 50, 4)
    model(x)[0].sum().backward()
    assert model.stored_bits().item() == pytest.approx(50 * 4 * 0.2, rel=1e-3)
    assert "reversible" in str(model.memory_report(x))


# --- the price of a bit --------------------------------------------------------------------------


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_stored_bits_are_those_that_reversal_stores(choice, monkeypatch):
    pushed, add = [], reversible.BitStacks.add

    def counted(stacks, chunk, words, counts):
        pushed.append(32 * len(words))
        add(stacks, chunk, words, counts)

    monkeypatch.setattr(reversible.BitStacks, "add", counted)
    model, x = make_stack(choice, "reversible"), torch.randn(4, 4000, 3)
    model(x)
    stored = sum(pushed) / 4
    assert model.stored_bits().item() == pytest.approx(stored, rel=0.01, abs=300)


@every_choice
def test_the_gradient_of_stored_bits(choice):
    """It is the same under every strategy, and that of a difference."""
    x = torch.randn(2, 100, 3)
    results = []
    for memory in STRATEGIES:
        model = make_stack(choice, memory)
        model(x)
        bits = model.stored_bits()
        weights = [p for p in model.parameters() if p.requires_grad]
        if not bits.requires_grad:
            assert choice["forgets"] is False and bits == 0
            return
        gradients = torch.autograd.grad(bits, weights, allow_unused=True, materialize_grads=True)
        results.append([bits.detach(), *gradients])
    for other in results[1:]:
        assert_near(other, results[0], 1e-4)
    if choice["forgets"] == "input":
        model = make_stack(choice, dtype=torch.float64)
        bias, values = model.blocks[1].decay_gate.bias, []
        for change in (1e-6, -1e-6):
            with torch.no_grad():
                bias[0] += change
                model(x.double())
                values.append(model.stored_bits().item())
                bias[0] -= change
        model(x.double())
        (gradient,) = torch.autograd.grad(model.stored_bits(), bias)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient[0].item(), rel=1e-4)


def test_stored_bits_of_padded_sequences():
    model = make_stack({"turns": "input"})
    model(torch.randn(4, 50, 3), lengths=[50, 30, 10, 10])
    bits = model.stored_bits().item()
    model(torch.randn(1, 25, 3))
    assert bits == pytest.approx(model.stored_bits().item())


def test_a_price_teaches_a_network_to_forget_less():
    def bits_after(price):
        model = make_stack({"turns": "fixed", "forgets": "input"}, "reversible")
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(30):
            output, _ = model(torch.randn(4, 100, 3))
            loss = (output - 1).square().mean() + price * model.stored_bits()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.stored_bits().item()

    assert bits_after(1e-2) < 0.7 * bits_after(0.0)


def test_stored_bits_that_cannot_be_told():
    model = IRevStack([IRevBlock(3, 4, activation="leaky_relu")])
    with pytest.raises(RuntimeError, match="needs a forward pass"):
        model.stored_bits()
    model(torch.randn(2, 10, 3))
    with pytest.raises(ValueError, match=r"must be 'identity'; got 'leaky_relu' in block 0"):
        model.stored_bits()


# --- initial states ------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", STRATEGIES)
def test_learnt_initial_states(memory):
    """They give what they give as an argument, and get the gradients of that."""
    learnt = {"turns": "input", "forgets": False, "learn_initial_state": True}
    model, x = make_stack(learnt, memory), torch.randn(2, 90, 3)
    states = torch.stack([model.blocks[1].initial_state, model.blocks[2].initial_state], 1)
    hidden = states.unsqueeze(2).expand(-1, -1, 2, -1)
    given = model(x, tuple(hidden.contiguous()))
    parameters = [*model.parameters()]
    pairs = [
        (out, *torch.autograd.grad(out.square().sum() + h_n.sum(), parameters))
        for out, (h_n, _) in (model(x), given)
    ]
    assert_near(pairs[0], pairs[1], 1e-5)
    assert all((block.initial_state != 0).all() for block in list(model.blocks)[1:])
    first, hidden = model(x[:, :40])
    assert_near([torch.cat([first, model(x[:, 40:], hidden)[0]], 1)], [given[0]], 1e-5)


def test_learnt_initial_states_are_vectors():
    model = make_stack({"learn_initial_state": True})
    groups = parameter_groups(model, 1e-2, weight_decay=0.1)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert id(model.blocks[1].initial_state) not in decayed
    assert "blocks.1.initial_state" in model.state_dict()
    assert "blocks.1.initial_state" not in make_stack({}).state_dict()
