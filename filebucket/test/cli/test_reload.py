"""``filebucket reload``: what it prints."""

from __future__ import annotations

from filebucket.base.errors import ConfigError
from filebucket.cli import reload
from filebucket.daemon.ask import NotReloadedError
from filebucket.daemon.control import Answer
from filebucket.test.kit.commands import CliCase


class ReloadTests(CliCase):
    def answers(self, answer: Answer | Exception) -> None:
        """Set the daemon's answer."""

        def ask(path: str, timeout: float) -> Answer:
            self.assertEqual(str(self.file), path)
            self.timeout = timeout
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.patch(reload, "ask", ask)

    def test_in_force(self) -> None:
        self.answers(Answer("ab", None, 3, 2, 1, ("port", "host")))
        self.assertEqual(
            "Reloaded: 3 buckets (2 tokens added, 1 removed).\n"
            "Restart the daemon to apply port and host.\n",
            self.run_("reload"),
        )
        self.assertEqual(30, self.timeout)
        self.assertEqual(
            {
                "buckets": 3,
                "added": 2,
                "removed": 1,
                "changed": 0,
                "waiting": ["port", "host"],
            },
            self.json("reload", "--timeout", "1.5"),
        )
        self.assertEqual(1.5, self.timeout)

    def test_changed(self) -> None:
        self.answers(Answer("ab", buckets=3, changed=2))
        self.assertEqual(
            "Reloaded: 3 buckets (0 tokens added, 0 removed, 2 buckets changed).\n",
            self.run_("reload"),
        )

    def test_failed(self) -> None:
        """The reason is one line."""
        for error in (NotReloadedError("no"), ConfigError("f", ["no"])):
            self.answers(error)
            self.assertEqual(f"Error: {error}", self.refused("reload"))
        self.misused("reload", "--timeout", "0")
