"""What hooks are told."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.hooks.interfaces import (
    ALERT,
    POST_PUSH,
    PRE_PUSH,
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
            expect="26h",
        )
        self.assertEqual("web01", alert.label)
        self.assertEqual(
            {
                "BUCKET": "web01",
                "SERIES": "db-#",
                "OLD": "fresh",
                "NEW": "late",
                "EXPECT": "26h",
                **dict.fromkeys(
                    (
                        *("TEXT", "SEVERITY", "COMMENT", "AGAIN", "SINCE", "DUE"),
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


class RunTests(SynchronousTestCase):
    """Whether a run failed, and why."""

    def test_failure(self) -> None:
        late = Exit(143, timed_out=True)
        stop = Exit(143, stopped=True)
        for hook, ended, expected in (
            (PRE_PUSH, Exit(0), None),
            (PRE_PUSH, Exit(1), None),
            (PRE_PUSH, Exit(2), None),
            (PRE_PUSH, Exit(139), None),
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
