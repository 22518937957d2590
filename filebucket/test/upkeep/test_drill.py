"""Tests of :mod:`filebucket.upkeep.drill`, with real commands, since their ends are
what matters.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.test.kit.integration import ended
from filebucket.test.kit.server import PATIENCE
from filebucket.upkeep import drill
from filebucket.upkeep.drill import Command, StartError, running

MANY = memoryview(bytes(4 * drill.PIPE_SIZE))
"""More than a pipe holds."""


class DrillCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def run_(
        self, line: str, *pieces: memoryview, then: Callable[[Command], object] = id
    ) -> str | None:
        """Run a command in the folder, with a bound; give it these bytes.

        :param then: called before the file ends
        """
        line = f'cd "{self.folder}"; {line}'
        with running(line, {}) as command:
            # As of the whole group.
            alarm = threading.Timer(PATIENCE, command._signal, (signal.SIGKILL,))
            alarm.start()
            try:
                for each in pieces:
                    command.write(each)
                then(command)
                return command.finish()
            finally:
                alarm.cancel()

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


class CommandTests(DrillCase):
    def test_reads_all(self) -> None:
        self.assertIsNone(
            self.run_("cat >got", memoryview(b"one,"), memoryview(b"two"))
        )
        self.assertEqual(b"one,two", self.read("got"))

    def test_never_reads(self) -> None:
        """Its end is noticed, although the pipe is full."""
        self.assertIsNone(self.run_("exit 0", MANY))
        self.assertEqual("the command exited with 3", self.run_("exit 3", MANY))

    def test_stops_reading(self) -> None:
        """As ``pg_restore --list``; or it closes its input and goes on."""
        self.assertIsNone(self.run_("head -c 1 >/dev/null", MANY, MANY))
        self.assertIsNone(self.run_("exec <&-; echo done >got", MANY, MANY))
        self.assertEqual(b"done\n", self.read("got"))

    def test_leaves_a_child(self) -> None:
        """A process in the background holds the pipe: only the command counts."""
        os.mkfifo(self.folder / "stop")
        self.assertIsNone(self.run_("(read x <stop; echo ended >got) 3<&0 &", MANY))
        fd = os.open(self.folder / "stop", os.O_WRONLY)
        os.close(fd)

    def test_sees_no_end(self) -> None:
        """It ends only when it has seen the end of the file, which is not yet."""

        def look(command: Command) -> None:
            self.assertFalse(command._has_ended())

        self.assertIsNone(self.run_("cat >/dev/null", memoryview(b"x"), then=look))

    def test_killed(self) -> None:
        text = "the command was ended by SIGTERM"
        self.assertEqual(text, self.run_("kill -TERM $$", MANY))
        text = f"the command was ended by signal {signal.SIGRTMIN + 1}"
        self.assertEqual(text, self.run_(f"kill -{signal.SIGRTMIN + 1} $$"))

    def test_not_found(self) -> None:
        text = "the command exited with 127"
        self.assertEqual(text, self.run_("nothing-like-this 2>/dev/null", MANY))

    def test_option(self) -> None:
        """A command that looks like an option of the shell."""
        with running("-x 2>/dev/null", {}) as command:
            self.assertEqual("the command exited with 127", command.finish())

    def test_environment(self) -> None:
        """In addition to that of this process; the bytes are UTF-8."""
        self.patch(os, "environb", {**os.environb, b"KEPT": b"\xff"})
        with running(
            f'printf %s "$KEPT$NAME" >"{self.folder}/got"', {"NAME": "\u00fc\u65e5"}
        ) as command:
            self.assertIsNone(command.finish())
        self.assertEqual(b"\xff" + "\u00fc\u65e5".encode(), self.read("got"))

    def test_sigpipe(self) -> None:
        """Python ignores it; a command must not."""
        self.assertIsNone(self.run_("yes | head -1 >/dev/null", MANY))
        self.assertIsNone(
            self.run_("trap '' PIPE; grep SigIgn /proc/self/status >ignored; exit 0")
        )
        self.assertIsNone(self.run_("grep SigIgn /proc/self/status >got"))
        pipe = 1 << (signal.SIGPIPE - 1)
        for name, ignored in (("ignored", True), ("got", False)):
            mask = int(self.read(name).split()[1], 16)
            self.assertEqual(ignored, bool(mask & pipe), name)

    def test_no_shell(self) -> None:
        """Nothing stays open."""
        self.patch(drill, "SHELL", "/nothing-like-this")
        error = self.assertRaises(StartError, self.run_, "true")
        self.assertEqual(os.strerror(2), str(error))


class EndTests(DrillCase):
    """The command is ended before the end of the file."""

    def interrupted(self, line: str) -> list[int]:
        """The processes of a command whose drill is interrupted.

        :param line: it writes their pids to the pipe ``ready``
        """
        ready = self.folder / "ready"
        os.mkfifo(ready)

        def interrupt(command: Command) -> None:
            pids.extend(map(int, ready.read_text().split()))
            raise KeyboardInterrupt

        pids: list[int] = []
        self.assertRaises(KeyboardInterrupt, self.run_, line, then=interrupt)
        return pids

    def test_whole_group(self) -> None:
        """It does not take this for the end of the file."""
        found = self.interrupted("sleep 60 & echo $$ $! >ready; cat; echo >whole")
        self.assertEqual(2, len(found))
        for pid in found:
            self.assertTrue(ended(pid), pid)
        self.assertFalse((self.folder / "whole").exists())

    def test_ignores_sigterm(self) -> None:
        self.patch(drill, "END_TIMEOUT", 0.1)
        found = self.interrupted("trap '' TERM; sleep 60 & echo $$ $! >ready; wait")
        for pid in found:
            self.assertTrue(ended(pid), pid)

    def test_signals(self) -> None:
        """They are blocked only while the command starts, and not in it."""
        self.assertIsNone(self.run_("grep SigBlk /proc/self/status >got"))
        self.assertEqual(0, int(self.read("got").split()[1], 16))
        self.assertEqual(set(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
