"""Resumable uploads, as an operator sees them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from filebucket.test.kit.integration import IntegrationCase, run
from filebucket.test.kit.server import OTHER, TOKEN, Server, comes, hurried

PART = ("-H", "Upload-Draft-Interop-Version: 8", "-H", "Upload-Complete: ?0")


class UnfinishedTests(IntegrationCase):
    """A bucket whose client begins a push and may never end it."""

    def begin(self, server: Server, name: str, content: bytes) -> str:
        """Push the first part of a file; return the upload's address."""
        head = self.folder / "head"
        url = f"{server.url}/{OTHER}/"
        part = self.file("part", content)
        status, _ = self.curl(*PART, "-D", str(head), "-T", str(part), f"{url}{name}")
        self.assertEqual(201, status)
        found = re.search(r"(?im)^location: (\S+)", head.read_text())
        assert found is not None
        return f"{url}{found[1].removeprefix(f'/{OTHER}/')}"

    def end(self, url: str, offset: int, content: bytes, expected: int = 200) -> None:
        last = self.file("part", content)
        status, _ = self.curl(
            *("-H", "Upload-Draft-Interop-Version: 8", "-H", "Upload-Complete: ?1"),
            *("-H", f"Upload-Offset: {offset}"),
            *("-H", "Content-Type: application/partial-upload"),
            *("-X", "PATCH", "--data-binary", f"@{last}", url),
        )
        self.assertEqual(expected, status)

    def command(self, server: Server, *words: str) -> str:
        done = run(
            *(sys.executable, "-m", "filebucket", *words, "--config"),
            str(server.config_file),
        )
        self.assertNotIn(TOKEN.encode(), done.stdout)
        return done.stdout.decode()

    def metrics(self, server: Server) -> dict[str, float]:
        """Those of uploads."""
        port = server.wait_for(r"; admin: 127\.0\.0\.1:(\d+)")[1]
        _, text = self.curl(f"http://127.0.0.1:{port}/metrics")
        found = re.findall(r"(?m)^filebucket_(upload\S+) (\S+)$", text.decode())
        return {name: float(value) for name, value in found}

    def test_seen(self) -> None:
        """While it goes on, and when it has ended."""
        server = self.server(admin="tcp:0:interface=127.0.0.1")
        url = self.begin(server, "db-1.gz", b"con")
        (found,) = json.loads(self.command(server, "status", "--json"))["uploads"]
        self.assertEqual(
            ("web01", "db-1.gz", 3, None),
            tuple(found[key] for key in ("bucket", "name", "received", "size")),
        )
        numbers = self.metrics(server)
        self.assertEqual(1, numbers["uploads_unfinished"])
        self.assertEqual(3, numbers["uploads_unfinished_bytes"])
        self.assertEqual(0, numbers['uploads_ended_total{end="finished"}'])
        self.end(url, 3, b"tent")
        self.assertEqual(
            [], json.loads(self.command(server, "status", "--json"))["uploads"]
        )
        numbers = self.metrics(server)
        self.assertEqual(0, numbers["uploads_unfinished"])
        self.assertEqual(1, numbers["uploads_total"])
        self.assertEqual(2, numbers["upload_parts_total"])
        self.assertEqual(7, numbers["upload_part_bytes_total"])
        self.assertEqual(1, numbers['uploads_ended_total{end="finished"}'])
        server.stop()
        (line,) = self.command(server, "log", "--json").splitlines()
        self.assertEqual(
            (2, "db-1.gz"), tuple(map(json.loads(line).get, ("parts", "name")))
        )
        self.assertIn("2 parts", self.command(server, "log"))

    def test_page(self) -> None:
        """The page shows a push while it is received, with tokens masked."""
        server = self.server(admin="tcp:0:interface=127.0.0.1")
        port = server.wait_for(r"; admin: 127\.0\.0\.1:(\d+)")[1]

        def uploads() -> str:
            _, page = self.curl(f"http://127.0.0.1:{port}/")
            self.assertNotIn(OTHER, page.decode())
            return page.decode().partition('id="uploads"')[2]

        client = self.client(server)
        client.begin(f"db-{OTHER}", 8, OTHER)
        client.send(b"x")
        self.assertTrue(comes(lambda: "<bdi>db-web01</bdi>" in uploads()))
        self.assertRegex(uploads(), r"1 B of 8 B \(12%\)|0 B of 8 B \(0%\)")
        client.send(b"x" * 7)
        self.assertEqual(200, client.answer()[0])
        self.assertTrue(comes(lambda: not uploads()))

    def test_shrinks(self) -> None:
        """A client whose data is lost begins again, without a restart."""
        server = self.server()
        url = self.begin(server, "db-1.gz", b"con")
        uploads = server.home / ".filebucket" / "uploads"
        (data,) = [path for path in uploads.iterdir() if path.suffix != ".json"]
        data.write_bytes(b"co")
        self.end(url, 3, b"tent", expected=410)
        server.wait_for("upload of 'db-1.gz' to bucket web01 is lost after 3 bytes")
        self.end(url, 3, b"tent", expected=410)
        self.end(self.begin(server, "db-1.gz", b"con"), 3, b"tent")
        self.assertEqual({"web01/db-1.gz": b"content"}, server.stored())

    def test_never_ends(self) -> None:
        """The operator hears of it, and of the next push."""
        server = Server(
            self.folder / "server",
            unfinished="1s",
            buckets=[{"name": "web01", "token": OTHER, "expect": "26h"}],
        )
        said = Path(self.mktemp()).absolute()
        server.hook("alert", f"echo $1 $2 $3 $4 >> {said}; echo said >&2")
        server.start(*hurried("push.sessions", SWEEP_EVERY=0.1))
        self.addCleanup(server.stop)
        self.assertEqual(
            200, self.curl("-T", str(self.file()), server.url + f"/{OTHER}/db-1.gz")[0]
        )
        server.wait_for("alert.*said")
        self.begin(server, "db-2.gz", b"con")
        server.wait_for(r"upload of 'db-2.gz' to bucket web01 ended after 3 bytes")
        server.wait_for("alert.*said", 2)
        self.assertIn("web01   db-#.gz  unfinished", self.command(server, "status"))
        self.assertEqual(
            200, self.curl("-T", str(self.file()), server.url + f"/{OTHER}/db-3.gz")[0]
        )
        server.wait_for("alert.*said", 3)
        self.assertEqual(
            [
                "web01 db-#.gz never fresh",
                "web01 db-#.gz fresh unfinished",
                "web01 db-#.gz unfinished fresh",
            ],
            said.read_text().splitlines(),
        )
