"""Train one network with each instruction set and number of threads, and compare its weights.

``make bits`` prints a hash of the weights after each training, of 200 steps by exact reversal, and
fails unless all are the same. All start from the same weights. Between our operators stand AdamW,
the loss and clipping, which PyTorch computes element by element. A product of PyTorch's, as in an
``nn.Linear``, would not be covered: its sums depend on the processor.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from irevrnn import IRevBlock, IRevStack

WIDTH, HIDDEN, BLOCKS, STEPS, BATCH = 24, 40, 3, 100, 8
#: The compiler's flags for an instruction set, and what PyTorch calls it.
INSTRUCTION_SETS = {"x86-64-v3": "avx2", "x86-64-v4": "avx512"}
THREADS = (1, 2)


def make_network() -> IRevStack:
    """Return the network."""
    torch.manual_seed(0)
    blocks = [IRevBlock(WIDTH, HIDDEN, longest_memory=100.0) for _ in range(BLOCKS)]
    return IRevStack(blocks, memory="reversible")


def train(weights: Path, batches: int) -> str:
    """Train from the given weights, and return the hash of those after it."""
    model = make_network()
    model.load_state_dict(torch.load(weights, weights_only=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(batches):
        x = torch.rand(BATCH, STEPS, WIDTH, generator=generator)
        output, _ = model(x, return_sequence=False)
        optimizer.zero_grad()
        (output - x[:, 0]).square().mean().backward()
        optimizer.step()
        model.clip_recurrent_weights_()
    values = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    return hashlib.sha256(values).hexdigest()


def machines() -> Iterator[tuple[str, dict[str, str]]]:
    """Return each instruction set that runs here, and the environment of a process with it."""
    if platform.machine() != "x86_64":
        yield "native", {}
        return
    best = torch.backends.cpu.get_cpu_capability()
    for name, capability in INSTRUCTION_SETS.items():
        if capability == "avx2" or best == "AVX512":
            yield name, {"IREVRNN_CXXFLAGS": f"-march={name}", "ATEN_CPU_CAPABILITY": capability}


def compare(batches: int) -> dict[str, str]:
    """Return the hash for each instruction set and number of threads."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        torch.save(make_network().state_dict(), weights)
        for name, environment in machines():
            for threads in THREADS:
                command = [sys.executable, "-m", __spec__.name, str(weights)]
                own = {**os.environ, **environment, "OMP_NUM_THREADS": str(threads)}
                run = subprocess.run(
                    [*command, "--batches", str(batches)],
                    env=own, check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                found[f"{name}, {threads} thread{'s' * (threads > 1)}"] = run.stdout.strip()
    return found


def main() -> None:
    """Print all hashes, or train in this process if weights are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="?", type=Path, help="train from these, and print a hash")
    parser.add_argument("--batches", type=int, default=200, help="of the training")
    arguments = parser.parse_args()
    if arguments.weights:
        print(train(arguments.weights, arguments.batches))
        return
    hashes = compare(arguments.batches)
    for name, value in hashes.items():
        print(f"{value[:16]}  {name}")
    if len(set(hashes.values())) > 1:
        sys.exit("the weights differ")


if __name__ == "__main__":
    main()
