"""IRevRNN: its layers by hand, its states, its options, and what users of nn.LSTM expect of it."""

import pytest
import torch
from torch import nn

from experiments.models import SequenceClassifier
from irevrnn import IRevRNN
from irevrnn.kernels import reference


def awake(model):
    """Couplings and biases that matter."""
    with torch.no_grad():
        for layer in model.layers:
            layer.coupling_a.normal_(0, 0.3)
            layer.coupling_b.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize("residual", [False, True])
def test_layers_by_hand(kernels, norm, residual, memory):
    options = {"norm": norm, "residual": residual, "memory": memory}
    model = awake(IRevRNN(5, 7, 3, 2, activation="tanh", dtype=torch.float64, **options))
    x = torch.randn(4, 20, 5, dtype=torch.float64)
    h_0, c_0 = torch.randn(2, 3, 4, 7, dtype=torch.float64)
    output, (h_n, c_n) = model(x, (h_0, c_0))
    y = x.transpose(0, 1)
    for index, layer in enumerate(model.layers):
        z = layer.projection(y)
        if norm == "layer":
            z = nn.functional.layer_norm(z, (7,), layer.norm.weight, layer.norm.bias)
        if norm == "batch":
            z = (z - z.mean((0, 1))) / (z.var((0, 1), correction=0) + 1e-5).sqrt()
            z = z * layer.norm.weight + layer.norm.bias
        out, h, c = reference.scan(
            z, h_0[index], c_0[index],
            layer.recurrent_weight, layer.coupling_a, layer.coupling_b, "tanh",
        )  # fmt: skip
        torch.testing.assert_close(h_n[index], h)
        torch.testing.assert_close(c_n[index], c)
        y = out + y if residual and index > 0 else out
    torch.testing.assert_close(output, y.transpose(0, 1))
    last, _ = model(x, (h_0, c_0), return_sequence=False)
    if norm != "batch":
        torch.testing.assert_close(last, output[:, -1])


def test_dropout_has_one_mask_for_all_steps(kernels):
    model = IRevRNN(3, 50, 2, dropout=0.5)
    seen = []
    model.layers[1].projection.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    x = torch.randn(4, 30, 3)
    model(x)
    dropped = (seen[0] == 0).all(0)
    kept = ~dropped
    model.eval()(x)
    full = seen[1]
    torch.testing.assert_close(seen[0], torch.where(kept, 2 * full, torch.zeros(())))
    active = full.any(0)
    assert 0.3 < (dropped & active).sum() / active.sum() < 0.7


def test_dropout_can_be_set_later():
    model = IRevRNN(3, 5, 3, dropout=0.5, bidirectional=True)
    model.dropout = 0.25
    for layers in (model.layers, model.reverse_layers):
        assert [layer.dropout.p for layer in layers] == [0.25, 0.25, 0]
    assert "dropout=0.25" in repr(model)
    with pytest.raises(ValueError, match="dropout must .* got 2"):
        model.dropout = 2


def test_state_dict_is_as_documented():
    shapes = {name: tuple(x.shape) for name, x in IRevRNN(3, 8, 2, 4).state_dict().items()}
    assert shapes == {
        f"layers.{layer}.{name}": shape
        for layer, features in ((0, 3), (1, 8))
        for name, shape in {
            "recurrent_weight": (8,),
            "coupling_a": (4, 8),
            "coupling_b": (4, 8),
            "projection.weight": (8, features),
            "projection.bias": (8,),
        }.items()
    }


def test_repr_shows_what_differs_from_the_defaults():
    text = repr(IRevRNN(3, 8, num_layers=2, activation="tanh", residual=True))
    assert "IRevRNN(\n  3, 8, num_layers=2, activation='tanh', residual=True" in text


def test_synchronised_batch_norm_normalises_features():
    model = IRevRNN(3, 6, norm="batch")
    model(torch.randn(5, 9, 3))
    x = torch.randn(4, 9, 3)
    wanted, _ = model.eval()(x)
    torch.testing.assert_close(nn.SyncBatchNorm.convert_sync_batchnorm(model)(x)[0], wanted)


def test_options_are_given_by_name():
    with pytest.raises(TypeError, match="positional arguments"):
        IRevRNN(3, 6, 2, 3, True, True)  # bias and batch_first of nn.LSTM


def test_what_is_read_is_the_last_step_or_the_mean():
    model = SequenceClassifier(3, 10, 8, 2, read="mean").eval()
    x = torch.randn(4, 20, 3)
    output, _ = model.rnn(x)
    torch.testing.assert_close(model(x), model.readout(model.norm(output.mean(1))))
    model.read = "last"
    torch.testing.assert_close(model(x), model.readout(model.norm(output[:, -1])))
