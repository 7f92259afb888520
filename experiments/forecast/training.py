"""Training for a given time, by gradients through pieces of a recording or through all of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.forecast.data import Levels
from experiments.forecast.network import Bits, BlockBesideLevel, Embedding
from irevrnn import IRevStack, parameter_groups

#: What a backward pass through a whole recording may need: in longer chunks it takes less time.
BUDGET = "60MB"
#: Steps of the pieces that a warm-up goes through.
WARM_UP_PIECE = 1000
#: Bits and state of a test are computed in pieces of this many steps.
TEST_PIECE = 50_000


@dataclass(frozen=True)
class Method:
    """How gradients are computed.

    Attributes:
        label: in tables.
        piece: steps that gradients go back through at most; None for the whole recording.
        warm_up: share of the time that goes to pieces of :data:`WARM_UP_PIECE` steps first.
    """

    label: str
    piece: int | None
    warm_up: float = 0.0


METHODS = {
    "truncated-1000": Method("truncated, 1,000 steps", 1000),
    "truncated-10000": Method("truncated, 10,000 steps", 10_000),
    "whole": Method("whole recordings", None),
    "whole-after-truncated": Method("whole, after truncated", None, warm_up=0.5),
}


@dataclass(frozen=True)
class Settings:
    """The network and its optimization; the time is processor time, without tests."""

    width: int = 32
    hidden_size: int = 48
    num_blocks: int = 3
    shortest_period: float = 4.0
    longest_period: float = 2000.0
    longest_memory: float = 20_000.0
    lr: float = 4e-3
    minutes: float = 8.0
    steps: int | None = None  # of a recording, all of them if not given
    seed: int = 0

    def network(self, piece: int | None) -> IRevStack:
        """Build the stack, (1, T, 2) to (1, T, 1), for pieces of ``piece`` steps."""
        torch.manual_seed(self.seed)
        blocks = [
            BlockBesideLevel(
                self.width, self.hidden_size, norm="layer" if index else None,
                shortest_period=self.shortest_period, longest_period=self.longest_period,
                longest_memory=self.longest_memory,
            )
            for index in range(self.num_blocks)
        ]  # fmt: skip
        stack = [Embedding(self.width), *blocks, Bits(self.width)]
        return IRevStack(stack, memory_for(piece), None if piece else BUDGET)


def memory_for(piece: int | None) -> str:
    """Return the strategy: whole recordings are reversed, pieces recomputed."""
    return "recompute" if piece else "reversible"


def pieces(x: Tensor, piece: int | None) -> Sequence[Tensor]:
    """Cut (1, T, 2) into pieces."""
    return x.split(piece or x.shape[1], 1)


def train(
    settings: Settings, method: Method, recordings: Sequence[Levels]
) -> tuple[IRevStack, dict[str, Any]]:
    """Train for ``settings.minutes``; return the network and figures.

    A piece begins with the states that the one before it ended with. The learning rate follows a
    cosine of the time that has passed. A loss that is infinite or NaN is an OverflowError.
    """
    network = settings.network(method.piece)
    optimizer = torch.optim.AdamW(parameter_groups(network, settings.lr))
    order = torch.Generator().manual_seed(settings.seed)
    seconds, updates, curve = 0.0, 0, []
    budget = 60 * settings.minutes
    while seconds < budget:
        index = int(torch.randint(len(recordings), (), generator=order))
        warm = seconds < method.warm_up * budget
        piece = WARM_UP_PIECE if warm else method.piece
        network.memory, state, bits = memory_for(piece), None, []
        for part in pieces(recordings[index].sequence(settings.steps), piece):
            start = time.process_time()
            _set_rate(optimizer, seconds / budget)
            loss, state = _update(network, optimizer, part, state)
            seconds += time.process_time() - start
            updates += 1
            if not math.isfinite(loss):
                raise OverflowError(f"the loss became {loss}")
            bits.append(loss)
            if seconds >= budget:
                break
        curve.append([seconds, sum(bits) / len(bits)])
    return network, {"updates": updates, "seconds": seconds, "curve": curve}


def _update(
    network: IRevStack, optimizer: torch.optim.Optimizer, part: Tensor, state: Any
) -> tuple[float, Any]:
    """Take one step; return the bits per sample and the states at the end, without gradients."""
    optimizer.zero_grad()
    bits, state = network(part, state)
    loss = bits.mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    network.clip_recurrent_weights_()
    return loss.item(), tuple(s.detach() for s in state)


@torch.no_grad()
def evaluate(network: IRevStack, recording: Levels, steps: int | None = None) -> float:
    """Return the bits per sample of a recording, read from beginning to end."""
    total, count, state = 0.0, 0, None
    memory, network.memory = network.memory, "recompute"
    for part in pieces(recording.sequence(steps), TEST_PIECE):
        bits, state = network(part, state)
        total += bits.double().sum().item()
        count += bits.numel()
    network.memory = memory
    return total / count


def _set_rate(optimizer: torch.optim.Optimizer, progress: float) -> None:
    for group in optimizer.param_groups:
        highest = group.setdefault("initial_lr", group["lr"])
        group["lr"] = highest * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
