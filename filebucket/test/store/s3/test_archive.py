"""Tests of :mod:`filebucket.store.s3.archive`."""

from __future__ import annotations

import errno
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.interfaces import (
    DAMAGE,
    OUT_OF_REACH,
    Content,
    IArchive,
    NoFileError,
    UnsteadyError,
)
from filebucket.store.s3 import archive as module
from filebucket.store.s3.archive import SKEW, S3Archive
from filebucket.store.s3.interfaces import (
    DeniedError,
    NotThereError,
    ObjectError,
    UnsureError,
)
from filebucket.store.s3.records import Keys
from filebucket.test.kit.blocking import MemoryBucket, Objects
from filebucket.test.kit.fakes import MemoryArchive
from filebucket.test.store.archive_contract import AT, ArchiveContract, ignore


class ArchiveCase(SynchronousTestCase):
    """An object store in memory."""

    def setUp(self) -> None:
        self.names, self.data = MemoryBucket(), MemoryBucket()
        self.objects = Objects(Keys("p/"), self.names, self.data)
        self.home = MemoryArchive()
        self.archive = S3Archive(self.names, self.data, Keys("p/"), self.home)

    def make(self) -> IArchive:
        return self.archive

    def store(self, name: str, content: bytes, at: float = AT) -> None:
        self.objects.store("web01", name, content, at)

    def read(self, name: str, pace: Callable[[int], object] = ignore) -> Content:
        with self.archive.open("web01") as folder:
            return folder.read(name, pace)


class ContractTests(ArchiveCase, ArchiveContract):
    def setUp(self) -> None:
        ArchiveCase.setUp(self)
        ArchiveContract.setUp(self)


class FolderTests(ArchiveCase):
    """Names and records."""

    def test_foreign(self) -> None:
        """By the object that a daemon creates at its first start."""
        stored = [("web01", AT), ("web02", AT - 1)]
        self.assertTrue(self.archive.is_foreign(stored))
        for first_used, foreign in (
            (AT - 1, False),
            (AT + SKEW, False),
            (AT + SKEW + 1, True),
        ):
            self.names.objects["p/probe/condition"] = b"0", first_used
            self.assertIs(foreign, self.archive.is_foreign(stored))
        self.store("a", b"content")
        self.assertFalse(self.archive.is_foreign(stored))
        self.assertTrue(self.archive.is_foreign([("web02", AT)]))
        self.assertFalse(self.archive.is_foreign([]))

    def test_foreign_asks_little(self) -> None:
        """The first folder that has a file is enough."""
        self.store("a", b"content")
        stored = iter([("web01", AT), ("web02", AT)])
        self.assertFalse(self.archive.is_foreign(stored))
        self.assertEqual(("web02", AT), next(stored))

    def test_home(self) -> None:
        """It has the lock of prune, and the resumable uploads."""
        self.assertEqual([], self.archive.unfinished())
        with self.archive.unpruned() as idle:
            self.assertTrue(idle)

    def test_other_keys(self) -> None:
        """Only the records of this bucket are listed."""
        self.store("a", b"")
        self.objects.store("web", "b", b"", AT)
        self.objects.store("web01-b", "c", b"", AT)
        self.names.put("p/pruning/web01/d", b"")
        self.names.put("names/web01/e", b"")
        with self.archive.open("web01") as folder:
            self.assertEqual([[b"a"]], [list(each) for each in folder.list(10)])

    def test_long_list(self) -> None:
        """Pages of the store and those of the caller differ."""
        self.names.page_size = 4
        for number in range(11):
            self.store(f"{number:02}", b"")
        with self.archive.open("web01") as folder:
            sizes = [len(each) for each in folder.list(5)]
        self.assertEqual([5, 5, 1], sizes)

    def test_untouched(self) -> None:
        """By the list only; never if it was written later, or is not there."""
        for self.names.now, name in enumerate(("a", "b0", "b1", "d")):
            self.store(name, b"content")
        self.names.calls.clear()
        before = {"a": 0.5, "b0": 0.5, "b1": 3.0, "c": 9.0, "d": 9.0}
        with self.archive.open("web01") as folder:
            self.assertEqual({"a", "b1", "d"}, set(folder.untouched(before)))
            self.assertEqual(set(), set(folder.untouched({})))
            self.assertEqual({"b1"}, set(folder.untouched({"b1": 9.0})))
        self.assertEqual(["page", "page"], [call for call, _ in self.names.calls])

    def test_untouched_is_bounded(self) -> None:
        """Not all of a large bucket is listed for two files."""
        self.names.page_size = 2
        for number in range(100):
            self.store(f"{number:03}", b"")
        self.names.calls.clear()
        with self.archive.open("web01") as folder:
            found = folder.untouched({"000": AT, "099": AT})
        self.assertEqual({"000"}, set(found))
        self.assertEqual(module.MOST_PAGES, len(self.names.calls))

    def test_expected(self) -> None:
        """Records are read ahead, each once, also if names are passed over."""
        names = [f"{number:03}" for number in range(200)]
        for name in names:
            self.store(name, name.encode())
        self.names.calls.clear()
        with self.archive.open("web01") as folder:
            folder.expect(names)
            for name in names[::2]:
                self.assertEqual(3, folder.look(name).size)
            self.assertLessEqual(self.names.count("get"), 200)
            self.assertGreaterEqual(self.names.count("get"), 100)
            self.assertEqual(3, folder.look("000").size)

    def test_expected_and_gone(self) -> None:
        """Errors are those of the name that is looked at."""
        self.store("b", b"content")
        with self.archive.open("web01") as folder:
            folder.expect(["a", "b", "c"])
            self.assertRaises(NoFileError, folder.look, "a")
            self.assertEqual(7, folder.look("b").size)
            folder.expect(["a", "b"])
            self.assertEqual(7, folder.look("b").size)

    def test_no_record(self) -> None:
        """Another program wrote it: it is damage."""
        self.names.put("p/names/web01/a", b"{}")
        for call in ("look", "is_sealed"):
            with self.archive.open("web01") as folder:
                error = self.assertRaises(OSError, getattr(folder, call), "a")
            self.assertIn(error.errno, DAMAGE)
        self.assertIn(self.assertRaises(OSError, self.read, "a").errno, DAMAGE)


