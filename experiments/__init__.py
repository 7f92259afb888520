"""Train, measure and draw what the paper reports."""

import sys
from types import TracebackType


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that a package is missing, as after ``pip install .`` alone."""
    missing = (getattr(error, "name", None) or "experiments").partition(".")[0]
    if kind is not ModuleNotFoundError or missing in ("experiments", "irevrnn"):
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"experiments: {error}: the experiments need more than the library: run `make setup`, then "
        "`source .venv/bin/activate`",
        file=sys.stderr,
    )


if sys.argv[:1] == ["-m"]:  # while python -m experiments.NAME looks for its module
    sys.excepthook = _explain
