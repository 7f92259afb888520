"""What counts as the code that made a result, and that all of the code is accounted for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import sources

ROOT = Path(__file__).parents[2]
#: What no number in a result depends on: how results are drawn, written and hashed, how libraries
#: are kept, what is offered around the layer, and entry points. A new file goes into sources.PARTS
#: or here.
ASIDE = {
    "irevrnn/__init__.py", "irevrnn/strategies/auto.py", "irevrnn/csrc/__init__.py",
    "irevrnn/jit/__main__.py", "irevrnn/jit/build.py", "irevrnn/jit/cache.py",
    "irevrnn/jit/ninja.py", "irevrnn/jit/once_per_process.py", "experiments/datasets/__init__.py",
    "experiments/datasets/__main__.py", "irevrnn/ensembles.py", "experiments/catalogue.py",
    "experiments/figures.py", "experiments/files.py", "irevrnn/onnx.py", "experiments/bench/profile.py",
    "experiments/provenance.py", "experiments/sources.py",
}  # fmt: skip

CODE = '''"""What it is."""

import math  # of the library


class Circle:
    """A circle."""

    name = """a
    b"""

    def area(self, r):
        """Its area.

        Args:
            r: its radius.
        """
        # The formula.
        return math.pi * r**2  # exact
'''


def written(folder, text, name="irevrnn/rnn.py"):
    """A tree that has one file of the layer, and the hash of that part."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return sources.hashes(sources.read(folder))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A circle.", "A disc."),
        ('"""What it is."""', ""),
        ("            r: its radius.\n", ""),
        ("# The formula.", "# A formula, of the ancients."),
        ("  # of the library", ""),
        ("\n\nclass", "\n\n\n\nclass"),
    ],
)
def test_remarks_do_not_count(tmp_path, old, new):
    assert old in CODE
    assert written(tmp_path, CODE) == written(tmp_path, CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("r**2", "r**3"),
        ("        return", "    return"),
        ('"""a', '"""A'),
        ("import math", "import cmath as math"),
        ("  # exact", "; # exact"),
    ],
)
def test_code_counts(tmp_path, old, new):
    assert old in CODE
    assert written(tmp_path, CODE) != written(tmp_path, CODE.replace(old, new))


def test_what_python_cannot_read_counts_as_it_is(tmp_path):
    broken = [written(tmp_path, f"def f(:\n'''{text}") for text in ("one", "two")]
    assert broken[0] != broken[1]


def test_of_a_notebook_only_its_code_counts(tmp_path):
    def notebook(text, code, output=()):
        cells = [
            {"cell_type": "markdown", "source": [text]},
            {"cell_type": "code", "source": [code], "outputs": list(output)},
        ]
        return written(tmp_path, json.dumps({"cells": cells}), "notebooks/01_a.ipynb")

    first = notebook("Text.", "x = 1")
    assert first == notebook("Other text.", "x = 1  # one", ["1"])
    assert first != notebook("Text.", "x = 2")


def test_a_part_has_one_hash_over_all_its_files(tmp_path):
    first = written(tmp_path, "x = 1")
    second = written(tmp_path, "y = 1", "irevrnn/strategies/layerwise.py")
    assert first.keys() == second.keys() == {"layer"}
    assert first != second
    (tmp_path / "irevrnn/strategies/layerwise.py").rename(
        tmp_path / "irevrnn/strategies/first_order.py"
    )
    assert sources.hashes(sources.read(tmp_path)) not in (first, second)


def test_a_program_keeps_the_hashes_it_started_with(tmp_path):
    file = tmp_path / "irevrnn" / "sources.py"
    written(tmp_path, (ROOT / "experiments/sources.py").read_text(), "experiments/sources.py")
    written(tmp_path, "x = 1")
    code = (
        "import pathlib, sources\n"
        "pathlib.Path('rnn.py').write_text('x = 2')\n"
        "print(sources.at_start() == sources.hashes(sources.read()), len(sources.at_start()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]


def test_what_several_runs_have_in_common():
    first = {"cell": "1", "layer": "2", "training": "3"}
    second = {"cell": "1", "layer": "4", "training": None}
    assert sources.in_common(first) == first
    assert sources.in_common(first, second) == {"cell": "1", "layer": None, "training": None}
    assert sources.in_common(first, {}) == dict.fromkeys(first)


def test_every_file_belongs_to_a_part_or_is_set_aside():
    tracked = subprocess.run(
        ["git", "ls-files", "irevrnn", "notebooks"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode:
        pytest.skip("not a checkout")
    files = {name for part in sources.read().values() for name in part}
    assert all(sources.read().values()), "a part has no files"
    assert not files & ASIDE
    assert set(tracked.stdout.split()) - files == ASIDE
