"""Files whose push began, and did not end, on this machine.

The server finds the unfinished upload of an earlier run by its SHA-256. Computing that
first takes time, so it is done only if an earlier run began to push this very file: it
left an empty file, a mark, in the user's folder for such state (XDG Base Directory
Specification).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


class Mark:
    """The mark of one file. Without a writable folder there is none."""

    def __init__(
        self,
        environ: Mapping[str, str],
        home: str,
        server: str,
        path: str,
        name: str,
        found: os.stat_result,
    ) -> None:
        """
        :param home: the user's home folder
        :param server: the server's address
        :param path: of the file
        :param name: of the file on the server
        :param found: the state of the file
        """
        folder = environ.get("XDG_STATE_HOME") or Path(home, ".local", "state")
        of = (server, os.path.abspath(path), name, found.st_size, found.st_mtime_ns)
        key = hashlib.sha256(repr(of).encode("utf-8", "surrogateescape")).hexdigest()
        self._path = Path(folder, "file-bucket", key)

    @property
    def is_there(self) -> bool:
        """Whether an earlier run left it."""
        # Path.exists() raises an error in a folder of another user.
        return os.path.exists(self._path)

    def leave(self) -> None:
        """The push begins."""
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch()

    def remove(self) -> None:
        """The push has ended."""
        with suppress(OSError):
            self._path.unlink()
