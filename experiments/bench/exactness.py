"""Train one network with several strategies, to compare what becomes of it bit by bit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.signals.tones import noisy_tones
from irevrnn import IRevBlock, IRevStack

PERIODS = (10.0, 11.0, 12.0, 13.0)
STEPS, BATCH, NOISE = 300, 32, 2.0
WIDTH, HIDDEN, BLOCKS = 24, 32, 2
TESTED = 1000


class Training(NamedTuple):
    """The losses of every step, the weights in the end, and the share of test tones told apart."""

    losses: list[float]
    weights: list[Tensor]
    accuracy: float


def train(memory: str, steps: int, seed: int = 0) -> Training:
    """Train gated blocks to tell apart waves of four periods that are buried in noise."""
    torch.manual_seed(seed)
    blocks = [IRevBlock(WIDTH, HIDDEN, norm="layer" if index else None) for index in range(BLOCKS)]
    model = IRevStack([nn.Linear(1, WIDTH), *blocks, nn.Linear(WIDTH, len(PERIODS))], memory)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        x, labels = noisy_tones(BATCH, STEPS, PERIODS, NOISE, generator)
        loss = F.cross_entropy(model(x)[0].mean(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.clip_recurrent_weights_()
        losses.append(loss.item())
    with torch.no_grad():
        x, labels = noisy_tones(TESTED, STEPS, PERIODS, NOISE, generator)
        accuracy = (model(x)[0].mean(1).argmax(1) == labels).double().mean().item()
    return Training(losses, [p.detach() for p in model.parameters()], accuracy)
