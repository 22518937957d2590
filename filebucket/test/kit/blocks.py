"""Literal blocks of the documents, and the tests that run them.

``filebucket/test/blocks.toml`` gives each block to a test, or lists the reason why no
test runs it. ``python3 -m filebucket.test.kit.blocks PAGE HEADING WORDS`` prints one,
also of the installed Debian package.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar, NamedTuple

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.test.kit.integration import ONCE
from filebucket.test.kit.links import documents
from filebucket.test.kit.tree import TREE

CLAIMS = Path(__file__).parents[1] / "blocks.toml"

AS_POSTGRES = '[ "$1 $2 $3" = "-u postgres --" ] && shift 3 && exec "$@"'
"""A shell script in place of ``runuser``, which only root may run."""


_UNDERLINE = re.compile(r"([=~^\"'-])\1{2,}$")
_MARGIN = re.compile(r" *(?:(?:[*-]|\d+\.) +)?")
_BEGIN = re.compile(r" *\.\. (?:code-block|code)::|(?! *\.\. ).*::$")
_OPTION = re.compile(r" +:[\w-]+:")


class Block(NamedTuple):
    """A literal block.

    :ivar page: its document, as a path in the tree
    :ivar line: the number of its first line
    :ivar heading: the heading of its section, or the title
    """

    page: str
    line: int
    heading: str
    text: str

    def __str__(self) -> str:
        first = self.text.partition("\n")[0]
        return f"{self.page}:{self.line}: {self.heading}: {first}"


@cache
def path_of(page: str) -> str:
    """The path of a document in the tree.

    :param page: this path, or the end of it if no other document has the same end
    """
    if (TREE / page).exists():
        return page
    found = [each for each in documents(TREE) if str(each).endswith(f"/{page}")]
    if len(found) != 1:
        raise ValueError(f"{len(found)} documents are called {page}")
    return str(found[0].relative_to(TREE))


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """The literal blocks of a document, in its order."""
    path = TREE / path_of(page)
    find = _rst if path.suffix == ".rst" else _roff
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(Block(path_of(page), *each) for each in find(lines))


def _rst(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Line, heading and text of each block."""
    heading = ""
    at = 0
    while at < len(lines):
        line = lines[at]
        if _UNDERLINE.match(line) and at and lines[at - 1]:
            heading = lines[at - 1].strip()
        at += 1
        if not _BEGIN.match(line):
            continue
        margin = re.compile(rf" {{{_margin(line) + 1}}}|$")
        while at < len(lines) and (not lines[at] or _OPTION.match(lines[at])):
            at += 1
        first = at
        while at < len(lines) and margin.match(lines[at]):
            at += 1
        yield first + 1, heading, dedent("\n".join(lines[first:at])).rstrip() + "\n"


def _margin(line: str) -> int:
    """Where the text of a line begins, which may be an item of a list."""
    found = _MARGIN.match(line)
    assert found is not None
    return found.end()


def _roff(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    heading = ""
    first = 0
    for number, line in enumerate(lines):
        if line.startswith(".SH "):
            heading = line[4:].strip('"')
        elif line == ".EX":
            first = number + 1
        elif line == ".EE":
            text = "\n".join(lines[first:number])
            yield first + 1, heading, re.sub(r"\\f.|\\(?=-)", "", text) + "\n"


def in_section(page: str, heading: str, starts: str = "") -> list[Block]:
    """The blocks of a section that start with these words, in their order."""
    return [
        each
        for each in blocks(page)
        if each.heading == heading and each.text.startswith(starts)
    ]


class Claim(NamedTuple):
    """An entry of the list.

    :ivar page: the document, as it is listed
    :ivar words: a heading, and the first words of blocks in its section
    :ivar by: the test that runs them, or the reason why none does
    """

    page: str
    words: str
    by: str

    def covers(self, block: Block) -> bool:
        """Whether it is about this block."""
        heading, _, starts = self.words.partition(": ")
        here = path_of(self.page) == block.page and heading == block.heading
        return here and block.text.startswith(starts)


@cache
def claims() -> tuple[Claim, ...]:
    """The list."""
    listed = tomllib.loads(CLAIMS.read_text(encoding="utf-8"))
    return tuple(
        Claim(page, words, by)
        for page, entries in listed.items()
        for words, by in entries.items()
    )


def short(test: str) -> str:
    """The name of a test in the list."""
    return re.sub(r"^filebucket\.test\.(whole\.)?", "", test)


def _all_taken(test: Callable[[Any], None]) -> Callable[[Any], None]:
    """A test that fails if it leaves a block."""

    @wraps(test)
    def run(case: DocumentCase) -> None:
        test(case)
        case.assertEqual([], case.left(), "it takes too few blocks")

    return run


class DocumentCase(SynchronousTestCase):
    """Runs blocks. A test fails if it leaves one that the list gives to it.

    :cvar page: their document, unless another one is named
    """

    page: ClassVar[str] = ""
    skip = ONCE

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, test in list(vars(cls).items()):
            if name.startswith("test_"):
                setattr(cls, name, _all_taken(test))

    def setUp(self) -> None:
        super().setUp()
        self._taken: list[Block] = []
        if not (TREE / "Makefile").exists():
            raise SkipTest("installed without its source")

    def script(self, heading: str, starts: str = "", page: str = "") -> str:
        """The one block of a section that starts with these words."""
        (found,) = in_section(page or self.page, heading, starts)
        return self._take(found)

    def section(self, heading: str, page: str = "") -> list[str]:
        """All blocks of a section."""
        return [self._take(each) for each in in_section(page or self.page, heading)]

    def listed(self) -> list[str]:
        """All blocks that the list gives to this test, in the order of the document."""
        return [self._take(each) for each in self._listed()]

    def left(self) -> list[str]:
        """Those that it has not taken yet."""
        return [str(each) for each in self._listed() if each not in self._taken]

    def _take(self, block: Block) -> str:
        self._taken.append(block)
        return block.text

    def _listed(self) -> list[Block]:
        mine = [each for each in claims() if each.by == short(self.id())]
        pages = dict.fromkeys(each.page for each in mine)
        found = (block for page in pages for block in blocks(page))
        return [block for block in found if any(each.covers(block) for each in mine)]


if __name__ == "__main__":
    page, heading, starts = sys.argv[1:]
    (found,) = in_section(page, heading, starts)
    sys.stdout.write(found.text)
