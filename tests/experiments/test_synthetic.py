"""Adding and copying: what is shown and asked for, what is learnt, and how it is judged."""

import numpy as np
import pytest
import torch

from experiments.models import SequenceClassifier
from experiments.tasks.synthetic import AddingConfig, CopyConfig
from experiments.train.config import ConfigError
from experiments.train.evaluate import calibrate
from experiments.train.loop import train
from experiments.train.objectives import Classification, Regression
from experiments.train.run import Run

CPU = torch.device("cpu")
SMALL = {
    "length": 20, "batches": 4, "held_out": 40, "batch_size": 16, "epochs": 2, "hidden_size": 12,
    "lr": 0.02, "device": "cpu", "threads": 1,
}  # fmt: skip
both = pytest.mark.parametrize("kind", [AddingConfig, CopyConfig])


# --- the data -----------------------------------------------------------------------------------


def test_the_sum_of_the_marked_numbers_is_asked_for():
    x, y = next(AddingConfig(length=101, batch_size=500).task(CPU).train_batches(0, 0))
    assert x.shape == (500, 101, 2) and x.dtype == y.dtype == torch.float32
    numbers, marks = x.unbind(-1)
    assert marks[:, :50].sum(1).eq(1).all() and marks[:, 50:].sum(1).eq(1).all()
    torch.testing.assert_close((numbers * marks).sum(1), y)
    assert numbers.min() >= 0 and numbers.max() < 1
    chance = AddingConfig().task(CPU).facts["chance"]
    assert (y - 1).square().mean().item() == pytest.approx(chance, rel=0.15)


def test_ten_symbols_are_shown_and_asked_for_after_the_signal():
    task = CopyConfig(length=30, batch_size=200).task(CPU)
    x, y = next(task.train_batches(0, 0))
    assert x.shape == (200, 50, 10) and x.sum(-1).eq(1).all()
    shown = x.argmax(-1)
    assert y.shape == (200, 10) and shown[:, :10].equal(y) and y.unique().tolist() == [*range(8)]
    assert shown[:, 39].eq(9).all()
    assert shown[:, 10:39].eq(8).all() and shown[:, 40:].eq(8).all()
    assert task.read_at == slice(-10, None)


@both
def test_no_two_batches_are_alike_and_each_can_be_made_again(kind):
    def batches(part="train", skip=0, epoch=0, **given):
        task = kind.of(**SMALL | given).task(CPU)
        found = task.train_batches(epoch, skip) if part == "train" else getattr(task, part)()
        return [x for x, _ in found]

    def same(one, other):
        return [x.shape == y.shape and x.equal(y) for x, y in zip(one, other, strict=True)]

    first = batches()
    assert all(same(first, batches()))
    assert all(same(first[3:], batches(skip=3)))
    others = [batches(seed=1), batches(epoch=1), first[1:] + first[:1]]
    others += [batches("val_batches", held_out=64), batches("test_batches", held_out=64)]
    assert not any(any(same(first, other)) for other in others)
    assert not any(same(others[-1], others[-2]))
    held_out = batches("val_batches")
    assert [len(x) for x in held_out] == [16, 16, 8]
    assert all(same(held_out, batches("val_batches", seed=5)))


def test_sequences_grow_up_to_their_length_and_batches_shrink():
    config = AddingConfig(length=1000, growth=10, epochs=4, batches=1, batch_size=2, held_out=2)
    task = config.task(CPU)
    shapes = [tuple(next(task.train_batches(epoch, 0))[0].shape) for epoch in range(4)]
    assert shapes == [(64, 10, 2), (64, 10, 2), (20, 100, 2), (2, 1000, 2)]
    assert next(task.val_batches())[0].shape == (2, 1000, 2)


# --- sums over long sequences -------------------------------------------------------------------


OURS = {
    "model": "block", "memory": "reversible", "forgets": False, "longest_memory": 10,
    "num_couplings": 0, "longest_period": None,
}  # fmt: skip


