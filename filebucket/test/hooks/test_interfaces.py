"""What hooks are asked and told."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.hooks.interfaces import POST_PUSH, PRE_PUSH, Alert, IHooks, Subject
from filebucket.test.kit.fakes import FakeHooks

SUBJECT = Subject("token", "#c0ffee", "a.sql", -1, "192.0.2.1:9", "0a1b")


class EnvironmentTests(SynchronousTestCase):
    """What stands in a hook's environment."""

    def test_before(self) -> None:
        """Before a push there is no file to tell of."""
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
        """Afterwards there is."""
        stored = evolve(SUBJECT, size=7, path="/srv/token/a.sql", sha256="ab")
        told = stored.environment(POST_PUSH)
        self.assertEqual(
            ("7", "/srv/token/a.sql", "ab"),
            (told["SIZE"], told["PATH"], told["SHA256"]),
        )

    def test_alert(self) -> None:
        """What changed, and its details."""
        alert = Alert("web01", "db-#", "fresh", "late", "0a1b", {"EXPECT": "26h"})
        self.assertEqual("web01", alert.label)
        self.assertEqual(
            {
                "BUCKET": "web01",
                "SERIES": "db-#",
                "OLD": "fresh",
                "NEW": "late",
                "EXPECT": "26h",
            },
            alert.environment("alert"),
        )


class InterfaceTests(SynchronousTestCase):
    def test_fake(self) -> None:
        """What stands in for hooks in other tests has their interface."""
        verifyObject(IHooks, FakeHooks())

    def test_no_token(self) -> None:
        """Neither a token nor a path is in what a log may show."""
        self.assertNotIn("token", repr(evolve(SUBJECT, path="/srv/token/a.sql")))
