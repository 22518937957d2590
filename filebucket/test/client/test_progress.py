"""The line on a terminal."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis.strategies import integers
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base import text
from filebucket.client.progress import REDRAW, Bar, Progress, size_text
from filebucket.test.kit.properties import trying

MIB = 1024 * 1024


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


class BarTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.out = io.StringIO()
        self.columns = 80

    def bar(self, length: int | None, name: str = "db.gz") -> Bar:
        subject = f"/var/{name}"
        clock = self.clock.seconds
        return Bar(self.out, name, length, subject, clock, lambda: self.columns)

    def drawn(self) -> str:
        """The text since the last call."""
        found = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        return found

    def line(self) -> str:
        """The drawn line, without what it covers."""
        found = self.drawn()
        self.assertEqual(("\r", "\r"), (found[0], found[-1]))
        self.assertEqual(max(self.columns - 1, 10), len(found) - 2)
        return found[1:-1].rstrip()

    def test_file(self) -> None:
        bar = self.bar(100 * MIB)
        bar.at(0)
        self.assertEqual("db.gz  [--------------------]    0 %  0 B", self.line())
        self.clock.advance(2)
        bar.at(25 * MIB)
        self.assertEqual(
            "db.gz  [#####---------------]   25 %  25 MiB  12 MiB/s  ETA 0:06",
            self.line(),
        )
        self.clock.advance(2)
        bar.at(100 * MIB)
        self.assertEqual(
            "db.gz  [####################]  100 %  100 MiB  25 MiB/s  ETA 0:00",
            self.line(),
        )

    def test_pipe(self) -> None:
        """No length, no bar, and no time that is left. The same for an empty file."""
        for length in (None, 0):
            bar = self.bar(length)
            bar.at(0)
            self.assertEqual("db.gz  0 B", self.line())
            self.clock.advance(1)
            bar.at(MIB)
            self.assertEqual("db.gz  1.0 MiB  1.0 MiB/s", self.line())

    def test_long_times(self) -> None:
        bar = self.bar(3601)
        bar.at(0)
        self.drawn()
        self.clock.advance(1)
        bar.at(1)
        self.assertIn("1 B/s  ETA 1:00:00", self.line())

    def test_seldom(self) -> None:
        bar = self.bar(None)
        bar.at(0)
        self.drawn()
        self.clock.advance(REDRAW / 2)
        bar.at(1)
        self.assertEqual("", self.drawn())
        self.clock.advance(REDRAW / 2)
        bar.at(2)
        self.assertIn("2 B", self.line())

    def test_recent_rate(self) -> None:
        """The rate is that of the last ten seconds."""
        bar = self.bar(None)
        for second in range(31):
            bar.at(second * MIB if second < 20 else 20 * MIB + (second - 20) * 1024)
            self.clock.advance(1)
        self.assertTrue(self.drawn().rstrip().endswith("1.0 KiB/s"))

    def test_retry(self) -> None:
        bar = self.bar(10 * MIB)
        bar.at(5 * MIB)
        self.drawn()
        bar.retry("connection reset", 1.6)
        self.assertEqual(
            f"\r{'':79}\rfilebucket-push: /var/db.gz: connection reset; trying again in"
            " 2 s\n",
            self.drawn(),
        )
        self.clock.advance(2)
        # The rate is not that of before.
        bar.at(0)
        self.assertEqual(
            "db.gz  [--------------------]    0 %  0 B  1 retry", self.line()
        )
        bar.retry("connection reset", 1.6)
        self.drawn()
        self.clock.advance(1)
        bar.at(MIB)
        self.assertIn("1.0 MiB  2 retries", self.line())

    def test_sent_again(self) -> None:
        """A smaller offset is no negative rate."""
        bar = self.bar(10 * MIB)
        bar.at(9 * MIB)
        self.drawn()
        self.clock.advance(1)
        bar.at(MIB)
        self.assertEqual("db.gz  [##------------------]   10 %  1.0 MiB", self.line())

    def test_narrow(self) -> None:
        """It never wraps, whatever the width."""
        for self.columns in (0, 5, 20, 40, 200):
            self.bar(MIB, "a" * 100).at(0)
            line = self.line()
            self.assertLessEqual(len(line), max(self.columns - 1, 10))
        self.assertTrue(line.startswith(f"{'a' * 27}...  ["))

    def test_end(self) -> None:
        bar = self.bar(MIB)
        bar.at(0)
        self.drawn()
        bar.end()
        self.assertEqual("", self.line())

    def test_terminal_gone(self) -> None:
        """The push goes on."""
        self.out = Gone()
        bar = self.bar(MIB)
        bar.at(0)
        bar.retry("connection reset", 1.0)
        bar.end()

    def test_real_terminal(self) -> None:
        """The defaults are the width of the terminal, and the clock."""
        bar = Bar(self.out, "db.gz", None, "db.gz")
        bar.at(7)
        self.assertIn("db.gz  7 B", self.drawn())

    def test_nothing(self) -> None:
        progress = Progress()
        progress.at(1)
        progress.retry("", 1.0)
        progress.end()


class SizeTests(SynchronousTestCase):
    """The client has its own copy, since it imports nothing of the server."""

    def test_limits(self) -> None:
        sizes = {0, 1, 999, 1000, 2**63 - 1, 2**70}
        for power in range(0, 70, 10):
            for tenths in (99, 100, 9995, 10000, 10240):
                around = tenths * 2**power // 10
                sizes.update(range(max(around - 2, 0), around + 3))
        for size in sizes:
            self.assertEqual(text.size_text(size), size_text(size), size)

    @trying
    @given(integers(0, 2**70))
    def test_same(self, size: int) -> None:
        self.assertEqual(text.size_text(size), size_text(size))
