"""Which GPUs a library is compiled for, and which it runs on.

An architecture is a number: 80 is compute capability 8.0, 100 is 10.0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import torch

from irevrnn.jit.compiler import BuildError

#: Built for where nothing says what the GPU will be. They serve Ampere, Ada and Hopper as they are,
#: and what is newer by just-in-time compilation.
DEFAULT = (80, 90)


def named() -> tuple[int, ...]:
    """Architectures that ``IREVRNN_CUDA_ARCHS`` names, in rising order; none where it is not set.

    Raises:
        BuildError: it names something else.
    """
    words = os.environ.get("IREVRNN_CUDA_ARCHS", "").replace(",", ";").replace(" ", ";").split(";")
    words = [word for word in words if word]
    for word in words:
        if not re.fullmatch(r"\d+\.\d", word):
            raise BuildError(
                f"IREVRNN_CUDA_ARCHS takes compute capabilities such as '8.0;9.0'; got {word!r}"
            )
    return tuple(sorted({int(word.replace(".", "")) for word in words}))


def of_gpus() -> tuple[int, ...]:
    """Architectures of the GPUs that this process sees, in rising order."""
    if not torch.cuda.is_available():
        return ()
    devices = range(torch.cuda.device_count())
    capabilities = {torch.cuda.get_device_capability(device) for device in devices}
    return tuple(sorted(10 * major + minor for major, minor in capabilities))


def serving(gpus: Iterable[int], known: tuple[int, ...]) -> tuple[int, ...]:
    """The architectures of a toolkit that serve these GPUs best, in rising order.

    Args:
        gpus: architectures of the GPUs.
        known: those that the toolkit can compile for.

    Raises:
        BuildError: a GPU is older than all of them.
    """
    return tuple(sorted({_best(gpu, known) for gpu in gpus}))


def _best(gpu: int, known: tuple[int, ...]) -> int:
    older = [arch for arch in known if arch <= gpu]
    if not older:
        raise BuildError(
            f"nvcc knows compute capability {spoken(known)}, and a GPU here has {spoken([gpu])}. "
            "Name an older toolkit in CUDA_HOME, or hide that GPU with CUDA_VISIBLE_DEVICES"
        )
    return max(older)


def check_known(archs: Iterable[int], known: tuple[int, ...], toolkit: str) -> None:
    """Raise a BuildError for an architecture that the toolkit cannot compile for."""
    unknown = [arch for arch in archs if arch not in known]
    if unknown:
        raise BuildError(
            f"{toolkit} does not know compute capability {spoken(unknown)}; it knows "
            f"{spoken(known)}. Correct IREVRNN_CUDA_ARCHS"
        )


def runs(built: tuple[int, ...], gpus: Iterable[int]) -> bool:
    """Whether a library runs on all of these GPUs.

    Machine code runs on its own major version from its minor version on; the newest architecture is
    there as PTX too, which the driver compiles for whatever is newer.
    """
    return all(
        max(built) <= gpu or any(arch // 10 == gpu // 10 and arch <= gpu for arch in built)
        for gpu in gpus
    )


def nvcc_options(archs: tuple[int, ...]) -> list[str]:
    """Options by which nvcc makes machine code for each, and PTX for the newest."""
    pairs = [f"arch=compute_{arch},code=sm_{arch}" for arch in archs]
    pairs.append(f"arch=compute_{max(archs)},code=compute_{max(archs)}")
    return [word for pair in pairs for word in ("-gencode", pair)]


def spoken(archs: Iterable[int]) -> str:
    """As NVIDIA writes them: 8.0, 9.0."""
    return ", ".join(f"{arch // 10}.{arch % 10}" for arch in archs)
