"""The real daemon, and requests of common clients that are not quite pushes.

After any answer, the name is free or has the whole file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Callable

from twisted.trial.unittest import SkipTest

from filebucket.test.kit.integration import (
    MIB,
    IntegrationCase,
    need,
    put_head,
    run,
)
from filebucket.test.kit.server import OTHER, PATIENCE, TOKEN, Server


class PipeTests(IntegrationCase):
    """``... | curl -T -``: data from a pipe cannot be sent again."""

    content = os.urandom(3 * MIB)

    def piped(
        self, server: Server, meanwhile: Callable[[], object], *options: str
    ) -> bytes:
        """The output of curl for a pipe whose second half comes after ``meanwhile``."""
        need("curl")
        command = ("curl", "-sS", "-w", "%{http_code}", *options, "-T", "-")
        curl = subprocess.Popen(
            [*command, f"{server.url}/{OTHER}/db.gz"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.addCleanup(curl.kill)
        assert curl.stdin is not None
        half = len(self.content) // 2
        curl.stdin.write(self.content[:half])
        curl.stdin.flush()
        meanwhile()
        with contextlib.suppress(BrokenPipeError):  # the daemon has ended
            curl.stdin.write(self.content[half:])
        return curl.communicate(timeout=PATIENCE)[0]

    def assert_free_or_whole(self, server: Server, said: bytes) -> None:
        stored = server.stored()
        self.assertIn(stored, ({}, {"web01/db.gz": self.content}), said)
        self.assertEqual(bool(stored), said.endswith(b"200"), said)

    def test_nothing(self) -> None:
        """The command before the pipe failed."""
        server = self.server()
        got = self.curl("-T", "-", f"{server.url}/{OTHER}/db.gz", stdin=b"")
        reason = b"the file is empty; did the command before the pipe fail?\n"
        self.assertEqual((400, reason), got)
        self.assertEqual({}, server.stored())

    def test_restart(self) -> None:
        """The daemon stops in the middle, is killed, and starts again, and curl
        retries."""
        server = self.server(shutdown_timeout=0.2)
        server.config["port"] = server.port
        server.write_config()
        for number in (signal.SIGTERM, signal.SIGKILL):

            def restart(number: int = number) -> None:
                server.signal(number)
                server.wait()
                server.start()

            said = self.piped(server, restart, "--retry", "3", "--retry-connrefused")
            self.assert_free_or_whole(server, said)
            self.assertEqual([], server.incoming())

    def test_too_slow(self) -> None:
        """A slow push from a pipe gets a status after which curl does not retry."""
        server = self.server(body_timeout=1)
        said = self.piped(server, lambda: server.wait_for("refused "), "--retry", "3")
        self.assertIn(b"less than 1024 bytes per second", said)
        self.assertTrue(said.endswith(b"400"), said)
        self.assertEqual({}, server.stored())
        self.assertEqual(1, server.log.count("refused "))

    def test_too_slow_file(self) -> None:
        """A slow push from a file gets 408, since curl can send it again."""
        server = self.server(body_timeout=1)
        client = self.client(server)
        client.send(put_head("x", 10), b"x")
        self.assertEqual(408, client.answer()[0])


class CurlTests(IntegrationCase):
    """curl, with options that change the request."""

    def test_ntlm(self) -> None:
        """The first request of NTLM is empty, and is not taken for the file."""
        need("curl")
        if b"NTLM" not in run("curl", "--version").stdout:
            raise SkipTest("curl has no NTLM")
        server = self.server()
        path = str(self.file())
        login = ("--ntlm", "-u", "a:b")
        status, answer = self.curl(*login, "-T", path, f"{server.url}/{OTHER}/")
        reason = b"an empty file with an Authorization header other than Bearer\n"
        self.assertEqual((400, reason), (status, answer))
        self.assertEqual({}, server.stored())

    def test_empty_headers(self) -> None:
        """Headers with an empty value."""
        server = self.server()
        url = f"{server.url}/{OTHER}"
        for number, header in enumerate(("Expect;", "Content-Encoding;", "Digest;")):
            way = ("-H", header, "-T", str(self.file()), f"{url}/{number}")
            self.assertEqual(200, self.curl(*way)[0], header)
        self.assertEqual(3, len(server.stored()))

    def test_form_put(self) -> None:
        """-X PUT with -F: the body is a form, not the file."""
        server = self.server()
        form = ("-X", "PUT", "-F", f"file=@{self.file()}", f"{server.url}/{OTHER}/x")
        status, answer = self.curl(*form)
        self.assertEqual(415, status)
        self.assertIn(b"curl -T NAME", answer)
        self.assertEqual({}, server.stored())

    def test_packed_part(self) -> None:
        """A compressed part of a form."""
        server = self.server()
        part = f'file=@{self.file()};headers="Content-Encoding: gzip"'
        status, answer = self.curl("-F", part, f"{server.url}/{OTHER}")
        self.assertEqual(415, status, answer)
        self.assertEqual({}, server.stored())

    def test_only_if_new(self) -> None:
        """A precondition applies if the bucket allows overwriting."""
        bucket = {"name": "web01", "token": OTHER, "overwrite": True}
        server = self.server(buckets=[bucket])
        path, url = str(self.file()), f"{server.url}/{OTHER}/x"
        for status, *header in (
            (200, "-H", "If-None-Match: *"),
            (412, "-H", "If-None-Match: *"),
            (412, "-H", 'If-Match: "x"'),
            (200,),
        ):
            self.assertEqual(status, self.curl(*header, "-T", path, url)[0], header)


class LibraryTests(IntegrationCase):
    """HTTP libraries."""

    def test_requests(self) -> None:
        """Python's requests: a form sent with PUT, and a path as a name."""
        try:
            import requests  # noqa: PLC0415
        except ImportError:
            raise SkipTest("requests is not installed") from None
        server = self.server()
        url = f"{server.url}/{OTHER}"
        file = {"file": ("/srv/ünï/db.gz", b"content")}
        answer = requests.put(f"{url}/db.gz", files=file, timeout=PATIENCE)
        self.assertEqual(415, answer.status_code)
        self.assertIn("PUT takes no form", answer.text)
        self.assertEqual({}, server.stored())
        answer = requests.post(url, files=file, timeout=PATIENCE)
        self.assertEqual(200, answer.status_code, answer.text)
        self.assertEqual({"web01/db.gz": b"content"}, server.stored())

    def test_node(self) -> None:
        """Node's client: right and wrong digests in a trailer, and in a form."""
        need("node")
        server = self.server()
        script = """
            const [port, path, digest] = process.argv.slice(1);
            const request = require("http").request(
                {port, path, method: "PUT", headers: {Trailer: "X-Checksum-Sha256"}},
                (answer) => { answer.resume(); console.log(answer.statusCode); },
            );
            request.write("con");
            request.write("tent");
            request.addTrailers({"X-Checksum-Sha256": digest});
            request.end();
        """
        for status, content in ((422, b"other"), (200, b"content")):
            digest = hashlib.sha256(content).hexdigest()
            path = f"/{OTHER}/db.gz"
            done = run("node", "-e", script, str(server.port), path, digest)
            self.assertEqual(f"{status}\n".encode(), done.stdout, done.stderr)
        self.assertEqual({"web01/db.gz": b"content"}, server.stored())

    def test_trailer(self) -> None:
        """The same from a client that does not announce the trailer."""
        server = self.server()
        for status, content in ((422, b"other"), (200, b"content")):
            client = self.client(server)
            digest = hashlib.sha256(content).hexdigest()
            client.send(
                put_head("db.gz", None, TOKEN),
                b"7\r\ncontent\r\n0\r\n",
                f"X-Checksum-Sha256: {digest}\r\n\r\n".encode(),
            )
            self.assertEqual(status, client.answer()[0])
        self.assertEqual({f"{TOKEN}/db.gz": b"content"}, server.stored())
