"""Fixtures that all tests share."""

import shutil

import pytest

from irevrnn.ops import load_operators


@pytest.fixture(scope="session")
def kernels():
    """The compiled operators; only a machine without a compiler may go without."""
    if not load_operators():
        if shutil.which("g++") or shutil.which("clang++"):
            pytest.fail("there is a compiler, but the C++ operators were not built")
        pytest.skip("no C++ compiler")
