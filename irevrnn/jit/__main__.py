"""Build the operators ahead of time: ``python -m irevrnn.jit``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from irevrnn.jit import cuda
from irevrnn.jit.build import build_operators, prebuild
from irevrnn.jit.commands import BuildError


def main() -> None:
    """Build ahead of time and print the libraries' paths."""
    parser = argparse.ArgumentParser(
        prog="python -m irevrnn.jit",
        description="Build the C++ operators ahead of time and print where the library is.",
    )
    parser.add_argument(
        "--cuda",
        action="store_true",
        help="build the CUDA operators too, with nvcc, against a CUDA build of PyTorch, for the "
        "compute capabilities in IREVRNN_CUDA_ARCHS='8.0;9.0' (default: those of the GPUs here, or "
        "else 8.0 and 9.0) and newer ones",
    )
    parser.add_argument(
        "--prebuild",
        type=Path,
        metavar="FOLDER",
        help="instead build the C++ operators for this PyTorch and every processor into a folder, "
        "for a wheel ('make wheel')",
    )
    arguments = parser.parse_args()
    try:
        if arguments.prebuild:
            print(*prebuild(arguments.prebuild), sep="\n")
            return
        print(build_operators())
        if arguments.cuda:
            print(cuda.build())
    except (BuildError, OSError) as error:
        sys.exit(f"{parser.prog}: not everything could be built: {error}")


if __name__ == "__main__":
    main()
