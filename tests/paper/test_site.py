"""The site: it builds without a warning, its links resolve, and a browser shows its pages well."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import irevrnn

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {path.stem: path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb")}
PAGES = [
    "index",
    "docs/memory",
    "docs/api",
    "notebooks/01_derivation",
    "irevrnn/kernels/reference.py",
]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The links and anchors of a page, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors, self.text = set(), set(), set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id"), found.get("name")}
        links = {found[name] for name in ("href", "src", "data") if found.get(name)}
        (self.links if tag == "a" else self.loaded).update(links)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    options = ["-d", folder / "doctrees"]
    done = subprocess.run(
        [*command, *options, ".", folder / "out"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_link_leads_somewhere(site, pages):
    assert len(pages) > 100
    missing = []
    for path, page in pages.items():
        for link in page.links | page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            known = pages[target].anchors if target in pages else set()
            if not target.is_file() or (anchor and target in pages and anchor not in known):
                missing.append((str(path.relative_to(site)), link))
    assert not missing


def test_nothing_is_loaded_from_elsewhere(pages):
    loaded = {link for page in pages.values() for link in page.loaded}
    assert any("tex-svg" in link for link in loaded)
    assert [link for link in loaded if urlsplit(link).netloc] == []


def test_notebooks_have_their_number_and_their_output(site, pages):
    for name, text in NOTEBOOKS.items():
        shown = "".join(pages[site / "notebooks" / f"{name}.html"].text)
        assert f"{name[:2]}. " in shown
        outputs = [out for cell in json.loads(text)["cells"] for out in cell.get("outputs", [])]
        printed = next("".join(out["text"]) for out in outputs if out["output_type"] == "stream")
        assert printed.splitlines()[0] in shown


def test_equations_lead_to_their_code_and_docstrings_to_the_equations(site, pages):
    notebooks = [pages[site / "notebooks" / f"{name}.html"] for name in NOTEBOOKS]
    links = "\n".join(link for page in notebooks for link in page.links)
    lines = {
        int(line) for line in re.findall(r"irevrnn/kernels/reference\.py\.html#L-(\d+)", links)
    }
    source = (ROOT / "irevrnn" / "kernels" / "reference.py").read_text().splitlines()
    functions = {re.match(r"def (\w+)", source[line - 1])[1] for line in lines}
    assert functions >= {"couple", "uncouple", "step", "scan_backward"}
    back = "\n".join(pages[site / "docs" / "api.html"].links)
    assert re.search(r"^\.\./notebooks/\w+\.html#eq-coupling$", back, re.MULTILINE)


def test_the_reference_has_every_public_name_and_no_markup(site, pages):
    page = pages[site / "docs" / "api.html"]
    assert {f"irevrnn.{name}" for name in irevrnn.__all__} <= page.anchors
    assert {"irevrnn.kernels.reference.step", "irevrnn.onnx.export"} <= page.anchors
    assert "../irevrnn/modules/rnn.py.html#L-" in "".join(page.links)
    assert not re.findall(r":\w+:`|``|\.\. math", "".join(page.text))


@pytest.mark.skipif(not BROWSER, reason="needs Chromium: apt install chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_the_pages_without_errors(site, width):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox"]  # which root cannot have
        browser = playwright.chromium.launch(executable_path=BROWSER, args=options)
        page = browser.new_page(viewport={"width": width, "height": 900})
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        for name in PAGES:
            page.goto((site / f"{name}.html").as_uri())
            if "notebooks" in name:
                page.wait_for_selector("mjx-container")
                assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
            # On a narrow screen the theme scrolls an article that is too wide, not the page.
            for part in ("html", ".content"):
                shown = page.locator(part).first
                assert shown.evaluate("e => e.scrollWidth - e.clientWidth") <= 0, (name, part)
            broken = "[...document.images].filter(image => !image.naturalWidth).map(i => i.src)"
            assert page.evaluate(broken) == [], name
        browser.close()
    assert said == []


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_what_github_reads_can_be_parsed(path):
    assert yaml.safe_load(path.read_text())
