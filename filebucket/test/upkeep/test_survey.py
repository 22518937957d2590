"""Comparing rows with files, for any implementation of an archive."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.store.interfaces import IArchive, IFolder
from filebucket.test.kit.fakes import MemoryArchive
from filebucket.test.upkeep.test_reindex import DAY, NOW, HomeCase
from filebucket.upkeep import survey
from filebucket.upkeep.reindex import reindex
from filebucket.upkeep.survey import Finding, Found, count_names
from filebucket.upkeep.verify import due, verify


class FoundTests(SynchronousTestCase):
    def test_in_order(self) -> None:
        self.assertEqual("", Found(files=3, read=2, bytes=1).text)

    def test_worst_first(self) -> None:
        found = Found(missing=1, damaged=2, stranger=1, left=3, stopped=True)
        self.assertEqual(
            "2 damaged, 1 missing, 1 unknown, 3 skipped, interrupted",
            found.text,
        )
        self.assertEqual("2 unknown", Found(stranger=2).text)


class ArchiveTests(HomeCase):
    """Only the archive's interfaces are used: files in memory will do."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = MemoryArchive({"web01": {}})
        self.there = self.archive.buckets["web01"]
        self.record(*map(self.received, ("a", "b", "c")))
        for name in ("a", "b", "c"):
            self.there[name] = (b"content", NOW - DAY)

    def compare(self) -> Found:
        self.findings = []
        return reindex(
            self.inventory,
            self.archive,
            self.buckets,
            lambda: self.now,
            report=self.findings.append,
        )

    def test_interfaces(self) -> None:
        verifyObject(IArchive, self.archive)
        with self.archive.open("web01") as folder:
            verifyObject(IFolder, folder)

    def test_reindex(self) -> None:
        """Missing, new and changed files are reported."""
        self.assertEqual("", self.compare().text)
        del self.there["a"]
        self.there["b"] = (b"other", NOW - DAY)
        self.there["d"] = (b"new", NOW - DAY)
        self.there["\n"] = (b"", NOW - DAY)
        self.compare()
        self.assertEqual(
            [("damaged", "b"), ("missing", "a"), ("stranger", "\n"), ("entered", "d")],
            self.kinds(),
        )
        self.there["a"] = (b"content", NOW - DAY)
        self.assertEqual(1, self.compare().back)

    def test_verify(self) -> None:
        """All due files are read, and differences are reported."""
        self.there["b"] = (b"c0ntent", NOW - DAY)
        found = verify(
            self.inventory,
            self.archive,
            self.buckets,
            self.buckets,
            due(self.inventory, self.buckets, self.now),
            lambda: self.now,
            report=self.findings.append,
        )
        self.assertEqual((3, 21, 1), (found.read, found.bytes, found.damaged))
        self.assertEqual(
            [
                Finding(
                    "damaged", "web01", "b", "content differs from what was received"
                )
            ],
            self.findings,
        )

    def test_pieces(self) -> None:
        """Work is done in batches, and the folder is opened for each batch of rows."""
        self.patch(survey, "PIECE", 2)
        opened: list[str] = []
        real = MemoryArchive.open

        def open_(archive: MemoryArchive, directory: str) -> object:
            opened.append(directory)
            return real(archive, directory)

        self.patch(MemoryArchive, "open", open_)
        self.assertEqual(3, self.compare().files)
        # Twice for batches of rows, and once for the names.
        self.assertEqual(3, opened.count("web01"))

    def test_count(self) -> None:
        """A bucket without a folder has no names."""
        other = evolve(self.bucket, directory="elsewhere")
        self.assertEqual(3, count_names(self.archive, [self.bucket, other]))
