"""Reports of failures, against a server in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.client.connection import Answer
from filebucket.client.errors import RefusedError
from filebucket.client.report import MOST, PAUSE, TIMEOUT, report
from filebucket.test.kit.pushes import MemoryServer, reply

RESET = ConnectionResetError(104, "Connection reset by peer")


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = MemoryServer()
        self.pauses: list[float] = []

    def report(self, *faults: Answer | BaseException | None) -> str | None:
        """Report, while the server gives these answers first."""
        self.server.asked.clear()
        self.pauses.clear()
        self.server.faults = [lambda _, it=each: it for each in faults]  # type: ignore[misc]
        return report(
            self.server, "db ü.gz", "pg_dump failed\nlast", self.pauses.append
        )

    def test_accepted(self) -> None:
        self.assertIsNone(self.report())
        self.assertEqual([("db ü.gz", b"pg_dump failed\nlast")], self.server.reports)
        (asked,) = self.server.asked
        self.assertEqual("db%20%C3%BC.gz", asked.path)
        self.assertEqual([TIMEOUT], self.server.patiences)

    def test_large(self) -> None:
        """It is cut to what the server takes."""
        self.assertIsNone(report(self.server, "x", "ü" * MOST))
        ((_, body),) = self.server.reports
        self.assertEqual(MOST, len(body))

    def test_again(self) -> None:
        """Once, after a pause."""
        for fault in (RESET, TimeoutError("timed out"), reply(503), reply(429)):
            self.assertIsNone(self.report(fault))
            self.assertEqual([PAUSE], self.pauses)
        self.assertEqual(4, len(self.server.reports))

    def test_gives_up(self) -> None:
        for fault, reason in (
            (RESET, "Connection reset by peer"),
            (TimeoutError("timed out"), "timed out"),
            (reply(503, "busy"), "busy (503)"),
        ):
            self.assertEqual(reason, self.report(fault, fault))
            self.assertEqual(2, len(self.server.asked))

    def test_refused(self) -> None:
        """At once: it would be refused again."""
        for fault, reason in (
            (reply(403, "no such token"), "no such token (403)"),
            (reply(302), "Found (302)"),
            (RefusedError("the certificate is not trusted"),) * 2,
        ):
            self.assertEqual(str(reason), self.report(fault))
            self.assertEqual(1, len(self.server.asked))

    def test_old_server(self) -> None:
        """One that takes no reports is no reason to worry."""
        for status in (400, 404, 405, 415, 501):
            self.assertIsNone(self.report(reply(status, X_Request_Id="")))
            self.assertEqual(1, len(self.server.asked))
