"""Train a sequence classifier: ``python -m experiments.train mnist``."""

import sys

from experiments.train.loop import main

if __name__ == "__main__":
    sys.exit(main())
