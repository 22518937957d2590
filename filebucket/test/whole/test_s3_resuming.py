"""Resumable uploads to an object store: the real daemon and clients, and SeaweedFS
behind a proxy that holds calls.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

from filebucket.model.objects import LEAST_PART
from filebucket.test.kit import s3
from filebucket.test.kit.gate import Gate
from filebucket.test.kit.integration import MIB, Client, IntegrationCase
from filebucket.test.kit.s3 import ACCOUNT
from filebucket.test.kit.server import OTHER, PATIENCE, hurried
from filebucket.test.whole.test_client import CLIENT

NAME = "db.gz"

NAMES, DATA = "file-bucket-test-names", "file-bucket-test-data"

HURRIED = hurried("store.s3.publish", SETTLE=1.0)
"""A daemon that does not wait long for the store."""

SMALL, LARGE = 3 * MIB, 2 * LEAST_PART + MIB
"""Bytes of a file in one part, and in three parts."""


class S3Case(IntegrationCase):
    """Has a daemon with an object store behind a gate."""

    def setUp(self) -> None:
        super().setUp()
        self.s3 = s3.shared()
        # SeaweedFS reserves much for an S3 bucket, so all tests share two of them.
        self.prefix = f"{token_hex(8)}/"
        for bucket in NAMES, DATA:
            status, answer = self.s3.call(ACCOUNT, "PUT", f"/{bucket}")
            self.assertIn(status, {200, 409}, answer)
        self.gate = Gate(urlsplit(self.s3.url).port or 0)
        self.addCleanup(self.gate.close)
        credentials = self.folder / "credentials"
        credentials.write_text(
            f"[default]\naws_access_key_id = {ACCOUNT.key}\n"
            f"aws_secret_access_key = {ACCOUNT.secret}\n"
        )
        credentials.chmod(0o600)
        keys = {
            "endpoints": [f"http://127.0.0.1:{self.gate.port}"],
            "names_bucket": NAMES,
            "data_bucket": DATA,
            "prefix": self.prefix,
            "credentials": str(credentials),
            "part_size": LEAST_PART,
        }
        buckets = [{"name": "web01", "token": OTHER}]
        self.daemon_ = self.server(*HURRIED, store={"s3": keys}, buckets=buckets)
        # It keeps its port.
        self.daemon_.config["port"] = self.daemon_.port
        self.daemon_.write_config()
        self.token = self.folder / "token"
        self.token.write_text(OTHER)
        self.token.chmod(0o600)

    def content(self, size: int) -> bytes:
        return random.Random(size).randbytes(size)

    def push(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Begin to push with filebucket-push."""
        client = subprocess.Popen(
            [
                *CLIENT,
                *("--url", f"http://127.0.0.1:{self.daemon_.port}"),
                *("--token-file", str(self.token)),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(client.wait, PATIENCE)
        self.addCleanup(client.kill)
        return client

    def begin(self, size: int = LARGE) -> subprocess.Popen[bytes]:
        """Begin to push a file."""
        # Smaller files would not be resumable.
        path = self.file(NAME, self.content(size))
        return self.push("--name", NAME, "--exec", "--", "cat", str(path))

    def end(self, client: subprocess.Popen[bytes], size: int = LARGE) -> None:
        """It ends well, and the file is stored once."""
        _, errors = client.communicate(timeout=PATIENCE)
        self.assertEqual(0, client.returncode, errors)
        self.assert_in_store(self.content(size))

    def objects(self, bucket: str) -> dict[str, bytes]:
        """The objects of an S3 bucket."""
        found = {}
        kind = "names/" if bucket == NAMES else "data/"
        for key in s3.keys(self.s3.url, ACCOUNT, bucket, self.prefix + kind):
            status, found[key] = self.s3.call(ACCOUNT, "GET", f"/{bucket}/{key}")
            self.assertEqual(200, status, key)
        return found

    def assert_in_store(self, content: bytes, name: str = NAME) -> None:
        """The file is published, once, and its daemon has nothing of it any more."""
        (text,) = self.objects(NAMES).values()
        record: dict[str, Any] = json.loads(text)
        data = self.objects(DATA)
        self.assertEqual(content, data[record["data"]])
        self.assertEqual(hashlib.sha256(content).hexdigest(), record["sha256"])
        self.assertEqual([], self.data_at_home())

    def data_at_home(self) -> list[str]:
        """The data of uploads that go on."""
        uploads = self.daemon_.home / ".filebucket" / "uploads"
        return [each for each in os.listdir(uploads) if not each.endswith(".json")]


class ClientTests(S3Case):
    """filebucket-push."""

    def test_one_part(self) -> None:
        self.end(self.begin(SMALL), SMALL)

    def test_parts(self) -> None:
        """It is one object in the end."""
        self.end(self.begin())
        self.assertEqual(1, len(self.objects(DATA)))

    def test_killed_before_the_data_is_whole(self) -> None:
        """A daemon that is killed while it sends the data sends it after its restart,
        when the client asks.
        """
        self.gate.hold(f"POST /{DATA}/\\S+uploadId=")
        client = self.begin()
        self.gate.wait()
        self.kill()
        self.assertEqual({}, self.objects(NAMES))
        self.daemon_.start()
        self.end(client)

    def test_killed_before_the_record(self) -> None:
        """The data is there, but nothing publishes it."""
        self.gate.hold(f"PUT /{NAMES}/")
        client = self.begin()
        self.gate.wait()
        self.kill()
        self.daemon_.start()
        self.end(client)

    def test_killed_after_the_record(self) -> None:
        """The next daemon finds the file in the store, and sends nothing again."""
        self.gate.hold(f"PUT /{NAMES}/", answer=True, lose=True)
        content = self.content(LARGE)
        upload = self.created(LARGE)
        self.send(upload, content)
        self.gate.wait()
        self.kill()
        self.assertEqual(1, len(self.objects(NAMES)))
        self.daemon_.start()
        status, headers = self.look(upload)
        self.assertEqual((204, "?1"), (status, headers["upload-complete"]))
        self.assert_in_store(content)
        self.assertEqual(1, len(self.objects(DATA)))
        self.assertNotIn("push bucket=web01", self.daemon_.log)

    def kill(self) -> None:
        """Kill the daemon, whose call is held."""
        self.daemon_.signal(signal.SIGKILL)
        self.daemon_.wait()
        self.gate.go_on()

    def test_answer_of_the_record_is_lost(self) -> None:
        """The daemon finds out by itself."""
        self.gate.hold(f"PUT /{NAMES}/", answer=True, lose=True)
        client = self.begin()
        self.gate.wait()
        self.gate.go_on()
        self.end(client)
        self.assertEqual(1, self.daemon_.log.count("push bucket=web01"))
        self.assertEqual(1, len(self.objects(DATA)))

    def test_answer_of_the_completion_is_lost(self) -> None:
        """The object tells that it is complete."""
        head = f"POST /{DATA}/\\S+uploadId="
        self.gate.hold(head, answer=True, lose=True)
        client = self.begin()
        self.gate.wait()
        self.gate.go_on()
        self.end(client)
        self.assertEqual(1, len(self.objects(DATA)))

    def test_store_is_down(self) -> None:
        """An upload needs the store when it is created, and at its end."""
        content = self.content(LARGE)
        offset, upload = 0, self.created(LARGE)
        self.gate.is_open = False
        for end in MIB, LARGE:
            status, _ = self.part(upload, offset, content[offset:end], end == LARGE)
            self.assertEqual(503 if end == LARGE else 204, status)
            offset = end
        self.assertEqual(503, self.look(upload)[0])
        self.gate.is_open = True
        status, headers = self.look(upload)
        self.assertEqual((204, "?1"), (status, headers["upload-complete"]))
        self.assert_in_store(content)

    def test_another_request_waits(self) -> None:
        """A client that asks while the data is sent waits for the end, although the
        first request is gone, and nothing is sent twice.
        """
        self.gate.hold(f"POST /{DATA}/\\S+uploadId=")
        content = self.content(LARGE)
        upload = self.created(LARGE)
        first = self.send(upload, content)
        self.gate.wait()
        first.reset()
        second = self.client(self.daemon_)
        head = (
            f"HEAD /{upload} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {OTHER}\r\n"
        )
        second.send(f"{head}\r\n".encode())
        second.socket.settimeout(1)
        self.assertRaises(TimeoutError, second.socket.recv, 1)
        second.socket.settimeout(PATIENCE)
        self.gate.go_on()
        status, headers, _ = second.whole_answer()
        self.assertEqual((204, b"?1"), (status, headers[b"upload-complete"]))
        self.assert_in_store(content)
        self.assertEqual(1, len(self.objects(DATA)))

    # Requests

    def ask(
        self, method: str, path: str, *more: str, stdin: bytes | None = None
    ) -> tuple[int, dict[str, str]]:
        """The status and headers of an answer."""
        headers = self.folder / "headers"
        status, _ = self.curl(
            *("-X", method, "-D", str(headers), "-H", f"Authorization: Bearer {OTHER}"),
            *(*more, f"{self.daemon_.url}/{path}"),
            stdin=stdin,
        )
        lines = headers.read_text().splitlines()
        found = [each.partition(": ")[::2] for each in lines if ": " in each]
        return status, {name.lower(): value for name, value in found}

    def created(self, length: int) -> str:
        """The path of a new upload."""
        lines = ("Upload-Complete: ?0", f"Upload-Length: {length}")
        fields = [option for each in lines for option in ("-H", each)]
        status, headers = self.ask("PUT", NAME, *fields, "-d", "")
        self.assertEqual(201, status)
        return headers["location"]

    def part(
        self, upload: str, offset: int, content: bytes, last: bool
    ) -> tuple[int, dict[str, str]]:
        lines = (f"Upload-Offset: {offset}", f"Upload-Complete: ?{int(last)}")
        fields = [option for each in lines for option in ("-H", each)]
        return self.ask("PATCH", upload, *fields, "-T", "-", stdin=content)

    def send(self, upload: str, content: bytes) -> Client:
        """Send all of an upload; returns the connection, before the answer."""
        client = self.client(self.daemon_)
        head = (
            f"PATCH /{upload} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {OTHER}\r\n"
            f"Upload-Offset: 0\r\nUpload-Complete: ?1\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        client.send(head.encode(), content)
        return client

    def look(self, upload: str) -> tuple[int, dict[str, str]]:
        return self.ask("HEAD", upload, "-I")
