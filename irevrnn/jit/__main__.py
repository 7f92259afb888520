"""Build the operators ahead of time: ``python -m irevrnn.jit``."""

from __future__ import annotations

import argparse
import sys

from irevrnn.jit.build import SOURCES, build
from irevrnn.jit.compiler import BuildError


def main() -> None:
    """Build ahead of time and print the libraries' paths."""
    parser = argparse.ArgumentParser(
        prog="python -m irevrnn.jit",
        description="Build the C++ operators ahead of time and print where the library is.",
    )
    parser.add_argument(
        "--cuda",
        action="store_true",
        help="build the CUDA operators too, with nvcc, against a CUDA build of PyTorch. Takes no "
        "GPU: IREVRNN_CUDA_ARCHS='8.0;9.0' names the compute capabilities to build for (default: "
        "those of the GPUs here, or else 8.0 and 9.0); newer GPUs are served by just-in-time "
        "compilation from the newest",
    )
    arguments = parser.parse_args()
    kernels = "C++"
    try:
        print(build(SOURCES))
        if arguments.cuda:
            from irevrnn.jit import cuda as cuda

            kernels = "CUDA"
            print(cuda.build_ahead())
    except (BuildError, OSError) as error:
        sys.exit(f"irevrnn: the {kernels} kernels cannot be built: {error}")


if __name__ == "__main__":
    main()
