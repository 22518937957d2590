"""Tests of :mod:`filebucket.upkeep.restore`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from attrs import define, evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from filebucket.catalogue.interfaces import IFiles
from filebucket.model.bucket import Bucket
from filebucket.model.records import Drill, File, Received
from filebucket.model.series import is_series
from filebucket.model.state import State
from filebucket.model.token import Token
from filebucket.store.interfaces import Content, Stat
from filebucket.upkeep.restore import (
    RECENT,
    NoGoodFileError,
    choose,
    difference,
    faults,
)

BUCKET = Bucket((Token(b"x" * 32),), "web01", "web01")


@implementer(IFiles)
@define
class MemoryFiles:
    """Files of one bucket, oldest first."""

    files: list[File]

    def named(self, bucket: str, name: str) -> File | None:
        return next((each for each in self.files if each.received.name == name), None)

    def is_missed(self, bucket: str, name: str) -> bool:
        return self.named(bucket, name) is not None

    def newest_first(
        self, bucket: str, series: str | None = None, until: float = math.inf
    ) -> Iterator[File]:
        for each in reversed(self.files):
            received = each.received
            if received.received_at < until and (
                series is None or is_series(received.series, series)
            ):
                yield each

    def oldest_first(
        self,
        bucket: str,
        after: tuple[float, int] = (-math.inf, 0),
        series: str | None = None,
    ) -> Iterator[File]:
        found = reversed(list(self.newest_first(bucket, series)))
        return (each for each in found if (each.received.received_at, each.id) > after)

    def drilled(self, drill: Drill) -> bool:
        return False


def file(number: int, size: int = 100, series: str = "db-#", **given: Any) -> File:
    name = series.replace("#", str(number))
    received = Received(
        "web01", series, name, size, "0" * 64, float(number), request="r"
    )
    return File(number, received, **given)


class FaultsTests(SynchronousTestCase):
    def test_each(self) -> None:
        for given, expected in (
            ({}, []),
            ({"judgement": "grown"}, []),
            ({"judgement": "shrunk"}, ["shrunk"]),
            ({"damaged": True}, ["damaged"]),
            ({"fate_at": 1.0}, ["being pruned"]),
            ({"size": 0, "judgement": "empty"}, ["empty"]),
            ({"size": 0, "damaged": True}, ["damaged", "empty"]),
        ):
            self.assertEqual(expected, faults(file(1, **given)), given)


class ChooseTests(SynchronousTestCase):
    def chosen(self, *files: File, **given: Any) -> tuple[str, tuple[str, ...]]:
        found = choose(MemoryFiles(list(files)), BUCKET, self.hide, **given)
        return found.file.received.name, found.warnings

    def hide(self, name: str) -> str:
        return name.replace("token", "***")

    def refused(self, *files: File, **given: Any) -> str:
        error = self.assertRaises(NoGoodFileError, self.chosen, *files, **given)
        return str(error)

    def test_interface(self) -> None:
        verifyObject(IFiles, MemoryFiles([]))

    def test_newest(self) -> None:
        self.assertEqual(("db-2", ()), self.chosen(file(1), file(2)))
        self.assertEqual(("db-1", ()), self.chosen(file(1), file(2), until=2.0))

    def test_each_fault(self) -> None:
        """A newer file with a fault is passed over, and told."""
        bad = [
            file(5, damaged=True),
            file(4, size=0),
            file(3, judgement=State.SHRUNK),
            file(2, fate_at=9.0),
        ]
        for each in bad:
            name, (warning,) = self.chosen(file(1), each)
            self.assertEqual("db-1", name)
            self.assertIn("skipped 1 newer file that may be bad", warning)
        _, warnings = self.chosen(file(1), *bad[::-1])
        self.assertEqual(
            ("skipped 4 newer files that may be bad: db-5 is damaged",), warnings
        )

    def test_checksum_not_of_push(self) -> None:
        """A checksum that reindex computed shows no damage from before."""
        found = file(1)
        received = evolve(found.received, request=None)
        for wanted in (None, "db-1"):
            name, (warning,) = self.chosen(
                evolve(found, received=received), wanted=wanted
            )
            self.assertEqual("db-1", name)
            self.assertEqual(
                "the checksum of db-1 is from the disk, not from its push: damage from"
                " before the catalogue knew the file cannot be detected",
                warning,
            )

    def test_series(self) -> None:
        files = [file(1), file(2, series="etc")]
        for wanted, name in (("db-#", "db-1"), ("d*", "db-1"), ("etc", "etc")):
            self.assertEqual((name, ()), self.chosen(*files, wanted=wanted))

    def test_name(self) -> None:
        """It may be suspicious, and then there is a warning."""
        files = [file(1, judgement=State.SHRUNK, fate_at=1.0), file(2)]
        self.assertEqual(
            ("db-1", ("db-1 is shrunk and being pruned",)),
            self.chosen(*files, wanted="db-1"),
        )

    def test_damaged(self) -> None:
        files = [file(1, damaged=True), file(2)]
        self.assertIn("--damaged", self.refused(*files, wanted="db-1"))
        found = self.chosen(*files, wanted="db-1", even_damaged=True)
        self.assertEqual(("db-1", ("db-1 is damaged",)), found)
        text = self.refused(*files, wanted="db-#", even_damaged=True)
        self.assertIn("no file with exactly this name", text)

    def test_none(self) -> None:
        """The reason: none at all, none in that time, or none that is good."""
        late = (
            "from that time: --at is when a file, or its copy, arrived on this server"
        )
        for text, files, given in (
            ("web01: there is no file", [], {}),
            (f"web01: there is no file {late}", [file(5)], {"until": 5.0}),
            (
                "web01 x-***: there is no file or series of that name",
                [file(5)],
                {"wanted": "x-token"},
            ),
            (
                f"web01 db-5: there is no file or series of that name {late}",
                [file(5)],
                {"wanted": "db-5", "until": 5.0},
            ),
            (
                "web01: there is no good file; *** is empty",
                [file(5, series="token", size=0)],
                {},
            ),
        ):
            found = self.refused(*files, **given)
            self.assertTrue(found.startswith(text), found)
            self.assertEqual(
                text.endswith((" name", " server")),
                found.endswith("; 'filebucket files' lists the files"),
            )

    def test_impossible_name(self) -> None:
        for name in ("../a", "", "a\n"):
            each = file(1)
            each = evolve(each, received=evolve(each.received, name=name))
            self.assertIn("the catalogue has an invalid entry", self.refused(each))
            self.assertIn(
                "the catalogue has an invalid entry", self.refused(each, wanted=name)
            )

    def test_impossible_row(self) -> None:
        """A command gets them, too, and cannot be started with such."""
        fine = file(1).received
        for received in (
            evolve(fine, series="a\0b"),
            evolve(fine, sha256="0" * 63 + "\0"),
        ):
            each = evolve(file(1), received=received)
            self.assertIn("the catalogue has an invalid entry", self.refused(each))


class DifferenceTests(SynchronousTestCase):
    def differs(self, size: int, sha256: str, age: float = 9 * RECENT) -> str:
        stat = Stat(size, 0.0, 1000.0 - age, object())
        return difference(file(1), Content(size, sha256, stat), 1000.0)

    def test_each(self) -> None:
        for size, sha256, age, expected in (
            (100, "0" * 64, 1e3, ""),
            (100, "0" * 64, 0.0, ""),
            (100, "1" * 64, 1e3, "its content differs from what was received"),
            (99, "1" * 64, 1e3, "99 bytes on disk, but 100 were received"),
            (99, "0" * 64, 1e3, "99 bytes on disk, but 100 were received"),
            (99, "1" * 64, RECENT / 2, "try again in a minute"),
        ):
            found = self.differs(size, sha256, age)
            self.assertTrue(found.endswith(expected) and bool(found) == bool(expected))
