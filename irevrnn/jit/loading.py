"""Load a library of operators into PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch


def load_library(library: Path) -> None:
    """Load a library, which registers its operators.

    Raises:
        OSError: it does not load; the message is the linker's, which PyTorch's may hide.
    """
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise OSError(str(error.__cause__ or error)) from error
