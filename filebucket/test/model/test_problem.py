"""Tests of :mod:`filebucket.model.problem`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Bucket, Pause
from filebucket.model.filesystem import Filesystem
from filebucket.model.problem import (
    CRITICAL,
    WARNING,
    Kind,
    Problem,
    ending_certificate,
    ending_token,
    failing_drills,
    failing_hooks,
    full_bucket,
    full_disk,
    late_copy,
    lost_files,
)
from filebucket.model.records import Copy, Drills, HookFailure
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


class DrillsTests(SynchronousTestCase):
    """:func:`failing_drills`."""

    def failing(self, drills: Drills, **given: Any) -> tuple[str, int] | None:
        """The text and the level."""
        bucket = Bucket((Token(b"x" * 32),), "web01", "web01", **given)
        found = failing_drills(bucket, drills, NOW)
        if found is None:
            return None
        self.assertEqual(
            (Kind.DRILL, CRITICAL, "web01"), (found.kind, found.severity, found.bucket)
        )
        return found.text, found.level

    def test_none(self) -> None:
        """Without the key, no test is due; nor in a new bucket."""
        old = Drills("web01", NOW - 99 * DAY, True)
        self.assertIsNone(self.failing(old))
        self.assertIsNone(self.failing(old, drill=100 * DAY))
        self.assertIsNone(
            self.failing(evolve(old, passed_at=NOW - 9 * DAY), drill=10 * DAY)
        )

    def test_overdue(self) -> None:
        """Since the last one that passed, or since the bucket is known."""
        old = Drills("web01", NOW - 99 * DAY, True)
        self.assertEqual(
            ("no restore test has passed yet; one is due every 13d", CRITICAL),
            self.failing(old, drill=13 * DAY),
        )
        text = "the last restore test passed 13 days ago; one is due every 13d"
        found = self.failing(evolve(old, passed_at=NOW - 13 * DAY), drill=13 * DAY)
        self.assertEqual((text, CRITICAL), found)

    def test_no_files(self) -> None:
        """There is nothing to restore."""
        self.assertIsNone(self.failing(Drills("web01", 0, False), drill=DAY))

    def test_paused(self) -> None:
        """Until the end of the pause; a retired bucket still needs one."""
        old = Drills("web01", NOW - 99 * DAY, True)
        for until, due in ((NOW + 1, False), (NOW, True)):
            found = self.failing(old, drill=DAY, paused=Pause(until, "a move"))
            self.assertEqual(due, found is not None)
        self.assertIsNotNone(self.failing(old, drill=DAY, retired=True))

    def test_failed(self) -> None:
        """With or without the key; each doubling of their number is news."""
        failed = Drills("web01", 0.0, True, NOW, 1, ("db-#", NOW - 7200, "no\n"))
        text = "the restore test of db-# failed 2 h ago: no\\x0a"
        self.assertEqual((text, 3), self.failing(failed))
        self.assertEqual((text, 3), self.failing(failed, drill=DAY))
        text = "the restore test of db-# (and 3 more series) failed 2 h ago: no\\x0a"
        self.assertEqual((text, 5), self.failing(evolve(failed, failed=4)))

    def test_both(self) -> None:
        failed = Drills("web01", NOW, True, NOW - 9 * DAY, 1, ("a", NOW - 60, "no"))
        self.assertEqual(
            (
                "the restore test of a failed 1 min ago: no;"
                " the last restore test passed 9 days ago; one is due every 7d",
                3,
            ),
            self.failing(failed, drill=7 * DAY),
        )


def a_bucket(quota: int | None) -> Bucket:
    return Bucket((Token(b"x" * 32),), "web01", "web01", quota=quota)


class FullBucketTests(SynchronousTestCase):
    def test_quota(self) -> None:
        """From 90 % on, a bucket is nearly full."""
        for taken, quota in ((921, 1024), (10**9, None)):
            self.assertIsNone(full_bucket(a_bucket(quota), taken, None))
        for taken, text in (
            (922, "90 % of the quota of 1.0 KiB is used"),
            (1229, "120 % of the quota of 1.0 KiB is used"),
        ):
            self.assertEqual(
                Problem(Kind.FULL, WARNING, text, "web01"),
                full_bucket(a_bucket(1024), taken, None),
            )

    def test_refused(self) -> None:
        """With and without a quota: the disk may be full."""
        for quota in (None, 1000):
            self.assertEqual(
                Problem(
                    Kind.FULL, CRITICAL, "the last push was refused: full", "web01"
                ),
                full_bucket(a_bucket(quota), 0, "full"),
            )


class FullDiskTests(SynchronousTestCase):
    def look(
        self, free: int, left: float | None = None, **given: bool
    ) -> tuple[int, str] | None:
        disk = Filesystem(1000, free, 100, **{"read_only": False, **given})
        full_at = None if left is None else NOW + left
        found = full_disk(disk, full_at, NOW)
        if found is None:
            return None
        self.assertEqual((Kind.FULL, ""), (found.kind, found.bucket))
        return found.severity, found.text

    def test_fine(self) -> None:
        self.assertIsNone(self.look(150))
        self.assertIsNone(self.look(150, 14 * DAY))

    def test_full(self) -> None:
        """The worst comes first."""
        for given in ({}, {"full_of_files": False}):
            self.assertEqual(
                (2, "no push can be stored: free space is below min_free_space"),
                self.look(100, DAY, **given),
            )
        self.assertEqual(
            (2, "no push can be stored: no free inodes"),
            self.look(900, full_of_files=True),
        )
        self.assertEqual(
            (2, "no push can be stored: the filesystem is read-only"),
            self.look(900, read_only=True),
        )

    def test_after_restart(self) -> None:
        """Until then, the daemon keeps less space free."""
        text = "after the restart, no push can be stored: free space is below"
        self.assertEqual(
            (1, f"{text} min_free_space"), self.look(100, after_restart=True)
        )

    def test_soon(self) -> None:
        self.assertEqual(
            (1, "the disk is full in about 13 days at this rate"),
            self.look(900, 13.4 * DAY),
        )
        self.assertEqual(
            (1, "the disk is full in about an hour at this rate"), self.look(900, 0.0)
        )

    def test_scarce(self) -> None:
        self.assertEqual((1, "pushes may use only 49 B of the disk"), self.look(149))


class LostTests(SynchronousTestCase):
    def test_counts(self) -> None:
        """Each further file is reported."""
        self.assertEqual([], lost_files("web01", 0, 0))
        self.assertEqual(
            [
                Problem(Kind.DAMAGED, CRITICAL, "1 file is damaged", "web01", level=1),
                Problem(Kind.MISSING, CRITICAL, "5 files are missing", "web01", 5),
            ],
            lost_files("web01", 1, 5),
        )


class CopyTests(SynchronousTestCase):
    """:func:`late_copy`."""

    def found(self, *copies: Copy) -> tuple[int, str] | None:
        problem = late_copy(copies, NOW)
        if problem is None:
            return None
        self.assertEqual((Kind.COPY, "web01"), (problem.kind, problem.bucket))
        return problem.severity, problem.text

    def test_none(self) -> None:
        self.assertIsNone(self.found())
        for waiting_since in (None, NOW - 2 * DAY):
            copy = Copy("https://far", "web01", 1.0, 2.0, None, waiting_since)
            self.assertIsNone(self.found(copy))

    def test_failed(self) -> None:
        for waiting_since in (None, NOW - 2 * DAY):
            copy = Copy("https://far", "web01", 1.0, 2.0, "no\x1b", waiting_since)
            expected = (1, "the copy to https://far failed: no\\x1b")
            self.assertEqual(expected, self.found(copy))

    def test_late(self) -> None:
        """However the last copy ended."""
        text = "files received since 2026-11-22T08:59:59Z are not copied to https://far"
        for error, more in ((None, ""), ("no", ": no")):
            since = NOW - 2 * DAY - 1
            copy = Copy("https://far", "web01", 1.0, 2.0, error, since)
            self.assertEqual((2, f"{text}{more}"), self.found(copy))

    def test_several(self) -> None:
        """The worst is named."""
        fine = Copy("https://a", "web01", 1.0, 2.0)
        failed = Copy("https://b", "web01", 1.0, 2.0, "no")
        late = Copy("https://c", "web01", 1.0, 2.0, None, NOW - 3 * DAY)
        for copies, text in (
            ((fine, failed), "the copy to https://b failed"),
            ((fine, failed, late), "are not copied to https://c"),
        ):
            found = self.found(*copies)
            assert found is not None
            self.assertIn(text, found[1])


class HookTests(SynchronousTestCase):
    def failing(self, *failures: tuple[str, str, str]) -> tuple[int, str] | None:
        found = failing_hooks(
            [HookFailure(hook, bucket, 1.0, 2.0, why) for hook, bucket, why in failures]
        )
        return None if found is None else (found.severity, found.text)

    def test_none(self) -> None:
        self.assertIsNone(self.failing())

    def test_one(self) -> None:
        self.assertEqual(
            (1, "the post-push hook fails for web01: exit status 3"),
            self.failing(("post-push", "web01", "exit status 3")),
        )
        self.assertEqual(
            (1, "the alert hook fails: it timed out"),
            self.failing(("alert", "", "it timed out")),
        )

    def test_level(self) -> None:
        """A bucket does not hide another one, and many do not cause many alerts."""
        one = HookFailure("post-push", "web00", 1.0, 2.0, "x")
        levels = []
        for count in range(1, 1001):
            found = failing_hooks([evolve(one, bucket=f"{n}") for n in range(count)])
            levels.append(found.level if found else 0)
        self.assertLess(levels[0], levels[1])
        self.assertEqual(sorted(levels), levels)
        self.assertEqual(10, len(set(levels)))
        worse = failing_hooks([evolve(one, hook="pre-push")])
        assert worse is not None
        self.assertGreater(worse.level, levels[-1])

    def test_many(self) -> None:
        """One problem, however many buckets there are; the last failure is named."""
        self.assertEqual(
            (
                2,
                "the post-push hook fails for web02 and 2 more buckets: exit status 3;"
                " the pre-push hook fails for #ababab: no",
            ),
            self.failing(
                ("post-push", "web02", "exit status 3"),
                ("pre-push", f"#{'ab' * 32}", "no"),
                ("post-push", "web01", "exit status 4"),
                ("post-push", "web03", "exit status 4"),
            ),
        )
