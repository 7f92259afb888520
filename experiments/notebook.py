"""Show source code in notebooks, and what sliders change."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

import ipywidgets
from IPython.display import Markdown


def show_source(*functions: Callable[..., Any]) -> Markdown:
    """Return the source code of functions, as Markdown that a notebook shows in colour.

    Roles of Sphinx and double backticks in docstrings become plain words.
    """
    sources = "\n".join(textwrap.dedent(inspect.getsource(function)) for function in functions)
    sources = re.sub(r"(?::\w+:)?(`+)~?([^`]+)\1", r"\2", sources)
    return Markdown(f"```python\n{sources}```")


def vary(show: Callable[..., object], interactive: bool, **sliders: ipywidgets.ValueWidget) -> None:
    """Let sliders move what a function shows; without them, show it for their initial values."""
    if interactive:
        ipywidgets.interact(show, **sliders)
    else:
        show(**{name: slider.value for name, slider in sliders.items()})
