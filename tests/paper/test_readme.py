"""What the README shows can be done: its code runs, its commands and links exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "data" / "README.md"]
PYTHON_BLOCKS = [
    pytest.param(code, id=f"{page.name} {index}")
    for page in PAGES
    for index, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )
]
MODULES = sorted(set(re.findall(r"python -m (irevrnn[\w.]*)", README)))


@pytest.mark.parametrize("code", PYTHON_BLOCKS)
def test_code_runs_as_written(code):
    exec(compile(code, "a page of the documentation", "exec"), {})


@pytest.mark.parametrize("module", MODULES)
def test_command_explains_itself(module):
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")


def test_make_targets_exist():
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"reproduce", "test", "lint", "lab", "bench", "paper", "data", "clean"} <= named
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    inside = [target for target in targets if "://" not in target]
    missing = [target for target in inside if not (document.parent / target).exists()]
    assert not missing
