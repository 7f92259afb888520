"""Defects that hostile use found: each is refused clearly, or works."""

import threading
from contextlib import nullcontext

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn.utils.rnn import PackedSequence

from irevrnn import Dropout, IRevBlock, IRevRNN, IRevRNNCell, IRevStack

pytestmark = pytest.mark.usefixtures("kernels")
EVERY = pytest.mark.parametrize("memory", ["store", "recompute", "checkpoint"])
CHUNKWISE = pytest.mark.parametrize("memory", ["checkpoint", "reversible", "store_fixed"])


def make_model(memory="recompute", **options):
    torch.manual_seed(0)
    options = {"activation": "leaky_relu", "norm": "layer", **options}
    return IRevRNN(3, 4, 2, memory=memory, **options)


@EVERY
def test_a_packed_sequence_whose_sizes_do_not_sum_to_its_rows(memory):
    packed = PackedSequence(torch.randn(5, 3), torch.tensor([2, 1]))
    with pytest.raises(ValueError, match="batch_sizes of a PackedSequence must sum to the rows"):
        make_model(memory)(packed)


@pytest.mark.parametrize("lengths", [
    (length for length in [4, 6]), range(4, 8, 2),
    torch.tensor([4, 6], dtype=torch.uint64), torch.tensor([4, 6], dtype=torch.uint8),
])  # fmt: skip
def test_lengths_in_other_forms(lengths):
    x, model = torch.randn(2, 6, 3), make_model()
    assert torch.equal(model(x, lengths=lengths)[0], model(x, lengths=[4, 6])[0])


@CHUNKWISE
def test_threads_that_train_one_model(memory):
    model = make_model(memory)
    x = torch.randn(2, 300, 3)
    wanted = torch.autograd.grad(model(x)[0].square().mean(), model.parameters())
    with torch.no_grad():
        output = model(x)[0]
    wrong, errors = [], []

    def work():
        try:
            for _ in range(10):
                got = torch.autograd.grad(model(x)[0].square().mean(), model.parameters())
                wrong.extend(not torch.equal(g, w) for g, w in zip(got, wanted, strict=True))
                with torch.no_grad():
                    wrong.append(not torch.equal(model(x)[0], output))
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert not any(wrong)
    assert all(isinstance(p, torch.nn.Parameter) for p in model.layers[0].parameters())


@EVERY
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_model_without_values(memory, device):
    with FakeTensorMode() if device == "cpu" else nullcontext():
        model = make_model(memory, device=device)
        output, (h_n, _) = model(torch.zeros(2, 90, 3, device=device))
        output.sum().backward()
    assert (output.shape, h_n.shape) == ((2, 90, 4), (2, 2, 4))
    assert all(p.grad.device.type == device for p in model.parameters())


@pytest.mark.parametrize("memory", ["reversible", "store_fixed"])
def test_fixed_point_on_the_meta_device_is_refused(memory):
    model = make_model(memory, device="meta")
    with pytest.raises(RuntimeError, match=f"'{memory}' .*there are none for .* on meta"):
        model(torch.zeros(2, 90, 3, device="meta"))


@pytest.mark.parametrize(("make", "error", "message"), [
    (IRevRNN, ValueError, "input must have the dtype of the parameters"),
    (IRevRNNCell, TypeError, "input must be of a floating-point dtype; got torch.int64"),
])  # fmt: skip
def test_integers_are_refused_under_autocast_too(make, error, message):
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(error, match=message):
        make(3, 4)(torch.ones(2, 3, dtype=torch.int64))


def test_dropout_on_the_meta_device():
    blocks = [Dropout(0.5), IRevBlock(3, 4, device="meta")]
    output, _ = IRevStack(blocks, "recompute")(torch.zeros(2, 9, 3, device="meta"))
    assert output.shape == (2, 9, 3)


def test_a_strategy_set_as_an_attribute():
    model, x = make_model(), torch.zeros(2, 6, 3)
    model.memory = "auto"
    with pytest.raises(ValueError, match="memory='auto' needs memory_budget"):
        model(x)
    model.memory_budget = "much"
    with pytest.raises(ValueError, match="memory_budget must be a whole number of bytes"):
        model(x)
    model.memory_budget = "1GB"
    model(x)
    assert model.picked.memory == "recompute"
    with pytest.raises(ValueError, match="memory must be one of store, recompute.*; got 'hope'"):
        model.memory = "hope"
    assert model.memory == "auto"
