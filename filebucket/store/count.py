"""What the files of a bucket take of its quota, counted a thousand at a time: a folder
of millions holds up no other push for longer than that takes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import suppress
from itertools import islice

from filebucket.model.bucket import FILE_COST

AT_ONCE = 1000
"""Files. They take a thread some 3 ms."""


def count(bucket_fd: int) -> Generator[int, None, None]:
    """Count what files take, whoever put them there. For a thread.

    :param bucket_fd: of the folder; to be closed after this
    :returns: bytes, of some files at each step
    :raises OSError: the folder cannot be read
    """
    with os.scandir(bucket_fd) as entries:
        while some := list(islice(entries, AT_ONCE)):
            yield sum(map(_taken, some))


def _taken(entry: os.DirEntry[str]) -> int:
    # It may be taken away meanwhile.
    with suppress(FileNotFoundError):
        return taken_by(entry.stat(follow_symlinks=False))
    return 0


def taken_by(found: os.stat_result) -> int:
    """Bytes of a quota that something takes: what is no file takes none."""
    return found.st_size + FILE_COST if stat.S_ISREG(found.st_mode) else 0
