"""The store in memory, which other tests use, fulfills the contract of a store."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from filebucket.base.errors import Refusal
from filebucket.model.unfinished import Unfinished
from filebucket.test.kit.fakes import MemoryParts, MemoryStore
from filebucket.test.store.contract import (
    TOKEN,
    PartsCase,
    PartsContract,
    StoreCase,
    StoreContract,
    wait_for,
)


class MemoryCase(StoreCase):
    """Has a store in memory."""

    store: MemoryStore

    def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStore()

    def published(self) -> dict[str, bytes]:
        files = self.store.files.items()
        return {name: data for (bucket, name), data in files if bucket == TOKEN}

    def left_aside(self) -> int:
        return self.store.receiving


class MemoryStoreTests(StoreContract, MemoryCase):
    """The fake is as good as the real one."""

    def test_gate(self) -> None:
        """A write waits while the gate is shut."""
        self.store.gate = Deferred()
        writer = self.writer()
        write = Deferred.fromCoroutine(wait_for(writer.write([b"x"])))
        self.assertNoResult(write)
        self.store.gate.callback(None)
        self.successResultOf(write)

    def test_full(self) -> None:
        """A file that does not fit is refused while it is written."""
        self.store.room = 3
        writer = self.written(b"abc")
        self.assert_refused(507, writer.write([b"d"]))


class MemoryPartsTests(PartsContract, MemoryCase, PartsCase):
    """Nor can the fake of resumable uploads be told from the real ones."""

    parts: MemoryParts

    def setUp(self) -> None:
        super().setUp()
        self.parts = MemoryParts(self.store)

    def restart(self) -> list[Unfinished]:
        self.writers.clear()
        self.store.writers.clear()
        self.store.unfinished.clear()
        return self.loaded()

    def received(self) -> dict[str, bytes]:
        return self.parts.data

    def recorded(self) -> set[str]:
        return set(self.parts.records)

    def spoil(self, upload: Unfinished, data: bytes) -> None:
        self.parts.data[upload.id] = data

    def test_counted(self) -> None:
        """Bytes of the quota, for tests of others."""
        self.append(self.new(), b"abc")
        self.assertEqual({TOKEN: 4096 + 3}, self.parts.counted)

    def test_failure(self) -> None:
        """A disk error, for tests of others."""
        self.parts.failure = Refusal(503, "disk error on the server")
        upload = self.new()
        self.assert_refused(503, self.parts.record(TOKEN, upload))
        self.assert_refused(503, self.parts.finish(TOKEN, upload))
        self.assertEqual(set(), self.recorded())
