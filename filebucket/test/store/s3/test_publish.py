"""Tests of records: answers that are lost, and races with other pushes and prune."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.interfaces import NameTaken
from filebucket.store.s3.interfaces import (
    DeniedError,
    FullError,
    NotSentError,
    ObjectError,
    UnsureError,
)
from filebucket.store.s3.publish import MARKED, PAUSE, SETTLE, TURN, Names, Published
from filebucket.store.s3.records import Keys, Record, new_id
from filebucket.test.kit.objects import DENIED, LOST, MemoryObjects
from filebucket.test.store.contract import wait_for

T = TypeVar("T")

KEYS = Keys("p/")
KEY = KEYS.name("web01", "file")
MARK = KEYS.mark("web01", "file")


def record(size: int = 7) -> Record:
    """A record of a new push."""
    identity = new_id()
    data = KEYS.data("web01", "file", identity)
    return Record(identity, data, size, "ab" * 32, 5.0)


class NamesCase(SynchronousTestCase):
    """Has records in memory."""

    def setUp(self) -> None:
        self.objects, self.clock = MemoryObjects(), Clock()
        self.names = Names(self.objects, KEYS, self.clock)
        self.own = record()

    def done(self, wait: Awaitable[T]) -> Deferred[T]:
        """The result of a call, after any time."""
        done = Deferred.fromCoroutine(wait_for(wait))
        for _ in range(int(10 * SETTLE / PAUSE)):
            if done.called:
                break
            self.clock.advance(PAUSE)
        return done

    def result(self, wait: Awaitable[T]) -> T:
        return self.successResultOf(self.done(wait))

    def assert_fails(self, kind: type[Exception], wait: Awaitable[object]) -> Exception:
        error: Exception = self.failureResultOf(self.done(wait), kind).value
        self.assertIs(kind, type(error))
        return error

    def create(self) -> Awaitable[Published]:
        return self.names.create("web01", "file", self.own)

    def replace(self) -> Awaitable[Published]:
        return self.names.replace("web01", "file", self.own)

    def put(self, other: Record) -> None:
        """Another process publishes a file."""
        self.objects.objects[KEY] = other.text()

    def assert_published(self, wanted: Record) -> None:
        self.assertEqual({KEY: wanted.text()}, self.objects.objects)


class FindTests(NamesCase):
    """Look up a name."""

    def find(self) -> Awaitable[Record | None]:
        return self.names.find("web01", "file")

    def test_found(self) -> None:
        self.assertIsNone(self.result(self.find()))
        self.assertTrue(self.result(self.names.is_free("web01", "file")))
        self.put(self.own)
        self.assertEqual(self.own, self.result(self.find()))
        self.assertFalse(self.result(self.names.is_free("web01", "file")))

    def test_lost_answer(self) -> None:
        """It is asked again, but not forever."""
        self.put(self.own)
        self.objects.fail("get", times=3)
        self.assertEqual(self.own, self.result(self.find()))
        self.objects.fail("get", times=1000)
        self.assert_fails(UnsureError, self.find())
        self.assertLessEqual(self.clock.seconds(), 2 * SETTLE)

    def test_hangs(self) -> None:
        """A call is cancelled when the time is over."""
        for _ in range(3):
            self.objects.hang("get")
        self.assert_fails(UnsureError, self.find())
        self.assertLessEqual(self.clock.seconds(), SETTLE + PAUSE)

    def test_reason(self) -> None:
        """The last try, which is cut off, does not hide what is wrong."""
        self.objects.fail("get", UnsureError("cannot connect"), times=50)
        self.objects.hang("get")
        error = self.assert_fails(UnsureError, self.find())
        self.assertEqual("cannot connect", str(error))

    def test_denied(self) -> None:
        """A refusal is no answer, and not asked again."""
        self.objects.fail("get", DENIED)
        self.assert_fails(DeniedError, self.find())
        self.objects.fail("get", DENIED)
        self.assert_fails(DeniedError, self.names.is_free("web01", "file"))
        self.assertEqual({"get": 2}, self.objects.counted)

    def test_other_content(self) -> None:
        """A name is taken whatever its record is."""
        self.objects.objects[KEY] = b"{}"
        self.assert_fails(ObjectError, self.find())
        self.assertFalse(self.result(self.names.is_free("web01", "file")))


class CreateTests(NamesCase):
    """Publish under a free name."""

    def test_create(self) -> None:
        """It takes one call."""
        self.assertFalse(self.result(self.create()).replaced)
        self.assert_published(self.own)
        self.assertEqual([f"create {KEY}"], self.objects.calls)

    def test_taken(self) -> None:
        other = record()
        self.put(other)
        self.assert_fails(NameTaken, self.create())
        self.assert_published(other)

    def test_answer_lost(self) -> None:
        """The record shows that it was published."""
        for times in (1, 3):
            self.objects.objects.clear()
            self.objects.lose("create", times=times)
            self.result(self.create())
            self.assert_published(self.own)

    def test_call_lost(self) -> None:
        """It is published by a later try."""
        self.objects.fail("create", times=2)
        self.objects.fail("create", NotSentError("no connection"))
        self.result(self.create())
        self.assert_published(self.own)
        self.assertEqual({"create": 4}, self.objects.counted)

    def test_call_lost_and_name_taken(self) -> None:
        """Another push may have been faster."""
        other = record()
        self.objects.fail("create")
        self.put(other)
        self.assert_fails(NameTaken, self.create())
        self.assert_published(other)

    def test_repeated_by_a_proxy(self) -> None:
        """A first answer that the name is taken may be about this push itself."""
        self.put(self.own)
        self.result(self.create())

    def test_one_hangs(self) -> None:
        """There is time for another gateway, with each of the calls."""
        for name in ("get", "create"):
            self.objects.objects.clear()
            self.objects.hang(name)
            self.assertTrue(self.result(self.names.is_free("web01", "file")))
            self.result(self.create())
            self.assert_published(self.own)

    def test_never_settled(self) -> None:
        """The time is bounded. The record stays, if there is one."""
        self.objects.lose("create", times=1000)
        self.objects.fail("get", times=1000)
        self.assert_fails(UnsureError, self.create())
        self.assert_published(self.own)
        self.assertLessEqual(self.clock.seconds(), SETTLE + PAUSE)

    def test_hangs(self) -> None:
        """A call that hangs is cancelled, and counts as unsure."""
        for _ in range(3):
            self.objects.hang("create")
        self.assert_fails(UnsureError, self.create())
        self.assertLessEqual(self.clock.seconds(), SETTLE + PAUSE)

    def test_denied(self) -> None:
        """A refusal is final."""
        full = FullError("the store answered 507", "StorageFull")
        for error in (DENIED, full):
            self.objects.fail("create", error)
            self.assertIs(error, self.assert_fails(type(error), self.create()))
        self.assertEqual({"create": 2}, self.objects.counted)

    def test_denied_after_lost(self) -> None:
        """Only the second call was refused; the first may have had its effect."""
        self.objects.lose("create")
        self.objects.fail("create", DENIED)
        error = self.assert_fails(UnsureError, self.create())
        assert isinstance(error, UnsureError)
        self.assertEqual("AccessDenied", error.code)

    def test_pruned_meanwhile(self) -> None:
        """The name was taken, and is free again when its record is read."""
        self.put(record())

        def prune(call: str) -> None:
            if call == f"get {KEY}":
                self.objects.objects.clear()

        self.objects.before = prune
        self.result(self.create())
        self.assert_published(self.own)


class ReplaceTests(NamesCase):
    """Publish and overwrite."""

    def test_free(self) -> None:
        self.assertFalse(self.result(self.replace()).replaced)
        self.assert_published(self.own)
        self.assertEqual([f"create {KEY}", f"get {MARK}"], self.objects.calls)

    def test_replaces(self) -> None:
        self.put(record())
        self.assertTrue(self.result(self.replace()).replaced)
        self.assert_published(self.own)
        self.assertEqual({"create": 1, "get": 3, "put": 1}, self.objects.counted)

    def test_lost(self) -> None:
        """Lost calls and answers are settled."""
        for lose in (self.objects.lose, self.objects.fail):
            self.own = record()
            for name in ("create", "put", "get"):
                lose(name)
            self.put(record())
            self.assertTrue(self.result(self.replace()).replaced)
            self.assert_published(self.own)

    def test_never_settled(self) -> None:
        self.put(record())
        self.objects.fail("put", times=1000)
        self.assert_fails(UnsureError, self.replace())
        self.assertLessEqual(self.clock.seconds(), SETTLE + PAUSE)

    def test_order(self) -> None:
        """Of pushes that overwrite each other, the last one has the largest number."""
        first = self.result(self.create())
        gate = self.objects.hang("put")
        self.own = record()
        second = Deferred.fromCoroutine(wait_for(self.replace()))
        self.own = record()
        third = Deferred.fromCoroutine(wait_for(self.replace()))
        self.assertNoResult(second)
        self.assertNoResult(third)
        gate.callback(None)
        orders = [each.order for each in map(self.successResultOf, (second, third))]
        self.assertLess(first.order, orders[0])
        self.assertLess(orders[0], orders[1])
        self.assert_published(self.own)

    def test_turn_never_comes(self) -> None:
        """The wait for other pushes is bounded."""
        self.result(self.create())
        waiting = []
        for _ in range(8):
            self.objects.hang("put")
            self.own = record()
            waiting.append(Deferred.fromCoroutine(wait_for(self.replace())))
        self.clock.pump([PAUSE] * int((TURN + SETTLE) / PAUSE))
        for each in waiting:
            self.failureResultOf(each, UnsureError, NotSentError)
        self.assertEqual({}, self.names._turns)

    def test_turns_end(self) -> None:
        """Nothing is kept of a name that no push overwrites any more."""
        self.result(self.replace())
        self.objects.fail("create", DENIED)
        self.assert_fails(DeniedError, self.replace())
        self.assertEqual({}, self.names._turns)


class PruneTests(NamesCase):
    """Overwriting pushes while prune deletes the old file."""

    def setUp(self) -> None:
        super().setUp()
        self.old = record()
        self.put(self.old)
        self.objects.objects[MARK] = b""

    def start(self) -> Deferred[Published]:
        done = Deferred.fromCoroutine(wait_for(self.replace()))
        self.assertNoResult(done)
        self.assertEqual(self.own.text(), self.objects.objects[KEY])
        return done

    def prune_ends(self) -> None:
        del self.objects.objects[MARK]
        self.clock.advance(PAUSE)

    def test_prune_sees_it(self) -> None:
        """Prune finds the new record, and deletes nothing."""
        done = self.start()
        self.prune_ends()
        self.assertTrue(self.successResultOf(done).replaced)
        self.assert_published(self.own)

    def test_prune_deletes_it(self) -> None:
        """Prune has read the old record, and deletes the new one: publish it again."""
        done = self.start()
        del self.objects.objects[KEY]
        self.prune_ends()
        self.assertTrue(self.successResultOf(done).replaced)
        self.assert_published(self.own)

    def test_prune_ends_before_its_mark_is_read(self) -> None:
        """Prune has read the old record, deletes the new one, and is done."""
        times = iter((True,))

        def prune(call: str) -> None:
            if call == f"get {MARK}" and next(times, False):
                del self.objects.objects[MARK], self.objects.objects[KEY]

        self.objects.before = prune
        self.assertTrue(self.result(self.replace()).replaced)
        self.assert_published(self.own)

    def test_replaced_meanwhile(self) -> None:
        """Another push has overwritten it, as any later push may."""
        done = self.start()
        later = record()
        self.put(later)
        self.prune_ends()
        self.successResultOf(done)
        self.assert_published(later)

    def test_taken_after_prune(self) -> None:
        """Another push took the name after prune deleted this one's record."""
        done = self.start()
        del self.objects.objects[KEY]
        other = record()

        def push(call: str) -> None:
            if call == f"create {KEY}":
                self.objects.before = lambda _: None
                self.put(other)

        self.objects.before = push
        self.prune_ends()
        self.assertTrue(self.successResultOf(done).replaced)
        self.assert_published(self.own)

    def test_marked_again(self) -> None:
        """A record that is published again is looked at again."""
        done = self.start()
        del self.objects.objects[KEY]

        def mark(call: str) -> None:
            if call == f"create {KEY}":
                self.objects.before = lambda _: None
                self.objects.objects[MARK] = b""

        self.objects.before = mark
        self.prune_ends()
        self.assertNoResult(done)
        del self.objects.objects[KEY]
        self.prune_ends()
        self.successResultOf(done)
        self.assert_published(self.own)

    def test_prune_hangs(self) -> None:
        """The wait is bounded."""
        self.assert_fails(UnsureError, self.replace())
        self.assertLessEqual(self.clock.seconds(), MARKED + PAUSE)
        # The file is there, but it may be gone any moment.
        self.assertEqual(self.own.text(), self.objects.objects[KEY])

    def test_mark_unreadable(self) -> None:
        """As is the wait for an answer about the mark."""
        self.objects.lose("get", LOST, times=1000)
        self.assert_fails(UnsureError, self.replace())

    def test_free_name(self) -> None:
        """A record that is created is looked at, too."""
        del self.objects.objects[KEY]
        done = self.start()
        del self.objects.objects[KEY]
        self.prune_ends()
        self.assertFalse(self.successResultOf(done).replaced)
        self.assert_published(self.own)
