"""Training: it learns, it resumes to the same bits, it stops when told, it tests once."""

import csv
import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import torch

from experiments.datasets.mnist import pixel_order
from experiments.models import forgotten_bits
from experiments.provenance import provenance
from experiments.tasks import TASKS, mnist
from experiments.tasks.mnist import MnistConfig
from experiments.train import checkpoints, loop
from experiments.train.__main__ import main
from experiments.train.config import ConfigError
from experiments.train.loop import train
from experiments.train.networks import NETWORKS
from experiments.train.run import Run
from experiments.train.runs import train_all
from tests.experiments.fake_mnist import fake_mnist
from tests.experiments.small_runs import SMALL, assert_same, bits, words

ROOT = Path(__file__).parents[2]
STEPS = 8  # per epoch: 256 sequences in batches of 32


@pytest.fixture
def test_reads(monkeypatch):
    """Training runs on made-up digits; the list grows each time their test part is read."""
    reads = []
    monkeypatch.setattr(
        mnist, "load_mnist", lambda root: fake_mnist(lambda: reads.append(time.monotonic()))
    )
    return reads


@pytest.fixture
def small(tmp_path, test_reads):
    """A configuration that trains in a second."""
    return MnistConfig.of(**SMALL, out=tmp_path / "run")


@pytest.fixture
def after_step(monkeypatch):
    """Register a function that is called with the run after each step."""
    real, calls = Run.step, []

    def step(self, x, y):
        real(self, x, y)
        for call in calls:
            call(self)

    monkeypatch.setattr(Run, "step", step)
    return calls.append


def steps_done(run):
    return run.progress.epoch * STEPS + run.progress.batch


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["irevrnn", "lstm", "gru"])
def test_the_loss_falls(small, model):
    config = MnistConfig.of(**SMALL | {"model": model, "epochs": 8}, out=small.out)
    results = train(config, progress=False)
    losses = [row["train_loss"] for row in results["history"]]
    assert losses[-1] < 0.8 * losses[0]
    assert results["test_accuracy"] > 0.2


@pytest.mark.parametrize(
    "options",
    [
        {"permuted": True, "schedule": "cosine"},
        {"weight_decay": 0.1, "label_smoothing": 0.1},
        {"residual": True, "norm": "none", "num_couplings": 0, "memory": "store"},
        {"coupling_lr_scale": 1.0, "norm": "layer", "activation": "tanh"},
        {"precision": "64-true", "average": 0.5, "clip": 0.0},
        {"precision": "64-true", "model": "block", "memory": "store", "width": 8, "sparsity": 0.1},
        {"precision": "bf16-mixed"},
        {"train_subset": 40, "eval_subset": 10, "epochs": 1},
    ],
    ids=str,
)
def test_options_train(small, options):
    config = MnistConfig.of(**SMALL | {"epochs": 2} | options, out=small.out)
    results = train(config, progress=False)
    assert results["finished"] and len(results["history"]) == results["config"]["epochs"]


def test_every_epoch_has_its_order_and_every_seed_its_own(small, test_reads):
    def labels(seed, epoch, skip=0):
        task = small.changed(seed=seed).task(torch.device("cpu"))
        return [y.tolist() for _, y in task.train_batches(epoch, skip)]

    assert labels(0, 1) == labels(0, 1)
    assert labels(0, 0) != labels(0, 1) != labels(1, 0)
    assert labels(0, 1, skip=3) == labels(0, 1)[3:]
    assert labels(0, 1, skip=STEPS) == []


def test_batches_are_sequences_of_scaled_pixels(small):
    task = small.changed(downsample=1, permuted=True).task(torch.device("cpu"))
    x, y = next(task.val_batches())
    assert x.shape == (32, 784, 1) and x.dtype == torch.float32 and y.dtype == torch.int64
    images = fake_mnist().val.images[:32, pixel_order(permuted=True)]
    assert (x.squeeze(-1) * 255).round().to(torch.uint8).equal(images)


