"""Two workers under torchrun: they train as one process does, end together and resume alike."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from experiments.tasks.mnist import MnistConfig
from experiments.train import distributed
from experiments.train.__main__ import main
from experiments.train.config import ConfigError
from tests.experiments.small_runs import SMALL, assert_same, bits, words

ROOT = Path(__file__).parents[2]
WORKERS = 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason="PyTorch without torch.distributed"),
]


def options(out, **more):
    return [*words(SMALL | more), f"--out={out}"]


def torchrun(*arguments, **environment):
    """Exit status and what was printed; a job that hangs fails the test and is ended."""
    job = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         f"--nproc-per-node={WORKERS}", "-m", "tests.experiments.train_fake_mnist", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = job.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        job.terminate()  # torchrun takes its workers along
        pytest.fail(f"the job hangs: {job.communicate()}")
    return job.returncode, out, err


@pytest.fixture(scope="module")
def uninterrupted(kernels, tmp_path_factory):
    """Return the folder of a run of two workers that is never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    status, out, err = torchrun(*options(folder))
    assert status == 0, err
    assert out.count("epoch 3/3: loss") == 1  # the others keep silent
    return folder


def test_two_workers_give_what_one_process_gives(kernels, tmp_path, digits):
    exactly = {"dropout": 0, "norm": "batch", "calibrate": 3, "precision": "64-true"}
    status, _, err = torchrun(*options(tmp_path / "two", **exactly))
    assert status == 0, err
    assert main(options(tmp_path / "one", **exactly)) == 0

    two, one = bits(tmp_path / "two"), bits(tmp_path / "one")
    assert (two[2]["workers"], one[2]["workers"]) == (WORKERS, 1)
    for name, weights in one[0]["model"].items():
        # Batch norm takes away whatever the bias before it adds: its gradient is rounding, which
        # Adam makes into steps. The mean of the layer moves along with it.
        drifts = name.endswith(("projection.bias", "norm.running_mean"))
        tolerance = 1e-4 if drifts else 1e-6
        torch.testing.assert_close(two[0]["model"][name], weights, rtol=0, atol=tolerance)
    for row, wanted in zip(two[2]["history"], one[2]["history"], strict=True):
        del row["seconds"], wanted["seconds"]
        assert row == pytest.approx(wanted, rel=1e-6)
    assert two[2]["test_accuracy"] == one[2]["test_accuracy"]
    assert list(csv.DictReader((tmp_path / "two" / "log.csv").open()))[-1]["epoch"] == "3"


TINY = ["--length=20", "--batches=4", "--held-out=40", "--batch-size=16", "--epochs=2"]


def test_two_workers_calibrate_a_reversible_network(kernels, tmp_path):
    words = ["adding", "irevrnn", *TINY, "--norm=layer", "--memory=reversible", "--calibrate=2"]
    words.append("--activation=leaky_relu")
    status, _, err = torchrun(*words, f"--out={tmp_path}", "--device=cpu")
    assert status == 0, err
    assert (tmp_path / "results.json").is_file()


def test_a_killed_worker_ends_the_job_which_resumes_to_the_same_bits(uninterrupted, tmp_path):
    out = tmp_path / "run"
    status, _, err = torchrun(*options(out), "--checkpoint-every=3", HARM="KILL 11")
    assert status != 0
    assert "Signal 9 (SIGKILL)" in err and "rank      : 1" in err
    before = torch.load(out / "last.pt", weights_only=True)["progress"]
    assert (before["epoch"], before["batch"]) in ((1, 0), (1, 3))
    status, _, err = torchrun(*options(out), "--resume")
    assert status == 0, err
    assert_same(bits(out), bits(uninterrupted))


def test_a_worker_that_stands_still_ends_the_job(kernels, tmp_path):
    status, _, err = torchrun(*options(tmp_path / "run"), HARM="HANG 11")
    others, root_cause = err.split("Root Cause")
    assert status != 0 and "rank      : 0" in root_cause  # it has waited in vain
    assert "rank      : 1" in others and "Signal 15 (SIGTERM)" in others  # it stood still


