"""MNIST, one pixel a step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.datasets.mnist import PERMUTATION_SEED, SPLIT_SEED, Split, load_mnist, pixel_order
from experiments.train.config import DataConfig, option
from experiments.train.task import Batch, Task

SIDE = 28


class MnistConfig(DataConfig):
    """Train on MNIST, one pixel a step."""

    permuted: bool = option(False, "show the pixels in a random order, the same for all images and "
                            f"runs (seed {PERMUTATION_SEED})")  # fmt: skip
    downsample: int = option(1, "average squares of this side, for shorter sequences",
                             choices=(1, 2, 4, 7, 14))  # fmt: skip

    def task(self, device: torch.device) -> Task:
        """Load the digits as sequences of single pixels on ``device``."""
        data = load_mnist(self.data)
        pixels = (SIDE // self.downsample) ** 2
        order = pixel_order(self.permuted, pixels)

        def prepare(split: Split, limit: int | None) -> Split:
            images = _downsample(split.images[:limit], self.downsample)[:, order]
            return Split(images.to(device), split.labels[:limit].to(device))

        def in_order(split: Split) -> Iterator[Batch]:
            batches = (part.split(self.batch_size) for part in split)
            for images, labels in zip(*batches, strict=True):
                yield _as_sequences(images), labels

        train, val = prepare(data.train, self.train_subset), prepare(data.val, self.eval_subset)
        return Task(
            data_set=data.name,
            input_size=1,
            num_classes=10,
            steps_per_epoch=self.full_batches(len(train.labels)),
            train_batches=lambda epoch, skip: _shuffled(train, self, epoch, skip),
            val_batches=lambda: in_order(val),
            test_batches=lambda: in_order(prepare(data.read_test(), self.eval_subset)),
            facts={
                "source": data.source,
                "sequence_length": pixels,
                "train_size": len(train.labels),
                "val_size": len(val.labels),
                "split_seed": SPLIT_SEED,
                "permutation_seed": PERMUTATION_SEED if self.permuted else None,
            },
        )


def _downsample(images: Tensor, k: int) -> Tensor:
    """Average squares of k x k pixels: (N, 784) to (N, (28 // k) ** 2), both uint8."""
    if k == 1:
        return images
    squares = images.view(-1, 1, SIDE, SIDE).float()
    return F.avg_pool2d(squares, k).round().to(torch.uint8).flatten(1)


# The data set is one small uint8 tensor, so a batch is one gather and one scaling: 0.1 ms, where a
# DataLoader would call Python for each image, or copy batches between processes.


def _shuffled(split: Split, config: DataConfig, epoch: int, skip: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(split.labels), generator=generator).to(split.labels.device)
    # An incomplete last batch is left out: its few images would weigh more than others, and another
    # shuffle shows them in the next epoch.
    end = len(order) // config.batch_size * config.batch_size
    for start in range(skip * config.batch_size, end, config.batch_size):
        index = order[start : start + config.batch_size]
        yield _as_sequences(split.images[index]), split.labels[index]


def _as_sequences(images: Tensor) -> Tensor:
    """(N, T) uint8 to (N, T, 1) float32 in [0, 1]."""
    return images.unsqueeze(-1) / 255