def test_downsampling_averages_squares(small):
    x, _ = next(small.task(torch.device("cpu")).val_batches())
    squares = fake_mnist().val.images[:32].view(32, 4, 7, 4, 7).double().mean((2, 4)).flatten(1)
    assert x.shape == (32, 16, 1)
    assert (x.squeeze(-1) * 255 - squares).abs().max() <= 0.5 + 1e-4


# --- resuming -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder_of_all(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def whole(small, folder_of_all):
    """Return the folder of a run that is never stopped, one for all tests."""
    if not (folder_of_all / "results.json").exists():
        train(small.changed(out=folder_of_all), progress=False)
    return folder_of_all


@pytest.mark.parametrize("at", [1, STEPS + 3, STEPS, 3 * STEPS - 1])
def test_resumes_to_the_same_bits_from_a_signal_after_a_step(small, whole, after_step, at):
    number = signal.SIGTERM if at == STEPS + 3 else signal.SIGINT
    after_step(lambda run: os.kill(os.getpid(), number) if steps_done(run) == at else None)
    with pytest.raises(KeyboardInterrupt, match="resume"):
        train(small, progress=False)
    torch.manual_seed(99)  # another process has another generator
    train(small.changed(resume=True), progress=False)
    assert_same(bits(small.out), bits(whole))


