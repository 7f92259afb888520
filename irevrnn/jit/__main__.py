"""Build the operators ahead of time: ``python -m irevrnn.jit``."""

from __future__ import annotations

import argparse
import sys

from irevrnn.jit import cuda
from irevrnn.jit.build import build_operators
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
        help="build the CUDA operators too, with nvcc, against a CUDA build of PyTorch. Needs no "
        "GPU: IREVRNN_CUDA_ARCHS='8.0;9.0' names the compute capabilities to build for (default: "
        "those of the GPUs here, or else 8.0 and 9.0); newer GPUs are served by just-in-time "
        "compilation from the newest",
    )
    builds = {"C++": build_operators}
    if parser.parse_args().cuda:
        builds["CUDA"] = cuda.build_ahead
    for kernels, build in builds.items():
        try:
            print(build())
        except (BuildError, OSError) as error:
            sys.exit(f"{parser.prog}: the {kernels} kernels could not be built: {error}")


if __name__ == "__main__":
    main()
