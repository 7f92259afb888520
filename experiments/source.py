"""Show the source code of functions in a notebook."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

from IPython.display import Markdown


def show_source(*functions: Callable[..., Any]) -> Markdown:
    """Return the source code of functions, as Markdown that a notebook shows in colour.

    Roles of Sphinx and double backticks in docstrings become plain words.
    """
    sources = "\n".join(textwrap.dedent(inspect.getsource(function)) for function in functions)
    sources = re.sub(r"(?::\w+:)?(`+)~?([^`]+)\1", r"\2", sources)
    return Markdown(f"```python\n{sources}```")
