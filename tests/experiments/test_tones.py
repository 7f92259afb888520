"""Noisy tones have the period of their label."""

import torch

from experiments.signals.tones import noisy_tones

PERIODS = (10.0, 16.0, 25.0)


def test_a_tone_has_the_period_of_its_label():
    x, labels = noisy_tones(32, 400, PERIODS, noise=0.5, generator=torch.Generator().manual_seed(0))
    assert x.shape == (32, 400, 1) and x.dtype == torch.float32
    assert set(labels.tolist()) == {0, 1, 2}
    strongest = torch.fft.rfft(x[..., 0]).abs().argmax(1)
    assert (400 / strongest).tolist() == [PERIODS[label] for label in labels]


def test_without_noise_there_is_the_wave_alone():
    x, _ = noisy_tones(4, 100, (20.0,), noise=0.0)
    torch.testing.assert_close(x[:, 20:], x[:, :-20], rtol=0, atol=1e-4)


def test_the_generator_decides():
    draws = [
        noisy_tones(2, 50, PERIODS, generator=torch.Generator().manual_seed(1))[0] for _ in "ab"
    ]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], noisy_tones(2, 50, PERIODS)[0])
