"""Bad input gets an error that names the argument, what was given and what was expected."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from irevrnn import IRevRNN, scan
from tests.cases import make_inputs


@pytest.mark.parametrize(("keywords", "message"), [
    ({"activation": "swish"}, "activation must be one of relu, .*; got 'swish'"),
    ({"coupling_activation": 3}, "coupling_activation must be one of .*; got 3"),
    ({"memory": "hope"}, "memory must be one of store, recompute.*; got 'hope'"),
    ({"memory": "checkpoint"}, "memory='checkpoint' works on a whole stack: use IRev"),
])  # fmt: skip
def test_scan_refuses_options(keywords, message):
    with pytest.raises(ValueError, match=message):
        scan(*make_inputs(4, 2, 3, 1, torch.float32), **keywords)


@pytest.mark.parametrize("backend", ["auto", "python"])
@pytest.mark.parametrize(("change", "message"), [
    ({"z": lambda z: z[0]}, r"z must be \(T, B, H\), .*; got shape \(2, 3\)"),
    ({"z": lambda z: z[:0]}, "z must be .*, of a step at least; got shape"),
    ({"h_0": lambda h: h[:1]}, r"h_0 must be .* of shape \(2, 3\) for .*; got .* \(1, 3\)"),
    ({"c_0": lambda c: c.double()}, "c_0 must be torch.float32 of shape .*; got torch.float64"),
    ({"u": lambda u: u[:1]}, r"u must be .* of shape \(3,\) for z .*; got .* of shape \(1,\)"),
    ({"b": lambda b: b.repeat(2, 1)}, r"b must be .* of shape \(1, 3\) for z .* \(2, 3\)"),
])  # fmt: skip
def test_scan_refuses_tensors_that_do_not_fit(backend, change, message, monkeypatch):
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case = make_inputs(4, 2, 3, 1, torch.float32)
    case = case._replace(**{name: of(getattr(case, name)) for name, of in change.items()})
    with pytest.raises(ValueError, match=message):
        scan(*case)


def test_scan_refuses_an_unknown_backend(monkeypatch):
    monkeypatch.setenv("IREVRNN_BACKEND", "fortran")
    with pytest.raises(ValueError, match="IREVRNN_BACKEND must be one of .*; got 'fortran'"):
        scan(*make_inputs(4, 2, 3, 1, torch.float32))


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"num_layers": 0}, ValueError, "num_layers must be an int of at least 1; got 0"),
    ({"input_size": 0}, ValueError, "input_size must be an int of at least 1; got 0"),
    ({"hidden_size": 2.0}, TypeError, "hidden_size must be an int of at least 1; got 2.0"),
    ({"num_couplings": -1}, ValueError, "num_couplings must be an int of at least 0; got -1"),
    ({"activation": "swish"}, ValueError, "activation must be one of"),
    ({"dropout": 1.0}, ValueError, r"dropout must be in \[0, 1\); got 1.0"),
    ({"norm": "group"}, ValueError, "norm must be None, 'layer' or 'batch'; got 'group'"),
    ({"memory": "hope"}, ValueError, "memory must be one of"),
    ({"memory": "auto"}, ValueError, "memory='auto' needs memory_budget, such as"),
    ({"memory_budget": "1GB"}, ValueError, "memory_budget goes with memory='auto', 'che"),
    ({"memory": "auto", "memory_budget": "much"}, ValueError, "memory_budget must be .* 'much'"),
    ({"bidirectional": True, "memory": "checkpoint"}, ValueError,
     "bidirectional=True does not go with memory='checkpoint'.*use memory='recompute' or"),
])  # fmt: skip
def test_layer_refuses_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        IRevRNN(**{"input_size": 2, "hidden_size": 3, **arguments})


@pytest.mark.parametrize(("input", "error", "message"), [
    ([1.0], TypeError, "input must be a torch.Tensor or PackedSequence; got list"),
    (torch.zeros(4), ValueError, r"input must be \(batch, seq, feature\) or \(seq, feature\)"),
    (torch.zeros(1, 5, 3), ValueError, r"input must have 2 features .* got shape \(1, 5, 3\)"),
    (torch.zeros(1, 0, 2), ValueError, "input must have at least one step"),
    (pack_sequence([torch.zeros(5, 1, 2)]), ValueError,
     r"input must be a PackedSequence of rows \(N, feature\); got shape \(5, 1, 2\)"),
    (torch.zeros(1, 5, 2, dtype=torch.int64), ValueError,
     "have the dtype of the parameters, .* got torch.int64: use .*, or embed tokens first"),
    (torch.zeros(1, 5, 2).double(), ValueError,
     r"input must have the dtype of the parameters, .*: use input.to\(torch.float32\)"),
    (torch.zeros(1, 5, 2, device="meta"), ValueError, "input must be on the parameters' device"),
])  # fmt: skip
def test_layer_refuses_input(input, error, message):
    with pytest.raises(error, match=message):
        IRevRNN(2, 3)(input)


H = torch.zeros(1, 4, 3)


@pytest.mark.parametrize(("hidden", "error", "message"), [
    (H, TypeError, r"hidden must be a pair \(h_0, c_0\); got Tensor"),
    ((H, [None]), TypeError, r"c_0\[0\] must be a torch.Tensor; got NoneType"),
    ((H.long(), H), TypeError, r"h_0\[0\] must be of a floating-point dtype; got torch.int64"),
    ((H.to("meta"), H), ValueError, "must be on the parameters' device cpu; got m"),
    ((H[0], H[0]), ValueError, r"h_0 must have 1 states, one for each .*; got 4 \(Tensor\)"),
    ((H, None), ValueError, r"c_0 must have 1 states, .*; got no \(NoneType\)"),
    ((H[:, :2], H), ValueError, r"h_0\[0\] must have shape \(4, 3\) = .*; got \(2, 3\)"),
    ((H, H.double()), ValueError,
     r"c_0\[0\] must have the dtype of the parameters, torch.float32; got torch.float64: use c_0"),
])  # fmt: skip
def test_layer_refuses_hidden(hidden, error, message):
    with pytest.raises(error, match=message):
        IRevRNN(2, 3)(torch.zeros(4, 5, 2), hidden)


def test_an_argument_without_effect_is_warned_of():
    message = "dropout=0.5 has no effect: .* num_layers=1"
    with pytest.warns(UserWarning, match=message) as caught:
        IRevRNN(2, 3, dropout=0.5)
    assert caught[0].filename == __file__
