"""Noisy tones have the period of their label, and the noise that is asked for."""

import pytest
import torch

from experiments.signals.tones import noisy_tones

PERIODS = (10.0, 16.0, 25.0)


def test_a_tone_has_the_period_of_its_label():
    def draw(noise):
        return noisy_tones(32, 400, PERIODS, noise, torch.Generator().manual_seed(0))

    x, labels = draw(0.5)
    assert x.shape == (32, 400, 1) and x.dtype == torch.float32
    assert set(labels.tolist()) == {0, 1, 2}
    strongest = torch.fft.rfft(x[..., 0]).abs().argmax(1)
    assert (400 / strongest).tolist() == [PERIODS[label] for label in labels]
    assert x.equal(draw(0.5)[0])
    assert (x - draw(0.0)[0]).std().item() == pytest.approx(0.5, rel=0.05)
