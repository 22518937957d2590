"""Tests of :mod:`filebucket.web.failure`: reports on the wire, in memory."""

from __future__ import annotations

from filebucket.push.failures import AT_ONCE, MOST_SIZE
from filebucket.test.kit.wire import Connection
from filebucket.test.web.test_tree import OTHER, TOKEN, ResourceCase, bearer, head, put

UNKNOWN = b"0" * 32
TEXT = b"Content-Type: text/plain"


def report(
    target: bytes, *headers: bytes, content: bytes = b"it failed", kind: bytes = TEXT
) -> bytes:
    length = b"Content-Length: %d" % len(content)
    return head(b"POST", target, length, kind, *headers) + content


class FailureReportTests(ResourceCase):
    """A POST of text."""

    def test_named(self) -> None:
        """With the token in the URL, or in a header."""
        for message in (
            report(b"/%b/db.gz" % TOKEN),
            report(b"//%b/db.gz" % TOKEN),
            report(b"/db.gz", bearer(TOKEN)),
            report(b"/%b/db.gz" % TOKEN, kind=TEXT + b"; charset=\xff"),
            report(
                b"/%b/db%%2egz" % TOKEN, kind=b"Content-Type: Text/Plain ; charset=x"
            ),
        ):
            self.send(message)
            ((status, headers, content),) = self.connection.answers()
            outcome = self.observed[-1]
            self.assertEqual(
                (202, b"the failure is reported\n", outcome.request_id),
                (status, content, headers["x-request-id"]),
            )
            self.assertNotIn("x-checksum-sha256", headers)
            self.assertEqual(
                ("one", "db.gz", "it failed"),
                (outcome.bucket, outcome.name, outcome.failed),
            )
        self.assertEqual({}, self.store.files)

    def test_whole_bucket(self) -> None:
        """The connection is kept, as after a push."""
        for message in (
            report(b"/%b" % TOKEN),
            report(b"/%b/" % TOKEN),
            report(b"/", bearer(TOKEN)),
        ):
            self.assertEqual([202], self.statuses(message))
            outcome = self.observed[-1]
            self.assertEqual((None, "it failed"), (outcome.name, outcome.failed))
            self.assertFalse(self.connection.closed)

    def test_chunked(self) -> None:
        chunked = head(b"POST", b"/%b/x" % TOKEN, TEXT, b"Transfer-Encoding: chunked")
        self.assertEqual([202], self.statuses(chunked, b"5\r\nhello\r\n0\r\n\r\n"))
        self.assertEqual("hello", self.observed[-1].failed)

    def test_expects(self) -> None:
        """A client that waits is told to send."""
        message = report(b"/%b/x" % TOKEN, b"Expect: 100-continue", content=b"")
        message = message.replace(b"Content-Length: 0", b"Content-Length: 5")
        self.assertEqual([100], self.statuses(message))
        self.assertEqual([202], self.statuses(b"hello"))

    def test_nothing_is_read_back(self) -> None:
        """The report has changed nothing for any other request."""
        self.send(report(b"/%b/db.gz" % TOKEN))
        self.assertEqual([202], self.connection.statuses())
        self.assertEqual([405], self.statuses(head(b"GET", b"/%b/db.gz" % TOKEN)))
        self.assertEqual([200], self.statuses(put(b"/%b/db.gz" % TOKEN)))

    def test_refused(self) -> None:
        large = b"x" * (MOST_SIZE + 1)
        for status, message in (
            (400, report(b"/%b/..%%2f" % TOKEN)),
            (400, report(b"/%b/a/b" % TOKEN)),
            (412, report(b"/%b//" % TOKEN)),
            (400, report(b"/%b/a?b" % TOKEN)),
            (400, report(b"/%b/%%ff" % TOKEN)),
            (400, report(b"/%b" % OTHER, bearer(TOKEN))),
            (400, report(b"/%b/a" % TOKEN, b"Content-Range: bytes 0-1/2")),
            (400, report(b"/%b/a" % TOKEN, b"Upload-Length: 1")),
            (411, head(b"POST", b"/%b/a" % TOKEN, TEXT)),
            (413, report(b"/%b/a" % TOKEN, content=large)),
            (415, report(b"/%b/a" % TOKEN, b"Content-Encoding: gzip")),
            (417, report(b"/%b/a" % TOKEN, b"Expect: more")),
            (422, report(b"/%b/a" % TOKEN, b"X-Checksum-Sha256: " + b"0" * 64)),
        ):
            self.assertEqual([status], self.statuses(message), message)

    def test_another_type(self) -> None:
        """Anything but plain text is a form, or is refused like one."""
        for kind in (b"X-Nothing: x", b"Content-Type: text/plain, text/html"):
            message = report(b"/%b/a" % TOKEN, kind=kind)
            self.assertEqual([400], self.statuses(message))
            self.assertIsNone(self.observed[-1].failed)

    def test_too_many(self) -> None:
        for _ in range(AT_ONCE):
            self.assertEqual([202], self.statuses(report(b"/%b/a" % TOKEN)))
        self.send(report(b"/%b/a" % TOKEN))
        ((status, headers, content),) = self.connection.answers()
        self.assertEqual(
            (429, "1", b"too many failure reports\n"),
            (status, headers["retry-after"], content),
        )
        self.assertEqual([202], self.statuses(report(b"/%b/a" % OTHER)))

    def test_strangers(self) -> None:
        """They get what a push without a token gets, byte for byte."""
        answers = set()
        for message in (
            report(b"/%b/a" % UNKNOWN),
            report(b"/a", bearer(UNKNOWN)),
            report(b"/"),
            report(b"/%b/a" % UNKNOWN, kind=b"Content-Type: \xff"),
            put(b"/%b/a" % UNKNOWN),
        ):
            connection = Connection(self.root)
            connection.send(message)
            ((status, headers, content),) = connection.answers()
            headers.pop("date")
            answers.add((status, str(headers), content))
        self.assertEqual({403}, {status for status, *_ in answers})
        self.assertEqual(1, len(answers))
