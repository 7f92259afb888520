"""Runs the operators by the functions of a GPU's threads, on the CPU.

The library has these functions with R at run time. ``threads/`` compiles every kernel that a GPU
gets.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch.library import Library

from irevrnn.kernels.jit.build import build_extension

SOURCES = sorted((Path(__file__).parent / "threads").glob("*.cpp"))
OPERATORS = (
    "scan", "scan_backward", "selective_scan", "selective_scan_backward", "fixed_scan",
    "fixed_unscan",
)  # fmt: skip


@cache
def load() -> None:
    build_extension("irevrnn_threads", SOURCES)


def _with_defaults(operator):
    """Give an operator ``None`` for the last arguments, which the dispatcher leaves out."""
    count = len(operator.default._schema.arguments)
    return lambda *given: operator(*given, *(None,) * (count - len(given)))


@contextmanager
def by_gpu_threads() -> Iterator[None]:
    """Replace the operators' kernels of the CPU; formulas of gradients and the like remain."""
    load()
    library = Library("irevrnn", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that kernels are overridden
            for name in OPERATORS:
                library.impl(name, _with_defaults(getattr(torch.ops.irevrnn_threads, name)), "CPU")
        yield
    finally:
        library._destroy()
