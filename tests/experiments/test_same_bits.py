"""Trainings of one network with any number of threads: the same bits."""

import pytest
import torch

from experiments.bench import same_bits

pytestmark = [pytest.mark.usefixtures("kernels"), pytest.mark.slow]


def test_threads_do_not_matter(monkeypatch):
    """With the instruction set of this machine; ``make bits`` takes the others, too."""
    monkeypatch.setattr(same_bits, "machines", lambda: iter([("native", {})]))
    hashes = same_bits.compare(batches=10)
    assert list(hashes) == ["native, 1 thread", "native, 2 threads"]
    assert len(set(hashes.values())) == 1 and len(hashes["native, 1 thread"]) == 64


def test_another_number_of_steps_gives_other_bits(tmp_path):
    """The control."""
    weights = tmp_path / "weights.pt"
    torch.save(same_bits.make_network().state_dict(), weights)
    two, three, again = (same_bits.train(weights, batches) for batches in (2, 3, 3))
    assert two != three == again
