"""The process of a run: its threads and its signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use ``count`` CPU threads within the block; None keeps their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or termination) into an event; the second acts as usual.

    An exception in the middle of a step would leave weights and optimizer half updated, and no
    state worth saving.
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
