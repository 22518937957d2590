"""Find broken links in documents. Uses the standard library only, because it also
checks the installed Debian package: ``python3 -m filebucket.test.kit.links FOLDER``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TARGET = re.compile(r"<([^<>`]*[^<>`_])>`_|^\.\. _[^:]+: (\S+)$", re.MULTILINE)
"""The target of a link in RST, embedded or separate; one that ends with ``_`` is a
reference."""

NAMED = re.compile(r"`([^`<]+?)\s+<([^<>`]*[^<>`_])>`_(?!_)")
"""The name and target of a link in RST that is not anonymous."""

HEADING = re.compile(r"^(\S.*)\n([=~^\"'-])\2{2,}$", re.MULTILINE)


def documents(top: Path) -> Iterator[Path]:
    """All RST and roff files beneath ``top``, except those of tools and builds, and
    those pushed to ``make run``.
    """
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(
            each for each in folders if not re.match(r"[._]|(?:debian|buckets)$", each)
        )
        for name in sorted(files):
            if re.search(r"\.(rst|[1-9])$", name):
                yield Path(folder, name)


def broken(top: Path) -> list[str]:
    """The links beneath ``top`` to a missing file or heading, and the names of several
    links or headings.
    """
    found = []
    for page in documents(top):
        text = page.read_text(encoding="utf-8")
        found += [
            f"{page.relative_to(top)}: {name}: not the only one of this name"
            for name in doubled(text)
        ]
        for target in targets(text):
            name, _, heading = target.partition("#")
            there = page.parent / name if name else page
            if not there.exists() or (heading and heading not in headings(there)):
                found.append(f"{page.relative_to(top)}: {target}")
    return found


def targets(text: str) -> list[str]:
    """Its links to other files, not those to other sites."""
    joined = (re.sub(r"\s+", " ", one or other) for one, other in TARGET.findall(text))
    return [each for each in joined if not re.match(r"[a-z]+:", each)]


def doubled(text: str) -> list[str]:
    """The names of links with different targets, or of a link and a heading. Such links
    end with two underscores: otherwise some versions of docutils warn, and a heading
    loses its anchor.
    """
    found: dict[str, set[str]] = {}
    for name, target in [*NAMED.findall(text), *HEADING.findall(text)]:
        found.setdefault(" ".join(name.lower().split()), set()).add(target)
    return [name for name, targets in found.items() if len(targets) > 1]


def headings(page: Path) -> set[str]:
    """The anchors of its headings, as docutils makes them."""
    found = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") for text, _ in found}


if __name__ == "__main__":
    sys.exit("\n".join(broken(Path(sys.argv[1]))) or None)
