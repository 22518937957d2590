"""Tests of the checks at a start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from filebucket.base.errors import OperatorError
from filebucket.model.objects import S3
from filebucket.store.s3 import probe as module
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    DeniedError,
    NotThereError,
    ObjectError,
    UnsureError,
)
from filebucket.store.s3.probe import (
    DELETES,
    HOW,
    RACERS,
    TRIES,
    IProbed,
    ProbedBucket,
    check,
    may_delete,
    probe,
    within,
)
from filebucket.store.s3.records import Keys
from filebucket.test.kit.blocking import MemoryBucket
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import PATIENCE

KEYS = Keys("p/")
DENIED = DeniedError("s3.example.com answered 403 AccessDenied", "AccessDenied")
GONE = DeniedError("s3.example.com answered 404 NoSuchBucket", "NoSuchBucket")


@implementer(IProbed)
@define
class ProbedMemory(MemoryBucket):
    """A bucket in memory.

    :ivar heeds: whether conditions are heeded
    :ivar deletes: whether the credentials may delete
    :ivar errors: raised by calls, by their names; each once
    :ivar uploads: multipart uploads in progress
    """

    heeds: bool = True
    deletes: bool = False
    errors: dict[str, list[ObjectError]] = field(factory=dict)
    uploads: set[str] = field(factory=set)
    _lock: threading.Lock = field(factory=threading.Lock)

    def _called(self, call: str, key: str) -> None:
        super()._called(call, key)
        if self.errors.get(call):
            raise self.errors[call].pop(0)

    def put_new(self, key: str, content: bytes) -> None:
        with self._lock:
            self._called("put", key)
            if self.heeds and key in self.objects:
                raise AlreadyThereError("s3.example.com answered 412")
            self.objects[key] = content, self.now

    def begin(self, key: str) -> str:
        self._called("begin", key)
        self.uploads.add("id")
        return "id"

    def abandon(self, key: str, upload: str) -> None:
        self._called("abandon", key)
        self.uploads.remove(upload)

    def delete_nothing(self, keys: Keys) -> None:
        self._called("delete", "")
        if not self.deletes:
            raise DENIED


class ProbeTests(SynchronousTestCase):
    """The store in memory."""

    def setUp(self) -> None:
        self.names = ProbedMemory("S3 bucket names")
        self.data = ProbedMemory("S3 bucket data")
        self.buckets = (self.names, self.data)
        self.gateways: dict[str, ProbedMemory] = {}
        self.risks: tuple[str, ...] = ()

    def probe(self, writes: bool = False) -> str:
        found = probe(self.names, self.data, KEYS, self.gateways, writes)
        self.risks = found.risks
        return found.how

    def assert_fails(self, *wanted: str, writes: bool = False) -> None:
        error = self.assertRaises(OperatorError, self.probe, writes)
        for each in wanted:
            self.assertIn(each, str(error))
        self.assertEqual(1, len(str(error).splitlines()))

    def test_in_order(self) -> None:
        """One object stays, also after several starts."""
        for _ in range(3):
            self.assertEqual(HOW, self.probe())
        self.assertEqual({"p/probe/condition"}, set(self.names.objects))
        self.assertEqual(({}, set()), (self.data.objects, self.data.uploads))
        self.assertEqual(3 * (RACERS + 1), self.names.count("put"))
        self.assertEqual((), self.risks)
        # To try once tells enough.
        self.assertEqual([3, 3], [each.count("delete") for each in self.buckets])

    def test_writing(self) -> None:
        """For check, one more object stays, with content that was written now."""
        for _ in range(2):
            self.assertEqual(HOW, self.probe(writes=True))
        self.assertEqual({"p/probe/data"}, set(self.data.objects))
        # Without a volume, SeaweedFS can still read, and begin an upload in parts.
        full = UnsureError("s3.example.com answered 500 InternalError")
        self.data.errors["put"] = [full]
        self.assertEqual(HOW, self.probe())
        self.assert_fails("S3 bucket data: s3.example.com answered 500", writes=True)
        self.data.errors["put"] = [DENIED]
        self.assert_fails("S3 bucket data", "needed: s3:PutObject", writes=True)

    def test_written_not_shown(self) -> None:
        """An object of an earlier check proves nothing."""
        self.probe(writes=True)
        content = self.data.objects["p/probe/data"]

        def forget(call: str, key: str) -> None:
            if call == "get" and key == "p/probe/data":
                self.data.objects[key] = content

        self.data.before = forget
        self.assert_fails("data does not show what was written", writes=True)

    def test_condition_ignored(self) -> None:
        self.names.heeds = False
        self.assert_fails("S3 bucket names", "If-None-Match")

    def test_race_lost(self) -> None:
        """A store that creates an object twice in a race heeds the condition later."""
        self.names.heeds = False

        def heed(call: str, key: str) -> None:
            self.names.heeds = self.names.count("put") > RACERS

        self.names.before = heed
        self.assert_fails("If-None-Match")

    def test_condition_unknown(self) -> None:
        """It is tried again, but never believed without a proof."""
        lost = UnsureError("s3.example.com answered 503")
        self.names.errors["put"] = [lost] * (RACERS + TRIES - 1)
        self.names.objects["p/probe/condition"] = b"", 0.0
        self.assertEqual(HOW, self.probe())
        self.names.errors["put"] = [lost] * (RACERS + TRIES)
        self.assert_fails("answered 503")

    def gateway(self, name: str, **settings: Any) -> ProbedMemory:
        """Another gateway of the store."""
        found = ProbedMemory("S3 bucket names", self.names.objects, **settings)
        self.gateways[name] = found
        return found

    def test_gateways(self) -> None:
        for name in "abc":
            self.gateway(name)
        for _ in range(2):
            self.assertEqual(HOW, self.probe())
        self.assertEqual(
            {"p/probe/condition", "p/probe/gateways"}, set(self.names.objects)
        )

    def test_gateway_ignores_condition(self) -> None:
        """One of another version."""
        self.gateway("a")
        self.gateway("b", heeds=False)
        self.assert_fails("b ignores If-None-Match")

    def test_gateway_of_another_store(self) -> None:
        """It has an object of an earlier start, and perhaps copies others late."""
        self.gateway("a")
        lagging = self.gateway("b")
        lagging.objects = {"p/probe/condition": (b"", 0.0)}
        self.assert_fails("b does not show what a has written")
        lagging.objects["p/probe/gateways"] = b"0" * 32, 0.0
        self.assert_fails("b does not show what a has written")

    def test_another_daemon_starts(self) -> None:
        """It writes in between."""
        self.gateway("a")
        second = self.gateway("b")

        def write(call: str, key: str) -> None:
            if call == "get" and second.count("get") < TRIES:
                self.names.objects[key] = b"1" * 32, 0.0

        second.before = write
        self.assertEqual(HOW, self.probe())

    def test_gateway_is_down(self) -> None:
        """The daemon starts, and the log shows it."""
        for name in "abc":
            self.gateway(name)
        lost = UnsureError("b cannot be reached")
        self.gateways["b"].errors["put"] = [lost]
        with capturedLogs() as events:
            self.assertEqual(HOW, self.probe())
        (event,) = events
        self.assertEqual("store-gateway", event["event"])
        self.assertIn("cannot check b: b cannot be reached", formatEvent(event))
        self.assertIn("p/probe/gateways", self.names.objects)
        self.gateways["b"].errors["put"] = [GONE]
        self.assert_fails("NoSuchBucket")

    def test_versions(self) -> None:
        self.names.keeps_versions = True
        self.assert_fails("S3 bucket names keeps versions")
        self.names.keeps_versions, self.data.keeps_versions = False, True
        self.probe()

    def test_versions_unknown(self) -> None:
        """The daemon starts, and logs that this could not be checked."""
        self.names.errors["versioned"] = [DENIED]
        with capturedLogs() as events:
            self.assertEqual(HOW, self.probe())
        (event,) = events
        self.assertEqual("store-unproven", event["event"])
        self.assertIn("S3 bucket names keeps no versions: s3", formatEvent(event))
        risk = f"S3 bucket names may keep versions: {DENIED}"
        self.assertEqual((risk,), self.risks)

    def test_may_delete(self) -> None:
        """The daemon starts, and the log shows it."""
        for bucket in self.buckets:
            self.assertFalse(may_delete(bucket, KEYS))
            bucket.deletes = True
            with capturedLogs() as events:
                self.assertEqual(HOW, self.probe())
            (event,) = events
            self.assertEqual("store-deletes", event["event"])
            self.assertIn(f"{bucket.place}: the daemon's", formatEvent(event))
            self.assertEqual((f"{bucket.place}: {DELETES}",), self.risks)
            bucket.deletes = False

    def test_may_delete_unknown(self) -> None:
        """Only an answer counts. Some stores may answer 404."""
        for error, found in (
            (UnsureError("lost"), False),
            (GONE, False),
            (NotThereError("404", "NoSuchKey"), True),
        ):
            self.names.errors["delete"] = [error]
            self.assertEqual(found, may_delete(self.names, KEYS))

    def test_errors(self) -> None:
        """Each is told with the bucket, and with the right that is missing."""
        for bucket, call, right in (
            (self.names, "get", "s3:GetObject"),
            (self.data, "get", "s3:GetObject"),
            (self.names, "put", "s3:PutObject"),
            (self.data, "begin", "s3:PutObject"),
            (self.data, "abandon", "s3:AbortMultipartUpload"),
        ):
            for error, hint in ((DENIED, f"(needed: {right}"), (GONE, "NoSuchBucket")):
                bucket.errors[call] = [error] * (1 + RACERS)
                if call == "get":
                    bucket.errors[call] = [error]
                self.assert_fails(f"{bucket.place}: {error}"[:30], hint)
                bucket.errors.clear()
                self.data.uploads.clear()
        lost = UnsureError("the connection was lost")
        self.names.errors["versioned"] = [lost]
        self.assert_fails("S3 bucket names: the connection was lost")

    def test_unexpected(self) -> None:
        """An object with the key that is expected to be free does not matter."""
        self.names.objects["p/probe/nothing"] = b"x", 0.0
        self.assertEqual(HOW, self.probe())


class WithinTests(SynchronousTestCase):
    """A time limit."""

    def test_result(self) -> None:
        self.assertEqual("done", within(PATIENCE, lambda: "done"))

    def test_error(self) -> None:
        def fail() -> str:
            raise OperatorError("as it is")

        error = self.assertRaises(OperatorError, within, PATIENCE, fail)
        self.assertEqual("as it is", str(error))

    def test_too_long(self) -> None:
        """A call that hangs is left behind."""
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        hang: Callable[[], str] = lambda: str(go_on.wait(PATIENCE))  # noqa: E731
        error = self.assertRaises(OperatorError, within, 0.01, hang)
        self.assertEqual(
            "the object store did not answer within 0.01 seconds", str(error)
        )


class RealTests(SynchronousTestCase):
    """Real connections."""

    def test_unreachable(self) -> None:
        self.patch(module, "LIMIT", PATIENCE)
        self.patch(ProbedBucket, "_repeated", lambda _, call: call())
        (port,) = free_ports(1)
        s3 = S3((f"http://127.0.0.1:{port}",), "names", "data")
        error = self.assertRaises(
            OperatorError, check, s3, Credentials("key", "secret"), KEYS
        )
        self.assertIn(f"127.0.0.1:{port} cannot be reached", str(error))
