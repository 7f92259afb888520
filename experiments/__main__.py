"""Run the experiments of the paper: ``python -m experiments NAME``."""

import sys

from experiments.catalogue import main

if __name__ == "__main__":
    sys.exit(main())
