"""``filebucket log --follow`` as a process, beside the real daemon."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

from filebucket.catalogue.database import FILE
from filebucket.test.kit.children import bounded, shown
from filebucket.test.kit.integration import IntegrationCase
from filebucket.test.kit.server import OTHER, PATIENCE, Server


def caught(process: subprocess.Popen[bytes]) -> set[int]:
    """The signals that a process handles."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = re.findall(r"^SigCgt:\t([0-9a-f]+)$", status, re.MULTILINE)
    return {each for each in range(1, 65) if int(mask, 16) >> (each - 1) & 1}


class FollowTests(IntegrationCase):
    def setUp(self) -> None:
        super().setUp()
        self.running = self.server()

    def command(self, server: Server, *options: str) -> list[str]:
        program = [sys.executable, "-m", "filebucket", "log", "--follow"]
        return [*program, *options, "--config", str(server.config_file)]

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """A process that follows the log."""
        return subprocess.Popen(
            self.command(self.running, *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def push(self, name: str, status: int = 200) -> None:
        url = f"{self.running.url}/{OTHER}/{name}"
        found, _ = self.curl("-T", str(self.file()), url)
        self.assertEqual(status, found)

    def test_json(self) -> None:
        """Each line comes at once, through a restart and the loss of the catalogue."""
        self.push("a")
        with bounded(self.start("--json")) as process:

            def next_line() -> tuple[str, int | None]:
                assert process.stdout is not None
                found = json.loads(process.stdout.readline())
                return found["name"], found.get("status")

            self.assertEqual(("a", None), next_line())
            # Then Ctrl-C ends it whatever it does.
            self.assertNotIn(signal.SIGINT, caught(process))
            self.push("b")
            self.assertEqual(("b", None), next_line())
            self.push("b", 405)
            self.assertEqual(("b", 405), next_line())
            self.running.stop()
            self.running.start()
            self.push("c")
            self.assertEqual(("c", None), next_line())
            (self.running.home / FILE).unlink()
            self.push("d")
            self.assertEqual(("d", None), next_line())
            self.push("e")
            self.assertEqual(("e", None), next_line())
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate()
        self.assertEqual(-signal.SIGINT, process.returncode)
        self.assertEqual(b"", rest)
        # The daemon may take longer than a second to create the new catalogue.
        self.assertNotIn(b"Traceback", errors)
        self.assertNotIn(b"Abort", errors)

    def test_closed_pipe(self) -> None:
        """It ends without a word, even if nothing is pushed any more."""
        self.push("a")
        with bounded(self.start()) as process:
            assert process.stdout is not None and process.stderr is not None
            self.assertIn(b"TIME", process.stdout.readline())
            process.stdout.close()
            self.assertEqual(1, process.wait(PATIENCE))
            self.assertEqual(b"", process.stderr.read())

    def test_terminal(self) -> None:
        """Ctrl-C in a terminal ends it without a message."""
        self.push("a")
        ours, theirs = pty.openpty()
        command = ["setsid", "--ctty", *self.command(self.running)]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        output, interrupted = b"", False
        with bounded(process):
            for piece in shown(ours):
                output += piece
                if b"web01" in output and not interrupted:
                    os.write(ours, b"\x03")
                    interrupted = True
        self.assertEqual(-signal.SIGINT, process.returncode)
        self.assertNotIn(b"Abort", output)
        self.assertNotIn(b"Traceback", output)
