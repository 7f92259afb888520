"""Tiny Shakespeare: 1,115,394 characters of plays in one file, by A. Karpathy (2015).

The file ``input.txt`` is used as published: it is fetched into ``shakespeare/``, or put there.
"""

import hashlib
import os

from experiments.datasets import DataError
from experiments.datasets.archives import fetched

_HOME = "https://raw.githubusercontent.com/karpathy/char-rnn/master"
ADDRESS = f"{_HOME}/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def load_shakespeare(root: str | os.PathLike[str] | None = None) -> str:
    """Return the text, fetched if it is not there yet, or raise a DataError."""
    file = fetched("shakespeare", ADDRESS, root)
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise DataError(f"{file} is not as published: delete it, or get it anew from {ADDRESS}")
    return data.decode()


def prepare(root: str | os.PathLike[str] | None = None) -> str:
    """Fetch and verify the text, and return a one-line summary."""
    return f"Tiny Shakespeare: {len(load_shakespeare(root)):,} characters, as published"
