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
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

from attrs import frozen

from filebucket.store.s3.records import Keys, Record
from filebucket.test.kit.cluster import store
from filebucket.test.kit.programs import Program, answers, free_ports
from filebucket.test.kit.server import DAEMON, PATIENCE, TWISTD
from proofs.catalogues import (
    BUCKETS,
    SIZE,
    Call,
    call,
    configuration,
    received_at,
    record,
)
from proofs.outcome import Outcome

KEYS = Keys("")

PAGE = 1000
"""Keys of a page, S3's limit."""

UNKNOWN = 100
"""One of this number of records is not in the catalogue."""

MOST_MEMORY = 160
"""MiB of memory that the command takes, whatever the number of files."""

MOST_SECONDS = 5.0
"""Seconds that the page and ``status`` take, beside the server that is listed."""

LOOK_EVERY = 1.0
"""Seconds between two looks at the page."""

LISTEN = ["tcp:0:interface=127.0.0.1"]

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
    """Answers about a store, in which a daemon may create objects that test it.

    :ivar created: their keys
    """

    protocol_version = "HTTP/1.1"
    store: Store
    created: set[str]
    lock = threading.Lock()

    def do_GET(self) -> None:
        key = self._key()
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        if key.startswith(KEYS.probe("")):
            self._say(b"<Error><Code>NoSuchKey</Code></Error>", 404)
        elif key:
            self._say(self.store.record(key))
        elif "versioning" in query:
            self._say(b"<VersioningConfiguration/>")
        else:
            self._say(self._list(query["prefix"], query.get("start-after", "")))

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            there = self._key() in self.created
            self.created.add(self._key())
        if there:
            self._say(b"<Error><Code>PreconditionFailed</Code></Error>", 412)
        else:
            self._say(b"")

    def do_POST(self) -> None:
        self._say(
            b"<InitiateMultipartUploadResult><UploadId>1</UploadId>"
            b"</InitiateMultipartUploadResult>"
        )

    def do_DELETE(self) -> None:
        self._say(b"", 204)

    def _key(self) -> str:
        return urlsplit(self.path).path.lstrip("/").partition("/")[2]

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

    def _say(self, content: bytes, status: int = 200) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@contextmanager
def _served(store: Store) -> Iterator[str]:
    """A server with that store."""
    answers = type("Answers", (_Answers,), {"store": store, "created": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def reindex(folder: Path, trials: int) -> Outcome:
    """Compare a number of records with the catalogue, which has most of them: once by a
    command, and again by the daemon, whose page is fetched meanwhile.
    """
    now = time.time()
    known = trials - trials // UNKNOWN
    (port,) = free_ports(1)
    page = f"http://127.0.0.1:{port}"
    admin = f"tcp:{port}:interface=127.0.0.1"
    with _served(Store(trials, now)) as url:
        file = configuration(
            folder, store=store(folder, [url]), listen=LISTEN, admin=admin
        )
        record(folder, file, trials, _name, now, known)
        first = call(file, "reindex", patience=LONGEST)
        command = [*TWISTD, *DAEMON, "--config", str(file)]
        daemon = Program("daemon", folder, command, partial(answers, page))
        began = time.monotonic()
        daemon.start()
        try:
            slowest = _watch(daemon, page)
            second = Call("", time.monotonic() - began, daemon.peak_memory() / 2**20)
        finally:
            daemon.stop()
        counted = call(file, "status", "--no-daemon", "--line")
    faults = [
        f"{each.memory:.0f} MiB"
        for each in (first, second)
        if each.memory > MOST_MEMORY
    ]
    faults += [] if f"files={trials};" in counted.output else [counted.output]
    if max(slowest, counted.seconds) > MOST_SECONDS:
        faults.append(f"page: {slowest:.1f} s, status: {counted.seconds:.1f} s")
    return Outcome(
        f"{trials:,} records, {trials - known:,} of them not in the catalogue: {first};"
        f" again by the daemon, with all of them in it: {second}, its page in at most"
        f" {slowest:.2f} s; status: {counted}",
        faults,
    )


def _watch(daemon: Program, page: str) -> float:
    """Fetch the page again and again until the daemon has compared all records.

    :returns: seconds of the slowest time
    """
    slowest = 0.0
    end = time.monotonic() + LONGEST
    while "catalogue: " not in daemon.log.read_text():
        began = time.monotonic()
        if began > end or not daemon.runs:
            raise AssertionError(daemon.log.read_text())
        with urlopen(page, timeout=PATIENCE) as answer:
            answer.read()
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(LOOK_EVERY)
    return slowest
