"""Draw the initial values of a recurrence: its memories, and the periods it oscillates with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

#: Time constants, in steps, of freshly drawn recurrent weights, unless others are asked for.
SHORTEST_MEMORY = 1.0
LONGEST_MEMORY = 1000.0
#: Periods, in steps, of units that start as oscillators, likewise.
SHORTEST_PERIOD = 6.0
LONGEST_PERIOD = 1000.0
#: Standard deviation of freshly drawn coupling weights.
COUPLING_DEVIATION = 1e-3


def log_uniform_(x: Tensor, lowest: float, highest: float) -> Tensor:
    """Fill x with log-uniform numbers from ``lowest`` to ``highest``."""
    return x.uniform_(math.log(lowest), math.log(highest)).exp_()


def draw_memories_(u: Tensor, shortest: float, longest: float) -> Tensor:
    """Fill u with exp(-1 / tau) and return tau, log-uniform from ``shortest`` to ``longest``."""
    wide = torch.promote_types(u.dtype, torch.float32)  # float16 ends at 65,504
    tau = log_uniform_(torch.empty_like(u, dtype=wide), shortest, longest)
    u.copy_(torch.exp(-1 / tau))
    return tau


def draw_couplings_(a: Tensor, b: Tensor) -> None:
    """Fill coupling weights with small normal numbers that turn the state (h, c).

    With equal signs of a and b, h and c would drive each other, and grow as exp(sqrt(a b) t).
    """
    a.normal_(0, COUPLING_DEVIATION)
    b.normal_(0, COUPLING_DEVIATION)
    b.mul_(torch.where((a.sum(0) > 0) == (b.sum(0) > 0), -1, 1))


def draw_periods_(a: Tensor, b: Tensor, shortest: float, longest: float) -> None:
    """Make each unit an oscillator through its first coupling (equation ``eq:period``).

    The period is log-uniform where nothing is forgotten. The other couplings turn the same way.
    """
    a.abs_()
    b.abs_().neg_()
    a[0] = 2 * torch.sin(math.pi / log_uniform_(a[0], shortest, longest))
    b[0] = -a[0]


def draw_oscillators_(
    u: Tensor, a: Tensor, b: Tensor,
    periods: tuple[float, float], memories: tuple[float, float], forgets: bool,
) -> Tensor:  # fmt: skip
    """Draw oscillators, whose first coupling gives period P at this u (``eq:oscillator``).

    Return tau; without ``forgets``, u stays as it is, and tau is the longest.
    """
    a.abs_()
    b.abs_().neg_()
    period, tau = draw_periods_and_memories(u, periods, memories, forgets)
    root = torch.ones_like(period)  # of u
    if forgets:
        root = torch.exp(-0.5 / tau)
        u.copy_(root * root)
    a[0] = coupling_of_period(period, root)
    b[0] = -a[0]
    return tau


def draw_turns_(
    decay: Tensor, angle: Tensor, periods: tuple[float, float] | None,
    memories: tuple[float, float], forgets: bool | str,
) -> Tensor:  # fmt: skip
    """Draw oscillators that rotate: angles 2 pi / P, or 0 without periods; return tau, (H,).

    If ``forgets`` is True, the decay of h and of c is filled with exp(-1 / (2 tau)).
    """
    if periods is None:
        angle.zero_()
        tau = draw_memories_(torch.empty_like(decay), *memories)
    else:
        period, tau = draw_periods_and_memories(decay, periods, memories, bool(forgets))
        angle.copy_(2 * math.pi / period)
    if forgets is True:
        decay.copy_(torch.exp(-0.5 / tau))
    return tau


def draw_periods_and_memories(
    like: Tensor, periods: tuple[float, float], memories: tuple[float, float], forgets: bool
) -> tuple[Tensor, Tensor]:
    """Draw periods and memories together, so that each unit of ``like`` (H,) oscillates.

    The period P is log-uniform. A unit that oscillates remembers for 2 tau steps; tau is
    log-uniform among the values for which it turns at least once before it has fallen to exp(-2 pi)
    (P < 4 pi tau). Without ``forgets`` tau is the longest of the memories.
    """
    period = log_uniform_(torch.empty_like(like, dtype=torch.float64), *periods)
    shortest, longest = memories
    if not forgets:
        return period, torch.full_like(period, longest)
    lowest = (period / (4 * math.pi)).clamp(max=longest).clamp(min=shortest).log()
    share = torch.empty_like(period).uniform_()
    return period, torch.exp(lowest + share * (math.log(longest) - lowest))


def coupling_of_period(period: Tensor, root: Tensor) -> Tensor:
    """Return a = -b for which a linear unit of one coupling has a period P (``eq:oscillator``).

    Its eigenvalues are sqrt(u) exp(+-2 pi i / P), so that sqrt(u) 2 cos(2 pi / P) = 1 + u - u a^2.
    ``root`` is sqrt(u).
    """
    square = (1 - root) ** 2 + 4 * root * torch.sin(math.pi / period) ** 2
    return square.sqrt() / root


def check_selection(
    forgets: Any, turns: Any, num_couplings: int, activations: tuple[str, str]
) -> None:
    """Raise an error unless ``forgets`` and ``turns`` go with the couplings and activations."""
    if forgets not in (True, False, "input"):
        raise ValueError(f"forgets must be True, False or 'input'; got {forgets!r}")
    if turns not in ("fixed", "input"):
        raise ValueError(f"turns must be 'fixed' or 'input'; got {turns!r}")
    given = num_couplings, *activations
    if "input" in (forgets, turns) and given != (1, "identity", "identity"):
        raise ValueError(
            "where the input chooses angles or decays, a rotation stands in the place of the "
            "couplings: num_couplings must be 1, and activation and coupling_activation "
            f"'identity'; got {given}"
        )


def check_periods(shortest: float, longest: float | None, num_couplings: int) -> None:
    """Raise a ValueError unless units can start with periods between these."""
    if not 2 < shortest <= (shortest if longest is None else longest) < math.inf:
        raise ValueError(
            "periods must be 2 < shortest_period <= longest_period < inf, in steps; got "
            f"{shortest} and {longest}"
        )
    if longest is not None and num_couplings == 0:
        raise ValueError(f"longest_period={longest:g} needs num_couplings of at least 1, or None")
