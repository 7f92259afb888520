"""A stack one step at a time: against the forward pass."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from irevrnn import IRevBlock, IRevRNN, IRevStack

pytestmark = pytest.mark.usefixtures("kernels")
STACKS = {
    "gated": lambda: [IRevBlock(5, 7), IRevBlock(5, 7)],
    "between": lambda: [nn.Linear(5, 6), IRevBlock(6, 20), IRevBlock(6, 20), nn.Linear(6, 2)],
    "conserving": lambda: [IRevBlock(5, 64, 3, forgets=False, norm=None, residual=False)],
    "nonlinear": lambda: [IRevBlock(5, 33, activation="relu", coupling_activation="tanh")],
    "without biases": lambda: [IRevBlock(5, 7, 0, longest_period=None, bias=False)],
    "sizes": lambda: [IRevBlock(5, 7), IRevBlock(5, 6)],
    "angles": lambda: [IRevBlock(5, 7, turns="input", norm=None) for _ in range(2)],
    "decays": lambda: [IRevBlock(5, 20, forgets="input", input_gate=True)],
    "angles and decays": lambda: [IRevBlock(5, 7, turns="input", forgets="input")],
    "u = 1, a gate": lambda: [IRevBlock(5, 7, turns="input", forgets=False, input_gate=True)],
    "mixed": lambda: [IRevBlock(5, 7, turns="input"), IRevBlock(5, 7)],
    "ungated": lambda: [IRevBlock(5, 7, gate=False)],
    "lstm": lambda: [nn.LSTM(5, 5), IRevBlock(5, 7)],
}


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def make(kind, **options):
    torch.manual_seed(1)
    model = IRevStack(STACKS[kind](), **options).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    model.clip_recurrent_weights_()
    return model


def leaves(hidden):
    return [x for each in hidden for x in (leaves(each) if isinstance(each, tuple) else [each])]


def stepped(model, x, hidden=None):
    """The outputs of all steps, and the last states; x is (T, B, in)."""
    outputs = []
    for step in x:
        output, hidden = model.step(step, hidden)
        assert not output.requires_grad
        outputs.append(output)
    return torch.stack(outputs), hidden


def assert_as_forward(model, x, hidden=None):
    outputs, last = stepped(model, x, hidden)
    with torch.no_grad():
        wanted, wanted_last = model(x, hidden)
    torch.testing.assert_close(outputs, wanted, rtol=1e-4, atol=1e-5)
    for got, goal in zip(leaves(last), leaves(wanted_last), strict=True):
        torch.testing.assert_close(got, goal, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", ["recompute", "reversible"])
@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize("kind", STACKS)
def test_steps_give_the_outputs_of_a_sequence(kind, batch, memory):
    if kind == "lstm" and memory == "reversible":
        pytest.skip("an LSTM has no inverse")
    assert_as_forward(make(kind, memory=memory, batch_first=False), draw(20, batch, 5))


def test_one_operator_takes_a_step_of_gated_blocks():
    fits = {kind: make(kind) for kind in STACKS}
    for model in fits.values():
        stepped(model, draw(2, 3, 5))
    done = {kind for kind, model in fits.items() if getattr(model._stepper, "fits", False)}
    assert done == STACKS.keys() - {"sizes", "mixed", "ungated", "lstm"}


def test_tokens_inputs_without_a_batch_and_layers():
    model = IRevStack([nn.Embedding(9, 5), IRevBlock(5, 7)], batch_first=False).eval()
    tokens = torch.tensor([[1, 8], [3, 4], [5, 0]])
    assert_as_forward(model, tokens)
    assert_as_forward(model, tokens[:, 0])
    assert_as_forward(make("gated", batch_first=False), draw(6, 5))
    assert_as_forward(IRevRNN(5, 7, 2, batch_first=False), draw(6, 3, 5))


def test_given_and_learnt_states():
    hidden = draw(2, 3, 7), draw(2, 3, 7).flip(0)
    assert_as_forward(make("gated", batch_first=False), draw(6, 3, 5), hidden)
    torch.manual_seed(0)
    learnt = IRevStack([IRevBlock(5, 7, learn_initial_state=True)], batch_first=False)
    assert_as_forward(learnt, draw(6, 3, 5))


CHANGES = {
    "values": lambda model: model.load_state_dict(make("gated").state_dict()),
    "data": lambda model: setattr(model.blocks[0].scale, "data", torch.ones(7)),
    "parameter": lambda model: setattr(model.blocks[1], "scale", nn.Parameter(torch.ones(7))),
    "assigned": lambda model: model.load_state_dict(make("gated").state_dict(), assign=True),
    "module": lambda model: setattr(model.blocks[0], "norm", nn.RMSNorm(5)),
    "block": lambda model: model.blocks.__setitem__(0, IRevBlock(5, 7, residual=False)),
    "hook": lambda model: model.blocks[0].norm.register_forward_hook(lambda *a: 2 * a[-1]),
    "pruning": lambda model: prune.l1_unstructured(model.blocks[0].input_projection, "weight", 0.5),
    "method": lambda model: setattr(model.blocks[0], "output", lambda x, h: x),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_between_steps_is_seen(change):
    model, x = make("gated", batch_first=False), draw(6, 3, 5)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
    _, hidden = stepped(model, x)
    before = model.step(x[0], hidden)[0]
    change(model)
    assert_as_forward(model, x, hidden)
    assert not torch.equal(model.step(x[0], hidden)[0], before)


def test_dropout_drops_in_training_alone():
    model, x = make("gated"), draw(3, 5)
    _, hidden = model.step(x)
    kept, _ = model.step(x, hidden)
    model.blocks[0].dropout.p = 0.5
    assert torch.equal(model.step(x, hidden)[0], kept)
    model.train()
    assert not torch.equal(model.step(x, hidden)[0], kept)


def test_copies_step_by_themselves():
    model, x = make("gated"), draw(3, 5)
    _, hidden = model.step(x)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.blocks[0].scale.zero_()
    assert not torch.equal(other.step(x, hidden)[0], model.step(x, hidden)[0])


@pytest.mark.parametrize(("call", "message"), [
    (lambda m, h: m.step(draw(3, 4), h), r"shape|features"),
    (lambda m, h: m.step(draw(2, 5), h), r"h_0 must be .* got shape|hidden"),
    (lambda m, h: m.step(draw(3, 5), (h[0][:1], h[1])), r"h must be .*got|h_0 must be"),
    (lambda m, h: m.step(draw(3, 5), (h[0].double(), h[1])), r"h must be .*got|h_0 must"),
], ids=["features", "batch", "blocks", "dtype"])  # fmt: skip
def test_bad_input(call, message):
    model = make("gated")
    _, hidden = model.step(draw(3, 5))
    with pytest.raises(ValueError, match=message):
        call(model, hidden)


def test_a_stream_has_one_direction():
    with pytest.raises(ValueError, match="bidirectional=False"):
        IRevRNN(5, 7, bidirectional=True).step(draw(3, 5))
