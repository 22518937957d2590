"""Child processes: real ones, since their ends are what matters."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from twisted.trial.unittest import SynchronousTestCase

from filebucket.client import command
from filebucket.client.command import MOST_MESSAGES, Messages, Pipeline, age
from filebucket.client.errors import CommandFailedError, UsageError
from filebucket.test.kit.descriptors import open_descriptors
from filebucket.test.kit.integration import ended
from filebucket.test.kit.server import PATIENCE


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


class CommandCase(SynchronousTestCase):
    def pipeline(
        self, *commands: Sequence[str], stdin: IO[bytes] | None = None
    ) -> Pipeline:
        """A pipeline that ends with the test, after a minute at the latest."""
        made = Pipeline([("timeout", "60", *each) for each in commands], stdin)
        self.addCleanup(made.end)
        return made

    def failure(self, *commands: Sequence[str]) -> str:
        """Read the output, and return how the commands failed."""
        made = self.pipeline(*commands)
        made.start().read()
        return str(self.assertRaises(CommandFailedError, made.wait))


class PipelineTests(CommandCase):
    def test_output(self) -> None:
        made = self.pipeline(["printf", "data"])
        self.assertEqual(b"data", made.start().read())
        made.wait()

    def test_two(self) -> None:
        """The second one reads what the first one writes."""
        made = self.pipeline(["printf", "data"], ["tr", "a-z", "A-Z"])
        self.assertEqual(b"DATA", made.start().read())
        made.wait()

    def test_stdin(self) -> None:
        """The first one reads the file, which stays open here."""
        path = Path(self.mktemp())
        path.write_bytes(b"data")
        with path.open("rb", buffering=0) as file:
            made = self.pipeline(["cat"], ["tr", "a-z", "A-Z"], stdin=file)
            self.assertEqual(b"DATA", made.start().read())
            made.wait()
            self.assertFalse(file.closed)

    def test_status(self) -> None:
        self.assertEqual(
            "timeout exited with 7; nothing is stored",
            self.failure(sh("printf half; exit 7")),
        )

    def test_first_fails(self) -> None:
        """Otherwise the encrypted beginning of a dump would be stored."""
        self.assertEqual(
            "timeout exited with 7; nothing is stored",
            self.failure(sh("printf half; exit 7"), ["cat"]),
        )

    def test_second_fails(self) -> None:
        """It is the cause, although SIGPIPE ends the first one."""
        made = Pipeline([["yes"], sh("exit 9")])
        self.addCleanup(made.end)
        made.start().read()
        error = self.assertRaises(CommandFailedError, made.wait)
        self.assertEqual("/bin/sh exited with 9; nothing is stored", str(error))

    def test_signal(self) -> None:
        for number, expected in (
            (signal.SIGKILL, "was ended by SIGKILL"),
            (signal.SIGPIPE, "was ended by SIGPIPE"),
            (signal.SIGRTMIN + 1, f"was ended by signal {signal.SIGRTMIN + 1}"),
        ):
            made = Pipeline([sh(f"kill -{int(number)} $$")])
            self.addCleanup(made.end)
            made.start().read()
            error = self.assertRaises(CommandFailedError, made.wait)
            self.assertEqual(f"/bin/sh {expected}; nothing is stored", str(error))

    def test_not_found(self) -> None:
        """That is known before the push is created."""
        for argv in (["filebucket-no-such-command"], ["/no/such"], [""]):
            error = self.assertRaises(CommandFailedError, Pipeline, [["cat"], argv])
            self.assertEqual(
                f"{argv[0]}: command not found, or not executable; nothing is stored",
                str(error),
            )

    def test_not_executable(self) -> None:
        path = Path(self.mktemp())
        path.touch(0o600)
        error = self.assertRaises(
            CommandFailedError, Pipeline, [[str(path.absolute())]]
        )
        self.assertIn("or not executable", str(error))

    def test_cannot_be_run(self) -> None:
        """Some that look executable are not. The ones before it are ended."""
        path = Path(self.mktemp())
        path.write_bytes(b"\0")
        path.chmod(0o700)
        made = Pipeline([sh("exec sleep 60"), [str(path.absolute())]])
        error = self.assertRaises(CommandFailedError, made.start)
        self.assertEqual(
            f"{path.absolute()}: Exec format error; nothing is stored", str(error)
        )
        self.assertEqual([], made._running)

    def test_interrupted_reader(self) -> None:
        """A command that writes gets SIGPIPE if the next one ends."""
        made = Pipeline([["yes"], ["head", "-c1"]])
        self.addCleanup(made.end)
        self.assertEqual(b"y", made.start().read())
        error = self.assertRaises(CommandFailedError, made.wait)
        self.assertEqual("yes was ended by SIGPIPE; nothing is stored", str(error))


class MessagesTests(CommandCase):
    """What commands write to standard error."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.out = self.path.open("wb", buffering=0)
        self.addCleanup(self.out.close)
        self.messages = Messages(self.out.fileno())

    def run_all(self, *commands: Sequence[str]) -> None:
        """Run the commands to their end."""
        made = Pipeline(commands, messages=self.messages)
        self.addCleanup(made.end)
        made.start().read()
        made.end()

    def test_passed_on(self) -> None:
        """All of it, of all commands, by the time they have ended."""
        self.run_all(sh("echo one >&2; exit 1"), sh("cat; echo two >&2"))
        self.assertEqual({"one", "two"}, set(self.path.read_text().split()))
        self.assertEqual({"one", "two"}, set(self.messages.last.split()))

    def test_last(self) -> None:
        """Only the last lines are kept, and no part of a line."""
        self.run_all(sh("seq 1 5000 >&2; printf '\\377' >&2"))
        self.assertEqual(
            "".join(f"{number}\n" for number in range(1, 5001)).encode() + b"\xff",
            self.path.read_bytes(),
        )
        lines = self.messages.last.split("\n")
        self.assertEqual(["5000", "\ufffd"], lines[-2:])
        self.assertEqual(str(5001 - len(lines[:-1])), lines[0])
        self.assertLessEqual(len(self.messages.last), MOST_MESSAGES)

    def test_one_line(self) -> None:
        self.run_all(sh("printf %3000d 7 >&2"))
        self.assertEqual(f"{'7':>{MOST_MESSAGES}}", self.messages.last)

    def test_not_started(self) -> None:
        """A command that cannot be run says nothing, and leaves nothing open."""
        before = open_descriptors()
        self.assertRaises(
            CommandFailedError,
            Pipeline,
            [["filebucket-no-such-command"]],
            None,
            self.messages,
        )
        self.assertEqual("", self.messages.last)
        self.run_all(["true"])
        self.assertEqual(set(), open_descriptors() - before)

    def test_background(self) -> None:
        """A process that outlives the command, and keeps its standard error, does not
        delay the end for long.
        """
        self.patch(command, "MESSAGES_TIMEOUT", 0.01)
        made = Pipeline(
            [sh("setsid sleep 60 >/dev/null & echo $!; echo told >&2")],
            messages=self.messages,
        )
        self.addCleanup(made.end)
        pid = int(made.start().readline())
        thread = self.messages._thread
        assert thread is not None
        # It closes the pipe when the process has been killed.
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        made.wait()
        self.assertEqual("told\n", self.messages.last)
        os.kill(pid, 0)  # it still runs

    def test_closed(self) -> None:
        """The command goes on if its messages cannot be passed on."""
        self.out.close()
        reading, writing = os.pipe()
        os.close(reading)
        self.addCleanup(os.close, writing)
        self.messages = Messages(writing)
        self.run_all(sh("seq 1 99999 >&2; echo last >&2"))
        self.assertTrue(self.messages.last.endswith("last\n"))


