"""Tests of :mod:`filebucket.store.s3.sweep`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.s3 import sweep as module
from filebucket.store.s3.interfaces import DeniedError, UnsureError
from filebucket.store.s3.records import Keys, new_id
from filebucket.store.s3.sweep import MISSED, SETTLED, Fate, Sweep, Swept
from filebucket.test.kit.blocking import MemoryBucket, Objects
from filebucket.test.kit.properties import trying

DAY = 24 * 3600.0
NOW = 1_000_000_000.0
KEYS = Keys("p/")

NAMES = st.text(alphabet="ab!~0\xe4/".replace("/", ""), min_size=1, max_size=4)


class SweepCase(SynchronousTestCase):
    """An object store in memory, whose clock says NOW."""

    def setUp(self) -> None:
        self.names, self.data = MemoryBucket(), MemoryBucket()
        self.objects = Objects(KEYS, self.names, self.data)
        self.names.now = self.data.now = NOW
        self.slept: list[float] = []
        self.missed: set[str] = set()
        self.clock = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock += seconds

    def store(self, name: str, age: float = 2 * DAY, of: str = "web01") -> str:
        """Push a file, or replace it.

        :returns: the key of its data
        """
        self.names.now = self.data.now = NOW - age
        record = self.objects.store(of, name, b"content", NOW - age)
        self.names.now = self.data.now = NOW
        return record.data

    def leave(self, name: str, age: float = 2 * DAY, parts: bool = False) -> str:
        """Push a file that gets no record.

        :returns: the key of its data
        """
        key = KEYS.data("web01", name, new_id())
        self.data.objects[key] = b"left", NOW - age
        if parts:
            self.data.multipart.add(key)
        return key

    def made(self, rehearse: bool = False) -> Sweep:
        return Sweep(
            self.names,
            self.data,
            KEYS,
            "web01",
            DAY,
            lambda name: name in self.missed,
            rehearse,
            self.sleep,
            lambda: self.clock,
        )

    def sweep(self, rehearse: bool = False) -> list[Swept]:
        return list(self.made(rehearse).run())


class SweepTests(SweepCase):
    """Choosing and deleting."""

    def test_in_order(self) -> None:
        """If all data has records, lists are enough."""
        for number in range(50):
            self.store(f"{number}.gz")
        self.names.calls.clear()
        self.assertEqual([], self.sweep())
        self.assertEqual(["page"], [call for call, _ in self.names.calls])
        self.assertEqual(50, len(self.data.objects))

    def test_left(self) -> None:
        """Only data without a record goes."""
        kept = self.store("a")
        self.leave("a~b")
        self.leave("b")
        found = self.sweep()
        self.assertEqual(
            [
                Swept("a~b", 4, NOW - 2 * DAY, Fate.DELETED),
                Swept("b", 4, NOW - 2 * DAY, Fate.DELETED),
            ],
            found,
        )
        self.assertEqual([kept], list(self.data.objects))
        self.assertEqual([], self.sweep())

    def test_replaced(self) -> None:
        """The data of the push that was replaced goes, whichever id is less."""
        self.store("a")
        for _ in range(8):
            kept = self.store("a")
            self.assertEqual([Fate.DELETED], [each.fate for each in self.sweep()])
            self.assertEqual([kept], list(self.data.objects))

    def test_just_replaced(self) -> None:
        """An attacker who may put records of any time replaces all: the data of old
        files stays for a while.
        """
        old = self.store("a", 30 * DAY)
        new = self.store("a", DAY - 1)
        self.objects.store("web01", "a", b"junk", NOW - 40 * DAY)
        for rehearse in (True, False):
            found = {each.fate for each in self.sweep(rehearse)}
            self.assertEqual({Fate.YOUNG}, found)
        self.assertLessEqual({old, new}, self.data.objects.keys())
        self.names.now = self.data.now = NOW + DAY
        self.assertEqual({Fate.DELETED}, {each.fate for each in self.sweep()})
        self.assertEqual(1, len(self.data.objects))

    def test_names_are_lost(self) -> None:
        """The data of a file that the catalogue knows stays, unless it has another
        record: the records may be in another S3 bucket.
        """
        self.missed = {"a", "b"}
        self.store("a")
        self.leave("a")
        self.leave("b")
        parts = self.leave("b", parts=True)
        self.leave("c")
        found = {(each.name, each.fate, each.reason) for each in self.sweep()}
        self.assertEqual(
            {
                ("a", Fate.DELETED, ""),
                ("b", Fate.FAILED, MISSED),
                ("c", Fate.DELETED, ""),
            },
            found,
        )
        self.assertEqual(3, len(self.data.objects))
        self.assertIn(parts, self.data.objects)

    def test_young(self) -> None:
        """By the store's clock. The data of a record is not counted."""
        self.leave("a", DAY - 1)
        self.store("b", DAY - 1)
        self.leave("b", DAY - 1)
        self.leave("c", DAY)
        found = [(each.name, each.fate) for each in self.sweep()]
        self.assertEqual(
            [("a", Fate.YOUNG), ("b", Fate.YOUNG), ("c", Fate.DELETED)], found
        )
        self.assertEqual(3, len(self.data.objects))

    def test_dry_run(self) -> None:
        self.leave("a")
        self.leave("b", parts=True)
        found = self.sweep(rehearse=True)
        self.assertEqual([Fate.DELETED] * 2, [each.fate for each in found])
        self.assertEqual((2, 0), (len(self.data.objects), self.data.count("delete")))
        self.assertEqual([], self.slept)

    def test_other_objects(self) -> None:
        """Other buckets, and what no push has stored, are left alone."""
        others = (
            "p/data/web01/a",
            f"p/data/web01/a~{'g' * 32}",
            f"p/data/web01/a/b~{'0' * 32}",
            f"p/data/web01/~{'0' * 32}",
            f"p/data/web0/a~{'0' * 32}",
            f"p/data/web01-b/a~{'0' * 32}",
            f"data/web01/a~{'0' * 32}",
        )
        for key in others:
            self.data.objects[key] = b"other", 0.0
        self.assertEqual([], self.sweep())
        self.assertEqual(set(others), set(self.data.objects))

    def test_record_at_the_last_moment(self) -> None:
        """It is looked for right before each deletion."""
        key = self.leave("a")

        def publish(call: str, _: str) -> None:
            if call == "get":
                self.names.before = lambda *_: None
                record = self.objects.store("web01", "a", b"content", NOW)
                self.data.objects[key] = self.data.objects.pop(record.data)
                text = (
                    record.text()
                    .replace(record.data.encode(), key.encode())
                    .replace(record.id.encode(), key[-32:].encode())
                )
                self.names.put(KEYS.name("web01", "a"), text)

        self.names.before = publish
        self.assertEqual([], self.sweep())
        self.assertEqual([key], list(self.data.objects))

    def test_damaged_record(self) -> None:
        """Then nothing of that name is deleted."""
        self.leave("a")
        self.leave("a")
        self.names.put(KEYS.name("web01", "a"), b"{}")
        self.assertEqual([], self.sweep())
        self.assertEqual(2, len(self.data.objects))

    def test_fails(self) -> None:
        """An object that cannot be deleted is reported; one whose record cannot be
        looked for stays.
        """

        def refuse(call: str, key: str) -> None:
            if call in {"delete", "get"}:
                raise DeniedError("403 AccessDenied", "AccessDenied")

        self.leave("a")
        self.data.before = refuse
        (found,) = self.sweep()
        self.assertEqual((Fate.FAILED, "403 AccessDenied"), (found.fate, found.reason))
        self.data.before = lambda *_: None
        self.names.before = refuse
        self.assertEqual([Fate.FAILED], [each.fate for each in self.sweep()])
        self.assertEqual(1, len(self.data.objects))

    def test_out_of_reach(self) -> None:
        """Without the lists, nothing is deleted."""

        def fail(call: str, key: str) -> None:
            raise UnsureError("timeout")

        self.leave("a")
        for bucket in (self.names, self.data):
            bucket.before = fail
            self.assertRaises(UnsureError, self.sweep)
            bucket.before = lambda *_: None
        self.assertEqual(1, len(self.data.objects))