def test_a_sparse_network_adds_over_sequences_longer_than_any_it_learnt_on(tmp_path):
    config = AddingConfig.of(
        **OURS, length=2000, growth=3, epochs=10, batches=100, batch_size=2, held_out=50, width=32,
        hidden_size=16, num_layers=1, read="last", sparsity=1.0, lr=1e-2, keep="last",
        device="cpu", threads=1, out=tmp_path,
    )  # fmt: skip
    assert config.length_at(6) < config.length / 4
    errors = [row["val_squared_error"] for row in train(config, progress=False)["history"]]
    assert errors[0] > 1 and errors[6] < 1e-3 and errors[-1] < 1e-3


@pytest.mark.parametrize("network", [
    OURS, *({"model": name} for name in ("lru", "rglru", "s6", "linoss", "mingru")),
], ids=str)  # fmt: skip
def test_sparsity_keeps_the_embedding_of_every_gated_block_at_0(tmp_path, network):
    passed = []
    for sparsity in (0.0, 10.0):
        config = AddingConfig.of(
            **network, length=20, epochs=1, batches=60, batch_size=16, held_out=16, width=8,
            hidden_size=8, num_layers=1, read="last", sparsity=sparsity, lr=1e-2, seed=3,
            device="cpu", threads=1, out=tmp_path / str(sparsity),
        )  # fmt: skip
        run = Run(config)
        for x, y in run.task.train_batches(0, 0):
            run.step(x, y)
        first, relu, _ = run.network.rnn.blocks
        passed.append(relu(first(x)).mean().item())
        with torch.no_grad():
            first.weight.zero_()
            first.bias.fill_(-1)  # steps that mean nothing
            output = run.network(x)
        assert torch.equal(output, run.network.readout.bias.expand_as(output))
    assert passed[1] < 0.25 * passed[0]


# --- reading at several steps -------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"model": "block"}, {"model": "lru"}])
def test_blocks_are_read_where_the_answers_are(given):
    kinds = (CopyConfig, AddingConfig)
    assert [kind.of(**given).model.read for kind in kinds] == ["last", "mean"]


@pytest.mark.parametrize("memory", ["recompute", "reversible"])
def test_each_answer_is_that_of_the_sequence_up_to_there(memory):
    options = {"norm": "layer", "activation": "leaky_relu", "memory": memory}
    model = SequenceClassifier(3, 4, 8, 2, read_at=(5, 6, 11), **options).eval()
    x = torch.randn(2, 11, 3)
    answers = model(x)
    assert answers.shape == (2, 3, 4)
    model.read_at = None
    wanted = torch.stack([model(x[:, :end]) for end in (5, 6, 11)], dim=1)
    torch.testing.assert_close(answers, wanted, atol=1e-3, rtol=1e-3)


