"""Find turns of phrase that ``.ci/words.toml`` lists. Uses the standard library only:
``python3 -m filebucket.test.kit.words FOLDER``.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

LIST = Path(".ci/words.toml")

FOLDERS = (".ci", "bench", "contrib", "debian", "docs", "filebucket", "hooks", "proofs")
FILES = ("*.rst", "*.toml", "Makefile", ".github/*/*")

QUOTED = re.compile(r"debian/(?:copyright$|file-bucket[a-z-]*/)|docs/_build/|\.svg$")
"""Files of other authors, and copies."""

GAP = r"""(?:[ \t]+|[ \t]*\n[ \t]*(?:[#*] ?)?| ?["']\n[ \t]*[fbr]{0,2}["'] ?)"""
"""A space, or a new line with the marks of a comment or of a string."""


class Turn:
    """A turn of phrase.

    :ivar instead: a sentence that has it
    :ivar write: the same in plain English
    :ivar why: what is wrong with it
    """

    def __init__(self, pattern: str, instead: str, write: str, why: str) -> None:
        self._pattern = re.compile(pattern.replace(" ", GAP), re.MULTILINE)
        self.instead = instead
        self.write = write
        self.why = why

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """The line of each, and its words."""
        for each in self._pattern.finditer(text):
            line = text.count("\n", 0, each.start()) + 1
            yield line, " ".join(each[0].split())


def turns(top: Path) -> list[Turn]:
    """The list."""
    found = tomllib.loads((top / LIST).read_text(encoding="utf-8"))
    return [Turn(**each) for each in found["turns"]]


def texts(top: Path) -> Iterator[Path]:
    """All files with text for people."""
    found = {each for pattern in FILES for each in top.glob(pattern)}
    found |= {each for folder in FOLDERS for each in (top / folder).rglob("*")}
    for path in sorted(found - {top / LIST}):
        if path.is_file() and not QUOTED.search(str(path.relative_to(top))):
            yield path


def misworded(top: Path) -> list[str]:
    """Each place beneath ``top`` that has a turn of the list, and what to write."""
    listed = turns(top)
    found = []
    for path in texts(top):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for turn in listed:
            found += [
                f"{path.relative_to(top)}:{line}: {words!r}. {turn.why}"
                f" Instead of {turn.instead!r} write {turn.write!r}."
                for line, words in turn.find(text)
            ]
    return found


if __name__ == "__main__":
    sys.exit("\n".join(misworded(Path(sys.argv[1]))) or None)
