"""Build the C++ operators ahead of time and print where the library is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from irevrnn.kernels.jit import cuda, operators
from irevrnn.kernels.jit.compiler import BuildError


def main() -> None:
    """Build ahead of time and print the libraries' paths."""
    parser = argparse.ArgumentParser("python -m irevrnn.kernels", description=__doc__)
    cuda_help = "build the CUDA operators, too, for IREVRNN_CUDA_ARCHS='8.0;9.0' or the GPUs here"
    ahead = "instead build for each kind of processor, for a wheel ('make wheel')"
    parser.add_argument("--cuda", action="store_true", help=cuda_help)
    parser.add_argument("--prebuild", type=Path, metavar="FOLDER", help=ahead)
    arguments = parser.parse_args()
    try:
        if arguments.prebuild:
            print(*operators.prebuild(arguments.prebuild), sep="\n")
            return
        print(operators.build_operators())
        if arguments.cuda:
            print(cuda.build())
    except (BuildError, OSError) as error:
        sys.exit(f"{parser.prog}: not everything could be built: {error}")


if __name__ == "__main__":
    main()
