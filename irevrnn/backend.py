"""Which implementation runs: compiled kernels where they can be had, the reference elsewhere."""

from __future__ import annotations

import os
import warnings
from functools import cache

import torch

BACKENDS = ("auto", "cpp", "python")
_COMPILED_DTYPES = (torch.float32, torch.float64)


@torch.compiler.assume_constant_result
def choose_backend(device: str, dtype: torch.dtype) -> str:
    """Name the implementation for tensors of this device type and dtype.

    The environment variable ``IREVRNN_BACKEND`` overrides the choice: ``auto`` takes the
    vectorised kernel for float32 and the scalar one for float64, ``cpp`` the scalar one for both,
    ``python`` the reference.

    Returns:
        ``"vector"``, ``"scalar"`` or ``"python"``.

    Raises:
        ValueError: if ``IREVRNN_BACKEND`` is set to something else.
        RuntimeError: if ``IREVRNN_BACKEND=cpp`` asks for kernels that cannot run here.
    """
    wanted = os.environ.get("IREVRNN_BACKEND", "auto")
    if wanted not in BACKENDS:
        raise ValueError(f"IREVRNN_BACKEND must be one of {', '.join(BACKENDS)}; got {wanted!r}")
    if wanted == "python":
        return "python"
    compiled = device == "cpu" and dtype in _COMPILED_DTYPES and _kernels()
    if wanted == "cpp":
        if not compiled:
            raise RuntimeError(
                f"IREVRNN_BACKEND=cpp: no compiled kernel for {dtype} on {device}; it takes "
                "float32 or float64 on the CPU and a C++ compiler. Unset the variable to use the "
                "reference"
            )
        return "scalar"
    if compiled:
        return "vector" if dtype == torch.float32 else "scalar"
    if device != "cpu":
        _warn_once(f"irevrnn has no kernel for {device} yet and runs its PyTorch reference there")
    return "python"


def _kernels() -> bool:
    """Build or load the C++ operators; False, after one warning, where that cannot be done."""
    from irevrnn.ops import load_operators  # not at import: building takes a compiler and a minute

    return load_operators()


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=4)
