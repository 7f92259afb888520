"""Notebooks show sliders, or their first picture, and figures that move."""

import io

import ipywidgets
import matplotlib.pyplot as plt
from PIL import Image

from experiments import figures
from experiments.notebook import show_source, vary


def test_sliders_show_their_initial_values_where_nobody_can_move_them():
    shown = []
    for interactive in (True, False):
        slider = ipywidgets.IntSlider(3, min=0, max=5)
        vary(lambda x: shown.append(x), interactive, x=slider)
        slider.value = 4
    assert shown == [3, 4, 3]


def test_sources_have_no_markup():
    text = show_source(vary).data
    assert text.startswith("```python\ndef vary(") and ":func:" not in text


def test_a_moving_figure_has_all_frames_of_different_looks():
    def draw(height):
        figure, axes = plt.subplots(figsize=(1, 1), dpi=50)
        axes.plot([0, height])
        axes.set_ylim(0, 4)
        return figure

    before = plt.get_fignums()
    image = Image.open(io.BytesIO(figures.moving(map(draw, range(1, 4))).data))
    assert image.n_frames == 3 and image.size == (50, 50) and plt.get_fignums() == before
