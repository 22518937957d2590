"""The client of object stores, on real ones: SeaweedFS, and Ceph if there is one."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Awaitable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from filebucket.base.threads import Threads
from filebucket.model.objects import S3
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.calls import Calls, Limits
from filebucket.store.s3.client import Objects
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import (
    DeniedError,
    IBody,
    NotThereError,
    ObjectError,
    Part,
    UnsureError,
)
from filebucket.test.kit import ceph
from filebucket.test.kit.s3 import ACCOUNT, call, shared
from filebucket.test.kit.s3 import Credentials as Owner
from filebucket.test.store.s3.objects_contract import ObjectsCase, ObjectsContract

REACTOR: Any = reactor

BUCKET = "file-bucket-objects"

SHORT = Limits(answer=2, window=2)

PARTS = 16

PART = 8 * 1024 * 1024


@implementer(IBody)
class FileBody:
    """A part of a file, which threads read."""

    def __init__(self, threads: Threads, fd: int, number: int) -> None:
        self.size = PART
        self._threads, self._fd, self._start = threads, fd, (number - 1) * PART
        self.sha256 = sha256(os.pread(fd, PART, self._start)).digest()

    def read(self, offset: int, most: int) -> Awaitable[bytes]:
        return self._threads.run(os.pread, self._fd, most, self._start + offset)


class HalfBody(FileBody):
    """Its second half does not come.

    :ivar asked: fires when it should
    :ivar rest: fires with it
    """

    def __init__(self, threads: Threads, fd: int, number: int) -> None:
        super().__init__(threads, fd, number)
        self.asked: Deferred[None] = Deferred()
        self.rest: Deferred[bytes] = Deferred()

    def read(self, offset: int, most: int) -> Awaitable[bytes]:
        if offset < PART // 2:
            return super().read(offset, most)
        self.asked.callback(None)
        return self.rest


class EngineCase(ObjectsCase):
    """Has a client of a store."""

    objects: Objects
    timeout = 300

    def engine(self) -> tuple[str, str, str]:
        """Address, access key and secret key."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.url, *who = self.engine()
        self.credentials = Credentials(*who)
        self.prefix = f"{secrets.token_hex(8)}/"
        status, content = call(self.url, Owner(*who), "PUT", f"/{BUCKET}")
        # It may be there.
        self.assertIn(status, {200, 409}, content)
        self.objects = self.client()

    def client(self, limits: Limits | None = None, **changes: str) -> Objects:
        """A client, until the end of the test."""
        credentials = evolve(self.credentials, **changes)
        calls = Calls(
            REACTOR, S3((self.url,), BUCKET, BUCKET), lambda: credentials, limits
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(calls.close()))
        return Objects(calls, BUCKET)

    def file(self, size: int) -> int:
        """A file of that size, as a descriptor."""
        path = Path(self.mktemp())
        with path.open("wb") as file:
            for _ in range(size // PART):
                file.write(os.urandom(PART))
        fd = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        return fd

    def threads(self) -> Threads:
        threads = Threads(REACTOR, 4)
        self.addCleanup(threads.stopService)
        return threads


if TYPE_CHECKING:
    AnyEngine = EngineCase
else:
    AnyEngine = object  # or the contract itself would run as a test


class EngineContract(ObjectsContract, AnyEngine):
    """What a real store does besides."""

    async def test_refused(self) -> None:
        """A store that does not read a body is heard."""
        objects = self.client(secret_key="wrong")
        body = MemoryBody.of(bytes(8 * PART))
        for _ in range(3):
            code = await self.raises(DeniedError, objects.put("a", body))
            self.assertEqual("SignatureDoesNotMatch", code)

    async def test_memory(self) -> None:
        """Large files go through small buffers."""
        threads, fd = self.threads(), self.file(PARTS * PART)
        key = f"{self.prefix}large"
        upload = await self.objects.begin(key)
        bodies = {each: FileBody(threads, fd, each) for each in range(1, PARTS + 1)}
        before = resident()
        sending: list[Deferred[Part]] = [
            Deferred.fromCoroutine(self.objects.part(key, upload, number, body))
            for number, body in bodies.items()
        ]
        parts = await gatherResults(sending)
        self.assertLess(resident() - before, PARTS * PART / 4)
        await self.objects.complete(key, upload, parts)
        self.assertEqual(PARTS * PART, await self.objects.size(key))

    async def test_completed_again(self) -> None:
        """After a lost answer: the object stays whole, whatever the store says."""
        key = f"{self.prefix}twice"
        upload = await self.objects.begin(key)
        part = await self.objects.part(key, upload, 1, MemoryBody.of(b"content"))
        await self.objects.complete(key, upload, [part])
        # Trial takes contextlib.suppress for one of its own settings.
        try:
            await self.objects.complete(key, upload, [part])
        except ObjectError as error:
            self.assertIn(error.code, {"", "NoSuchUpload"})
        self.assertEqual(b"content", await self.objects.get(key, 7))
        await self.objects.abandon(key, upload)
        self.assertEqual(b"content", await self.objects.get(key, 7))

    async def test_cancelled(self) -> None:
        """A body that was not sent whole is not stored."""
        threads, fd = self.threads(), self.file(PART)
        body = HalfBody(threads, fd, 1)
        putting: Deferred[None] = Deferred.fromCoroutine(
            self.objects.put(f"{self.prefix}a", body)
        )
        await body.asked
        putting.cancel()
        body.rest.callback(b"rest")
        await self.raises(UnsureError, putting)
        await self.raises(NotThereError, self.objects.size(f"{self.prefix}a"))


class SeaweedFSTests(EngineContract, EngineCase):
    """With a server that this process starts."""

    def engine(self) -> tuple[str, str, str]:
        return shared().url, ACCOUNT.key, ACCOUNT.secret

    async def test_stopped(self) -> None:
        """A store that hangs is not waited for, and can be used again."""
        objects = self.client(SHORT)
        shared().send(signal.SIGSTOP)
        try:
            for size in (1, 8 * PART):
                body = MemoryBody.of(bytes(size))
                await self.raises(UnsureError, objects.put(f"{self.prefix}a", body))
        finally:
            shared().send(signal.SIGCONT)
        await objects.put(f"{self.prefix}b", MemoryBody.of(b"content"))


class NamedTests(EngineContract, EngineCase):
    """With a server that runs already."""

    def engine(self) -> tuple[str, str, str]:
        url, who = ceph.named()
        return url, who.key, who.secret


def resident() -> int:
    """Bytes of memory that this process uses."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
