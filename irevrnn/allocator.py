"""Memory for large results: where those of the step before lay, not pages just handed out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from irevrnn.backend import choose_backend
from irevrnn.ops import traced, transformed


def allocate(like: Tensor, shape: Sequence[int]) -> Tensor:
    """An uninitialised contiguous tensor, in memory of our own where the kernels are at hand.

    Blocks of that memory that tensors gave back wait for the next (``csrc/caching_allocator.h``).

    Args:
        like: of the same dtype and device.
        shape: of the tensor.
    """
    elsewhere = not like.is_cpu or traced() or transformed()
    if elsewhere or choose_backend("cpu", torch.float32) == "python":
        return like.new_empty(shape)
    return torch.ops.irevrnn.allocate(like, shape)


def allocate_like(x: Tensor) -> Tensor:
    """One of the shape and strides of ``x``: (T, B, features), or (B, T, features) transposed."""
    if x.is_contiguous():
        return allocate(x, x.shape)
    turned = x.transpose(0, 1)
    if turned.is_contiguous():
        return allocate(x, turned.shape).transpose(0, 1)
    return torch.empty_like(x)


# From malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BLOCK = 1 << 30
_NEVER = -1

_uses_caching_allocator = False


def use_caching_allocator() -> None:
    """Let glibc keep freed memory, in blocks of up to 1 GiB, for the next allocation, from now on.

    By default it gives each large block back to the kernel and gets the next one page by page, at a
    page fault each, though a step of training allocates the same blocks as the step before. Sixty
    steps on MNIST and an evaluation (two layers of 64, batch of 64, two cores) took 3.2 s by
    default and 1.9 s so, when the kernels did not yet keep the memory of their own results
    (:func:`empty_cache`). The price: memory that other parts of the process free stays
    with it, so a process that measures its peak should not call this. Does nothing where there is
    no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    global _uses_caching_allocator
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        _uses_caching_allocator = True
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def uses_caching_allocator() -> bool:
    """Whether this process was told to, by :func:`use_caching_allocator`, and can."""
    return _uses_caching_allocator


def empty_cache() -> None:
    """Give the system the memory that this process keeps for its next allocations.

    The compiled kernels keep the large blocks that their results lay in (``csrc/caching_allocator.h``),
    with what is in use at most an eighth more than once was, and the system takes them when it is
    short of memory. glibc keeps some of what was freed, and all after :func:`use_caching_allocator`.
    ``torch.cuda.empty_cache`` is the same for a GPU.
    """
    if hasattr(torch.ops.irevrnn, "empty_cache"):  # if the kernels are loaded
        torch.ops.irevrnn.empty_cache()
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