@pytest.mark.parametrize("epoch", [1, 3])
def test_resumes_to_the_same_bits_from_an_epoch_border(small, whole, monkeypatch, epoch):
    real = loop.finish_epoch

    def finish_epoch(run):
        real(run)
        if run.progress.epoch == epoch:
            press_ctrl_c()

    with monkeypatch.context() as patch:
        patch.setattr(loop, "finish_epoch", finish_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(small, progress=False)
    train(small.changed(resume=True), progress=False)
    assert_same(bits(small.out), bits(whole))


def test_a_killed_run_resumes_to_the_same_bits(small, whole):
    fields = SMALL | {"out": small.out, "checkpoint_every": 3}
    victim = subprocess.run(
        [sys.executable, "-m", "tests.experiments.train_fake_mnist", *words(fields)],
        cwd=ROOT, capture_output=True,
    )  # fmt: skip
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    before = torch.load(small.out / "last.pt", weights_only=True)["progress"]
    assert 0 < before["epoch"] * STEPS + before["batch"] < 11
    train(small.changed(resume=True), progress=False)
    assert_same(bits(small.out), bits(whole))


def test_processor_time_is_summed_over_sessions_without_pauses(small, after_step):
    after_step(lambda run: time.sleep(0.01))
    mine = time.process_time()
    while not (results := train(small.changed(resume=True, max_minutes=0), progress=False))[
        "finished"
    ]:
        time.sleep(0.02)
    mine = time.process_time() - mine
    assert 0 < results["processor_seconds"] <= mine
    assert results["wall_seconds"] > 0.01 * 3 * STEPS
    assert results["processor_seconds"] < results["wall_seconds"]
    parts = torch.load(small.out / "last.pt", weights_only=True)["progress"]
    assert 0.2 * mine < parts["processor_seconds"] <= results["processor_seconds"]


@pytest.mark.parametrize("options", [{}, {"average": 0.9}], ids=str)
def test_resumes_to_the_same_bits_after_a_stop_at_every_step(small, tmp_path, options):
    config, stops = small.changed(**options), 0
    train(config.changed(out=tmp_path / "whole"), progress=False)
    again = config.changed(resume=True, max_minutes=0)
    while not train(again, progress=False)["finished"]:
        stops += 1  # no time at all is one step
    assert stops == 3 * STEPS
    assert_same(bits(small.out), bits(tmp_path / "whole"))


def test_a_run_is_not_resumed_with_other_options(small):
    """A field that did not exist yet when the run began had its default."""
    train(small.changed(max_minutes=0), progress=False)
    without("average", "config")(small.out / "last.pt")
    for name, value, was in (("lr", 0.5, 0.02), ("average", 0.5, 0.0)):
        with pytest.raises(ConfigError, match=f"{name} is {value}, but the run in .* has {was}"):
            train(small.changed(resume=True, **{name: value}), progress=False)
    assert train(small.changed(resume=True), progress=False)["finished"]


def test_a_run_is_not_resumed_with_other_data(small, monkeypatch):
    train(small.changed(max_minutes=0), progress=False)
    monkeypatch.setattr(mnist, "SPLIT_SEED", 0)
    message = r"the data have changed since the run in .* began: split_seed was \d+ and is 0"
    with pytest.raises(ConfigError, match=message):
        train(small.changed(resume=True), progress=False)


def test_runs_on_other_data_are_not_summarised(small, monkeypatch):
    several = small.changed(seeds=2, epochs=1, resume=True)
    train_all(several, progress=False)
    (small.out / "seed1" / "results.json").unlink()
    (small.out / "seed1" / "last.pt").unlink()
    other = dataclasses.replace(fake_mnist(lambda: None), name="others")
    monkeypatch.setattr(mnist, "load_mnist", lambda root: other)
    with pytest.raises(ConfigError, match="data_set was 'MNIST' and is 'others'"):
        train_all(several, progress=False)


def test_earlier_runs_are_gone_once_the_first_new_one_has_begun(small):
    """Otherwise a later --resume would take them for new ones."""
    both = small.changed(epochs=1, seeds=2)
    train(small.changed(epochs=1), progress=False)
    train_all(both, progress=False)
    assert {path.name for path in small.out.iterdir()} == {"seed0", "seed1", "results.json"}
    with pytest.raises(ConfigError, match="batch_size must be at most the 256"):
        train_all(both.changed(batch_size=257), progress=False)
    assert (small.out / "seed1" / "results.json").is_file()  # none has begun
    others = both.changed(seed=5, max_minutes=0)
    assert not train_all(others, progress=False)["finished"]
    left = [path for path in small.out.rglob("*") if path.is_file()]
    assert left == [small.out / "seed5" / "last.pt"]


def test_two_runs_do_not_share_a_folder(small, after_step):
    refused = []

    def another(run):
        if not refused:
            refused.append(True)
            with pytest.raises(ConfigError, match="another run is training in"):
                train(small, progress=False)

    after_step(another)
    assert train(small, progress=False)["finished"] and refused


def test_a_single_run_is_not_resumed_as_several(small, capsys):
    results = train(small, progress=False)
    with pytest.raises(ConfigError, match="is one run, and folds and seeds are 2"):
        train_all(small.changed(seeds=2, resume=True), progress=False)
    assert train_all(small.changed(resume=True)) == json.loads(json.dumps(results))
    assert "already finished" in capsys.readouterr().out


def test_weights_of_another_run_are_not_tested(small):
    train(small, progress=False)
    run = Run(small)
    run.progress.best = {"epoch": 1}
    with pytest.raises(ConfigError, match=r"best.pt was written by another run"):
        checkpoints.load_best(run)
    with pytest.raises(ConfigError, match=r"seed is 1, but the run in .* has 0"):
        checkpoints.load_best(Run(small.changed(seed=1)))


def test_forgotten_bits_are_of_the_weights_that_are_tested(small):
    config = small.changed(average=0.9)
    results = train(config, progress=False)
    network = config.model.build(Run(config).task)
    assert results["forgotten_bits"] != forgotten_bits(network).item()
    network.load_state_dict(checkpoints.read(small.out / "best.pt")["model"])
    assert results["forgotten_bits"] == forgotten_bits(network).item()


def test_without_clipping_gradients_are_as_they_are(small):
    losses = [
        [row["train_loss"] for row in train(small.changed(clip=clip),
                                            progress=False)["history"]]
        for clip in (0.0, 1e9, 1e-3)
    ]  # fmt: skip
    assert losses[0] == losses[1] != losses[2]


def test_results_name_the_commits_of_all_sessions(small, monkeypatch):
    for commit in ("first", "first", "second"):
        monkeypatch.setattr(
            "experiments.train.run.provenance",
            lambda commit=commit: {**provenance(), "git_commit": commit},
        )
        train(small.changed(resume=True, max_minutes=0), progress=False)
    results = train(small.changed(resume=True), progress=False)
    assert results["git_commit"] == "second" and results["git_commits"] == ["first", "second"]


def without(key, part=None):
    def damage(file):
        state = torch.load(file, weights_only=True)
        del (state if part is None else state[part])[key]
        torch.save(state, file)

    return damage


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("last.pt", lambda file: file.write_bytes(b"")),
        ("last.pt", lambda file: file.write_bytes(b"garbage " * 99)),
        ("last.pt", lambda file: file.write_bytes(file.read_bytes()[:-200])),
        ("last.pt", lambda file: torch.save([1], file)),
        *(("last.pt", without(key)) for key in ("config", "model", "optimizer", "progress", "rng")),
        ("last.pt", without("totals", "progress")),
        ("best.pt", lambda file: file.write_bytes(b"")),
        ("best.pt", without("model")),
        ("best.pt", lambda file: file.unlink()),
        ("results.json", lambda file: file.write_text("")),
        ("results.json", lambda file: file.write_text('{"config": ')),
        ("results.json", lambda file: file.write_text("[]")),
        ("results.json", lambda file: file.write_text('{"config": {}}')),
        ("results.json", lambda file: file.write_bytes(b"\xff")),
    ],
)
def test_a_damaged_file_ends_in_one_line(small, whole, capsys, name, damage):
    shutil.copytree(whole, small.out)
    if name != "results.json":
        (small.out / "results.json").unlink()
    damage(small.out / name)
    assert main([*words(SMALL), f"--out={small.out}", "--resume"]) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith(f"python -m experiments.train: {small.out / name} is damaged")
    assert "without --resume" in shown


