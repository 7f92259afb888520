"""Fixtures of the experiments: a repository of a test's own, and digits that are made up."""

import pytest

from experiments.tasks import mnist
from tests.experiments.fake_mnist import fake_mnist

pytest.register_assert_rewrite("tests.experiments.small_runs")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Work in an empty repository, so that no result is replaced; return its folder."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def digits(monkeypatch):
    """Take made-up digits for MNIST."""
    monkeypatch.setattr(mnist, "load_mnist", lambda root: fake_mnist())