class LostTests(ArchiveCase):
    """Data that is not what its record says."""

    def test_no_data(self) -> None:
        """The file is lost, and the reason says how."""
        self.store("a", b"content")
        self.data.objects.clear()
        error = self.assertRaises(OSError, self.read, "a")
        self.assertIn(error.errno, DAMAGE)
        self.assertEqual("its data is not in the object store", error.strerror)

    def test_other_size(self) -> None:
        self.objects.store("web01", "a", b"content", AT, wrong=b"other content")
        error = self.assertRaises(OSError, self.read, "a")
        self.assertIn(error.errno, DAMAGE)
        self.assertEqual("its data has 13 bytes, and its record says 7", error.strerror)

    def test_other_content(self) -> None:
        """That is for the caller to judge."""
        self.objects.store("web01", "a", b"content", AT, wrong=b"CONTENT")
        found = self.read("a")
        self.assertNotEqual(found.stat.sha256, found.sha256)

    def test_replaced_meanwhile(self) -> None:
        """Then it is no loss: data goes after its record."""
        for gone in (True, False):
            self.store("a", b"content")

            def replace(call: str, key: str, gone: bool = gone) -> None:
                self.data.before = lambda *_: None
                del self.data.objects[key]
                if gone:
                    self.names.objects.clear()
                else:
                    self.store("a", b"newer content")

            self.data.before = replace
            self.assertRaises(UnsteadyError, self.read, "a")

    def test_deleted_while_it_is_read(self) -> None:
        """It can be read on only while the answer of the store lasts."""
        self.store("a", b"content")
        with self.archive.open("web01") as folder, folder.open("a") as file:
            self.assertEqual(b"con", file.piece(0, 3))
            self.data.objects.clear()
            self.assertEqual(b"tent", file.piece(3, 9))
            self.assertRaises(UnsteadyError, file.piece, 0, 3)

    def test_wrong_content_of_old_file(self) -> None:
        """Of a file that is replaced meanwhile nothing is said."""
        self.objects.store("web01", "a", b"content", AT, wrong=b"CONTENT")
        self.assertRaises(
            UnsteadyError, self.read, "a", lambda size: self.store("a", b"newer")
        )


class OutOfReachTests(ArchiveCase):
    """A store that does not answer, or refuses, says nothing about any file."""

    def break_(self, bucket: MemoryBucket, error: ObjectError) -> None:
        def fail(call: str, key: str) -> None:
            raise error

        bucket.before = fail

    def test_no_loss(self) -> None:
        """No number is that of a file that is missing or damaged."""
        for error, number in (
            (UnsureError("timeout"), OUT_OF_REACH),
            (DeniedError("403 AccessDenied", "AccessDenied"), errno.EREMOTEIO),
            (ObjectError("senseless"), errno.EREMOTEIO),
        ):
            for where in ("names", "data"):
                self.setUp()
                self.store("a", b"content")
                self.break_(getattr(self, where), error)
                with self.archive.open("web01") as folder:
                    calls: list[Callable[[], object]] = [
                        lambda: folder.read("a", ignore)
                    ]
                    if where == "names":
                        calls += [
                            lambda: folder.look("a"),
                            lambda: list(folder.list(10)),
                            lambda: folder.untouched({"a": AT}),
                        ]
                    for call in calls:
                        caught = self.assertRaises(OSError, call)
                        self.assertEqual(number, caught.errno)
                        self.assertEqual(str(error), caught.strerror)
        self.assertNotIn(OUT_OF_REACH, DAMAGE)
        self.assertNotIn(errno.EREMOTEIO, DAMAGE)

    def test_in_the_middle(self) -> None:
        """The same while a file is read, and ahead."""
        self.store("a", b"content")
        with self.archive.open("web01") as folder, folder.open("a") as file:
            self.break_(self.data, UnsureError("timeout"))
            error = self.assertRaises(OSError, file.piece, 3, 2)
            self.assertEqual(OUT_OF_REACH, error.errno)
            self.break_(self.names, UnsureError("timeout"))
            folder.expect(["a", "b"])
            error = self.assertRaises(OSError, folder.look, "a")
            self.assertEqual(OUT_OF_REACH, error.errno)

    def test_doubt_about_data(self) -> None:
        """If it cannot be found out whether the file was replaced, it is not lost."""
        self.store("a", b"content")
        self.data.objects.clear()
        self.data.before = lambda *_: self.break_(self.names, UnsureError("timeout"))
        error = self.assertRaises(OSError, self.read, "a")
        self.assertEqual(OUT_OF_REACH, error.errno)
        self.assertFalse(issubclass(UnsureError, NotThereError))
