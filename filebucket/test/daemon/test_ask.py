"""``filebucket reload`` against a stand-in daemon: this process is signalled, and the
stand-in answers while the command sleeps.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import ConfigError
from filebucket.daemon import control
from filebucket.daemon.applied import identity
from filebucket.daemon.ask import ASK_EVERY, NotReloadedError, ask
from filebucket.daemon.control import Answer
from filebucket.daemon.reload import SIGNAL
from filebucket.test.kit.control import status_file


class AskCase(SynchronousTestCase):
    """Has a configuration, and this process as its daemon."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "home" / ".filebucket").mkdir(parents=True)
        self.home = str(self.folder / "home")
        self.file = self.folder / "config.json"
        self.write(0)
        self.status = status_file(self.home, str(self.file))
        self.status.startService()
        self.addCleanup(self.status.stopService)
        self.process: int | None = os.getpid()
        self.patch(control, "daemon_of", lambda home: self.process)
        self.signals = 0
        self.addCleanup(signal.signal, SIGNAL, signal.signal(SIGNAL, self.receive))
        self.now = 0.0
        self.plan: list[Callable[[], object]] = []

    def write(self, port: int) -> None:
        """Write a text that differs for each port."""
        self.file.write_text(json.dumps({"home": "home", "buckets": [], "port": port}))

    def text(self) -> str:
        return identity(self.file.read_text())

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1

    def sleep(self, seconds: float) -> None:
        """Let one thing happen at a time meanwhile."""
        self.assertEqual(1, self.signals)
        self.now += seconds
        if self.plan:
            self.plan.pop(0)()

    def ask(self, *plan: Callable[[], object]) -> Answer:
        self.plan = list(plan)
        return ask(str(self.file), 30, lambda: self.now, self.sleep)

    def refused(self, *plan: Callable[[], object]) -> str:
        return str(self.assertRaises(NotReloadedError, self.ask, *plan))

    def tells(self, answer: Answer) -> Callable[[], object]:
        return lambda: self.status.tell(answer)


class AskTests(AskCase):
    """Which results count as an answer."""

    def test_in_force(self) -> None:
        answer = Answer(self.text(), None, 3, 2, 1)
        self.assertEqual(answer, self.ask(lambda: 0, lambda: 0, self.tells(answer)))
        self.assertAlmostEqual(3 * ASK_EVERY, self.now)

    def test_not_an_older_answer(self) -> None:
        """A result from before the request does not count."""
        self.status.tell(Answer(self.text(), "broken", 1))
        answer = Answer(self.text(), None, 2)
        self.assertEqual(answer, self.ask(lambda: 0, self.tells(answer)))

    def test_not_of_an_older_text(self) -> None:
        """Nor does that of a reload requested before the file was changed."""
        older = Answer(self.text(), None, 1)
        self.write(1)
        answer = Answer(self.text(), None, 2)
        self.assertEqual(answer, self.ask(self.tells(older), self.tells(answer)))

    def test_of_a_newer_text(self) -> None:
        """That of a text that has replaced the file meanwhile does."""

        def change() -> None:
            self.write(1)
            self.status.tell(Answer(self.text(), None, 2))

        self.assertEqual(2, self.ask(change).buckets)

    def test_refused(self) -> None:
        for text in (self.text(), None):
            self.signals = 0
            reason = self.refused(self.tells(Answer(text, "f: cannot be read")))
            expected = "the daemon kept its bucket list: f: cannot be read"
            self.assertEqual(expected, reason)

    def test_what_a_terminal_would_obey(self) -> None:
        """The owner of the home cannot write control characters to root's terminal."""
        reason = "c.json: 2 mistakes:\n  \x1b[2Jall is well\r\n  another"
        line = self.refused(self.tells(Answer(self.text(), reason)))
        self.assertTrue(line.replace("\n", "").isprintable(), line)
        self.assertIn("\n  another", line)

    def test_silence(self) -> None:
        reason = self.refused()
        self.assertIn("did not answer within 30 seconds", reason)
        self.assertAlmostEqual(30, self.now, delta=1)

    def test_ends_meanwhile(self) -> None:
        def end() -> None:
            self.process = None

        self.assertIn("has exited", self.refused(lambda: 0, end))
        self.assertAlmostEqual(2 * ASK_EVERY, self.now)

    def test_another_file(self) -> None:
        self.status.stopService()
        self.status = status_file(self.home, "/etc/other.json")
        self.status.startService()
        self.addCleanup(self.status.stopService)
        reason = self.refused(self.tells(Answer("ab" * 32)))
        self.assertEqual(
            "the daemon reads another configuration, /etc/other.json", reason
        )


class NotAskedTests(AskCase):
    """Processes that are not signalled."""

    def tearDown(self) -> None:
        super().tearDown()
        self.assertEqual(0, self.signals)

    def test_broken(self) -> None:
        """The daemon is not asked to read a broken file."""
        self.file.write_text("{}")
        error = self.assertRaises(ConfigError, self.ask)
        self.assertEqual(2, len(error.mistakes))

    def test_nobody(self) -> None:
        self.process = None
        reason = self.refused()
        self.assertEqual(
            f"no running daemon uses {self.home}; start it: filebucket serve --config"
            f" {self.file} (if you changed home, restart the daemon)",
            reason,
        )

    def test_another_file(self) -> None:
        """A daemon with the same home would reload its own file."""
        other = self.folder / "what-if.json"
        other.write_bytes(self.file.read_bytes())
        error = self.assertRaises(
            NotReloadedError,
            ask,
            str(other),
            30,
            lambda: self.now,
            self.sleep,
        )
        self.assertEqual(
            f"the daemon reads another configuration, {self.file}", str(error)
        )

    def test_out_of_sight(self) -> None:
        """A daemon in another PID namespace."""
        self.process = 0
        self.assertIn("is in another container or on another machine", self.refused())

    def test_gone(self) -> None:
        """The pid is unused, or is reused by another process."""
        self.process = 2**22 + 1
        self.assertIn("has exited", self.refused())
        processes = [os.getpid(), os.getppid()]
        self.patch(control, "daemon_of", lambda home: processes.pop(0))
        self.assertIn("has exited", self.refused())

    def test_not_allowed(self) -> None:
        def refuse(*arguments: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(signal, "pidfd_send_signal", refuse)
        self.assertIn("no permission to signal the daemon", self.refused())
        self.patch(control, "daemon_of", refuse)
        self.patch(os, "getuid", lambda: 1000)
        self.assertEqual(
            f"cannot read {self.home}: Permission denied; run this as root or as the"
            " daemon's user",
            self.refused(),
        )
