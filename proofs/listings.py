"""An object store with millions of records, which a server makes up while it is asked.

No engine on a small machine holds as many. The pages of a list and the records are
those of an S3 server; only the time that a real one takes is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from attrs import frozen

from filebucket.store.s3.records import Keys, Record
from filebucket.test.kit.cluster import store
from proofs.catalogues import BUCKETS, SIZE, call, configuration, received_at, record
from proofs.outcome import Outcome

KEYS = Keys("")

PAGE = 1000
"""Keys of a page, S3's limit."""

UNKNOWN = 100
"""One of this number of records is not in the catalogue."""

MOST_MEMORY = 160
"""MiB of memory that the command takes, whatever the number of files."""

LONGEST = 4 * 3600.0
"""Seconds that it may take."""


def _name(number: int) -> str:
    return f"db-{number:08}.sql.gz"


@frozen
class Store:
    """The stored files: file ``n`` is in the bucket ``n % BUCKETS``.

    :param files: the number of all
    :param now: seconds since the epoch
    """

    files: int
    now: float

    def page(self, prefix: str, after: str) -> Iterator[tuple[str, float]]:
        """The keys of records and their times."""
        directory = prefix.split("/")[1]
        bucket = int(directory.removeprefix("web"))
        first = bucket
        if after:
            first = int(after.rpartition("db-")[2].partition(".")[0]) + BUCKETS
        last = min(self.files, first + PAGE * BUCKETS)
        for number in range(first, last, BUCKETS):
            at = received_at(number, self.files, self.now)
            yield KEYS.name(directory, _name(number)), at

    def record(self, key: str) -> bytes:
        """The content of a record."""
        _, directory, name = key.split("/")
        number = int(name.removeprefix("db-").partition(".")[0])
        identity = f"{number:032x}"
        data = KEYS.data(directory, name, identity)
        at = received_at(number, self.files, self.now)
        return Record(identity, data, SIZE, f"{number:064x}", at).text()


class _Answers(BaseHTTPRequestHandler):
    """Answers about a store."""

    protocol_version = "HTTP/1.1"
    store: Store

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        _, _, key = parts.path.lstrip("/").partition("/")
        if key:
            self._say(self.store.record(key))
        elif "versioning" in query:
            self._say(b"<VersioningConfiguration/>")
        else:
            self._say(self._list(query["prefix"], query.get("start-after", "")))

    def _list(self, prefix: str, after: str) -> bytes:
        found = list(self.store.page(prefix, after))
        lines = (
            f"<Contents><Key>{key}</Key><LastModified>{_iso(at)}</LastModified>"
            '<ETag>"0"</ETag><Size>300</Size></Contents>'
            for key, at in found
        )
        more = "true" if len(found) == PAGE else "false"
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult'
            ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{more}</IsTruncated>{''.join(lines)}</ListBucketResult>"
        ).encode()

    def _say(self, content: bytes) -> None:
        self.send_response_only(200)
        self.send_header("Date", formatdate(usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@contextmanager
def _served(store: Store) -> Iterator[str]:
    """A server with that store."""
    answers = type("Answers", (_Answers,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def reindex(folder: Path, trials: int) -> Outcome:
    """Compare a number of records with the catalogue, which has most of them."""
    now = time.time()
    known = trials - trials // UNKNOWN
    with _served(Store(trials, now)) as url:
        file = configuration(folder, store=store(folder, [url]))
        record(folder, file, trials, _name, now, known)
        first = call(file, "reindex", patience=LONGEST)
        second = call(file, "reindex", patience=LONGEST)
        counted = call(file, "status", "--no-daemon", "--line")
    faults = [
        f"{each.memory:.0f} MiB"
        for each in (first, second)
        if each.memory > MOST_MEMORY
    ]
    faults += [] if f"files={trials};" in counted.output else [counted.output]
    return Outcome(
        f"{trials:,} records, {trials - known:,} of them not in the catalogue: {first};"
        f" again, with all of them in it: {second}; status: {counted}",
        faults,
    )
