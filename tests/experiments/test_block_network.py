"""The network of gated blocks: its configuration, its readings, and the bits it forgets."""

import pytest
import torch
from torch import nn

from experiments.models import BlockClassifier, forgotten_bits, windows
from experiments.tasks.mnist import MnistConfig
from experiments.train.loop import train

SMALL = {
    "model": "block", "memory": "reversible", "width": 8, "hidden_size": 12, "num_layers": 2,
    "downsample": 7, "batch_size": 32, "epochs": 2, "lr": 0.02, "device": "cpu", "threads": 1,
}  # fmt: skip


@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize("read", ["mean", "last"])
def test_the_network_that_is_built(digits, forgets, read):
    config = MnistConfig.of(**SMALL, forgets=forgets, read=read, longest_memory=20, dropout=0.1)
    model = config.model.build(config.task(torch.device("cpu")))
    assert isinstance(model, BlockClassifier) and model.rnn.memory == "reversible"
    first, *others = list(model.rnn.blocks)[1:]
    assert isinstance(first.norm, torch.nn.Identity)
    assert all(isinstance(block.norm, torch.nn.LayerNorm) for block in others)
    assert model(torch.rand(3, 16, 1)).shape == (3, 10)
    weights = [block.recurrent_weight for block in (first, *others)]
    bits = -torch.cat(weights).log2().mean()
    torch.testing.assert_close(forgotten_bits(model), bits)
    assert forgets or forgotten_bits(model) == 0


def test_the_parts_of_a_block_that_may_be_left_out_or_changed(digits):
    config = MnistConfig.of(**SMALL, gate=False, coupling_activation="tanh", num_couplings=2)
    for block in config.model.build(config.task(torch.device("cpu"))).rnn.blocks[1:]:
        assert not block.gate and block.output_projection.out_features == block.width
        assert block.coupling_activation == "tanh" and block.num_couplings == 2


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "features"])
def test_the_embedding_sees_the_steps_before(tokens):
    model = BlockClassifier(
        5, 4, 8, 2, width=6, tokens=tokens, kernel_size=3, memory="recompute"
    ).eval()
    x = torch.randint(5, (2, 9)) if tokens else torch.randn(2, 9, 5)
    embedding = nn.Sequential(*list(model.rnn.blocks)[:-2])
    before, seen = embedding(windows(x, 3)), windows(x, 3).view(2, 9, 3, -1)
    for step in range(9):  # the last of a window is the step itself
        steps = range(step - 2, step + 1)
        padded = [x[:, i] if i >= 0 else torch.zeros_like(x[:, 0]) for i in steps]
        assert seen[:, step].flatten().tolist() == torch.stack(padded, 1).flatten().tolist()
    x[:, 4] = (x[:, 4] + 1) % 5
    changed = (embedding(windows(x, 3)) != before).any(2)
    assert changed.tolist() == [[4 <= step < 7 for step in range(9)]] * 2
    model(x, torch.tensor([9, 4])).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.rnn.blocks[0].parameters())


def test_what_is_read_has_a_norm():
    model = BlockClassifier(3, 4, 8, 2, width=6, norm_last=True, memory="recompute")
    norm = model.readout[0]
    x = torch.randn(5, 9, 3)
    read = model.rnn(x)[0].mean(1)
    wanted = (read - read.mean(0)) / (read.var(0, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(model(x), model.readout[1](wanted))
    running = norm.running_mean.clone()
    alone = model(x[:1])  # which has no statistics of its own
    assert (norm.running_mean == running).all()
    torch.testing.assert_close(alone, model.eval()(x[:1]))


@pytest.mark.parametrize("norm_last", [False, True])
def test_answers_in_the_middle_of_a_sequence(norm_last):
    model = BlockClassifier(
        3, 4, 8, 2, width=6, norm_last=norm_last, read="last", read_at=(5, 11)
    ).eval()
    x = torch.randn(2, 11, 3)
    whole, _ = model.rnn(x)
    wanted = model.readout(whole[:, [4, 10]])
    torch.testing.assert_close(model(x), wanted, rtol=1e-3, atol=1e-3)


def test_gradients_go_back_through_the_last_steps_alone():
    model = BlockClassifier(
        3, 4, 8, 2, width=6, read="last", read_at=(8, 11), gradient_steps=3
    ).eval()
    x = torch.randn(2, 11, 3, requires_grad=True)
    answers = model(x)
    answers.square().sum().backward()
    of_steps = x.grad.abs().amax((0, 2))
    assert (of_steps[:5] == 0).all() and (of_steps[5:] > 0).all()
    model.gradient_steps = None
    torch.testing.assert_close(answers, model(x), rtol=1e-3, atol=1e-3)


def test_a_run_learns_and_tells_its_bits(digits, tmp_path):
    config = MnistConfig.of(**SMALL | {"epochs": 6}, longest_period=20, out=tmp_path)
    results = train(config, progress=False)
    assert results["history"][-1]["train_loss"] < 0.7 * results["history"][0]["train_loss"]
    assert results["forgotten_bits"] > 0.01
    dear = train(
        MnistConfig.of(
            **SMALL | {"epochs": 6}, bits_penalty=10.0, recurrent_lr_scale=1.0, longest_period=20,
            out=tmp_path / "dear",
        ),
        progress=False,
    )  # fmt: skip
    assert dear["forgotten_bits"] < 0.5 * results["forgotten_bits"]


def test_bits_of_units_that_choose(digits, tmp_path):
    """A rotation forgets of two numbers; what the input chooses depends on the sequences."""
    turns = MnistConfig.of(**SMALL, turns="input", longest_memory=20)
    network = turns.model.build(turns.task(torch.device("cpu")))
    weights = torch.cat([block.recurrent_weight for block in list(network.rnn.blocks)[1:]])
    torch.testing.assert_close(forgotten_bits(network), -2 * weights.log2().mean())
    chosen = turns.changed(forgets="input", out=tmp_path)
    assert forgotten_bits(chosen.model.build(chosen.task(torch.device("cpu")))) is None
    free = train(chosen, progress=False)["forgotten_bits"]
    dear = chosen.changed(bits_penalty=30.0, gate_lr_scale=1.0, out=tmp_path / "dear")
    assert 0 < train(dear, progress=False)["forgotten_bits"] < 0.8 * free
