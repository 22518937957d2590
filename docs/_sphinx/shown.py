"""``.. shown:: contrib/client/*`` shows files of the tree, each with a heading."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from links import TOP
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

LONG = 300
"""Lines beyond which a file is only offered as a download."""

LANGUAGES = {
    ".sh": "bash",
    ".ps1": "powershell",
    ".json": "json",
    ".yml": "yaml",
    ".py": "python",
    ".service": "ini",
    ".timer": "ini",
    "Dockerfile": "docker",
    "nginx.conf": "nginx",
}


class Shown(SphinxDirective):
    required_arguments = 1
    optional_arguments = 20

    def run(self) -> list[nodes.Node]:
        shown = self.env.__dict__.setdefault("shown", {})
        found: list[nodes.Node] = []
        for pattern in self.arguments:
            paths = sorted(each for each in TOP.glob(pattern) if each.is_file())
            if not paths:
                raise self.error(f"no file matches {pattern}")
            for path in paths:
                name = str(path.relative_to(TOP))
                section = self.section(name, path.read_text(encoding="utf-8"))
                self.state.document.ids[section["ids"][0]] = section
                shown[name] = (self.env.docname, section["ids"][0])
                folder = str(path.parent.relative_to(TOP))
                shown.setdefault(folder, (self.env.docname, ""))
                found.append(section)
        return found

    def section(self, name: str, text: str) -> nodes.section:
        short = name.rpartition("/")[2]
        link = addnodes.download_reference("", "", reftarget=f"/../{name}")
        link += nodes.literal("", name)
        section = nodes.section(ids=[nodes.make_id(name)])
        section += nodes.title("", short)
        section += nodes.paragraph("", "Download ", link)
        if text.count("\n") <= LONG:
            block = nodes.literal_block(text, text)
            ends = [kind for end, kind in LANGUAGES.items() if short.endswith(end)]
            block["language"] = ends[0] if ends else "none"
            section += block
        self.env.note_dependency(str(TOP / name))
        return section


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("shown", Shown)
    return {"parallel_read_safe": False}
