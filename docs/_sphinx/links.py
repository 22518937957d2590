"""Links of documents in a checkout, on the site.

``text <page.rst#heading>`_`` leads to that page. A link to an example leads to the page
that shows it.
"""

from __future__ import annotations

import os
import re
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


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Relative)
    app.connect("doctree-resolved", resolve)
    return {"parallel_read_safe": False}
