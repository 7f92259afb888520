"""The memory of this process that is resident, and what it need not keep of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from irevrnn.kernels.allocator import empty_cache

#: The least memory that is worth giving back.
SLACK = 64_000


def resident_bytes() -> int:
    """Return the memory of this process that is resident; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


class Watch:
    """Give memory back to the system that one chunk after the other leaves in pieces.

    Freed blocks between blocks that are in use serve no larger ones, and add up.

    Args:
        graph: the bytes of a chunk's graph; 0 watches nothing.
    """

    def __init__(self, graph: int) -> None:
        self.start = resident_bytes() if graph else 0
        self.slack = max(SLACK, graph // 4)

    def between_chunks(self, kept: int) -> None:
        """Look at the process between two chunks, which have left behind ``kept`` bytes in all."""
        if self.start and resident_bytes() > self.start + kept + self.slack:
            empty_cache()
