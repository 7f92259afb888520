"""A figure that moves, in a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterable

import matplotlib.pyplot as plt
from IPython.display import Image as Shown
from matplotlib.figure import Figure
from PIL import Image


def moving(figures: Iterable[Figure], seconds: float = 0.1, pause: float = 1.5) -> Shown:
    """Join figures of one size to an animated PNG of four grey levels, and close them.

    The first and the last are shown for ``pause``, all others for ``seconds``.
    """
    frames = []
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=figure.dpi)
        plt.close(figure)
        frames.append(Image.open(file).convert("L").point(lambda value: 85 * round(value / 85)))
    times = [1000 * seconds] * len(frames)
    times[0] = times[-1] = 1000 * pause
    file = io.BytesIO()
    frames[0].save(
        file, format="png", save_all=True, append_images=frames[1:], duration=times, loop=0
    )
    return Shown(data=file.getvalue())
