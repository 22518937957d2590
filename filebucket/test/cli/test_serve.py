"""``filebucket serve``: what it starts."""

from __future__ import annotations

from filebucket.cli import twistd
from filebucket.test.kit.commands import CliCase


class ServeTests(CliCase):
    def test_starts(self) -> None:
        """The daemon gets the file and the log format."""
        started: list[tuple[str, str | None]] = []
        self.patch(twistd, "run", lambda *given: started.append(given))
        self.run_("serve")
        self.run_("serve", "--log-format", "json")
        path = str(self.file)
        self.assertEqual([(path, None), (path, "json")], started)

    def test_misused(self) -> None:
        self.assertIn("'text', 'json'", self.misused("serve", "--log-format", "xml"))
