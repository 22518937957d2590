"""The scripts in docs/how-to/upgrading.rst, as they are written there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from urllib.error import HTTPError

from filebucket.catalogue import schema
from filebucket.test.kit.blocks import path_of
from filebucket.test.kit.server import OTHER, comes
from filebucket.test.kit.tree import TREE
from filebucket.test.whole.test_disaster import FILES, DisasterCase

BEFORE = "Before an upgrade"
CHANGES = "What an upgrade changes"
BACK = "Go back to an older version"

NEWER = schema.VERSION + 1


class UpgradingTests(DisasterCase):
    page = "upgrading.rst"

    def test_versions(self) -> None:
        """Each is described, and raised by the first command."""
        rows = re.findall(
            r"(?m)^(\d+)        ", (TREE / path_of(self.page)).read_text()
        )
        self.assertEqual(list(range(1, schema.VERSION + 1)), [int(n) for n in rows])
        self.succeeds("systemctl stop file-bucket")
        self.catalogue.unlink()
        with closing(sqlite3.connect(self.catalogue)) as oldest:
            oldest.executescript(schema.UPGRADES[0])
            oldest.execute("PRAGMA user_version = 1")
        self.assertEqual("1\n", self.version())
        self.succeeds("filebucket status --no-daemon")
        self.assertEqual(f"{schema.VERSION}\n", self.version())

    def version(self) -> str:
        return self.succeeds(self.script(CHANGES, "runuser"))

    def upgrade(self) -> None:
        """As a newer program does."""
        self.succeeds("systemctl stop file-bucket")
        with closing(sqlite3.connect(self.catalogue)) as opened:
            opened.execute("ALTER TABLE push ADD COLUMN newer")
            opened.execute(f"PRAGMA user_version = {NEWER}")
        self.assertEqual(f"{NEWER}\n", self.version())

    def test_back(self) -> None:
        """With the copy that was made before."""
        self.succeeds(self.script(BEFORE, "install"))
        self.push(OTHER, later=b"later\n")
        self.assertTrue(comes(lambda: self.pushes() == self.known("later")))
        self.upgrade()
        # The older program receives pushes nevertheless.
        self.sh("systemctl start file-bucket")
        self.push(OTHER, again=b"again\n")
        self.assertRaisesRegex(HTTPError, "503", self.push, OTHER, **FILES)
        line = self.script(BACK, "catalogue: ").strip()
        line = line.replace(f"version {schema.VERSION}", f"version {NEWER}")
        self.assertIn(line, self.log)
        self.assertEqual(3, self.sh("filebucket status").returncode)
        self.go_back(self.script(BACK, "install"))
        found = [(name, False) for name in ("again", "later")]
        self.assertEqual(sorted([*self.known(), *found]), self.pushes())

    def test_without_copy(self) -> None:
        self.upgrade()
        self.go_back("")
        found = sorted((name, False) for name in (*FILES, "other"))
        self.assertEqual(found, self.pushes())

    def go_back(self, copy: str) -> None:
        stop, _, again = self.script(BACK, "systemctl").splitlines()
        self.succeeds(f"{stop}\n{again}")
        self.succeeds(self.script(BACK, "cd ") + copy)
        newer = self.catalogue.parent / "newer" / self.catalogue.name
        self.assertTrue(newer.exists())
        # A key of a newer version.
        text = self.config.read_text()
        self.config.write_text(text.replace('"buckets"', '"newer": 1, "buckets"'))
        start = self.script(BACK, "filebucket check")
        self.assertIn("unknown key 'newer'", self.sh(start).stdout)
        self.config.write_text(text)
        self.succeeds(start)
