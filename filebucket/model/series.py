"""Series: the files that are the same backup from different days.

By default, names that differ only in their digits are one series:
``db-2026-11-23.sql.gz`` belongs to ``db-#-#-#.sql.gz``. If a bucket has ``series``, a
list of shell patterns, the first pattern that matches a name is its series. A name that
matches no pattern falls back to its digit-based series, which is never expected.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

_DIGITS = re.compile("[0-9]+")


def series_of(name: str, patterns: Sequence[str]) -> str:
    """The series that a file belongs to.

    :param name: the file's name, with tokens masked
    :param patterns: the bucket's patterns
    """
    for pattern in patterns:
        # Python compiles patterns without backtracking: no name can keep it busy.
        if fnmatch.fnmatchcase(name, pattern):
            return pattern
    return _DIGITS.sub("#", name)


def is_series(series: str, wanted: str) -> bool:
    """Whether a series has this name, or a name that matches this shell pattern."""
    # A name that is a pattern, such as "[a-z].gz", does not always match itself.
    return series == wanted or fnmatch.fnmatchcase(series, wanted)


def first_characters(wanted: str) -> str:
    """What all series begin with that have this name or match this shell pattern."""
    return re.split(r"[*?[]", wanted, maxsplit=1)[0]
