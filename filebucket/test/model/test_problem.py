"""Tests of :mod:`filebucket.model.problem`."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Bucket
from filebucket.model.problem import (
    CRITICAL,
    WARNING,
    Kind,
    Problem,
    ending_certificate,
    ending_token,
)
from filebucket.model.token import Token

DAY = 24 * 3600.0
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC).timestamp()


class LevelTests(SynchronousTestCase):
    def test_severity(self) -> None:
        """Without a level, a problem is reported when its severity rises."""
        for severity in (WARNING, CRITICAL):
            self.assertEqual(severity, Problem(Kind.FULL, severity, "").level)

    def test_count(self) -> None:
        self.assertEqual(7, Problem(Kind.MISSING, CRITICAL, "", level=7).level)


class TokenTests(SynchronousTestCase):
    """:func:`ending_token`."""

    def ending(self, *days: float | None, retired: bool = False) -> Problem | None:
        """The problem of a bucket whose tokens expire in this number of days."""
        tokens = tuple(
            Token(bytes([number] * 32), None if each is None else NOW + each * DAY)
            for number, each in enumerate(days)
        )
        bucket = Bucket(tokens, "web01", "web01", retired=retired)
        return ending_token(bucket, NOW)

    def test_none(self) -> None:
        for days in ((None,), (14.1,), (None, -1), (-1, 20, 3)):
            self.assertIsNone(self.ending(*days), days)

    def test_retired(self) -> None:
        """No client is to push."""
        self.assertIsNone(self.ending(-1, retired=True))

    def test_soon(self) -> None:
        text = "its last token expires soon: 2026-12-08T09:00:00Z"
        soon = Problem(Kind.TOKEN, WARNING, text, "web01")
        self.assertEqual(soon, self.ending(14))
        self.assertEqual(soon, self.ending(-1, 14, 3))

    def test_expired(self) -> None:
        for day, when in ((0, "2026-11-24T09:00:00Z"), (-9 / 24, "2026-11-23")):
            text = f"no client can push: its last token expired: {when}"
            expired = Problem(Kind.TOKEN, CRITICAL, text, "web01")
            self.assertEqual(expired, self.ending(day, -9), day)


class CertificateTests(SynchronousTestCase):
    """:func:`ending_certificate`."""

    def ending(self, **days: float) -> Problem | None:
        """The problem of certificates that expire in this number of days."""
        return ending_certificate(
            ((f"CN={name}", NOW + each * DAY) for name, each in days.items()), NOW
        )

    def test_none(self) -> None:
        self.assertIsNone(self.ending())
        self.assertIsNone(self.ending(a=14.1, b=90))

    def test_soon(self) -> None:
        text = "the certificate of CN=b expires on 2026-12-08"
        soon = Problem(Kind.CERTIFICATE, WARNING, text)
        self.assertEqual(soon, self.ending(a=15, b=14))

    def test_expired(self) -> None:
        """The first one is named."""
        text = "the certificate of CN=c expired on 2026-11-24 (and 1 more)"
        expired = Problem(Kind.CERTIFICATE, CRITICAL, text)
        self.assertEqual(expired, self.ending(a=15, b=14, c=0))
