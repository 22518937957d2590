"""Comparing rows with files, for any implementation of an archive."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.inventory import Inventory
from filebucket.model.records import Row
from filebucket.store.archive import DirectoryArchive
from filebucket.store.interfaces import IArchive, IFolder
from filebucket.store.s3.archive import S3Archive
from filebucket.store.s3.interfaces import DeniedError, ObjectError, UnsureError
from filebucket.store.s3.records import Keys
from filebucket.test.kit.blocking import MemoryBucket, Objects
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

    def test_check_reads_little(self) -> None:
        """Of a home's catalogue nothing: it is where the files are."""

        def rows(self: Inventory, *args: object) -> list[Row]:
            raise AssertionError

        self.patch(Inventory, "rows", rows)
        archive = DirectoryArchive(str(self.home))
        survey.check_store(self.inventory, archive, self.buckets)

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


class ObjectStoreTests(HomeCase):
    """Files in an object store."""

    def setUp(self) -> None:
        super().setUp()
        self.names, self.data = MemoryBucket(), MemoryBucket()
        self.objects = Objects(Keys(""), self.names, self.data)
        home = MemoryArchive()
        self.archive = S3Archive(self.names, self.data, self.objects.keys, home)
        self.names.now = self.data.now = NOW - DAY
        for name in ("a", "b", "c"):
            self.store(name)
            self.record(self.received(name))

    def store(
        self, name: str, content: bytes = b"content", at: float = NOW - DAY
    ) -> None:
        self.objects.store("web01", name, content, at)

    def compare(self, accept: bool = False) -> Found:
        self.findings = []
        self.names.calls.clear()
        self.data.calls.clear()
        return reindex(
            self.inventory,
            self.archive,
            self.buckets,
            lambda: self.now,
            report=self.findings.append,
            accept=accept,
        )

    def verify(self) -> Found:
        self.findings = []
        return verify(
            self.inventory,
            self.archive,
            self.buckets,
            self.buckets,
            due(self.inventory, self.buckets, self.now),
            lambda: self.now,
            report=self.findings.append,
        )

    def reach(self, *buckets: MemoryBucket, error: ObjectError | None = None) -> None:
        """Let buckets fail, or work again."""

        def fail(call: str, key: str) -> None:
            if error is not None:
                raise error

        for each in buckets:
            each.before = fail

    def test_in_order(self) -> None:
        """A list is enough."""
        self.assertEqual(Found(files=3), self.compare())
        self.assertEqual({"page"}, {call for call, _ in self.names.calls})
        self.assertEqual([], self.data.calls)

    def test_another_store(self) -> None:
        """Its S3 bucket for names was first used after all files were stored: then none
        of them is missing.
        """
        mine = dict(self.names.objects)
        self.names.objects.clear()
        for first_used in (None, NOW):
            if first_used is not None:
                self.names.objects["probe/condition"] = b"0", first_used
            for run in (self.compare, self.verify):
                error = self.assertRaises(CatalogueError, run)
                self.assertIn("names_bucket", str(error))
        self.names.objects.update(mine)
        self.assertEqual(Found(files=3), self.compare())
        self.names.objects.clear()
        self.assertEqual(3, self.compare(accept=True).missing)

    def test_all_lost(self) -> None:
        """From the S3 bucket that the daemon has used all the time."""
        self.names.objects = {"probe/condition": (b"0", NOW - DAY)}
        self.assertEqual(3, self.compare().missing)

    def test_differences(self) -> None:
        """Records are added without reading their data; others are missing."""
        del self.names.objects["names/web01/a"]
        self.store("d", b"new", NOW - DAY / 2)
        self.names.put("names/web01/e", b"{}")
        self.compare()
        self.assertEqual(
            [("missing", "a"), ("unreadable", "e"), ("entered", "d")], self.kinds()
        )
        self.assertEqual([], self.data.calls)
        entered = self.files()[-1].received
        self.assertEqual(self.received("d", b"new").sha256, entered.sha256)
        self.assertEqual((3, NOW - DAY / 2), (entered.size, entered.received_at))
        self.store("a")
        self.assertEqual(1, self.compare().back)

    def test_all_anew(self) -> None:
        """The catalogue is rebuilt from records only."""
        self.buckets = [evolve(self.bucket, directory="web02"), self.nameless]
        for number in range(2500):
            name = f"{number:04}.gz"
            self.objects.store("web02", name, b"content", NOW - DAY)
        found = self.compare()
        self.assertEqual((2500, 0), (found.entered, found.read))
        self.assertEqual([], self.data.calls)

    def test_replaced(self) -> None:
        """A record of another push counts only if pushes may overwrite."""
        self.names.now = NOW - 100
        self.store("b", b"other content", NOW - 100)
        self.compare()
        self.assertEqual([("damaged", "b")], self.kinds())
        self.overwrite()
        self.store("c", b"newer content", NOW - 100)
        self.compare()
        self.assertEqual([("replaced", "c")], self.kinds())
        self.assertEqual(0, self.data.count("open"))

    def test_accepted_damage_is_read(self) -> None:
        """The record does not show whether the damage is gone."""
        data = [key for key in self.data.objects if key.startswith("data/web01/b~")]
        self.data.put(data[0], b"CONTENT")
        self.assertEqual(1, self.verify().damaged)
        self.assertEqual(0, self.compare().damaged)
        self.compare(accept=True)
        self.assertEqual([("replaced", "b")], self.kinds())

    def test_lost_data(self) -> None:
        """It is damage. The other files are verified."""
        data = [key for key in self.data.objects if key.startswith("data/web01/b~")]
        del self.data.objects[data[0]]
        found = self.verify()
        self.assertEqual((2, 1), (found.read, found.damaged))
        text = "its data is not in the object store"
        self.assertEqual([Finding("damaged", "web01", "b", text)], self.findings)

    def test_out_of_reach(self) -> None:
        """Then no file is missing or damaged, whatever is known already."""
        errors = UnsureError("timeout"), DeniedError("403", "AccessDenied")
        for error in errors:
            for buckets in ((self.names, self.data), (self.names,), (self.data,)):
                self.reach(*buckets, error=error)
                for found in (self.compare(), self.verify()):
                    self.assertEqual((0, 0), (found.missing, found.damaged))
                found = self.verify()
                self.assertLess(0, found.unreadable)
                self.reach(*buckets)
        self.assertEqual({"kept"}, {fate for _, fate in self.fates()})
        self.assertEqual(3, self.verify().read)

    def test_gives_up(self) -> None:
        """Not each of a million files waits for a store that does not answer."""
        names = [f"{number:03}" for number in range(50)]
        for name in names:
            self.store(name)
        self.record(*map(self.received, names))
        self.reach(self.data, error=UnsureError("timeout"))
        found = self.verify()
        self.assertEqual(survey.MOST_OUT_OF_REACH, found.unreadable)
        self.assertTrue(found.stopped)
        # One that answers and refuses is asked for all.
        self.reach(self.data, error=DeniedError("403", "AccessDenied"))
        found = self.verify()
        self.assertEqual((53, False), (found.unreadable, found.stopped))

        def fail(call: str, key: str) -> None:
            if call == "get":
                raise UnsureError("timeout")

        self.overwrite()
        self.names.before = fail
        found = self.compare()
        self.assertEqual(survey.MOST_OUT_OF_REACH + 1, found.unreadable)
