"""Links of documents in a checkout, on the site.

``text <page.rst#heading>`_`` leads to that page. A link to an example leads to the page
that shows it. The menu is made of the links on the front page.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

TOP = Path(__file__).parents[2]

OUTSIDE = {
    "README.rst": "project/readme",
    "CHANGELOG.rst": "project/changelog",
    "CONTRIBUTING.rst": "project/contributing",
    "SECURITY.rst": "project/security",
    "hooks/README.rst": "examples/hooks",
}
"""Pages of the site that are made of a document elsewhere."""

MENU = {
    "Reference": ["man/index", "api/index"],
    "Examples": [
        "examples/proxies",
        "examples/client",
        "examples/monitoring",
        "examples/fail2ban",
        "examples/cluster",
        "examples/container",
    ],
}
"""Pages in the menu without a link on the front page, by section."""

log = logging.getLogger(__name__)


def page_of(path: str) -> str | None:
    """The page that is made of a document, as a path in the tree."""
    inside = re.fullmatch(r"docs/(.+)\.(?:rst|txt)", path)
    return inside[1] if inside else OUTSIDE.get(path)


def source_of(node: nodes.Node) -> str:
    """The path in the tree of the document that has this node."""
    above: nodes.Node | None = node
    while above is not None and not above.source:
        above = above.parent
    assert above is not None
    source = (above.source or "").partition(":<")[0]
    return os.path.relpath(os.path.abspath(source), TOP)


class Relative(SphinxTransform):
    """Make the targets of links and pictures paths in the tree."""

    default_priority = 800

    def apply(self, **_: Any) -> None:
        for link in self.document.findall(nodes.reference):
            uri = link.get("refuri", "")
            if uri and not re.match(r"[a-z]+:", uri):
                source = source_of(link)
                name, _hash, heading = uri.partition("#")
                path = os.path.join(os.path.dirname(source), name) if name else source
                link["leads"] = (os.path.normpath(path), heading)
        for picture in self.document.findall(nodes.image):
            if not re.match(r"[a-z]+:", picture["uri"]):
                here = os.path.dirname(source_of(picture))
                path = os.path.relpath(os.path.join(here, picture["uri"]), "docs")
                picture["uri"] = f"/{path}"
        for block in self.document.findall(nodes.literal_block):
            if block.astext().startswith("{"):
                with suppress(ValueError):
                    json.loads(block.astext())
                    block["language"] = "json"
        # Sphinx writes this after the names of parameters.
        for dash in list(self.document.findall(nodes.Text)):
            if dash == " -- ":
                dash.parent.replace(dash, nodes.Text(" \N{EN DASH} "))
        # The theme has a menu of each page's headings.
        for menu in list(self.document.findall(nodes.topic)):
            if "contents" in menu["classes"]:
                menu.parent.remove(menu)
        for title in self.document.findall(nodes.title):
            title.attributes.pop("refid", None)


def resolve(app: Sphinx, document: nodes.document, page: str) -> None:
    """Let links lead to pages and headings of the site, which must exist."""
    for link in document.findall(nodes.reference):
        if "leads" not in link:
            continue
        path, heading = link.attributes.pop("leads")
        shown: dict[str, tuple[str, str]] = getattr(app.env, "shown", {})
        target = page_of(path)
        if path in shown:
            target, heading = shown[path]
        if target not in app.env.found_docs:
            log.warning("no page shows %s", path, location=link)
            continue
        if heading and heading not in headings(app.env.get_doctree(target)):
            log.warning("no heading %s on page %s", heading, target, location=link)
        link["refuri"] = app.builder.get_relative_uri(page, target)
        link["refuri"] += f"#{heading}" if heading else ""
        link["internal"] = True


def headings(document: nodes.document) -> set[str]:
    """The anchors of its headings."""
    sections = document.findall(nodes.section)
    return {each for section in sections for each in section["ids"]}


def add_menu(_: Sphinx, page: str, source: list[str]) -> None:
    """Make the menu of the links on the front page, in their order."""
    if page != "index":
        return
    menus: dict[str, list[str]] = {}
    section = ""
    for title, label, path in re.findall(
        r"(?m)^(.+)\n[=-]{3,}$|^\* `([^`<]+)\s<([^>#]+)>`_", source[0]
    ):
        section = title or section
        target = page_of(os.path.normpath(f"docs/{path}"))
        if target and section != "Tasks":
            menus.setdefault(section, []).append(f"{label} <{target}>")
    for section, more in MENU.items():
        menus[section] += more
    for section, pages in menus.items():
        lines = (f"   {each}\n" for each in pages)
        source[0] += f"\n.. toctree::\n   :hidden:\n   :caption: {section}\n\n"
        source[0] += "".join(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Relative)
    app.connect("doctree-resolved", resolve)
    app.connect("source-read", add_menu)
    return {"parallel_read_safe": False}
