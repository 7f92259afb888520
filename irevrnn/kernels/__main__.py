"""Build the C++ operators ahead of time and print where the library is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from irevrnn.kernels.jit import cuda, operators
from irevrnn.kernels.jit.compiler import BuildError

_CUDA = (
    "build the CUDA operators, too, for the compute capabilities in IREVRNN_CUDA_ARCHS='8.0;9.0'"
)
_PREBUILD = "instead build the C++ operators for each kind of processor, for a wheel ('make wheel')"


def main() -> None:
    """Build ahead of time and print the libraries' paths."""
    parser = argparse.ArgumentParser("python -m irevrnn.kernels", description=__doc__)
    parser.add_argument("--cuda", action="store_true", help=_CUDA)
    parser.add_argument("--prebuild", type=Path, metavar="FOLDER", help=_PREBUILD)
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
