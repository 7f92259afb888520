"""The base class of the blocks of a stack: :class:`Block`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from irevrnn.kernels.activations import get_activation
from irevrnn.modules import initial_values
from irevrnn.modules.checks import check_count, check_number
from irevrnn.modules.stability import Recurrent
from irevrnn.recurrences.block import is_selective


class Block(Recurrent):
    r"""The base of blocks around a reversible recurrence, to be stacked by ``IRevStack``.

    A block computes, where ``...`` are steps and sequences in any layout::

        z = block.project(x)       # (..., in) to (..., hidden_size), each step by itself
        h = the recurrence over z  # run by the stack, with its strategy
        y = block.output(x, h)     # (..., in) and (..., hidden_size) to (..., out), likewise

    A subclass defines ``project`` and ``output``. They may use any modules that act on each step
    independently (:func:`irevrnn.check_stepwise` tests that). They are computed again in the
    backward pass, so their results must depend on their arguments and parameters alone; random
    numbers of PyTorch's global generators are replayed. ``x`` is (T, B, in) whatever
    ``batch_first`` is, or packed as (N, in). The recurrence is that of :func:`irevrnn.scan`.

    A stack calls these two methods, never the block itself. Of the hooks on a block, only forward
    pre-hooks run, before ``project``, and what they return is ignored.

    Args:
        hidden_size: H, units of the recurrence.
        num_couplings: R, additive couplings between output and cell state. Without any,
            ``longest_period`` must be None.
        activation, coupling_activation: nonlinearities g and f of the recurrence.
            ``memory="reversible"`` takes a g that can be inverted (:mod:`irevrnn.strategies`).
        forgets: whether units forget. If not, u = 1: ``recurrent_weight`` is a buffer of ones, and
            with ``activation="identity"`` reversal stores nothing. With ``"input"`` the input
            chooses at each step what h and c are multiplied by, as in Mamba: ``project`` returns
            these decays, from 0 to 1, behind z.
        turns: ``"fixed"``; or ``"input"``, if the input chooses at each step by which angle the
            state (h, c) turns: ``project`` returns the angles, in radians, behind z (and before
            decays). With either, rotations stand in the place of couplings, and the nonlinearities
            are ``"identity"``.
        learn_initial_state: whether h_0 and c_0, where a call gives none, are learnt, in place of
            zeros (to which resets set them).
        shortest_period, longest_period: units start as oscillators with periods log-uniform between
            these numbers of steps. With ``longest_period=None`` all couplings start near 0.
        longest_memory: time constants tau in u = exp(-1 / tau) start log-uniform up to this number
            of steps: from 1, or for an oscillator of period P from P / (4 pi) if that is more.
        device, dtype: of the parameters.

    Attributes:
        recurrent_weight: u, (H,).
        coupling_a, coupling_b: a and b, (R, H).
        angle: of the rotations, (H,), where the input chooses angles or decays: for
            ``turns="fixed"``, and for a subclass to choose from.
        initial_state: learnt h_0 and c_0, (2, H), normal at the start; None where they are 0.

    Example::

        >>> class Plain(irevrnn.Block):
        ...     def __init__(self, width, hidden_size):
        ...         super().__init__(hidden_size)
        ...         self.inner = nn.Linear(width, hidden_size)
        ...         self.outer = nn.Linear(hidden_size, width)
        ...     def project(self, x):
        ...         return self.inner(x)
        ...     def output(self, x, h):
        ...         return x + self.outer(torch.tanh(h))
    """

    recurrent_weight: Tensor
    initial_state: Tensor | None

    def __init__(
        self, hidden_size: int, num_couplings: int = 1, *,
        activation: str = "identity", coupling_activation: str = "identity",
        forgets: bool | str = True, turns: str = "fixed", learn_initial_state: bool = False,
        shortest_period: float = initial_values.SHORTEST_PERIOD,
        longest_period: float | None = initial_values.LONGEST_PERIOD,
        longest_memory: float = initial_values.LONGEST_MEMORY,
        device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_count("hidden_size", hidden_size, 1)
        check_count("num_couplings", num_couplings, 0)
        get_activation(activation)
        get_activation(coupling_activation, "coupling_activation")
        initial_values.check_selection(
            forgets, turns, num_couplings, (activation, coupling_activation)
        )
        initial_values.check_periods(shortest_period, longest_period, num_couplings)
        check_number("longest_memory", longest_memory, initial_values.SHORTEST_MEMORY, math.inf)
        self.hidden_size, self.num_couplings = hidden_size, num_couplings
        self.activation, self.coupling_activation = activation, coupling_activation
        self.forgets, self.turns, self.longest_memory = forgets, turns, longest_memory
        self.shortest_period, self.longest_period = shortest_period, longest_period
        self.learn_initial_state = learn_initial_state
        factory = {"device": device, "dtype": dtype}
        if forgets is True:
            self.recurrent_weight = nn.Parameter(torch.empty(hidden_size, **factory))
        else:
            self.register_buffer("recurrent_weight", torch.ones(hidden_size, **factory))
        if self.selective:
            self.angle = nn.Parameter(torch.empty(hidden_size, **factory))
            self.coupling_a = self.coupling_b = torch.empty(0, hidden_size, **factory)
        else:
            self.coupling_a = nn.Parameter(torch.empty(num_couplings, hidden_size, **factory))
            self.coupling_b = nn.Parameter(torch.empty(num_couplings, hidden_size, **factory))
        learnt = torch.empty(2, hidden_size, **factory) if learn_initial_state else None
        self.register_parameter("initial_state", learnt if learnt is None else nn.Parameter(learnt))
        Block.reset_recurrence(self)

    @property
    def selective(self) -> bool:
        """Whether the input chooses angles or decays."""
        return is_selective(self)

    def project(self, x: Tensor) -> Tensor:
        """Return the input projection z, (..., H), of the block's input (..., in)."""
        raise NotImplementedError(f"{type(self).__name__} must define project(x)")

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the block's output (..., out) from its input (..., in) and h (..., H)."""
        raise NotImplementedError(f"{type(self).__name__} must define output(x, h)")

    def forward(self, input: Tensor) -> Tensor:
        """Refuse: a stack runs the recurrence between :meth:`project` and :meth:`output`."""
        raise NotImplementedError(
            f"{type(self).__name__} runs in a stack alone, which manages layout, states and what "
            "is saved: use IRevStack([..., block, ...]) in place of nn.Sequential"
        )

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        super().reset_parameters()
        self.reset_recurrence()

    def usual_decay(self) -> Tensor:
        """Return the decay of a step, (H,), or a typical one if the input chooses it."""
        return self.recurrent_weight

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        """Refuse recurrent weights that forget where ``forgets=False`` promises that none does."""
        u = state_dict.get(f"{prefix}recurrent_weight")
        if self.forgets is not True and u is not None and not u.is_meta and (u != 1).any():
            raise RuntimeError(
                f"{prefix}recurrent_weight must be 1 with forgets={self.forgets!r}: build the "
                f"block with forgets=True to load it; got {u.min():g} to {u.max():g}"
            )
        super()._load_from_state_dict(state_dict, prefix, *others)

    @torch.no_grad()
    def reset_recurrence(self, shortest_memory: float = initial_values.SHORTEST_MEMORY) -> Tensor:
        """Draw the parameters of the recurrence anew; return the time constants tau, (H,)."""
        u, a, b = self.recurrent_weight, self.coupling_a, self.coupling_b
        if self.forgets is not True:  # it has no values if the module comes from the meta device
            u.fill_(1)
        if self.initial_state is not None:
            self.initial_state.normal_()
        memories, longest = (shortest_memory, self.longest_memory), self.longest_period
        periods = None if longest is None else (self.shortest_period, longest)
        if self.selective:
            return initial_values.draw_turns_(u, self.angle, periods, memories, self.forgets)
        initial_values.draw_couplings_(a, b)
        if periods is not None:
            return initial_values.draw_oscillators_(u, a, b, periods, memories, bool(self.forgets))
        if self.forgets:
            return initial_values.draw_memories_(u, *memories)
        return torch.full_like(u, self.longest_memory)
