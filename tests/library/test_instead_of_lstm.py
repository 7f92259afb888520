"""Uses of ``nn.LSTM`` that no other test checks; docs/from-lstm.md tabulates all of them."""

import copy
import inspect
import io
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from irevrnn import IRevRNN
from irevrnn.strategies.rules import OF_THE_STACK

pytestmark = pytest.mark.usefixtures("kernels")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "from-lstm.md").read_text()


def pair(norm=None, **options):
    """An LSTM and an IRevRNN that were made in the same way, but for the norm of the latter."""
    torch.manual_seed(0)
    options = {"num_layers": 2, "batch_first": True, **options}
    return nn.LSTM(3, 8, **options), IRevRNN(3, 8, norm=norm, **options)


def shapes(result):
    output, (h_n, c_n) = result
    return output.shape, h_n.shape, c_n.shape


def trains(model, x=None):
    x = torch.randn(4, 20, 3) if x is None else x
    model(x)[0].square().mean().backward()
    return all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def check_construction_and_shapes():
    for options in ({}, {"batch_first": False}, {"bidirectional": True}, {"bias": False}):
        theirs, ours = pair(**options)
        for x in (torch.randn(4, 20, 3), torch.randn(20, 3)):
            assert shapes(theirs(x)) == shapes(ours(x))


def check_initial_and_final_states():
    theirs, ours = pair()
    state = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    x = torch.randn(4, 20, 3)
    assert shapes(theirs(x, state)) == shapes(ours(x, state))
    assert not torch.equal(ours(x, state)[0], ours(x)[0])


def check_packed_sequences():
    theirs, ours = pair()
    packed = pack_padded_sequence(torch.randn(4, 20, 3), [5, 20, 1, 7], True, enforce_sorted=False)
    results = [pad_packed_sequence(model(packed)[0], True) for model in (theirs, ours)]
    assert results[0][0].shape == results[1][0].shape
    assert torch.equal(results[0][1], results[1][1])
    assert results[1][0][2, 1:].eq(0).all()


def check_checkpoints():
    _, ours = pair(norm="layer")
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    _, other = pair(norm="layer")
    other.reset_parameters()
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(4, 20, 3)
    assert torch.equal(other(x)[0], ours(x)[0])


def check_copies():
    _, ours = pair(norm="layer")
    x = torch.randn(4, 20, 3)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(x)[0], ours(x)[0])
    assert ours.double()(x.double())[0].dtype == torch.float64


def check_hooks():
    _, ours = pair()
    seen = []
    ours.register_forward_hook(lambda *_: seen.append("model"))
    ours.layers[1].register_forward_hook(lambda *_: seen.append("layer"))
    ours.layers[0].recurrent_weight.register_hook(lambda g: seen.append("gradient"))
    assert trains(ours)
    assert sorted(seen) == ["gradient", "layer", "model"]


def check_pruning_and_parametrizations():
    _, ours = pair()
    prune.l1_unstructured(ours.layers[0].projection, "weight", 0.5)
    prune.random_unstructured(ours.layers[0], "recurrent_weight", 0.5)
    nn.utils.parametrizations.orthogonal(ours.layers[1].projection)
    assert trains(ours)
    assert (ours.layers[0].recurrent_weight == 0).sum() == 4
    assert parametrize.is_parametrized(ours.layers[1].projection)
    for memory in OF_THE_STACK:  # they say what to do
        chunked = IRevRNN(3, 8, activation="leaky_relu", memory=memory)
        prune.random_unstructured(chunked.layers[0], "recurrent_weight", 0.5)
        with pytest.raises(ValueError, match="recurrent_weight of layer 0 .* pruned"):
            chunked(torch.randn(4, 20, 3))
        prune.remove(chunked.layers[0], "recurrent_weight")
        prune.l1_unstructured(chunked.layers[0].projection, "weight", 0.5)
        assert trains(chunked)


def check_frozen_and_shared_parameters():
    _, ours = pair()
    ours.layers[0].requires_grad_(False)
    ours(torch.randn(4, 20, 3))[0].sum().backward()
    assert ours.layers[0].recurrent_weight.grad is None
    assert ours.layers[1].recurrent_weight.grad is not None


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


@pytest.mark.parametrize("name", CHECKS)
def test_what_users_do(name):
    CHECKS[name]()


def table():
    """Rows of the page's table: what one does, and the tests that are linked."""
    section = PAGE.split("## What works, and the tests that check it")[1]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section, re.M)
    return {what: links for what, _, links in rows[1:]}  # below the headings


def test_the_page_shows_the_same_table():
    rows = table()
    linked = [re.findall(r"\]\(\.\./(tests/\w+/\w+\.py)\)", links) for links in rows.values()]
    assert all(linked) and all((ROOT / path).is_file() for paths in linked for path in paths)
    named = {what.lower().replace("-", " ").replace(" ", "_") for what in rows}
    assert set(CHECKS) <= named  # and rows that have more tests than one


def test_every_argument_of_lstm_has_its_row():
    page = (ROOT / "docs" / "from-lstm.md").read_text()
    theirs = {"input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout",
              "bidirectional", "proj_size", "device", "dtype"}  # fmt: skip
    assert theirs <= set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    ours = set(inspect.signature(IRevRNN).parameters)
    assert ours <= set(re.findall(r"`(\w+)`", page))
