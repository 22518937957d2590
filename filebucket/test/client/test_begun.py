"""Marks of files whose push began."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.client.begun import Mark

SERVER = "http://backup:1234"


class MarkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.home.mkdir()
        self.path = self.home / "db.gz"
        self.path.write_bytes(b"data")

    def mark(self, name: str = "db.gz", server: str = SERVER, **environ: str) -> Mark:
        return Mark(
            environ, str(self.home), server, str(self.path), name, self.path.stat()
        )

    def test_left(self) -> None:
        """A later run finds it, until it is removed."""
        self.assertFalse(self.mark().is_there)
        self.mark().leave()
        self.mark().leave()
        self.assertTrue(self.mark().is_there)
        (mark,) = (self.home / ".local/state/file-bucket").iterdir()
        self.assertEqual(b"", mark.read_bytes())
        self.assertEqual(0o700, mark.parent.stat().st_mode & 0o777)
        self.mark().remove()
        self.mark().remove()
        self.assertFalse(self.mark().is_there)

    def test_this_push(self) -> None:
        """Another file, name or server has another mark."""
        self.mark().leave()
        self.assertFalse(self.mark(name="other").is_there)
        self.assertFalse(self.mark(server="http://other").is_there)
        os.utime(self.path, ns=(1, 1))
        self.assertFalse(self.mark().is_there)
        self.mark().leave()
        self.path.write_bytes(b"more data")
        os.utime(self.path, ns=(1, 1))
        self.assertFalse(self.mark().is_there)
        self.path = self.path.rename(self.home / "moved")
        self.assertFalse(self.mark().is_there)

    def test_relative(self) -> None:
        """The working folder of a run does not matter."""
        self.mark().leave()
        self.path = Path(os.path.relpath(self.path))
        self.assertTrue(self.mark().is_there)

    def test_other_folder(self) -> None:
        state = str(self.home / "state")
        self.mark(XDG_STATE_HOME=state).leave()
        self.assertFalse(self.mark().is_there)
        self.assertTrue(self.mark(XDG_STATE_HOME=state).is_there)

    def test_strange_names(self) -> None:
        """Names that are not UTF-8 are names, too."""
        mark = self.mark(name="\udcff\n")
        mark.leave()
        self.assertTrue(self.mark(name="\udcff\n").is_there)

    def test_not_writable(self) -> None:
        """Without a folder there is no mark, and the push goes on."""
        for folder in (self.path, self.home / ("a" * 256)):
            mark = self.mark(XDG_STATE_HOME=str(folder))
            mark.leave()
            self.assertFalse(mark.is_there)
            mark.remove()
