"""A small data set in the shape of MNIST, which a small network learns in a second."""

from collections.abc import Callable

import torch

from experiments.datasets.mnist import MNIST, PIXELS, Split


def fake_mnist(read: Callable[[], None] = lambda: None) -> MNIST:
    """Images whose brightness tells the class; ``read`` is called when the test part is read."""

    def draw(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(10, (count,), generator=generator)
        noise = torch.randint(20, (count, PIXELS), generator=generator)
        return Split((labels[:, None] * 25 + noise - 10).clamp(0, 255).to(torch.uint8), labels)

    def read_test() -> Split:
        read()
        return draw(100, 2)

    return MNIST("MNIST", "made up", draw(256, 0), draw(100, 1), read_test)
