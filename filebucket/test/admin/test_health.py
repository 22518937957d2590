"""/healthz."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from filebucket.admin.health import Hanging, Health
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.model.filesystem import Filesystem
from filebucket.model.problem import WARNING, Kind, Problem, store_outage
from filebucket.test.kit.fakes import at_once

DISK = Filesystem(total=1000, free=100, reserved=20, read_only=False)


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ready = True
        self.disk: Filesystem | OSError = DISK
        self.unreadable: str | None = None
        self.unwritable: str | None = None
        self.stuck = 0
        self.problems: list[Problem] = []
        self.elsewhere = False

    def look(self) -> Filesystem:
        if isinstance(self.disk, OSError):
            raise self.disk
        return self.disk

    def read(self, function: Callable[[IView], object]) -> Deferred[object]:
        if self.unreadable is None:
            return succeed(None)
        return fail(CatalogueError(self.unreadable))

    def ask(self) -> tuple[int, str]:
        health = Health(
            lambda: self.ready,
            at_once,
            self.look,
            self.read,
            lambda: self.unwritable,
            lambda: Hanging(self.stuck, 64),
            lambda: self.problems,
            self.elsewhere,
        )
        answer = self.successResultOf(Deferred.fromCoroutine(health()))
        return answer.status, answer.content.decode()

    def test_ok(self) -> None:
        """ok, down to the last free byte."""
        self.assertEqual((200, "ok\n"), self.ask())
        self.disk = evolve(DISK, free=21)
        self.assertEqual((200, "ok\n"), self.ask())

    def test_each_reason(self) -> None:
        self.ready = False
        self.assertEqual((503, "the daemon is starting or stopping\n"), self.ask())
        self.ready = True
        self.disk = evolve(DISK, free=20)
        less = "the home: free space is below min_free_space\n"
        self.assertEqual((503, less), self.ask())
        self.disk = evolve(DISK, read_only=True)
        self.assertEqual((503, "the home: the filesystem is read-only\n"), self.ask())
        self.disk = evolve(DISK, full_of_files=True)
        self.assertEqual((503, "the home: no free inodes\n"), self.ask())
        self.disk = OSError(5, "Input/output error", "/srv/secret")
        self.assertEqual((503, "the home: Input/output error\n"), self.ask())

    def test_stuck(self) -> None:
        """Stuck threads are a warning; they are a reason if no thread is left."""
        told = "of 64 threads have been waiting for a disk for 60 seconds\n"
        self.stuck = 3
        self.assertEqual((200, f"ok\n3 {told}"), self.ask())
        self.ready = False
        starting = "the daemon is starting or stopping\n"
        self.assertEqual((503, f"{starting}3 {told}"), self.ask())
        self.ready, self.stuck = True, 64
        self.assertEqual((503, f"64 {told}"), self.ask())

    def test_set_aside(self) -> None:
        """Reserved space above the free space is a warning."""
        self.disk = evolve(DISK, set_aside=80)
        self.assertEqual((200, "ok\n"), self.ask())
        self.disk = evolve(DISK, set_aside=81)
        told = "the home: the space reserved by pushes exceeds the free space\n"
        self.assertEqual((200, f"ok\n{told}"), self.ask())

    def test_all_reasons(self) -> None:
        self.ready = False
        self.disk = OSError(5, "Input/output error", "/srv/secret")
        self.unreadable = "no"
        self.unwritable = "disk I/O error"
        self.assertEqual(
            (
                503,
                "the daemon is starting or stopping\n"
                "the home: Input/output error\n"
                "the catalogue cannot be written: disk I/O error\n"
                "the catalogue cannot be read: no\n",
            ),
            self.ask(),
        )

    def test_outage(self) -> None:
        """If several daemons share the object store, it is a warning."""
        self.problems = [
            Problem(Kind.RELOAD, WARNING, "a reload is due"),
            store_outage("no answer"),
        ]
        told = "no push can be stored: no answer\n"
        self.assertEqual((503, told), self.ask())
        self.elsewhere = True
        self.assertEqual((200, f"ok\n{told}"), self.ask())

    def test_database(self) -> None:
        """Pushes go on without a database of several daemons; it is not asked."""
        self.elsewhere = True
        self.unreadable = "no"
        self.assertEqual((200, "ok\n"), self.ask())
        self.unwritable = "no answer"
        told = "the catalogue cannot be written: no answer\n"
        self.assertEqual((200, f"ok\n{told}"), self.ask())
