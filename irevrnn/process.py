"""What training asks of its process: how memory is freed, threads, and stopping between steps."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# From malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BLOCK = 1 << 30
_NEVER = -1

_keeps_freed_memory = False


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, in blocks of up to 1 GiB, for the next allocation, from now on.

    By default it gives each large block back to the kernel and gets the next one page by page, at a
    page fault each, though a step of training allocates the same blocks as the step before. Sixty
    steps on MNIST and an evaluation (two layers of 64, batch of 64, two cores) took 3.2 s by
    default and 1.9 s so, when the kernels did not yet keep the memory of their own results
    (:func:`release_freed_memory`). The price: memory that other parts of the process free stays
    with it, so a process that measures its peak should not call this. Does nothing where there is
    no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    global _keeps_freed_memory
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        _keeps_freed_memory = True
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def keeps_freed_memory() -> bool:
    """Whether this process was told to, by :func:`keep_freed_memory`, and can."""
    return _keeps_freed_memory


def release_freed_memory() -> None:
    """Give the system the memory that this process keeps for its next allocations.

    The compiled kernels keep the large blocks that their results lay in (``csrc/freed_blocks.h``),
    with what is in use at most an eighth more than once was, and the system takes them when it is
    short of memory. glibc keeps some of what was freed, and all after :func:`keep_freed_memory`.
    ``torch.cuda.empty_cache`` is the same for a GPU.
    """
    if hasattr(torch.ops.irevrnn, "release_freed_blocks"):  # if the kernels are loaded
        torch.ops.irevrnn.release_freed_blocks()
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use so many CPU threads, for the time being."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or termination) into an event; the second acts as ever.

    An exception in the middle of a step would leave weights and optimizer half updated, and no
    state worth keeping.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, frame: Any) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
