"""Build the operators ahead of time: ``python -m irevrnn.csrc``."""

from __future__ import annotations

import argparse
import sys

from irevrnn.csrc.build import SOURCES, build
from irevrnn.csrc.compiler import BuildError


def main() -> None:
    """Build ahead of time and print the libraries' paths."""
    parser = argparse.ArgumentParser(
        prog="python -m irevrnn.csrc",
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
            from irevrnn.cuda import build as cuda

            kernels = "CUDA"
            print(cuda.build_ahead())
    except (BuildError, OSError) as error:
        sys.exit(f"irevrnn: the {kernels} kernels cannot be built: {error}")


if __name__ == "__main__":
    main()
