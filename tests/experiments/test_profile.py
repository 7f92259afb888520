"""The profile of a training step accounts for all of its time, and knows what it is spent on."""

import json

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, record_function

from experiments import tasks
from experiments.bench import profile
from experiments.bench.recurrences import Shape, make_problem
from experiments.tasks import MnistConfig
from experiments.train.config import ConfigError
from irevrnn import scan
from tests.experiments.fake_mnist import fake_mnist

SMALL = {"hidden_size": 12, "num_layers": 2, "downsample": 7, "batch_size": 32, "device": "cpu",
         "threads": 1}  # fmt: skip


@pytest.fixture(autouse=True)
def made_up_digits(monkeypatch):
    monkeypatch.setattr(tasks, "load_mnist", lambda root: fake_mnist())


def test_parts_add_up_to_the_whole(tmp_path, kernels):
    report = profile.run(MnistConfig(**SMALL, out=tmp_path / "run"), steps=4)
    parts = report["parts"]
    assert parts.keys() == profile.LABELS.keys()
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1, abs=0.01)
    assert sum(part["ms"] for part in parts.values()) == pytest.approx(
        report["profiled_ms"], rel=0.01
    )
    assert all(part["ms"] > 0 for part in parts.values())
    longest = report["longest"]
    assert [row["ms"] for row in longest] == sorted((row["ms"] for row in longest), reverse=True)
    assert len(longest) == profile.SHOWN
    for row in longest:
        assert 0 < row["ms"] <= parts[row["part"]]["ms"]
    assert 0 < report["step"]["low_ms"] <= report["step"]["median_ms"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("part", "operation"),
    [
        ("products", lambda x: x @ x),
        ("products", lambda x: functional.linear(x, x, x[0])),
        ("norm", lambda x: functional.batch_norm(x, None, None, training=True)),
        ("norm", lambda x: functional.layer_norm(x, x.shape[1:])),
        ("copies", lambda x: torch.zeros_like(x).copy_(x)),
        ("copies", lambda x: x.t().contiguous()),
        ("other", lambda x: x.exp()),
    ],
)
def test_operations_are_told_apart(part, operation):
    x = torch.rand(300, 300)
    operation(x)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as found:
        operation(x)
    spent = profile.sum_up(found.events())
    assert max(spent, key=spent.__getitem__) == part, spent


def test_both_passes_are_kernels(kernels):
    problem = make_problem(Shape(2000, 16, 64, 3))
    for _ in range(2):
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as forward:
            out, *_ = scan(*problem)
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as backward:
            out.backward(torch.ones_like(out))
    for found in (forward, backward):
        spent = profile.sum_up(found.events())
        assert max(spent, key=spent.__getitem__) == "kernels", spent


def test_the_model_of_the_peer_has_no_kernels_of_ours(tmp_path):
    report = profile.run(MnistConfig(**SMALL, model="lstm", out=tmp_path), steps=2)
    assert report["parts"]["kernels"]["ms"] == 0


def test_what_the_optimizer_calls_is_its_own():
    x = torch.nn.Parameter(torch.zeros(200, 200))
    optimizer = torch.optim.SGD([x], 0.1)
    x.grad = torch.ones_like(x)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as found:
        optimizer.step()
        with record_function(profile._DATA):
            x.detach().clone()
    spent = profile.sum_up(found.events())
    assert spent["optimizer"] > 0 and spent["data"] > 0
    assert spent["copies"] == spent["products"] == 0


def test_the_command(tmp_path, capsys, kernels):
    output = tmp_path / "new" / "profile.json"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert profile.main(["--steps", "2", "--output", str(output), "mnist", *options]) == 0
    report = json.loads(output.read_text())
    assert report["steps"] == 2
    assert report["config"]["hidden_size"] == 12
    printed = capsys.readouterr().out
    for name, label in profile.LABELS.items():
        assert f"{label:<28}{report['parts'][name]['ms']:>8.2f} ms" in printed


def test_a_run_too_short_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="epochs must be enough for 43 steps; 1 have 8"):
        profile.run(MnistConfig(**SMALL, epochs=1, out=tmp_path), steps=20)


def test_no_steps_are_refused(capsys):
    with pytest.raises(SystemExit):
        profile.main(["--steps", "0", "mnist"])
    assert "--steps must be at least 1; got 0" in capsys.readouterr().err
