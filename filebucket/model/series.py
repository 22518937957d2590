"""What recurs in a bucket.

Two files are of one series where their names are the same but for their digits:
``db-2026-11-23.sql.gz`` is of ``db-#-#-#.sql.gz``. Where that is not what the operator
means by it, the bucket's ``series`` are patterns, as shells have them: the first that
fits a name is its series, and what none fits is of a series that nobody expects.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

_DIGITS = re.compile("[0-9]+")


def series_of(name: str, patterns: Sequence[str]) -> str:
    """The series that a file is of.

    :param name: the file's, with no token in it
    :param patterns: the bucket's, if it has any
    """
    for pattern in patterns:
        # Python makes of a pattern what looks at no part of the name twice: a client
        # cannot keep it busy with a name.
        if fnmatch.fnmatchcase(name, pattern):
            return pattern
    return _DIGITS.sub("#", name)
