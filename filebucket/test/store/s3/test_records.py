"""Keys and records of the object store."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.s3.records import MOST_RECORD, Keys, Record, new_id

KEYS = Keys("backups/")
ID = "0123456789abcdef" * 2
RECORD = Record(ID, f"backups/data/web/db.gz~{ID}", 3, "ab" * 32, 1234.5)


class KeysTests(SynchronousTestCase):
    def test_keys(self) -> None:
        self.assertEqual("backups/names/web/db.gz", KEYS.name("web", "db.gz"))
        self.assertEqual(RECORD.data, KEYS.data("web", "db.gz", ID))
        self.assertEqual("backups/pruning/web/db.gz", KEYS.mark("web", "db.gz"))

    def test_prefixes(self) -> None:
        """What lists the objects of a bucket lists no others: a folder's name may
        begin with another one's."""
        self.assertEqual("backups/names/web/", KEYS.names("web"))
        self.assertEqual("backups/data/web/", KEYS.all_data("web"))
        self.assertEqual("backups/data/", KEYS.all_data())
        self.assertEqual("backups/pruning/", KEYS.all_marks())

    def test_new_id(self) -> None:
        self.assertRegex(new_id(), "^[0-9a-f]{32}$")
        self.assertNotEqual(new_id(), new_id())


class RecordTests(SynchronousTestCase):
    def read(self, text: bytes, name: str = "db.gz") -> Record:
        return Record.of(text, KEYS, "web", name)

    def test_round_trip(self) -> None:
        for record in (RECORD, evolve(RECORD, size=0, time=3.0)):
            self.assertEqual(record, self.read(record.text()))

    def test_unicode(self) -> None:
        record = evolve(RECORD, data=KEYS.data("web", "über 1.gz", ID))
        self.assertEqual(record, self.read(record.text(), "über 1.gz"))

    def test_longest(self) -> None:
        """A record of the longest name is not too large."""
        name = "\U0001f600" * 63
        record = evolve(RECORD, data=KEYS.data("b" * 255, name, ID), size=2**63 - 1)
        self.assertLess(len(record.text()), MOST_RECORD)

    def test_later_version(self) -> None:
        """Members that a later version adds are passed over."""
        text = json.dumps({**json.loads(RECORD.text()), "new": [1]})
        self.assertEqual(RECORD, self.read(text.encode()))

    def test_another_file(self) -> None:
        """A record that was copied to another name publishes nothing there."""
        with self.assertRaisesRegex(ValueError, "not one of file-bucket's"):
            self.read(RECORD.text(), "other.gz")

    def test_not_a_record(self) -> None:
        changes: list[dict[str, Any]] = [
            {"id": "x" * 32},
            {"id": 1},
            {"data": "backups/data/web/other"},
            {"size": -1},
            {"size": "3"},
            {"size": True},
            {"size": 1e99},
            {"sha256": "ab"},
            {"time": float("nan")},
            {"time": "now"},
            {"time": None},
        ]
        for change in changes:
            text = json.dumps({**json.loads(RECORD.text()), **change})
            with self.assertRaisesRegex(ValueError, "its record"):
                self.read(text.encode())
        for text in ("", "null", "[]", "{}", "[" * 100_000, "\udc80"):
            with self.assertRaisesRegex(ValueError, "its record cannot be read"):
                self.read(text.encode("utf-8", "surrogateescape"))
