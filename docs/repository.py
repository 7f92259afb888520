"""Sphinx extension: files of the repository, code beside equations, the numbers of notebooks.

Links to files work in a clone; this makes them work on the site. Sources become pages, folders
become lists, and other files are copied, all at the path that they have in the repository.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from os.path import normpath
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "experiments", "irevrnn", "notebooks", "paper", "tests")
FILES = ("CITATION.cff", "LICENSE", "Makefile", "environment.yml", "pyproject.toml")
LANGUAGES = {
    "": "text", ".bib": "text", ".cff": "yaml", ".cpp": "cpp", ".css": "css", ".cu": "cpp",
    ".cuh": "cpp", ".h": "cpp", ".py": "python", ".rst": "rst", ".toml": "toml", ".typ": "text",
    ".yml": "yaml",
}  # fmt: skip
DEFINITION = re.compile(r"^ *(?:def|class) (\w+)", re.MULTILINE)

addresses: dict[str, str] = {}  # on the site: of each file and folder, by its path
code: dict[str, dict[str, str]] = {}  # of the code of an equation, by its label and the code's name
derivations: dict[str, str] = {}  # of an equation in a notebook, by its label


def find_files(app: Sphinx, env: Any, docnames: list[str]) -> None:
    """Give every file and folder its address."""
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths += [ROOT / folder, *sorted((ROOT / folder).rglob("*"))]
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if "/." in name or "__pycache__" in name:
            continue
        if path.is_dir():
            addresses[name] = f"{name}/index.html"
        else:
            addresses[name] = f"{name}.html" if path.suffix in LANGUAGES else name
    for docname in env.found_docs:
        name = Path(env.doc2path(docname)).relative_to(ROOT).as_posix()
        addresses[name] = app.builder.get_target_uri(docname)
        if name.endswith("/README.md"):
            addresses[name.removesuffix("/README.md")] = addresses[name]
    addresses["."] = addresses["README.md"] = app.builder.get_target_uri("index")


def find_equations(app: Sphinx, env: Any, docnames: list[str]) -> None:
    """Find the labels of equations, such as eq:cell, in the library's code and the notebooks."""
    sources = [n for n, address in addresses.items() if address == f"{n}.html" and "irevrnn/" in n]
    for name in sorted(sources, key=lambda name: (name != "irevrnn/kernels/reference.py", name)):
        text = (ROOT / name).read_text()
        for label in re.finditer(r"\beq:\w+", text):
            line, title = text.count("\n", 0, label.start()) + 1, Path(name).name
            title = Path(name).parent.name if title == "__init__.py" else title
            if name.endswith(".py"):
                for definition in DEFINITION.finditer(text, 0, label.start()):
                    line = text.count("\n", 0, definition.start()) + 1
                    title = f"{Path(name).stem}.{definition[1]}"
            code.setdefault(label[0], {}).setdefault(title, f"{addresses[name]}#L-{line}")
    for name in sorted(name for name in addresses if name.endswith(".ipynb")):
        for label in re.findall(r"\(`(eq:\w+)`\)", (ROOT / name).read_text()):
            derivations.setdefault(label, f"{addresses[name]}#{nodes.make_id(label)}")


def link(app: Sphinx, address: str, *children: nodes.Node) -> nodes.reference:
    """Return a link from the page that is being read to an address on the site."""
    page, mark, anchor = address.partition("#")
    uri = relative_uri(app.builder.get_target_uri(app.env.docname), page)
    return nodes.reference("", "", *children, internal=True, refuri=f"{uri}{mark}{anchor}")


def link_files(app: Sphinx, doctree: nodes.document) -> None:
    """Lead links to files, and file names that are set as code, to their pages on the site."""
    here = Path(app.env.docname).parent
    for node in list(doctree.findall(nodes.Element)):
        if node.get("reftype") == "myst" and node.get("refdomain") != "doc":
            name = normpath(here / node["reftarget"])
            if name in addresses:
                node.replace_self(link(app, addresses[name], *node.children))
        elif isinstance(node, nodes.literal) and not isinstance(node.parent, nodes.reference):
            name = node.astext()
            if "/" in name and name.rstrip("/") in addresses:
                node.replace_self(link(app, addresses[name.rstrip("/")], node.deepcopy()))


def link_equations(app: Sphinx, doctree: nodes.document) -> None:
    """Put links to the code beside an equation's label, and lead other mentions to the equation."""
    page, found = app.builder.get_target_uri(app.env.docname), set()
    for node in list(doctree.findall(nodes.literal)):
        label = node.astext()
        address = derivations.get(label)
        if address is None or isinstance(node.parent, nodes.reference):
            continue
        before = node.parent[: node.parent.index(node)]
        if not address.startswith(f"{page}#"):
            node.replace_self(link(app, address, node.deepcopy()))
        elif label not in found and before and before[-1].astext().endswith("("):
            found.add(label)
            node["ids"].append(nodes.make_id(label))
            links: list[nodes.Node] = []
            for title, place in code.get(label, {}).items():
                text = nodes.literal("", title)
                links += [nodes.Text(", " if links else " in "), link(app, place, text)]
            node.replace_self([node, *links])


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of the source of an object in the API reference, docs/api."""
    try:
        thing: Any = import_module(info["module"])
        for name in info["fullname"].split("."):
            thing = getattr(thing, name)
        thing = inspect.unwrap(getattr(thing, "fget", thing))
        path, line = inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1]
    except (AttributeError, TypeError, ValueError):  # an attribute of instances
        return None
    name = Path(path or "").relative_to(ROOT).as_posix()
    return f"../{addresses[name]}#L-{line}"


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    """Write a page for each source and each folder."""
    for name, address in addresses.items():
        if address == f"{name}/index.html":
            inside = [other for other in addresses if str(Path(other).parent) == name]
            links = (
                f'<li><a href="{relative_uri(address, addresses[other])}">{Path(other).name}</a>'
                for other in inside
            )
            body = f"<ul>{''.join(links)}</ul>"
        elif address == f"{name}.html":
            body = app.builder.highlighter.highlight_block(
                (ROOT / name).read_text(),
                LANGUAGES[Path(name).suffix],
                force=True,
                linenos="inline",
                lineanchors="L",
            )
        else:
            continue
        parent = str(Path(name).parent)
        above = f'<a href="{relative_uri(address, addresses[parent])}">{parent}</a> / '
        heading = f"<h1>{above if parent != '.' else ''}{Path(name).name}</h1>"
        yield address.removesuffix(".html"), {"title": name, "body": heading + body}, "page.html"


def copy_files(app: Sphinx, exception: Exception | None) -> None:
    """Copy what is neither text nor a page: the PDF, figures, results."""
    for name, address in addresses.items():
        if name == address and exception is None:
            (app.outdir / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, app.outdir / name)


def number_title(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a notebook's number before its title: texts say "notebook 04"."""
    if docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        first = notebook["cells"][0]
        number = docname.removeprefix("notebooks/")[:2]
        first["source"] = re.sub(r"\A# ", f"# {number}. ", "".join(first["source"]))
        source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect all this to Sphinx's events."""
    app.connect("env-before-read-docs", find_files)
    app.connect("env-before-read-docs", find_equations)
    app.connect("source-read", number_title)
    app.connect("doctree-read", link_files, priority=400)  # before Sphinx collects downloads
    app.connect("doctree-read", link_equations)
    app.connect("html-collect-pages", pages)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": False}
