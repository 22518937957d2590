"""The store in real object stores fulfills the contract of a store.

The tests of the contract are synchronous. Each runs in a thread, and waits there for
the reactor.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from unittest import TestResult

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from filebucket.base.lines import Lines
from filebucket.base.threads import Threads
from filebucket.model.bucket import FILE_COST, FreeSpace
from filebucket.model.objects import LEAST_PART, S3
from filebucket.store.home import Home
from filebucket.store.interfaces import Receipt
from filebucket.store.s3.calls import Calls
from filebucket.store.s3.client import Objects
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.records import Keys, Record, new_id
from filebucket.store.s3.store import S3Store
from filebucket.test.kit import ceph, s3
from filebucket.test.kit.server import PATIENCE
from filebucket.test.store.contract import (
    NAME,
    TOKEN,
    StoreCase,
    StoreContract,
    sha256,
    wait_for,
)
from filebucket.test.store.s3.case import CountingRoom
from filebucket.test.whole.test_object_store import DATA, NAMES

T = TypeVar("T")

REACTOR: Any = reactor


class RealCase(StoreCase):
    """Has a store in a real object store. Runs in a thread."""

    store: S3Store
    no_room = 413

    def engine(self) -> tuple[str, s3.Credentials]:
        """The address of the object store, and its credentials."""
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.url, self.who = self.engine()
        for bucket in (NAMES, DATA):
            s3.call(self.url, self.who, "PUT", f"/{bucket}")
        # Nothing is deleted in between.
        self.keys = Keys(f"{new_id()}/")
        self.room = CountingRoom(FreeSpace(bytes=0))
        self.once: set[str] = set()
        self.in_reactor(self.make)

    def make(self) -> None:
        settings = S3((self.url,), NAMES, DATA, s3.REGION, part_size=LEAST_PART)
        credentials = Credentials(self.who.key, self.who.secret)
        self.calls = Calls(reactor, settings, lambda: credentials)
        self.threads = Threads(REACTOR, 8)
        self.store = S3Store(
            Home(os.path.abspath(self.mktemp()), Lines(self.threads, 4, reactor)),
            self.room,
            Objects(self.calls, NAMES),
            Objects(self.calls, DATA),
            self.keys,
            DATA,
            LEAST_PART,
            REACTOR,
            lambda: 0.0,
            lambda: "checked",
        )
        self.store.prepare()

    def tearDown(self) -> None:
        try:
            super().tearDown()
        finally:
            self.result(self.calls.close())
            self.in_reactor(self.threads.stopService)
            self.store.close()

    def in_reactor(self, call: Callable[[], T]) -> T:
        found: T = blockingCallFromThread(REACTOR, call)
        return found

    def made(self, wait: Awaitable[T]) -> Deferred[T]:
        try:
            found = self.in_reactor(lambda: Deferred.fromCoroutine(wait_for(wait)))
            return succeed(found)  # type: ignore[arg-type]
        except Exception:
            return fail()

    def records(self) -> dict[str, Record]:
        start, found = self.keys.names(TOKEN), {}
        for key in s3.keys(self.url, self.who, NAMES, start):
            _, text = s3.call(self.url, self.who, "GET", f"/{NAMES}/{key}")
            name = key.removeprefix(start)
            found[name] = Record.of(text, self.keys, TOKEN, name)
        self.once |= {each.data for each in found.values()}
        return found

    def published(self) -> dict[str, bytes]:
        return {
            name: s3.call(self.url, self.who, "GET", f"/{DATA}/{record.data}")[1]
            for name, record in self.records().items()
        }

    def left_aside(self) -> int:
        self.records()
        data = set(s3.keys(self.url, self.who, DATA, self.keys.all_data(TOKEN)))
        return len(self.room.open) or len(data - self.once)

    def push(
        self, content: bytes, overwrite: bool = False, name: str = NAME
    ) -> Receipt:
        receipt = super().push(content, overwrite, name)
        # It may be replaced before the next look.
        self.once.add(receipt.path)
        return receipt

    def assert_path(self, receipt: Receipt) -> None:
        self.assertEqual(self.records()[NAME].data, receipt.path)
        self.assertEqual(f"s3://{DATA}/{receipt.path}", receipt.url)


class RealContract(StoreContract, RealCase):
    """The contract, and what differs."""

    def test_quota_of_what_is_replaced(self) -> None:
        """A file counts until it is swept."""
        quota = 2 * FILE_COST + 10
        for size in (2, 8):
            writer = self.idle_writer(quota=quota)
            self.result(writer.write([bytes(size)]))
            self.once.add(self.result(writer.commit({}, overwrite=True)).path)
        writer = self.idle_writer(quota=quota)
        self.assert_refused(507, writer.begin(0, overwrite=True))

    def test_parts(self) -> None:
        """A large file is stored whole, or not at all."""
        content = os.urandom(2 * LEAST_PART + 12_345)
        self.assertEqual(sha256(content), self.push(content).sha256)
        self.assertEqual({NAME: content}, self.published())
        writer = self.writer(name="broken")
        for start in range(0, len(content), LEAST_PART // 2):
            self.result(writer.write([content[start : start + LEAST_PART // 2]]))
        self.assert_refused(422, writer.commit({"sha256": bytes(32)}, overwrite=True))
        self.result(writer.abort())
        self.assertEqual({NAME}, set(self.published()))
        query = {"uploads": "", "prefix": self.keys.prefix}
        _, listed = s3.call(self.url, self.who, "GET", f"/{DATA}", query)
        self.assertNotIn(b"<UploadId>", listed)


class Seaweed(RealContract):
    longest_name = 222

    def engine(self) -> tuple[str, s3.Credentials]:
        return s3.shared().url, s3.ACCOUNT

    def test_names(self) -> None:
        """Longer names are refused."""
        super().test_names()
        for size in (223, 255):
            writer = self.idle_writer(name="n" * size)
            self.result(writer.write([b"x"]))
            self.assert_refused(400, writer.commit({}, overwrite=False))


class Ceph(RealContract):
    def engine(self) -> tuple[str, s3.Credentials]:
        return ceph.named()


def run(case: type[SynchronousTestCase], name: str) -> None:
    """Run a test in this thread.

    :raises AssertionError: it failed
    """
    result = TestResult()
    case(name).run(result)
    for _, reason in result.skipped:
        raise SkipTest(reason)
    for _, text in (*result.errors, *result.failures):
        raise AssertionError(text)


def in_thread(name: str) -> Callable[[SeaweedTests], Deferred[None]]:
    """A test that runs another one in a thread."""

    def test(self: SeaweedTests) -> Deferred[None]:
        return deferToThread(run, self.case, name)

    return test


class SeaweedTests(TestCase):
    """SeaweedFS."""

    case: type[SynchronousTestCase] = Seaweed
    timeout = 2 * PATIENCE

    def setUp(self) -> None:
        # Before the reactor waits for a thread.
        s3.shared()


class CephTests(SeaweedTests):
    """Ceph, if the environment names one."""

    case = Ceph

    def setUp(self) -> None:
        ceph.named()


for each in dir(RealContract):
    if each.startswith("test_"):
        setattr(SeaweedTests, each, in_thread(each))

# Or they would run by themselves.
_CASES = (Seaweed, Ceph)
del RealCase, RealContract, Seaweed, Ceph
