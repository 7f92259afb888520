"""Fixtures that all tests share, and the cores they may use."""

import os
import shutil
from collections import Counter

import hypothesis
import pytest
import torch

from experiments import process
from irevrnn.kernels.ops import load_operators

# The same examples each time, and no failure for a machine that is slow for a moment.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")


def pytest_configure():
    """Where several processes run the tests, they and what they start share the cores."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if processes > 1:
        threads = max(1, torch.get_num_threads() // processes)
        torch.set_num_threads(threads)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def pytest_collection_modifyitems(items):
    """Put files with many slow tests first: at the end, one would keep a single process busy."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # stable: a file stays together


@pytest.fixture(scope="session")
def kernels():
    """The compiled operators; only a machine without a compiler may go without."""
    if not load_operators():
        if shutil.which("g++") or shutil.which("clang++"):
            pytest.fail("there is a compiler, but the C++ operators were not built")
        pytest.skip("no C++ compiler")


@pytest.fixture(autouse=True)
def _seed():
    """Draw the same random numbers each time, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture
def one_core():
    """Run on one thread."""
    with process.threads(1):
        yield
