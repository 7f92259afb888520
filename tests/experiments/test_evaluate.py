"""Weights of the paper's networks: kept by an experiment, and tested again to the same figure."""

import json
from dataclasses import replace

import pytest

from experiments import catalogue, weights
from experiments.catalogue import Experiment, run
from experiments.evaluate import main


@pytest.fixture(autouse=True)
def trained(repository, monkeypatch):
    """The result of an experiment of a second, in a repository of its own."""
    fields = {"length": 10, "batches": 4, "held_out": 20, "batch_size": 8, "epochs": 2}
    tiny = Experiment("adding", "Adding", "IRevRNN", fields, seeds=2)
    monkeypatch.setattr(catalogue, "EXPERIMENTS", {"tiny": tiny, "other": tiny})
    monkeypatch.setattr(catalogue, "FLAGSHIPS", ("tiny",))
    run("other", progress=False, threads=1)
    return run("tiny", progress=False, threads=1)


def test_the_weights_give_the_figures_of_the_result(trained, capsys):
    assert main(["--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # two seeds and their mean; no weights of the other experiment are kept
    for line in lines:
        found, written = line.split("squared_error ")[1].split(", in the paper ")
        assert found == written
    assert f"{trained['test_squared_error']['mean']:.4g}" in lines[-1]


def test_other_weights_give_other_figures(trained, capsys):
    weights.path("tiny", "seed0").write_bytes(weights.path("tiny", "seed1").read_bytes())
    main(["tiny"])
    found, written = (
        capsys.readouterr().out.splitlines()[0].split("error ")[1].split(", in the paper ")
    )
    assert found != written


def test_figures_of_other_data_are_not_compared(capsys):
    file = catalogue.result_file("tiny")
    result = json.loads(file.read_text())
    file.write_text(json.dumps(result | {"data_set": "another"}))
    assert main(["tiny"]) == 1
    assert "tiny was tested on another, but the data here are adding" in capsys.readouterr().err


@pytest.mark.parametrize("digest", [None, "another", "the paper's"])
def test_recordings_that_are_not_the_papers_are_named(monkeypatch, capsys, digest):
    file = catalogue.result_file("tiny")
    result = json.loads(file.read_text())
    if digest is not None:  # older results have none
        result["data"]["digest"] = digest
    file.write_text(json.dumps(result))
    make = catalogue.TASKS["adding"].task
    monkeypatch.setattr(
        catalogue.TASKS["adding"], "task",
        lambda *given: replace(task := make(*given), facts={**task.facts, "digest": "the paper's"}),
    )  # fmt: skip
    assert main(["tiny"]) == 0
    warned = "recordings here are not those of the paper's tiny" in capsys.readouterr().err
    assert warned == (digest == "another")


def test_what_is_missing_or_damaged_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["other"])
    assert "there are no weights of 'other': choose from tiny" in capsys.readouterr().err
    weights.path("tiny", "seed1").write_bytes(b"nothing")
    assert main(["tiny"]) == 1
    assert "seed1.safetensors is damaged" in capsys.readouterr().err
    weights.path("tiny", "seed0").unlink()
    assert main(["tiny"]) == 1
    assert "seed0.safetensors is missing: python -m experiments tiny" in capsys.readouterr().err
