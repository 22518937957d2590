"""The languages of literal blocks, by what they start with: the documents name none.

Single commands stay plain. A lexer of shells knows words, not commands: it would stress
``set`` in ``filebucket bucket set``, but not ``add`` in ``filebucket bucket add``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

LANGUAGES = {
    "bash": r"#!/bin/(ba)?sh\n",
    "console": r"\$ ",
    "ini": r"\[[\w-]+\]\n",
    "javascript": r"const ",
    "nginx": r"(server|location [^\n]*) \{\n",
    "powershell": r"\$\w+ = |(New|Register|Set)-|# Registers a task",
    "python": r"import ",
    "yaml": r"(- )?\w+:( \[|\n *-)",
}
"""How blocks in these languages start."""


def language(text: str) -> str | None:
    """The language of a block; None leaves it plain."""
    if is_json(text):
        return "json"
    found = (name for name, start in LANGUAGES.items() if re.match(start, text))
    return next(found, None)


def is_json(text: str) -> bool:
    """Whether it is an object, or keys of one."""
    try:
        json.loads(text if text.startswith("{") else f"{{{text.rstrip(',')}}}")
    except ValueError:
        return False
    return True


class Highlight(SphinxTransform):
    """Set the languages, except of blocks that have one."""

    default_priority = 800

    def apply(self, **_: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            found = language(block.astext())
            if found and "language" not in block:
                block["language"] = found


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Highlight)
    return {"parallel_read_safe": False}
