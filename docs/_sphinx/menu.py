"""The menu of the site, made of the links on the front page."""

from __future__ import annotations

import os
import re
from typing import Any

from docutils import nodes
from links import page_of
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

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


class WithoutContents(SphinxTransform):
    """Remove lists of a page's headings: the theme has one beside each page."""

    default_priority = 800

    def apply(self, **_: Any) -> None:
        for topic in list(self.document.findall(nodes.topic)):
            if "contents" in topic["classes"]:
                topic.parent.remove(topic)
        for title in self.document.findall(nodes.title):
            title.attributes.pop("refid", None)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", add_menu)
    app.add_transform(WithoutContents)
    return {"parallel_read_safe": False}
