"""Choose the implementation: compiled kernels where they can be had, the reference elsewhere."""

from __future__ import annotations

import os
from functools import cache

import torch

from irevrnn.kernels import ops
from irevrnn.kernels.jit.build import warn

BACKENDS = ("auto", "cpp", "cuda", "python")
_VARIABLE = os.environ.encodekey("IREVRNN_BACKEND")
_DTYPES = (torch.float32, torch.float64)


def choose_backend(device: str, dtype: torch.dtype) -> str:
    """Return ``"vector"``, ``"scalar"``, ``"cuda"`` or ``"python"``, for a device type and dtype.

    The environment variable ``IREVRNN_BACKEND`` overrides the choice: ``auto`` takes the
    vectorised kernel for float32 and the scalar one for float64 on the CPU, and the CUDA kernels on
    a GPU; ``cpp`` the scalar one for both dtypes; ``cuda`` the CUDA kernels; ``python`` the
    reference. Raise a RuntimeError if what it names cannot run here.
    """
    wanted = _wanted()
    if wanted not in BACKENDS:
        raise ValueError(f"IREVRNN_BACKEND must be one of {', '.join(BACKENDS)}; got {wanted!r}")
    if wanted == "python":
        return "python"
    kind, reason = _compiled(device, dtype)
    if wanted == "auto":
        if reason and device != "cpu":  # on the CPU, the build has warned
            _warn_once(f"irevrnn runs its slow PyTorch reference on {device}: {reason}")
        return "python" if reason else kind
    if not reason and device == ("cuda" if wanted == "cuda" else "cpu"):
        return "scalar" if wanted == "cpp" else "cuda"
    raise RuntimeError(
        f"IREVRNN_BACKEND={wanted} has no kernel for {dtype} on {device} "
        f"({reason or 'which is another device'}): it takes float32 or float64, on the CPU with a "
        "C++ compiler (cpp), on a GPU with nvcc and a CUDA PyTorch (cuda). Unset the variable to "
        "run what is available"
    )


def _wanted() -> str:
    # Every step of a stream asks. Of a variable that is not set, os.environ.get raises and catches
    # an error, which takes several times as long.
    value = os.environ._data.get(_VARIABLE)  # type: ignore[attr-defined]
    return os.environ.decodevalue(value) if value else "auto"


def _compiled(device: str, dtype: torch.dtype) -> tuple[str, str]:
    """Load the compiled implementation; return its name and, if it cannot be had, why."""
    if device not in ("cpu", "cuda"):
        return "", "there is no kernel for it"
    kind = "cuda" if device == "cuda" else "vector" if dtype == torch.float32 else "scalar"
    if dtype not in _DTYPES:
        return kind, f"there is no kernel for {dtype}"
    if device == "cpu":
        return kind, "" if ops.load_operators() else "the C++ kernels could not be built"
    reason = ops.load_cuda_operators()
    return kind, f"the CUDA kernels could not be loaded: {reason}" if reason else ""


_warn_once = cache(warn)
