"""Tests of :mod:`filebucket.store.s3.remove`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.base.errors import OperatorError
from filebucket.model.objects import S3
from filebucket.store.interfaces import (
    OUT_OF_REACH,
    IRemovals,
    IRemover,
    NoFileError,
    UnsettledError,
)
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    DeniedError,
    NotThereError,
    ObjectError,
    UnsureError,
)
from filebucket.store.s3.publish import PAUSE, Names
from filebucket.store.s3.records import Keys
from filebucket.store.s3.remove import SETTLED, S3Remover, deleting, remover_of
from filebucket.test.kit.blocking import MemoryBucket, Objects

AT = 1_000_000.0
KEYS = Keys("p/")
RECORD = KEYS.name("web01", "a")
MARK = KEYS.mark("web01", "a")


class RemoveCase(SynchronousTestCase):
    """An object store in memory, with a file."""

    def setUp(self) -> None:
        self.names, self.data = MemoryBucket(), MemoryBucket()
        self.objects = Objects(KEYS, self.names, self.data)
        self.remover = S3Remover(self.names, self.data, KEYS)
        self.record = self.objects.store("web01", "a", b"content", AT)

    def remove(self, objection: Callable[[], str | None] = lambda: None) -> str | None:
        with self.remover.open("web01") as folder:

            def looked() -> str | None:
                folder.look("a")
                return objection()

            found: str | None = folder.remove("a", looked)
            return found

    def let_fail(
        self,
        bucket: MemoryBucket,
        error: BaseException,
        call: str,
        key: str,
        late: bool,
    ) -> None:
        """Let a call fail.

        :param late: whether it has its effect all the same
        """

        def fail(made: str, of: str) -> None:
            if (made, of) == (call, key):
                if late:
                    bucket.objects.pop(of, None)
                raise error

        bucket.before = fail


class RemoveTests(RemoveCase):
    def test_interfaces(self) -> None:
        verifyObject(IRemover, self.remover)
        with self.remover.open("web01") as folder:
            verifyObject(IRemovals, folder)
            self.assertFalse(folder.is_sealed("a"))
            self.assertEqual(7, folder.look("a").size)
            self.assertRaises(NoFileError, folder.look, "b")
            folder.sync()

    def test_removed(self) -> None:
        """Record, mark and data go, in this order; other files stay."""
        other = self.objects.store("web01", "b", b"content", AT)
        self.names.calls.clear()
        self.data.calls.clear()
        self.assertIsNone(self.remove())
        self.assertEqual(
            [("put", MARK), ("get", RECORD), ("delete", RECORD), ("delete", MARK)],
            self.names.calls,
        )
        self.assertEqual([("delete", self.record.data)], self.data.calls)
        self.assertEqual([KEYS.name("web01", "b")], list(self.names.objects))
        self.assertEqual([other.data], list(self.data.objects))

    def test_without_a_look(self) -> None:
        with self.remover.open("web01") as folder:
            self.assertIsNone(folder.remove("a", lambda: None))
        self.assertEqual({}, self.names.objects)

    def test_looks_after_the_mark(self) -> None:
        """Not at a record that was read ahead, which a push may have replaced since."""
        with self.remover.open("web01") as folder:
            for name in ("b", "c"):
                self.objects.store("web01", name, b"content", AT)
            folder.expect(["b", "a", "c"])
            folder.look("b")
            newer = self.objects.store("web01", "a", b"newer", AT)
            found = folder.remove("a", lambda: f"{folder.look('a').size} bytes")
            self.assertEqual("5 bytes", found)
            self.assertIn(newer.data, self.data.objects)

    def test_objection(self) -> None:
        """The file stays, and no mark does."""
        self.assertEqual("no", self.remove(lambda: "no"))
        self.assertEqual([RECORD], list(self.names.objects))
        self.assertEqual([self.record.data], list(self.data.objects))

    def test_objection_fails(self) -> None:
        def fail() -> str | None:
            raise OperatorError("the configuration")

        self.assertRaises(OperatorError, self.remove, fail)
        self.assertEqual([RECORD], list(self.names.objects))

    def test_refused(self) -> None:
        """The file stays, and no mark does."""
        error = DeniedError("403 AccessDenied", "AccessDenied")
        self.let_fail(self.names, error, "delete", RECORD, late=False)
        caught = self.assertRaises(OSError, self.remove)
        self.assertNotIsInstance(caught, UnsettledError)
        self.assertEqual([RECORD], list(self.names.objects))
        self.assertEqual([self.record.data], list(self.data.objects))

    def test_no_mark(self) -> None:
        """Without a mark nothing is deleted."""
        for error in (DeniedError("403"), UnsureError("timeout")):
            self.let_fail(self.names, error, "put", MARK, late=False)
            self.assertRaises(OSError, self.remove)
            self.assertEqual([RECORD], list(self.names.objects))

    def test_no_answer(self) -> None:
        """If the record is gone, the file is removed."""
        error = UnsureError("timeout")
        self.let_fail(self.names, error, "delete", RECORD, late=True)
        self.assertIsNone(self.remove())
        self.assertEqual({}, self.names.objects)
        self.assertEqual({}, self.data.objects)

    def test_unsettled(self) -> None:
        """If the record is still there, it may go later: the mark stays, so that no
        push replaces it, and the data stays.
        """
        self.let_fail(self.names, UnsureError("timeout"), "delete", RECORD, late=False)
        caught = self.assertRaises(UnsettledError, self.remove)
        self.assertEqual(OUT_OF_REACH, caught.errno)
        self.assertEqual({RECORD, MARK}, set(self.names.objects))
        self.assertEqual([self.record.data], list(self.data.objects))

    def test_killed(self) -> None:
        """Whenever that happens, the file is whole or its record is gone."""
        for call, key in (
            ("put", MARK),
            ("get", RECORD),
            ("delete", RECORD),
            ("delete", MARK),
        ):
            for late in (False, True) if call == "delete" else (False,):
                self.setUp()
                self.let_fail(self.names, KeyboardInterrupt(), call, key, late)
                self.assertRaises(KeyboardInterrupt, self.remove)
                if RECORD in self.names.objects:
                    self.assertIn(self.record.data, self.data.objects)
                if (call, key) == ("delete", RECORD):
                    self.assertIn(MARK, self.names.objects)

    def test_data_stays(self) -> None:
        """If only the data cannot be deleted, the file is removed all the same."""
        for error in (DeniedError("403"), UnsureError("timeout")):
            self.setUp()
            self.let_fail(self.data, error, "delete", self.record.data, late=False)
            self.assertIsNone(self.remove())
            self.assertEqual({}, self.names.objects)


class BeginTests(RemoveCase):
    """Old marks."""

    def setUp(self) -> None:
        super().setUp()
        self.slept: list[float] = []
        self.names.now = 1000.0

    def test_none(self) -> None:
        self.remover.begin(self.slept.append)
        self.assertEqual([], self.slept)

    def test_old(self) -> None:
        """They go, from all pages, and nothing else does. However old they are, the
        store may have come back just now, with the deletion that they are for.
        """
        self.names.page_size = 2
        for name in "abcde":
            self.names.put(KEYS.mark("web01", name), b"")
        self.names.now += 10 * SETTLED

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.assertIn(MARK, self.names.objects)

        self.remover.begin(sleep)
        self.assertEqual([RECORD], list(self.names.objects))
        self.assertEqual([SETTLED], self.slept)

    def test_out_of_reach(self) -> None:
        """Then prune does not begin."""

        def fail(call: str, key: str) -> None:
            raise UnsureError("timeout")

        self.names.before = fail
        error = self.assertRaises(OperatorError, self.remover.begin, self.slept.append)
        self.assertEqual("the object store: timeout", str(error))


@define
class Stepped:
    """An S3 bucket as a push uses it, whose calls wait for steps."""

    bucket: MemoryBucket
    clock: Clock = field(factory=Clock)
    _waiting: deque[Deferred[None]] = field(factory=deque)

    def step(self) -> None:
        """Let the next call have its effect, or some time pass."""
        if self._waiting:
            self._waiting.popleft().callback(None)
        else:
            self.clock.advance(PAUSE)

    async def _turn(self) -> dict[str, tuple[bytes, float]]:
        wait: Deferred[None] = Deferred()
        self._waiting.append(wait)
        await wait
        return self.bucket.objects

    async def put(self, key: str, body: MemoryBody, only_new: bool = False) -> None:
        objects = await self._turn()
        if only_new and key in objects:
            raise AlreadyThereError("412")
        objects[key] = body.content, AT

    async def get(self, key: str, most: int) -> bytes:
        objects = await self._turn()
        if key not in objects:
            raise NotThereError("404 NoSuchKey", "NoSuchKey")
        return objects[key][0]


class RaceTests(RemoveCase):
    """A push replaces the file while prune removes it."""

    def test_every_order(self) -> None:
        """Of its calls and those of prune: the push is never lost."""
        for steps in product(range(6), repeat=4):
            self.setUp()
            newer = self.objects.store("web01", "b", b"newer", AT)
            data = KEYS.data("web01", "a", newer.id)
            record = evolve(newer, data=data)
            objects: Any = Stepped(self.names)
            names = Names(objects, KEYS, objects.clock)
            push = Deferred.fromCoroutine(names.replace("web01", "a", record))
            left = iter(steps)

            def advance(
                call: str,
                key: str,
                step: Callable[[], None] = objects.step,
                left: Iterator[int] = left,
            ) -> None:
                for _ in range(next(left)):
                    step()

            self.names.before = advance
            with self.remover.open("web01") as folder:

                def looked(folder: IRemovals = folder) -> str | None:
                    size = folder.look("a").size
                    return None if size == 7 else "another file"

                folder.remove("a", looked)
            for _ in range(20):
                objects.step()
            self.successResultOf(push)
            self.assertEqual(record.text(), self.names.objects[RECORD][0], steps)
            self.assertNotIn(MARK, self.names.objects)


class CredentialsTests(SynchronousTestCase):
    """Of their own, which only root reads."""

    STORE = S3(("http://127.0.0.1:1",), "names", "data")

    def test_none(self) -> None:
        error = self.assertRaises(OperatorError, deleting, self.STORE)
        self.assertIn("$.store.s3.delete_credentials", str(error))

    def test_file(self) -> None:
        path = Path(self.mktemp())
        path.write_text(
            "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n"
        )
        store = S3(("http://x",), "names", "data", delete_credentials=str(path))
        remover = remover_of(store, deleting(store))
        self.assertNotEqual(remover.names.place, remover.data.place)
        path.unlink()
        error = self.assertRaises(OperatorError, deleting, store)
        self.assertIn("No such file or directory", str(error))
        self.assertTrue(issubclass(DeniedError, ObjectError))
