"""What hooks are told."""

from __future__ import annotations

import os

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.hooks.interfaces import (
    ALERT,
    POST_PUSH,
    PRE_PUSH,
    SERVER,
    Alert,
    Exit,
    IHooks,
    Run,
    Subject,
)
from filebucket.test.kit.fakes import FakeHooks

SUBJECT = Subject("token", "#c0ffee", "#key", "a.sql", -1, "192.0.2.1:9", "0a1b")


class EnvironmentTests(SynchronousTestCase):
    """The environment variables of a hook."""

    def test_before(self) -> None:
        self.assertEqual(
            {
                "BUCKET": "token",
                "FILENAME": "a.sql",
                "SIZE": "-1",
                "REMOTE": "192.0.2.1:9",
            },
            SUBJECT.environment(PRE_PUSH),
        )

    def test_after(self) -> None:
        stored = evolve(SUBJECT, size=7, path="/srv/token/a.sql", sha256="ab")
        told = stored.environment(POST_PUSH)
        self.assertEqual(
            ("7", "/srv/token/a.sql", "ab"),
            (told["SIZE"], told["PATH"], told["SHA256"]),
        )

    def test_alert(self) -> None:
        alert = Alert(
            bucket="web01",
            series="db-#",
            old="fresh",
            new="late",
            request_id="0a1b",
            text="is late",
            expect="26h",
        )
        self.assertEqual("web01", alert.label)
        self.assertEqual(
            {
                "BUCKET": "web01",
                "SERIES": "db-#",
                "OLD": "fresh",
                "NEW": "late",
                "TEXT": "is late",
                "EXPECT": "26h",
                "TITLE": "web01: late",
                "MESSAGE": "web01: db-# is late",
                **dict.fromkeys(
                    (
                        *("SEVERITY", "COMMENT", "AGAIN", "SINCE", "DUE"),
                        *(
                            "LAST",
                            "LAST_NAME",
                            "LAST_SIZE",
                            "USUAL_SIZE",
                            "FAILURE",
                            "MORE",
                        ),
                    ),
                    "",
                ),
            },
            alert.environment("alert"),
        )

    def test_lines(self) -> None:
        """The lines of an alert for people."""
        host = f"server {os.uname().nodename}"
        again = "2026-11-27T03:30:00Z"
        for changed, title, message in (
            ({}, "web01: late", "web01: x is late"),
            ({"series": ""}, "web01: late", "web01 is late"),
            (
                {"series": "(2 more)", "text": "has 2 more changes", "more": "2"},
                "web01: late",
                "web01 has 2 more changes",
            ),
            (
                {"bucket": SERVER, "series": "", "new": "full", "text": "disk is full"},
                f"{host}: full",
                f"{host}: disk is full",
            ),
            (
                {"series": "", "new": "drill", "again": again, "text": "no test"},
                "web01: still without a passed restore test",
                f"web01: no test; last reported {again}",
            ),
            (
                {"series": "", "old": "copy", "new": "ok", "severity": "ok"},
                "web01: ok (was not copied)",
                "web01: is late",
            ),
            (
                {"new": "fresh", "text": "is fresh again", "severity": "ok"},
                "web01: fresh (was fresh)",
                "web01: x is fresh again",
            ),
            (
                {"again": again, "comment": "call Anna"},
                "web01: still late",
                f"web01: x is late; last reported {again} (call Anna)",
            ),
            (
                {"series": "\n\x1b[2J"},
                "web01: late",
                "web01: \\x0a\\x1b[2J is late",
            ),
        ):
            values = {"series": "x", "bucket": "web01", "new": "late", **changed}
            text = {"text": "is late", **values}
            alert = Alert(**{"old": "fresh", "request_id": "0a1b", **text})
            self.assertEqual((title, message), (alert.title, alert.message))


class RunTests(SynchronousTestCase):
    """Whether a run failed, and why."""

    def test_failure(self) -> None:
        late = Exit(143, timed_out=True)
        stop = Exit(143, stopped=True)
        for hook, ended, expected in (
            (PRE_PUSH, Exit(0), None),
            (PRE_PUSH, Exit(1), None),
            (PRE_PUSH, Exit(2), None),
            (PRE_PUSH, Exit(125), None),
            (PRE_PUSH, Exit(127), "exited with 127"),
            (PRE_PUSH, Exit(139), "exited with 139"),
            (PRE_PUSH, late, "timed out"),
            (PRE_PUSH, stop, None),
            (PRE_PUSH, None, "cannot be run: why"),
            (POST_PUSH, Exit(0), None),
            (POST_PUSH, Exit(3), "exited with 3"),
            (POST_PUSH, late, "timed out"),
            (POST_PUSH, stop, None),
            (ALERT, Exit(1), "exited with 1"),
            (ALERT, None, "cannot be run: why"),
        ):
            run = Run(hook, "web01", 1.0, ended, "" if ended else "why")
            self.assertEqual(expected, run.failure, (hook, ended))
            self.assertEqual(ended is stop, run.stopped)


class InterfaceTests(SynchronousTestCase):
    def test_fake(self) -> None:
        verifyObject(IHooks, FakeHooks())

    def test_no_token(self) -> None:
        self.assertNotIn("token", repr(evolve(SUBJECT, path="/srv/token/a.sql")))