def test_gradients_flow_from_the_last_answer_to_the_first_step():
    model = SequenceClassifier(3, 4, 8, 2, norm="layer", read_at=(5, 11)).eval()
    x = torch.randn(2, 11, 3, requires_grad=True)
    model(x)[:, -1].square().sum().backward()
    assert x.grad[:, 0].abs().min() > 0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (CopyConfig, {"norm": "batch"}, "norm must be layer or none where several"),
        (
            AddingConfig,
            {"norm": "batch", "memory": "checkpoint"},
            "norm must be .* with memory checkpoint",
        ),
        (AddingConfig, {"memory": "auto"}, "memory='auto' needs memory_budget"),
        (CopyConfig, {"read": "mean"}, "read must be last where several answers .*got mean"),
        (CopyConfig, {"model": "resnet"}, "read must be mean with resnet, which merges steps"),
        (
            AddingConfig,
            {"model": "block", "gradient_steps": 5},
            "gradient_steps must be None .*got 5",
        ),
    ],
)
def test_what_does_not_fit_the_number_of_answers_is_named(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        Run(kind.of(**SMALL | options))


# --- objectives ---------------------------------------------------------------------------------


def test_the_figures_of_several_answers_are_means_over_answers():
    output = torch.randn(6, 10, 8)
    target = torch.randint(8, (6, 10))
    right = (output.argmax(-1) == target).double().mean().item()
    objective = Classification()
    assert objective.total(output, target).item() / 6 == pytest.approx(right)
    judged = objective.judge(objective.average(output, 1), target)
    assert judged.figure == pytest.approx(right) and judged.labels.shape == (60,)
    assert judged.loss == pytest.approx(objective.loss(output, target, 0.0).item(), rel=1e-5)


def test_several_clips_give_the_mean_of_their_probabilities():
    output = torch.randn(6 * 5, 8)  # 6 sequences of 5 clips
    scores = Classification().average(output, 5)
    wanted = output.double().softmax(-1).view(6, 5, 8).mean(1)
    torch.testing.assert_close(scores.exp(), wanted)


def test_the_figure_of_a_regression_is_its_squared_error():
    output, target = torch.randn(6, 1), torch.randn(6)
    wanted = (output[:, 0] - target).square().mean().item()
    objective = Regression()
    assert objective.loss(output, target, 0.0).item() == pytest.approx(wanted)
    assert objective.total(output, target).item() / 6 == pytest.approx(wanted)
    judged = objective.judge(objective.average(output, 1), target)
    assert judged.figure == judged.loss == pytest.approx(wanted)


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["irevrnn", "lstm"])
def test_short_sums_are_learnt(tmp_path, model):
    config = AddingConfig.of(
        **SMALL | {"length": 10, "epochs": 12, "batches": 50, "model": model}, out=tmp_path
    )
    results = train(config, progress=False)
    assert results["test_squared_error"] < 0.5 * results["data"]["chance"]
    best = min(results["history"], key=lambda row: row["val_squared_error"])
    assert results["best_epoch"] == best["epoch"]
    assert results["val_squared_error"] == best["val_squared_error"]
    assert results["data"]["test_size"] == 40 and "confusion_matrix" not in results
    with np.load(tmp_path / "test.npz") as test:
        error = np.square(test["predictions"] - test["labels"]).mean()
    assert error == pytest.approx(results["test_squared_error"])


def test_copying_is_judged_by_ten_answers_to_each_sequence(tmp_path):
    config = CopyConfig.of(**SMALL, memory="reversible", activation="leaky_relu", out=tmp_path)
    results = train(config, progress=False)
    assert results["data"]["test_size"] == 400
    matrix = np.array(results["confusion_matrix"])
    assert matrix.shape == (8, 8) and matrix.sum() == 400
    assert results["test_accuracy"] == pytest.approx(matrix.trace() / 400)


def test_batch_norm_is_calibrated_on_the_weights_that_are_judged():
    task = AddingConfig.of(**SMALL).task(CPU)
    model = SequenceClassifier(2, 1, 8, 1, norm="layer").eval()
    wanted = []
    hook = model.norm.register_forward_pre_hook(lambda _, args: wanted.append(args[0]))
    model.norm.running_mean.fill_(1e3)
    calibrate(model, task.train_batches(0, 0))
    hook.remove()
    seen = torch.stack(wanted)
    assert seen.shape == (4, 16, 8)
    torch.testing.assert_close(model.norm.running_mean, seen.mean((0, 1)))
    torch.testing.assert_close(model.norm.running_var, seen.var(1).mean(0))
    assert model.norm.momentum == 0.1 and not model.training


def test_early_validation_is_like_training_once_batch_norm_is_calibrated(tmp_path):
    def worst(batches):
        config = AddingConfig.of(
            length=100, batches=40, held_out=64, epochs=4, lr=3e-3, activation="leaky_relu",
            hidden_size=32, calibrate=batches, device="cpu", threads=1, out=tmp_path,
        )  # fmt: skip
        history = train(config, progress=False)["history"]
        return max(row["val_squared_error"] / row["train_squared_error"] for row in history)

    assert worst(10) < 2 < worst(0)
