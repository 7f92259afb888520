"""Groups of parameters for an optimizer: :func:`parameter_groups`."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

_GATES = re.compile(r"(^|\.)(read|angle|decay)_gate\.")


def parameter_groups(
    module: nn.Module, lr: float, weight_decay: float = 0.0,
    recurrent_lr_scale: float = 0.1, coupling_lr_scale: float = 0.1,
    recurrent_names: tuple[str, ...] = ("recurrent_weight",), gate_lr_scale: float = 1.0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the parameters of a model in groups for an optimizer, each with its learning rate.

    A memory of n steps is a recurrent weight of 1 - 1/n, which an update of the usual size would
    overshoot; and a change of a coupling shifts the phase of what was read n steps ago by n times
    as much. Weight decay would shorten memories, so it applies to matrices only.

    Args:
        module: the model; it may hold modules other than those of this library.
        lr: learning rate of all other parameters.
        weight_decay: of matrices and of what has more dimensions.
        recurrent_lr_scale, coupling_lr_scale: factors on the learning rate of recurrent weights and
            of couplings. Over thousands of steps, couplings may need 1e-3.
        gate_lr_scale: factor on the learning rate of the gates of a selective block. Where little
            has to be chosen, 0.03 keeps them close to the fixed block that they start as.
        recurrent_names: ends of the names of recurrent weights, in place of ``recurrent_weight``,
            which has to be among them if there are layers of this library.

    Returns:
        The groups that are not empty: matrices, vectors, recurrent weights, couplings (with
        angles), and matrices and vectors of gates, each with ``params``, ``lr`` and
        ``weight_decay``, which override the arguments of the optimizer.

    Example::

        >>> groups = irevrnn.parameter_groups(model, lr=8e-3, weight_decay=0.03)
        >>> optimizer = torch.optim.AdamW(groups)
    """
    of_gates = lr * gate_lr_scale
    rates = (lr, lr, lr * recurrent_lr_scale, lr * coupling_lr_scale, of_gates, of_gates)
    groups: list[dict[str, Any]] = [{"params": [], "lr": x, "weight_decay": 0.0} for x in rates]
    matrices, vectors, recurrent, couplings, gate_matrices, gate_vectors = groups
    matrices["weight_decay"] = gate_matrices["weight_decay"] = weight_decay
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name} of a lazy module has no shape yet: run the model once")
        # A weight that is parametrized, pruned or weight-normalised is computed from these.
        weight = re.sub(r"parametrizations\.(\w+)\..*$|(_orig|_g|_v)$", r"\1", name)
        if name.endswith(recurrent_names) or weight.endswith(recurrent_names):
            group = recurrent
        elif name.endswith("initial_state"):
            group = vectors
        elif weight.endswith(("coupling_a", "coupling_b", "angle")):
            group = couplings
        elif _GATES.search(name):
            group = gate_matrices if parameter.ndim >= 2 else gate_vectors
        else:
            group = matrices if parameter.ndim >= 2 else vectors
        group["params"].append(parameter)
    return [group for group in groups if group["params"]]
