"""``filebucket retire``."""

from __future__ import annotations

from filebucket.config.load import load
from filebucket.test.kit.commands import TOKEN, CliCase


class RetireTests(CliCase):
    def setUp(self) -> None:
        super().setUp()
        self.write({"name": "db", "token": TOKEN})

    def is_retired(self) -> bool:
        return load(str(self.file)).buckets[0].retired

    def test_retire(self) -> None:
        before = self.file.read_text()
        output = self.run_("retire", "db")
        self.assertEqual("Retired bucket db. The files stay.", output.splitlines()[0])
        self.assertTrue(self.is_retired())
        output = self.run_("retire", "--undo", "db")
        self.assertEqual("Put bucket db back into use.", output.splitlines()[0])
        self.assertFalse(self.is_retired())
        self.assertEqual(before, self.file.read_text())

    def test_twice(self) -> None:
        line = self.refused("retire", "--undo", "db")
        self.assertEqual("Error: bucket 'db' is not retired", line)
        self.run_("retire", "db")
        line = self.refused("retire", "db")
        self.assertEqual("Error: bucket 'db' is already retired", line)
