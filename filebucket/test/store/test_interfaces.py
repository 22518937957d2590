"""The store in memory, which other tests use, fulfills the contract of a store."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from filebucket.test.kit.fakes import MemoryStore
from filebucket.test.store.contract import TOKEN, StoreCase, StoreContract, wait_for


class MemoryStoreTests(StoreContract, StoreCase):
    """The fake is as good as the real one."""

    store: MemoryStore

    def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStore()

    def published(self) -> dict[str, bytes]:
        files = self.store.files.items()
        return {name: data for (bucket, name), data in files if bucket == TOKEN}

    def left_aside(self) -> int:
        return self.store.receiving

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
