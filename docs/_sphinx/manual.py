"""``.. manual:: man/filebucket.8`` shows a manual page. It knows the macros that ours
have.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from docutils import nodes
from links import TOP
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

STYLES = ("B", "I", "BI", "BR", "IB", "IR", "RB", "RI")
FONTS = {"B": nodes.strong, "I": nodes.emphasis, "R": nodes.inline}

ESCAPES = {
    r"\-": "-",
    r"\(dq": '"',
    r"\(aq": "'",
    r"\&": "",
    r"\e": "\\",
}


def plain(text: str) -> str:
    """Text without escapes, except those of fonts."""
    return re.sub(r"\\(?:\(..|[-&e])", lambda found: ESCAPES[found[0]], text)


def words(line: str, font: str = "R") -> list[nodes.Node]:
    """A line of text, which may change the font."""
    found: list[nodes.Node] = []
    fonts = [font, font]
    for part in re.split(r"(\\f.)", line):
        if part.startswith("\\f"):
            fonts = [fonts[1], fonts[0] if part[2] == "P" else part[2]]
        elif part:
            found.append(FONTS[fonts[1]]("", plain(part)))
    return found


def styled(macro: str, rest: str) -> list[nodes.Node]:
    """A line with a macro such as ``.BR``: its words have these fonts in turn."""
    lexer = shlex.shlex(rest.replace("\\ ", "\xa0"), posix=True)
    lexer.whitespace = " "
    lexer.whitespace_split = True
    lexer.commenters = lexer.escape = ""
    lexer.quotes = '"'
    parts = list(lexer)
    if len(macro) == 1:
        return words(" ".join(parts), macro)
    return [
        node for at, part in enumerate(parts) for node in words(part, macro[at % 2])
    ]


class Manual(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = TOP / "docs" / self.arguments[0]
        self.env.note_dependency(str(path))
        return list(self.sections(path.read_text(encoding="utf-8")))

    def sections(self, text: str) -> Iterator[nodes.Node]:
        for part in re.split(r"(?m)^\.SH ", text)[1:]:
            title, _, body = part.partition("\n")
            yield self.section(title, body)

    def section(self, title: str, body: str) -> nodes.section:
        name = title.strip('"').capitalize()
        section = nodes.section(ids=[nodes.make_id(name)])
        section += nodes.title("", name)
        first, *others = re.split(r"(?m)^\.SS ", body)
        section += self.blocks(first.splitlines())
        for each in others:
            heading, _, rest = each.partition("\n")
            inner = nodes.section(ids=[nodes.make_id(f"{name} {heading}")])
            inner += nodes.title("", "", *words(heading.strip('"')))
            inner += self.blocks(rest.splitlines())
            section += inner
        return section

    def blocks(self, lines: list[str]) -> list[nodes.Element]:
        """Paragraphs, lists of definitions and literal blocks."""
        blocks = Blocks()
        rest = iter(lines)
        for line in rest:
            macro, _, text = (
                line[1:].partition(" ") if line[:1] == "." else ("", "", line)
            )
            if macro == "EX":
                blocks.literal(list(takewhile(lambda each: each != ".EE", rest)))
            elif macro == "TP":
                blocks.define()
            elif macro == "SY":
                blocks.end()
                blocks.put([nodes.strong("", plain(text))])
            elif macro in ("P", "PP", "YS"):
                blocks.end()
            elif macro in STYLES:
                blocks.put(styled(macro, text))
            elif not macro and text:
                blocks.put(words(text))
        return blocks.found


class Blocks:
    """The blocks of a section, as they come.

    :ivar found: the blocks
    """

    def __init__(self) -> None:
        self.found: list[nodes.Element] = []
        self._term: nodes.term | None = None
        self._item: nodes.definition | None = None
        self._paragraph: nodes.paragraph | None = None

    def end(self) -> None:
        """End the paragraph, and the list."""
        self._item = self._paragraph = None

    def define(self) -> None:
        """Begin an item of a list; its term is the next line."""
        if not self.found or not isinstance(self.found[-1], nodes.definition_list):
            self.found.append(nodes.definition_list())
        self._term, self._item = nodes.term(), nodes.definition()
        self._paragraph = None
        self.found[-1] += nodes.definition_list_item("", self._term, self._item)

    def literal(self, lines: list[str]) -> None:
        text = "\n".join(re.sub(r"\\f.", "", plain(each)) for each in lines)
        self._add(nodes.literal_block(text, text, language="none"))
        self._paragraph = None

    def put(self, parts: list[nodes.Node]) -> None:
        """Append a line to the term or to the paragraph."""
        if self._term is not None:
            self._term += parts
            self._term = None
            return
        if self._paragraph is None:
            self._paragraph = nodes.paragraph()
            self._add(self._paragraph)
        else:
            self._paragraph += nodes.Text(" ")
        self._paragraph += parts

    def _add(self, block: nodes.Element) -> None:
        if self._item is None:
            self.found.append(block)
        else:
            self._item += block


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("manual", Manual)
    return {"parallel_read_safe": False}
