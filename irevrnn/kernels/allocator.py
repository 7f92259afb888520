"""Give the large results of a training step the memory of those of the step before.

By default glibc gives each large block back to the system when it is freed, and gets the next one
at the price of a page fault for each page. The kernels keep those of their results
(``csrc/allocate.h``); :func:`use_caching_allocator` extends this to the process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from irevrnn.kernels.backend import choose_backend
from irevrnn.kernels.observers import observed

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_uses_caching_allocator = False


def allocate(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an uninitialised contiguous tensor, on the CPU from the kernels' caching allocator."""
    if not like.is_cpu or observed() or choose_backend("cpu", torch.float32) == "python":
        return like.new_empty(shape)
    return torch.ops.irevrnn.allocate(like, shape)


def allocate_like(x: Tensor) -> Tensor:
    """Return ``torch.empty_like(x)`` in memory of :func:`allocate`."""
    if x.is_contiguous():
        return allocate(x, x.shape)
    strides = torch.empty_like(x, device="meta").stride()
    return allocate(x, [x.numel()]).as_strided(x.shape, strides)


def use_caching_allocator() -> None:
    """Let glibc keep freed blocks of up to 1 GiB (older versions: 32 MiB) for the next allocation.

    Memory that any part of the process frees then stays with the process, so one that measures its
    peak should not call this. Does nothing where there is no glibc.
    """
    global _uses_caching_allocator
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for size in (1 << 25, 1 << 30):  # versions before 2.35 refuse the second
            _uses_caching_allocator |= bool(mallopt(_M_MMAP_THRESHOLD, size))
        mallopt(_M_TRIM_THRESHOLD, -1)  # never


def uses_caching_allocator() -> bool:
    """Return whether :func:`use_caching_allocator` took effect in this process."""
    return _uses_caching_allocator


def empty_cache() -> None:
    """Release unused cached memory of this process to the system.

    The kernels cache at most an eighth more than was in use at once, and the system takes it back
    when it is short of memory. After :func:`use_caching_allocator`, glibc caches all that was
    freed. For a GPU there is ``torch.cuda.empty_cache``.
    """
    if hasattr(torch.ops.irevrnn, "empty_cache"):  # if the kernels are loaded
        torch.ops.irevrnn.empty_cache()
    if malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        malloc_trim(0)