class EndTests(CommandCase):
    def pids(self, made: Pipeline, count: int) -> list[int]:
        """The pids that the commands print, on a line each."""
        out = made.start()
        text = b""
        while text.count(b"\n") < count:
            more = os.read(out.fileno(), 100)
            self.assertTrue(more)
            text += more
        return [int(each) for each in text.split()]

    def test_whole_group(self) -> None:
        """Processes that the command started end with it."""
        made = self.pipeline(sh("echo $$; sh -c 'echo $$; sleep 60' & wait"))
        pids = self.pids(made, 2)
        made.end()
        self.assertTrue(all(map(ended, pids)))

    def test_children_of_the_dead(self) -> None:
        """Also if the command itself has failed already."""
        made = self.pipeline(sh("sh -c 'echo $$; exec sleep 60' & sleep 0; exit 3"))
        pids = self.pids(made, 1)
        self.assertRaises(CommandFailedError, made.wait)
        made.end()
        self.assertTrue(all(map(ended, pids)))

    def test_ignores_sigterm(self) -> None:
        self.patch(command, "END_TIMEOUT", 0.05)
        made = Pipeline([sh("trap '' TERM; echo $$; while :; do sleep 1; done")])
        pids = self.pids(made, 1)
        made.end()
        self.assertTrue(all(map(ended, pids)))

    def test_both(self) -> None:
        made = self.pipeline(sh("echo $$; exec sleep 60"), sh("cat; exec sleep 60"))
        pids = self.pids(made, 1)
        made.end()
        self.assertTrue(all(map(ended, pids)))

    def test_after_success(self) -> None:
        """The pids may be those of other processes soon: nothing gets a signal."""
        killed: list[tuple[int, int]] = []
        self.patch(os, "killpg", lambda *given: killed.append(given))
        made = self.pipeline(["true"])
        made.start().read()
        made.wait()
        made.end()
        self.assertEqual([], killed)

    def test_twice(self) -> None:
        killed: list[tuple[int, int]] = []
        made = self.pipeline(["sleep", "60"])
        made.start()
        made.end()
        self.patch(os, "killpg", lambda *given: killed.append(given))
        made.end()
        self.assertEqual([], killed)

    def test_not_started(self) -> None:
        self.pipeline(["true"]).end()

    def test_windows(self) -> None:
        """It has no groups: a program ends the tree, unless it has ended."""
        made = self.pipeline(["true"], ["sleep", "60"])
        made.start()
        made._running[0].wait(60)
        ran: list[list[str]] = []

        def taskkill(argv: list[str], **given: object) -> None:
            ran.append(argv)
            running[1].kill()

        running = list(made._running)
        self.patch(os, "name", "nt")
        self.patch(subprocess, "run", taskkill)
        made.end()
        pid = str(running[1].pid)
        self.assertEqual([["taskkill", "/T", "/F", "/PID", pid]], ran)


class AgeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.patch(os, "environ", {**os.environ, "PATH": str(self.folder)})

    def test_recipients(self) -> None:
        program = self.folder / "age"
        program.touch(0o700)
        self.assertEqual(
            [str(program), "--recipient", "age1a", "--recipient", "age1b"],
            age(["age1a", "age1b"]),
        )

    def test_missing(self) -> None:
        self.patch(shutil, "which", lambda program: None)
        for platform, hint in (("linux", "apt install age"), ("win32", "see age-")):
            self.patch(sys, "platform", platform)
            error = self.assertRaises(UsageError, age, ["age1a"])
            self.assertIn(f"--encrypt-to needs the program age: {hint}", str(error))
