"""``filebucket serve``: what it starts."""

from __future__ import annotations

from filebucket.cli import twistd
from filebucket.test.kit.commands import CliCase


class ServeTests(CliCase):
    """``serve``."""

    def test_starts(self) -> None:
        """The daemon gets the file, and what its log is to look like."""
        started: list[tuple[str, str | None]] = []
        self.patch(twistd, "run", lambda *given: started.append(given))
        self.run_("serve")
        self.run_("serve", "--log-format", "json")
        path = str(self.file)
        self.assertEqual([(path, None), (path, "json")], started)

    def test_misused(self) -> None:
        """There are two formats."""
        self.assertIn("'text', 'json'", self.misused("serve", "--log-format", "xml"))
