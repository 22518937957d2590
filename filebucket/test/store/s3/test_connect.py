"""Connections to the endpoints of an object store: over loopback, with TLS."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from filebucket.base.errors import OperatorError
from filebucket.http.tls import Certificates
from filebucket.model.objects import S3
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.calls import Calls, Limits
from filebucket.store.s3.client import Objects
from filebucket.store.s3.connect import Wires
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import NotSentError
from filebucket.test.kit.certificates import write_chain, write_pair
from filebucket.test.kit.lying_s3 import LyingS3

REACTOR: Any = reactor

BODY = MemoryBody.of(b"content" * 100_000)


class AuthorityTests(TestCase):
    """The file with the certificates of authorities."""

    def mistake(self, path: Path) -> str:
        s3 = S3(("https://a",), "a", "b", ca=str(path))
        credentials = Credentials("a", "b")
        error = self.assertRaises(
            OperatorError, Calls, REACTOR, s3, lambda: credentials
        )
        return str(error)

    def test_unfit(self) -> None:
        path = Path(self.mktemp()).absolute()
        self.assertEqual(f"{path}: No such file or directory", self.mistake(path))
        path.write_text("no")
        self.assertEqual(f"{path}: no certificates in PEM format", self.mistake(path))


class Socket:
    """Records the options that are set."""

    def __init__(self) -> None:
        self.options: list[tuple[int, ...]] = []

    def setsockopt(self, *option: int) -> None:
        self.options.append(option)
        if len(self.options) > 3:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class Transport(StringTransport):
    """A transport with a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = Socket()


class HurryTests(TestCase):
    """A store with Nagle's algorithm is not kept waiting for acknowledgments."""

    def wire(self) -> Any:
        factory = Wires(Factory.forProtocol(Protocol), False, set())
        return factory.buildProtocol(None)

    def test_hurry(self) -> None:
        """At the start, after each write and before each read, whatever happens to the
        socket; also under TLS.
        """
        for layers in (0, 1):
            inner = Transport()
            transport: Any = inner
            for _ in range(layers):
                transport = StringTransport()
                transport.transport = inner
            wire = self.wire()
            wire.makeConnection(transport)
            for step in (wire.write, wire.dataReceived):
                wire.left = 100
                step(b"x")
            option = (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self.assertEqual([option] * 3, inner.socket.options)
            wire.write(b"y")
            self.assertEqual(b"xy", transport.value())

    def test_no_socket(self) -> None:
        """A UNIX socket, or a transport in memory, has no such option."""
        wire = self.wire()
        transport = StringTransport()
        wire.makeConnection(transport)
        wire.write(b"x")
        self.assertEqual(b"x", transport.value())


class TLSTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        write_pair(self.folder)
        self.server = LyingS3()
        self.calls: Calls | None = None
        self.addCleanup(lambda: Deferred.fromCoroutine(self.end()))

    async def end(self) -> None:
        # Before the port, whose connections are then gone.
        if self.calls is not None:
            await self.calls.close()
        await self.port.stopListening()

    def listen(self, factory: Factory) -> int:
        self.port = REACTOR.listenTCP(0, factory, interface="127.0.0.1")
        number: int = self.port.getHost().port
        return number

    def secure(self) -> int:
        """Serve with TLS."""
        names = {"privateKey": "key.pem", "certKey": "cert.pem"}
        files = {name: str(self.folder / file) for name, file in names.items()}
        return self.listen(Certificates("test", files).around(self.server))  # type: ignore[arg-type]

    def objects(self, *urls: str, ca: str | None, connect: float = 30) -> Objects:
        path = None if ca is None else str(self.folder / ca)
        s3 = S3(urls, "bucket", "bucket", ca=path)
        credentials = Credentials("a", "b")
        limits = Limits(connect=connect)
        self.calls = Calls(REACTOR, s3, lambda: credentials, limits)
        return Objects(self.calls, "bucket")

    async def error(self, call: Coroutine[Any, Any, Any]) -> str:
        failure = await self.assertFailure(Deferred.fromCoroutine(call), NotSentError)
        return str(failure)

    async def test_trusted(self) -> None:
        objects = self.objects(f"https://127.0.0.1:{self.secure()}", ca="cert.pem")
        await objects.put("a", BODY)
        await objects.put("b", BODY)
        self.assertEqual(1, len(self.server.connections))
        self.assertEqual({"bucket/a", "bucket/b"}, set(self.server.objects))
        self.assertEqual(BODY.content, await objects.get("a", BODY.size))

    async def test_unknown_authority(self) -> None:
        """The system does not trust it. Nothing is sent."""
        objects = self.objects(f"https://127.0.0.1:{self.secure()}", ca=None)
        message = await self.error(objects.put("a", BODY))
        self.assertIn("TLS failed: certificate verify failed", message)
        self.assertEqual([], self.server.asked)

    async def test_other_authority(self) -> None:
        number = self.secure()
        write_chain(self.folder)
        objects = self.objects(f"https://127.0.0.1:{number}", ca="root.pem")
        message = await self.error(objects.put("a", BODY))
        self.assertIn("TLS failed: certificate verify failed", message)

    async def test_other_host(self) -> None:
        """The certificate is for 127.0.0.1."""
        objects = self.objects(f"https://localhost:{self.secure()}", ca="cert.pem")
        message = await self.error(objects.put("a", BODY))
        self.assertIn("TLS failed: its certificate is for another host", message)
        self.assertEqual([], self.server.asked)

    async def test_next(self) -> None:
        """An endpoint without TLS, or with a wrong certificate, is passed over."""
        number = self.secure()
        objects = self.objects(
            f"https://localhost:{number}", f"https://127.0.0.1:{number}", ca="cert.pem"
        )
        await objects.put("a", BODY)

    async def test_no_tls(self) -> None:
        number = self.listen(self.server)
        objects = self.objects(f"https://127.0.0.1:{number}", ca="cert.pem", connect=1)
        message = await self.error(objects.put("a", BODY))
        self.assertIn("cannot connect to object store 127.0.0.1:", message)

    async def test_handshake_hangs(self) -> None:
        """It is part of connecting."""
        number = self.listen(Factory.forProtocol(Protocol))
        objects = self.objects(f"https://127.0.0.1:{number}", ca="cert.pem", connect=1)
        message = await self.error(objects.put("a", BODY))
        self.assertIn("no connection in 1 seconds", message)

    async def test_refused(self) -> None:
        self.listen(self.server)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            number = unused.getsockname()[1]
            objects = self.objects(f"http://127.0.0.1:{number}", ca=None)
            message = await self.error(objects.put("a", BODY))
        self.assertIn("111: Connection refused", message)

    async def test_plain(self) -> None:
        objects = self.objects(f"http://127.0.0.1:{self.listen(self.server)}", ca=None)
        await objects.put("a", BODY)
        self.assertEqual({"bucket/a": BODY.content}, self.server.objects)
