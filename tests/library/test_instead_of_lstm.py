"""Uses of ``nn.LSTM`` that no other test checks; docs/from-lstm.md tabulates all of them."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from irevrnn import IRevRNN
from irevrnn.strategies.rules import CHUNKWISE

pytestmark = pytest.mark.usefixtures("kernels")


def trains(model):
    model(torch.randn(4, 20, 3))[0].square().mean().backward()
    return all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_hooks_run():
    model, seen = IRevRNN(3, 8, 2, norm="layer"), []
    model.register_forward_hook(lambda *_: seen.append("model"))
    model.layers[1].register_forward_hook(lambda *_: seen.append("layer"))
    model.layers[0].recurrent_weight.register_hook(lambda g: seen.append("gradient"))
    assert trains(model)
    assert sorted(seen) == ["gradient", "layer", "model"]


@pytest.mark.parametrize("memory", CHUNKWISE)
def test_pruning_of_the_recurrence_in_chunks(memory):
    model = IRevRNN(3, 8, activation="leaky_relu", memory=memory)
    prune.random_unstructured(model.layers[0], "recurrent_weight", 0.5)
    prune.l1_unstructured(model.layers[0].projection, "weight", 0.5)
    assert trains(model)


@pytest.mark.parametrize("memory", CHUNKWISE)
def test_spectral_norm_changes_its_buffers_in_training_only(memory):
    model = IRevRNN(3, 8, activation="leaky_relu", memory=memory)
    nn.utils.parametrizations.spectral_norm(model.layers[0].projection)
    with pytest.raises(ValueError, match="changes its buffer .*parametrizations.* while it runs"):
        model(torch.randn(4, 20, 3))
    assert trains(model.eval())
