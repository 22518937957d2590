"""Progress and findings."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from filebucket.cli.progress import Findings, Progress, progress_bar
from filebucket.upkeep.survey import Finding, Found


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class BarTests(SynchronousTestCase):
    def shown(self, stream: io.StringIO, length: int) -> str:
        with redirect_stderr(stream):
            self.assertIs(stream, sys.stderr)
            with progress_bar(length) as bar:
                for at in range(length + 1):
                    bar.to(at)
                bar.clear()
        return stream.getvalue()

    def test_terminal(self) -> None:
        """The bar is drawn to its end."""
        self.assertIn("100%", self.shown(Terminal(), 10))

    def test_no_terminal(self) -> None:
        """No bar without a terminal, nor with length 0."""
        self.assertEqual("", self.shown(io.StringIO(), 10))
        self.assertEqual("", self.shown(Terminal(), 0))

    def test_seldom(self) -> None:
        """A thousand updates at most, and one at the end."""
        moved: list[int] = []
        bar = Progress(SimpleNamespace(update=moved.append), 100_050)
        for at in range(100_051):
            bar.to(at)
        self.assertEqual(100_050, sum(moved))
        self.assertLessEqual(len(moved), 1001)


class FindingsTests(SynchronousTestCase):
    def printed(self, as_json: bool, *found: Finding) -> str:
        with redirect_stdout(io.StringIO()) as stream:
            findings = Findings(as_json, Progress(None))
            for each in found:
                findings.print(each)
            findings.end(Found(files=1, read=1, bytes=1024, stranger=len(found)))
        return stream.getvalue()

    def test_lines(self) -> None:
        """One escaped line per finding, and the totals."""
        self.assertEqual(
            "unknown     web01  a\\x1b: no\\x1b\n"
            "unreadable  web01  its folder\n"
            "1 file, 1 read (1.0 KiB): 2 unknown\n",
            self.printed(
                False,
                Finding("stranger", "web01", "a\x1b", "no\x1b"),
                Finding("unreadable", "web01", None),
            ),
        )
        self.assertEqual(
            "1 file, 1 read (1.0 KiB): no problems found\n", self.printed(False)
        )

    def test_entered(self) -> None:
        """Added files are only counted: there may be a million."""
        text = self.printed(False, Finding("entered", "web01", "a"))
        self.assertEqual(1, text.count("\n"))

    def test_json(self) -> None:
        """One object with all findings."""
        one = Finding("stranger", "web01", "a")
        for found in ((), (one,), (one, one)):
            said = json.loads(self.printed(True, *found))
            self.assertEqual(len(found), len(said["findings"]))
            self.assertEqual((1, len(found)), (said["files"], said["stranger"]))

    def test_words(self) -> None:
        """Some kinds have another word in the text than in JSON."""
        for kind, word in (("back", "restored"), ("left", "skipped")):
            finding = Finding(kind, "web01", "a")  # type: ignore[arg-type]
            self.assertTrue(self.printed(False, finding).startswith(f"{word}  "), word)
            self.assertIn(f'"kind": "{kind}"', self.printed(True, finding))
        self.assertEqual("1 restored", Found(back=1).text)
