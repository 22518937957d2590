"""The daemon's lock and its status file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.config.config import Keys
from filebucket.daemon.applied import Applied
from filebucket.daemon.control import (
    AT_ONCE,
    Answer,
    Status,
    StatusFile,
    daemon_of,
    read,
    read_applied,
)
from filebucket.test.kit.control import NOTHING, status_file
from filebucket.test.kit.server import NOBODY, PATIENCE

ASK = """
import sys
from filebucket.daemon import control
try:
    print(control.daemon_of(sys.argv[1]))
except OSError as error:
    print(error.strerror)
"""


class StatusCase(SynchronousTestCase):
    """Has a home."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.private = self.home / ".filebucket"
        self.private.mkdir(parents=True)
        self.file = status_file(str(self.home), "/etc/config.json")
        self.addCleanup(self.file.stopService)

    def seen(self) -> str:
        """The daemon, as another process sees it."""
        # A process does not see its own lock.
        command = [sys.executable, "-c", ASK, str(self.home)]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout.strip()

    def mode(self, name: str) -> int:
        return stat.S_IMODE((self.private / name).stat().st_mode)


class StatusTests(StatusCase):
    """Both sides."""

    def test_nobody(self) -> None:
        self.assertIsNone(daemon_of(str(self.home)))
        self.assertIsNone(read(str(self.home)))
        self.assertIsNone(daemon_of("/nowhere"))
        self.assertIsNone(read("/nowhere"))

    def test_seen_from_start_to_stop(self) -> None:
        self.file.startService()
        self.assertEqual(str(os.getpid()), self.seen())
        self.assertEqual(Status("/etc/config.json"), read(str(self.home)))
        self.file.stopService()
        self.assertEqual("None", self.seen())

    def test_links_and_pipes(self) -> None:
        """The owner of a home cannot lead root to another process."""
        self.file.startService()
        lock, other = self.private / "daemon", self.home / "other"
        lock.rename(other)
        lock.symlink_to(other)
        self.assertRaises(OSError, daemon_of, str(self.home))
        lock.unlink()
        os.mkfifo(lock)
        self.assertRaises(OSError, daemon_of, str(self.home))
        (self.private / "status.json").unlink()
        os.mkfifo(self.private / "status.json")
        self.assertRaises(OSError, read, str(self.home))

    def test_another_name(self) -> None:
        """Nor by a hard link to a file that another process locks, or by a folder."""
        self.file.startService()
        os.link(self.private / "daemon", self.home / "catalogue.db")
        self.assertEqual("the daemon's lock is not a regular file", self.seen())
        (self.home / "catalogue.db").unlink()
        self.assertEqual(str(os.getpid()), self.seen())
        self.private.rename(self.home / "other")
        self.private.symlink_to(self.home / "other")
        self.assertEqual("Not a directory", self.seen())
        self.assertRaises(OSError, read, str(self.home))

    def test_another_user(self) -> None:
        """Nor by a file that another user's process has locked."""
        if os.geteuid() != 0:
            raise SkipTest("only root can make a file another's")
        self.file.startService()
        os.chown(self.private / "daemon", NOBODY, NOBODY)
        self.assertEqual("the lock is held by another user's process", self.seen())
        self.file.stopService()
        self.file.startService()
        self.assertEqual(str(os.getpid()), self.seen())

    def test_no_status(self) -> None:
        """A damaged or forged status file."""
        for text in ("", "{}", "[]", "{", '{"answer": 1}', '{"answer": {"x": 1}}'):
            (self.private / "status.json").write_text(text)
            self.assertRaises(OSError, read, str(self.home))

    def test_escapes(self) -> None:
        """Control characters are escaped, and values of wrong types rejected."""
        self.file.startService()
        self.file.tell(Answer("a\x1b", "b\x1b[2J:\n  c\r", waiting=("d\u202e",)))
        evil = status_file(str(self.home), "/etc/\x1b]0;x")
        answer = Answer("a\\x1b", "b\\x1b[2J:\n  c\\x0d", waiting=("d\\u202e",))
        self.assertEqual(Status("/etc/config.json", 1, answer), read(str(self.home)))
        evil._write()
        self.assertEqual(Status("/etc/\\x1b]0;x"), read(str(self.home)))
        for given in (
            {"config": 1},
            {"number": "\x1b"},
            {"number": True},
            {"answer": {"added": "\x1b"}},
            {"answer": {"reason": ["\x1b"]}},
            {"answer": {"waiting": "\x1b"}},
            {"answer": {"waiting": [1]}},
        ):
            said = {"config": "/", "number": 1, "answer": None, **given}
            (self.private / "status.json").write_text(json.dumps(said))
            self.assertRaises(OSError, read, str(self.home))

    def test_asking_takes_nothing(self) -> None:
        """Reading the lock does not keep a daemon from starting."""
        self.file.startService()
        self.file.stopService()
        self.seen()
        self.file.startService()
        self.assertEqual(str(os.getpid()), self.seen())

    def test_answers(self) -> None:
        self.file.startService()
        for number, answer in enumerate(
            (Answer("ab", None, 3, 2, 1, ("port", "host")), Answer(None, "no")), 1
        ):
            self.file.tell(answer)
            expected = Status("/etc/config.json", number, answer)
            self.assertEqual(expected, read(str(self.home)))

    def test_outage(self) -> None:
        """It stays over a reload, and is written only if it changes."""
        self.file.startService()
        self.file.tell_outage("no answer")
        self.file.tell(Answer("ab"))
        expected = Status("/etc/config.json", 1, Answer("ab"), "no answer")
        self.assertEqual(expected, read(str(self.home)))
        before = (self.private / "status.json").stat().st_ino
        self.file.tell_outage("no answer")
        self.assertEqual(before, (self.private / "status.json").stat().st_ino)
        self.file.tell_outage(None)
        self.assertEqual(
            Status("/etc/config.json", 1, Answer("ab")), read(str(self.home))
        )

    def test_of_the_last_life(self) -> None:
        """The next daemon does not report the answer of one that was killed."""
        self.file.startService()
        self.file.tell(Answer("ab"))
        os.close(self.file._lock_fd)
        self.file._lock_fd = -1
        next_file = status_file(str(self.home), "/etc/config.json")
        self.addCleanup(next_file.stopService)
        next_file.startService()
        self.assertEqual(Status("/etc/config.json"), read(str(self.home)))

    def test_modes(self) -> None:
        """Only the owner can read them, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.file.startService()
        self.assertEqual([0o600] * 2, [self.mode("daemon"), self.mode("status.json")])
        files = {"daemon", "status.json", "applied.json"}
        self.assertEqual(files, set(os.listdir(self.private)))
        self.assertEqual(0o600, self.mode("applied.json"))

    def test_cannot_be_said(self) -> None:
        """The daemon runs all the same, and logs it."""
        self.private.rmdir()
        with capturedLogs() as events:
            self.file.startService()
        (event,) = events
        self.assertEqual(
            "filebucket reload cannot find this daemon: No such file or directory",
            formatEvent(event),
        )


SOME = Applied("ab", Keys({"port": "12", "host": "34"}, made=True), {"web01": "56"})


class AppliedTests(StatusCase):
    """The applied configuration."""

    def applied(self) -> Applied | None:
        return read_applied(str(self.home))

    def test_from_start(self) -> None:
        self.assertIsNone(self.applied())
        self.file.startService()
        self.assertEqual(NOTHING, self.applied())

    def test_reload(self) -> None:
        """A reload that fails changes nothing."""
        self.file.startService()
        self.file.tell(Answer("ab"), SOME)
        self.assertEqual(SOME, self.applied())
        self.file.tell(Answer("cd", "broken"))
        self.assertEqual(SOME, self.applied())

    def test_many(self) -> None:
        """They are encoded in parts."""
        self.file.startService()
        for count in (0, 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE):
            buckets = {f'web{number}\u65e5"': "ab" for number in range(count)}
            applied = Applied("ab", SOME.keys, buckets)
            self.file.tell(Answer("ab"), applied)
            self.assertEqual(applied, self.applied())

    def test_of_the_last_life(self) -> None:
        """While a daemon starts, what the one before had applied is not shown."""
        self.file.startService()
        self.file.stopService()
        begun: list[Callable[[], None]] = []

        def run(function: Callable[[], None]) -> Deferred[None]:
            begun.append(function)
            return Deferred()

        after = StatusFile(str(self.home), "/c", run, lambda: SOME)
        self.addCleanup(after.stopService)
        after.startService()
        self.assertIsNone(self.applied())
        begun[0]()
        self.assertEqual(SOME, self.applied())

    def test_no_room(self) -> None:
        """The answer of a reload is written even if what is applied cannot be."""
        (self.private / "applied.json.new").mkdir()
        with capturedLogs() as events:
            self.file.startService()
        (event,) = events
        expected = "filebucket check cannot see what is applied: Is a directory"
        self.assertEqual(expected, formatEvent(event))
        self.assertRaises(OSError, self.file.tell, Answer("ab"), SOME)
        answered = Status("/etc/config.json", 1, Answer("ab"))
        self.assertEqual(answered, read(str(self.home)))

    def test_room_again(self) -> None:
        """Files that could not be written follow at the daemon's next look."""
        self.file.startService()
        blocked = [self.private / f"{name}.json.new" for name in ("applied", "status")]
        for each in blocked:
            each.mkdir()
        self.assertRaises(OSError, self.file.tell, Answer("ab"), SOME)
        self.assertRaises(OSError, self.file.tell, Answer("cd", "broken"))
        self.assertRaises(OSError, self.file.tell_outage, None)
        for each in blocked:
            each.rmdir()
        self.file.tell_outage(None)
        self.assertEqual(SOME, self.applied())
        answered = Status("/etc/config.json", 2, Answer("cd", "broken"))
        self.assertEqual(answered, read(str(self.home)))
        before = (self.private / "status.json").stat().st_ino
        self.file.tell_outage(None)
        self.assertEqual(before, (self.private / "status.json").stat().st_ino)

    def test_malformed(self) -> None:
        """A damaged or forged file."""
        self.file.startService()
        path = self.private / "applied.json"
        good = json.loads(path.read_text())
        for text in ("", "[]", "{", "[" * 100_000, '{"text": "x"}'):
            path.write_text(text)
            self.assertRaises(OSError, self.applied)
        for key, value in (
            ("keys", 1),
            ("keys", {"values": {"a": 1}, "made": True}),
            ("buckets", ["a"]),
            ("buckets", {"a": 1}),
        ):
            path.write_text(json.dumps({**good, key: value}))
            self.assertRaises(OSError, self.applied)
        with path.open("w") as file:
            file.truncate(2**40)
        self.assertRaises(OSError, self.applied)
        path.unlink()
        path.symlink_to("/etc/passwd")
        self.assertRaises(OSError, self.applied)