def test_a_folder_that_cannot_be_written_ends_in_one_line(small, capsys, monkeypatch, tmp_path):
    def refused(out):
        status = main([*words(SMALL), f"--out={out}"])
        shown = capsys.readouterr().err
        return status == 1 and len(shown.splitlines()) == 1 and f"got {out} (" in shown

    (tmp_path / "file").touch()
    assert refused(tmp_path / "file") and refused(tmp_path / "file" / "run")

    def protected(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", protected)
    assert refused(small.out)


def test_a_run_resumed_elsewhere_is_told_that_bits_will_differ(small):
    train(small.changed(threads=2, max_minutes=0), progress=False)
    with pytest.warns(UserWarning, match="1 threads on cpu, but began with 2 threads on cpu"):
        train(small.changed(resume=True), progress=False)


def test_a_run_started_afresh_leaves_nothing_of_the_last(small):
    train(small.changed(epochs=1), progress=False)
    train(small.changed(max_minutes=0), progress=False)
    assert {path.name for path in small.out.iterdir()} == {"last.pt"}


# --- stopping -----------------------------------------------------------------------------------


def test_nan_stops_the_run_and_spares_the_checkpoint(small, after_step):
    def poison(run):
        if steps_done(run) == STEPS + 2:
            run.network.readout.bias.data.fill_(float("nan"))

    after_step(poison)
    with pytest.raises(FloatingPointError, match="largest weight is nan at epoch 2.*lower lr"):
        train(small.changed(checkpoint_every=1), progress=False)
    state = torch.load(small.out / "last.pt", weights_only=True)
    assert state["progress"]["batch"] == 1
    assert all(x.isfinite().all() for x in state["model"].values())
    assert not (small.out / "results.json").exists()


# --- results ------------------------------------------------------------------------------------


def test_test_data_is_read_once_and_after_the_last_step(small, test_reads, after_step):
    steps = []
    after_step(lambda run: steps.append(time.monotonic()))
    results = train(small.changed(max_minutes=0), progress=False)
    assert not results["finished"] and "test_accuracy" not in results and test_reads == []
    train(small.changed(resume=True), progress=False)
    assert len(steps) == 3 * STEPS
    assert len(test_reads) == 1 and test_reads[0] > steps[-1]


def test_results(small):
    returned = train(small.changed(permuted=True, downsample=4), progress=False)
    results = json.loads((small.out / "results.json").read_text())
    assert results == returned
    assert results["data_set"] == "MNIST" and results["seed"] == 0
    assert results["data"] == {
        "source": "made up", "sequence_length": 49, "train_size": 256, "val_size": 100,
        "test_size": 100, "split_seed": 2023, "permutation_seed": 92916,
    }  # fmt: skip
    assert results["config"]["hidden_size"] == 12 and results["config"]["permuted"]
    run = Run(small.changed(permuted=True))
    assert results["num_parameters"] == sum(p.numel() for p in run.network.parameters())
    assert results["wall_seconds"] > 0 and results["versions"]["torch"] == torch.__version__
    assert results["threads"] == 1 and results["cpu"]
    best = max(results["history"], key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert results["best_epoch"] == best["epoch"]
    assert results["val_accuracy"] == best["val_accuracy"]
    matrix = torch.tensor(results["confusion_matrix"])
    assert matrix.shape == (10, 10)
    assert matrix.sum(1).equal(fake_mnist().read_test().labels.bincount(minlength=10))
    assert results["test_accuracy"] == pytest.approx(matrix.trace().item() / 100)
    labels = fake_mnist().read_test().labels
    for mistake in results["mistakes"]:
        assert labels[mistake["index"]] == mistake["label"] != mistake["predicted"]
    assert len(results["mistakes"]) == min(25, 100 - matrix.trace())


def test_the_best_weights_are_tested(small):
    results = train(small, progress=False)
    run = Run(small)
    run.progress.best = results["history"][results["best_epoch"] - 1]
    checkpoints.load_best(run)
    run.network.eval()
    with torch.no_grad():
        pairs = [(run.model(x).argmax(1), y) for x, y in run.task.test_batches()]
    right = sum((guess == y).sum().item() for guess, y in pairs)
    assert results["test_accuracy"] == pytest.approx(right / 100)


def test_log(small):
    results = train(small, progress=False)
    rows = list(csv.DictReader((small.out / "log.csv").open()))
    assert list(rows[0]) == [
        "epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr",
        "seconds",
    ]  # fmt: skip
    assert [int(row["step"]) for row in rows] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert [float(row["val_loss"]) for row in rows] == [r["val_loss"] for r in results["history"]]


def test_progress_shows_loss_accuracy_and_time_left(small, capsys):
    train(small.changed(permuted=True), progress=True)
    shown = capsys.readouterr()
    assert "permutation seed 92916" in shown.out and "epoch 3/3: loss" in shown.out
    assert "epoch 1/3" in shown.err and "/24 [" in shown.err
    train(small, progress=False)
    assert capsys.readouterr() == ("", "")


# --- options ------------------------------------------------------------------------------------


def shown_help(capsys, *names):
    with pytest.raises(SystemExit) as end:
        main([*names, "--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("task", "network"), [*product(TASKS, ["block"]), *product(["action"], NETWORKS)]
)
def test_help_explains_every_option_with_its_default(capsys, task, network):
    shown, config = shown_help(capsys, task, network), TASKS[task].of(model=network)
    for of in (config, config.model):
        for field in dataclasses.fields(of):
            if field.name != "model":
                assert f"--{field.name.replace('_', '-')}" in shown
                assert f"{field.metadata['help']} (default: {getattr(of, field.name)})" in shown


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            "mnist irevrnn --hidden-size 3 --lr 0.1 --residual --norm none --data a --threads 1 "
            "--out b --max-minutes 0.5 --checkpoint-every 7 --permuted --downsample 14",
            {"hidden_size": 3, "lr": 0.1, "residual": True, "norm": "none", "data": Path("a"),
             "threads": 1, "out": Path("b"), "max_minutes": 0.5, "checkpoint_every": 7,
             "permuted": True, "downsample": 14},
        ),
        (
            "signals block --width 9 --no-gate --memory store --bits-penalty 2",
            {"width": 9, "gate": False, "memory": "store", "bits_penalty": 2},
        ),
        ("action lstm --forget-bias 2", {"model": "lstm", "forget_bias": 2}),
    ],
)  # fmt: skip
def test_every_option_reaches_the_run(monkeypatch, line, wanted):
    seen = []
    monkeypatch.setattr("experiments.train.__main__.train_all", seen.append)
    assert main(line.split()) == 0
    assert seen == [TASKS[line.split()[0]].of(**wanted)]


