"""Show the source code of functions in a notebook."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from IPython.display import Markdown


def show_source(*functions: Callable[..., Any]) -> Markdown:
    """Return the source code of functions, as Markdown that a notebook shows in colour."""
    sources = "\n".join(inspect.getsource(function) for function in functions)
    return Markdown(f"```python\n{sources}```")