class PartsTests(SweepCase):
    """Objects made of parts, whose time may be that of the first part."""

    def test_about_to_be_published(self) -> None:
        """The push may put the record just now, so this waits and looks again."""
        key = self.leave("a", parts=True)
        gone = self.leave("b", parts=True)

        def publish(seconds: float) -> None:
            self.sleep(seconds)
            record = self.objects.store("web01", "a", b"content", NOW)
            del self.data.objects[record.data]
            text = record.text().replace(record.id.encode(), key[-32:].encode())
            self.names.put(KEYS.name("web01", "a"), text)

        sweep = self.made()
        sweep.sleep = publish
        self.assertEqual(["b"], [each.name for each in sweep.run()])
        self.assertEqual([SETTLED], self.slept)
        self.assertIn(key, self.data.objects)
        self.assertNotIn(gone, self.data.objects)

    def test_no_wait(self) -> None:
        """If there are none without a record."""
        self.data.multipart.update([self.store("a"), self.store("b", 1.0)])
        self.leave("c")
        self.assertEqual(1, len(self.sweep()))
        self.assertEqual([], self.slept)

    def test_many(self) -> None:
        """They wait together, but not too many."""
        self.patch(module, "AT_ONCE", 4)
        for number in range(10):
            self.leave(f"{number}", parts=True)
        self.assertEqual(10, len(self.sweep()))
        self.assertEqual([SETTLED] * 3, self.slept)


class OrderTests(SweepCase):
    """The lists of data and of records are in different orders."""

    @trying
    @given(
        st.lists(st.tuples(NAMES, st.integers(0, 3), st.booleans()), max_size=25),
        st.integers(1, 4),
    )
    def test_any_names(
        self, files: list[tuple[str, int, bool]], page_size: int
    ) -> None:
        """Only the data of records is left, after few requests."""
        self.setUp()
        self.names.page_size = self.data.page_size = page_size
        kept: dict[str, str] = {}
        left = 0
        for name, extra, published in files:
            for _ in range(extra):
                self.leave(name)
            left += extra
            if published:
                left += name in kept
                kept[name] = self.store(name)
        self.names.calls.clear()
        found = self.sweep()
        self.assertEqual(
            {Fate.DELETED} & {each.fate for each in found},
            {each.fate for each in found},
        )
        self.assertEqual(set(kept.values()), set(self.data.objects))
        # One for each object that goes, and one for what shares its name.
        self.assertLessEqual(self.names.count("get"), left + len(kept))

    def test_memory(self) -> None:
        """Of a million names, only those are kept that the next data may have."""
        for number in range(3000):
            self.store(f"{number:05}.gz")
            if number % 7 == 0:
                self.leave(f"{number:05}")
        most = 0
        real = module._Open.open

        def counted(these: module._Open[None], name: str, value: None) -> None:
            nonlocal most
            real(these, name, value)
            most = max(most, len(these.names))

        self.patch(module._Open, "open", counted)
        self.assertEqual(429, len(self.sweep()))
        self.assertLess(most, 8)