def test_no_network_has_an_option_that_a_task_has():
    """They are written as one dictionary."""
    for network, task in product(NETWORKS.values(), TASKS.values()):
        assert not network.names() & task.names()


def test_configurations_of_older_versions_are_read():
    """They had the options of all networks, and gated blocks were one of them."""
    others = {"residual": False, "chrono": None}
    old = {"model": "irevrnn", "block": True, "forgets": False, "lr": 0.5, **others}
    config = MnistConfig.read(old)
    assert config == MnistConfig.of(model="block", forgets=False, lr=0.5)
    config.check_same(old)
    with pytest.raises(ConfigError, match="forgets is False, but the run in .* has True"):
        config.check_same(old | {"forgets": True})
    assert MnistConfig.read(old | {"block": False}) == MnistConfig.of(lr=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 0), ("epochs", 0), ("batch_size", -1), ("lr", -1.0),
        ("lr", float("nan")), ("schedule", "step"), ("precision", "8"), ("downsample", 3),
        ("norm", "group"), ("train_subset", 0), ("max_minutes", -1.0), ("threads", 0),
        ("dropout", 1.5), ("dropout", 1.0), ("label_smoothing", 2.0), ("average", 1.0),
    ],
)  # fmt: skip
def test_bad_options_are_named(name, value, capsys):
    with pytest.raises(ConfigError, match=f"{name} must be .*got {value!r}"):
        MnistConfig.of(**{name: value})
    with pytest.raises(SystemExit) as end:
        main(words({name: value}))
    shown = capsys.readouterr().err
    assert end.value.code == 2 and len(shown.splitlines()) == 1
    assert re.search(f"error: {name} must be .*got {value!r}", shown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N; got 'tpu'"),
        ({"batch_size": 1}, "plain layers end in a batch norm, which takes two sequences at least"),
        ({"batch_size": 257}, "batch_size must be at most the 256 training sequences; got 257"),
    ],
)
def test_a_run_that_cannot_be_ends_in_one_line(small, capsys, options, message):
    assert main([*words(SMALL | options), f"--out={small.out}"]) == 1
    shown = capsys.readouterr().err
    assert message in shown and len(shown.splitlines()) == 1


def test_a_value_out_of_range_ends_in_one_line(small, capsys):
    fields = SMALL | {
        "memory": "reversible", "activation": "leaky_relu", "norm": "none", "lr": 1e9, "clip": 1e9,
    }  # fmt: skip
    assert main([*words(fields), f"--out={small.out}"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"^python -m experiments.train: layer \d, step \d+: a value is NaN or left the range", last
    )


def test_ctrl_c_on_the_command_line_says_how_to_go_on(small, capsys, after_step):
    after_step(lambda run: press_ctrl_c() if run.progress.batch == 2 else None)
    assert main([*words(SMALL), f"--out={small.out}"]) == 130
    assert "continues with --resume" in capsys.readouterr().err


def test_threads_and_signals_are_put_back(small):
    before, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    wanted = 3 - min(before, 2)  # one that differs
    results = train(small.changed(threads=wanted, epochs=1), progress=False)
    assert results["threads"] == wanted and torch.get_num_threads() == before
    assert signal.getsignal(signal.SIGINT) is handler