def test_a_terminated_job_stops_between_steps_and_resumes_to_the_same_bits(uninterrupted, tmp_path):
    out = tmp_path / "run"
    status, _, err = torchrun(*options(out), HARM="TERMINATE 11")
    assert status != 0 and "continues with --resume" in err
    assert not (out / "results.json").exists()
    status, _, err = torchrun(*options(out), "--resume")
    assert status == 0, err
    assert_same(bits(out), bits(uninterrupted))


def test_time_runs_out_for_all_workers_at_once(kernels, tmp_path):
    out = tmp_path / "run"
    status, shown, err = torchrun(*options(out), "--max-minutes=0")
    assert status == 0 and "are over" in shown, err
    assert (out / "last.pt").exists() and not (out / "results.json").exists()


def test_a_batch_that_workers_cannot_share_is_refused(kernels, tmp_path):
    status, _, err = torchrun(*options(tmp_path / "run"), "--batch-size=31")
    message = "batch_size must be a multiple of the 2 workers; got 31"
    assert status != 0 and f"python -m experiments.train: {message}" in err


def test_workers_cannot_all_have_one_device(tmp_path, monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):  # as under torchrun
        monkeypatch.setenv(name, "2")
    config = MnistConfig(out=tmp_path, device="cpu:0")
    with pytest.raises(ConfigError, match="device must be .* several workers.*; got 'cpu:0'"):
        distributed.make_fabric(config)


def test_unequal_shares_are_refused():
    assert distributed.share_of(torch.arange(6), 1, 2).tolist() == [1, 3, 5]
    with pytest.raises(ValueError, match="a batch of 5 cannot be shared equally by 2 workers"):
        distributed.share_of(torch.arange(5), 0, 2)


def normalise_share(rank, folder):
    """Normalise the share of one of two workers, 5 rows or 12, and keep what comes out."""
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    norm = torch.nn.BatchNorm1d(3, dtype=torch.float64)
    distributed.share_statistics(norm)
    leaf = rows_of_both()[(slice(0, 5), slice(5, 17))[rank]].clone().requires_grad_()
    output = norm(leaf)
    output.sin().sum().backward()
    torch.save([output.detach(), leaf.grad, norm.state_dict()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def rows_of_both():
    return torch.randn(17, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_batch_norm_counts_the_rows_of_unequal_shares(tmp_path):
    """As many rows as the sequences of a share have steps."""
    torch.multiprocessing.spawn(normalise_share, (str(tmp_path),), nprocs=2)
    outputs, gradients, states = zip(
        *(torch.load(tmp_path / f"{i}.pt") for i in (0, 1)), strict=True
    )
    whole, leaf = torch.nn.BatchNorm1d(3, dtype=torch.float64), rows_of_both().requires_grad_()
    output = whole(leaf)
    output.sin().sum().backward()
    torch.testing.assert_close(torch.cat(outputs), output.detach())
    torch.testing.assert_close(torch.cat(gradients), leaf.grad)
    for state in states:
        torch.testing.assert_close(state, dict(whole.state_dict()))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(20, 3), (4, 3, 5)])
def test_batch_norm_learns_from_the_shares_of_all_workers(momentum, shape):
    """In a group of one, it is PyTorch's: output, gradient and running statistics."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, shared = (
        torch.nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64) for _ in range(2)
    )
    distributed.share_statistics(shared)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        results = []
        for norm in (plain, shared):
            leaf = x.clone().requires_grad_()
            output = norm(leaf)
            output.sin().sum().backward()
            results.append((output, leaf.grad, norm.weight.grad, *norm.state_dict().values()))
    finally:
        dist.destroy_process_group()
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert plain.eval()(x).equal(shared.eval()(x)) or torch.allclose(plain(x), shared(x))
