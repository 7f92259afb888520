"""The commit that a result records, and the refusal of uncommitted code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import provenance

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit of a library and a result; a function that runs git in it."""
    for name in ("irevrnn/rnn.py", "paper/results/mnist.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)

    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "First")
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    yield tmp_path, git
    forget()


def forget():
    """Look anew, as another process would."""
    provenance.git_commit.cache_clear()
    provenance.uncommitted.cache_clear()


def test_a_clean_tree_records_its_commit(repository):
    folder, git = repository
    (folder / "paper/results/mnist.json").write_text("a new result")
    assert provenance.provenance()["git_commit"] == git("rev-parse", "HEAD")
    provenance.require_clean()


@pytest.mark.parametrize("name", ["irevrnn/rnn.py", "experiments/new.py"])
def test_uncommitted_code_is_recorded_and_refused(repository, name):
    folder, git = repository
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("else")
    assert provenance.provenance()["git_commit"] == f"{git('rev-parse', 'HEAD')}-dirty"
    with pytest.raises(provenance.UncommittedChangesError, match=f"{Path(name).parts[0]}/"):
        provenance.require_clean(folder / "paper")
    provenance.require_clean(folder / "build/quick")
    git("add", ".")
    git("commit", "-qm", "Second")
    forget()
    provenance.require_clean()


def test_outputs_of_a_notebook_are_no_change(repository):
    folder, git = repository
    file = folder / "notebooks" / "00.ipynb"
    file.parent.mkdir()
    cell = {"cell_type": "code", "source": ["x = 1\n", "x"], "outputs": []}
    file.write_text(json.dumps({"cells": [cell]}))
    git("add", ".")
    git("commit", "-qm", "Second")
    file.write_text(json.dumps({"cells": [{**cell, "outputs": ["1"]}], "metadata": {}}, indent=1))
    provenance.require_clean()
    assert provenance.provenance()["git_commit"] == git("rev-parse", "HEAD")
    for changed in ({**cell, "source": "x = 2"}, {}):
        forget()
        file.write_text(json.dumps({"cells": [changed]}))
        with pytest.raises(provenance.UncommittedChangesError, match=r"notebooks/00\.ipynb"):
            provenance.require_clean()


def test_the_commit_is_that_at_the_start(repository):
    folder, git = repository
    started_at = provenance.provenance()["git_commit"]
    (folder / "irevrnn/rnn.py").write_text("edited while it runs")
    git("commit", "-qam", "Second")
    assert provenance.provenance()["git_commit"] == started_at != git("rev-parse", "HEAD")


def test_a_git_that_does_not_answer_is_no_clean_checkout(repository, monkeypatch):
    folder, _ = repository
    monkeypatch.setenv("PATH", str(folder))  # there is no git
    with pytest.raises(provenance.UncommittedChangesError, match="git does not say which commit"):
        provenance.require_clean()
    provenance.require_clean(folder / "build/quick")


def test_nothing_is_recorded_or_refused_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    assert provenance.provenance()["git_commit"] is None
    provenance.require_clean()


def test_the_command_fails_only_with_uncommitted_code():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.provenance"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == bool(provenance.uncommitted(ROOT))
    assert bool(done.stderr) == bool(done.returncode)
