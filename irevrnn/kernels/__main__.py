"""Build the C++ operators ahead of time and print where the library is."""

from __future__ import annotations

import argparse
import sys

from irevrnn.kernels.jit import build, cuda
from irevrnn.kernels.jit.compiler import BuildError


def main() -> None:
    """Build ahead of time and print the libraries' paths."""
    parser = argparse.ArgumentParser("python -m irevrnn.kernels", description=__doc__)
    cuda_help = "build the CUDA operators, too, for IREVRNN_CUDA_ARCHS='8.0;9.0' or the GPUs here"
    parser.add_argument("--cuda", action="store_true", help=cuda_help)
    arguments = parser.parse_args()
    try:
        print(build.build_operators())
        if arguments.cuda:
            print(cuda.build())
    except (BuildError, OSError) as error:
        sys.exit(f"{parser.prog}: not everything could be built: {error}")


if __name__ == "__main__":
    main()
