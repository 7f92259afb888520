"""Text that a trained network writes, one character after the other.

>>> network, characters = load()
>>> print(write(network, characters, "ROMEO:", 300, temperature=0.8))
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

from experiments import catalogue, weights
from experiments.models import BlockClassifier
from experiments.train.networks import Sizes


def load(name: str = "shakespeare") -> tuple[BlockClassifier, Sequence[str]]:
    """Return the network of an experiment, with the weights in ``paper/``, and its characters."""
    characters = json.loads(catalogue.result_file(name).read_text("utf-8"))["class_names"]
    [(run, config)] = catalogue.config_of(name).runs()
    sizes = Sizes(len(characters), len(characters), slice(None), tokens=True)
    network = config.model.build(sizes)
    assert isinstance(network, BlockClassifier)
    network.load_state_dict(weights.load(name, run))
    return network.eval(), characters


@torch.no_grad()
def write(
    network: BlockClassifier, characters: Sequence[str], start: str, count: int,
    temperature: float = 1.0, seed: int = 0,
) -> str:  # fmt: skip
    """Return ``start``, continued by ``count`` characters, by one step of the stack for each.

    Args:
        start: what the network reads first, at least one character.
        temperature: below 1, likely characters become more likely; above 1, less.

    Raises:
        ValueError: ``start`` is empty, or has characters that the network does not know.
    """
    if not start or not {*start} <= {*characters}:
        raise ValueError(f"start must have one character or more of {characters}; got {start!r}")
    generator = torch.Generator().manual_seed(seed)
    text, hidden = start, None
    for place in range(len(start) + count - 1):
        code = torch.tensor([characters.index(text[place])])
        output, hidden = network.rnn.step(code, hidden)
        if place == len(text) - 1:
            odds = (network.readout(output[0]) / temperature).softmax(-1)
            text += characters[int(odds.multinomial(1, generator=generator))]
    return text
