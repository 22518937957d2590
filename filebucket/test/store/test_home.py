"""Tests of the home: its lock, its folders, and errors of its disk."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.base.context import begin_request
from filebucket.base.errors import ConfigError, Refusal
from filebucket.store import aside
from filebucket.store.aside import StagedFile, UnnamedFile
from filebucket.store.disk import DirectoryWriter
from filebucket.store.home import Home
from filebucket.test.kit.fakes import LinesAtOnce
from filebucket.test.store.contract import NAME
from filebucket.test.store.test_disk import Call, DirectoryCase, fails


class PrepareTests(DirectoryCase):
    """The home at the start."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(aside, "TIERS", (UnnamedFile, StagedFile))

    def assert_unusable(self, *reasons: str) -> None:
        """The home is refused for one of these reasons. close() must close what was
        opened until then.
        """
        error = self.assertRaises(ConfigError, self.store.prepare)
        self.assertEqual(self.home, error.source)
        (mistake,) = error.mistakes
        self.assertIn(mistake, reasons)
        self.store.close()

    def test_makes_what_is_missing(self) -> None:
        """Folders get mode 0700, files 0600, whatever the umask."""
        for umask in (0o000, 0o022, 0o077):
            self.addCleanup(os.umask, os.umask(umask))
            self.home = os.path.abspath(self.mktemp())
            self.make().prepare()
            for path, mode in (
                ((), 0o700),
                ((".filebucket",), 0o700),
                ((".filebucket", "incoming"), 0o700),
                ((".filebucket", "lock"), 0o600),
            ):
                self.assertEqual(mode, self.mode(*path), path)

    def test_keeps_what_is_there(self) -> None:
        """An existing home keeps its mode and its files."""
        os.makedirs(self.bucket)
        os.chmod(self.home, 0o750)
        os.close(os.open(os.path.join(self.bucket, NAME), os.O_CREAT))
        self.store.prepare()
        self.assertEqual(0o750, self.mode())
        self.assertEqual({NAME: b""}, self.published())

    def test_syncs_what_it_makes(self) -> None:
        """Each folder that is created is made durable."""
        self.store.prepare()
        made = [call for call in self.kernel.only("fsync") if call != "fsync incoming"]
        self.assertEqual(
            [
                "fsync parent",
                "fsync home",
                "fsync .filebucket",
                "fsync .filebucket",
                "fsync file",
            ],
            made,
        )

    def test_missing_parents(self) -> None:
        """Missing parents are created and made durable, too."""
        top = self.home
        self.kernel.home = self.home = os.path.join(top, "a", "b")
        self.store = self.make()
        self.store.prepare()
        self.push(b"content")
        synced = self.kernel.only("fsync")
        for place in ("fsync parent", "fsync ../..", "fsync ../../.."):
            self.assertIn(place, synced)

    def test_sweeps(self) -> None:
        """Leftovers of a crash are deleted, and nothing else."""
        os.makedirs(self.incoming)
        os.makedirs(self.bucket)
        for path in (
            os.path.join(self.incoming, "0" * 32),
            os.path.join(self.incoming, "probe"),
            os.path.join(self.bucket, NAME),
        ):
            with open(path, "wb") as file:
                file.write(b"left")
        self.store.prepare()
        self.assertEqual([], os.listdir(self.incoming))
        self.assertEqual({NAME: b"left"}, self.published())

    def test_in_use(self) -> None:
        """One daemon for each home: a second one is refused until the first is gone."""
        self.store.prepare()
        private = os.path.join(self.incoming, "0" * 32)
        os.close(os.open(private, os.O_CREAT))
        second = self.make()
        error = self.assertRaises(ConfigError, second.prepare)
        self.assertEqual(
            ("another file-bucket is using this home",),
            error.mistakes,
        )
        self.assertTrue(os.path.exists(private))
        second.close()
        self.store.close()
        second.prepare()
        self.assertFalse(os.path.exists(private))
        third = self.make()
        self.assertRaises(ConfigError, third.prepare)

    def test_close_twice(self) -> None:
        """Closing again, or before anything was opened, does nothing."""
        self.store.close()
        self.store.prepare()
        self.store.close()
        self.store.close()

    def test_prepare_again(self) -> None:
        """A store that was closed can be prepared again."""
        self.store.prepare()
        self.push(b"content")
        self.store.close()
        self.store.prepare()
        self.assert_push_refused(405)

    def test_home_is_a_file(self) -> None:
        os.close(os.open(self.home, os.O_CREAT))
        self.assert_unusable("cannot be used as home: File exists")

    def test_home_is_below_a_file(self) -> None:
        os.close(os.open(self.home, os.O_CREAT))
        self.home = os.path.join(self.home, "home")
        self.store = self.make()
        self.assert_unusable(
            "cannot be used as home: Not a directory",
            "cannot be used as home: File exists",
        )

    def test_private_directory_is_a_file(self) -> None:
        """Something else has the names that the daemon needs."""
        os.mkdir(self.home)
        private = os.path.join(self.home, ".filebucket")
        os.close(os.open(private, os.O_CREAT))
        self.assert_unusable("cannot be used as home: Not a directory")

    def test_incoming_is_a_file(self) -> None:
        os.makedirs(os.path.dirname(self.incoming))
        os.close(os.open(self.incoming, os.O_CREAT))
        self.assert_unusable("cannot be used as home: Not a directory")

    def test_lock_is_a_directory(self) -> None:
        os.makedirs(self.incoming)
        os.mkdir(os.path.join(self.home, ".filebucket", "lock"))
        self.assert_unusable("cannot be used as home: Is a directory")

    def test_cannot_be_made(self) -> None:
        """The reason is the system's error text."""
        for calls in (("makedirs", "mkdir"), ("mkdir",), ("open lock",)):
            if len(calls) == 1:
                os.makedirs(self.home, exist_ok=True)
            self.kernel.faults = dict.fromkeys(calls, fails(errno.EACCES))
            self.assert_unusable("cannot be used as home: Permission denied")

    def test_of_another_user(self) -> None:
        """The reason names the path, its owner, and the remedy if there is one."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        self.store.prepare()
        self.store.close()
        self.kernel.faults = {"open lock": fails(errno.EACCES)}
        reason = "cannot be used as home: Permission denied"
        private = os.path.join(self.home, ".filebucket")
        for path in (os.path.join(private, "lock"), private):
            os.chown(path, 54321, -1)
            of_another = f"{reason}: {path} belongs to user 54321"
            self.assert_unusable(
                f"{of_another}; as root, run: chown -hR --from=54321 root: {self.home}"
            )
        # Only its user may start the daemon here.
        os.chown(self.home, 54321, -1)
        self.assert_unusable(of_another)

    def test_best_tier(self) -> None:
        """If both tiers work, the file needs no name."""
        probed: list[str] = []
        for tier in (UnnamedFile, StagedFile):
            self.patch(tier, "seal", lambda aside: probed.append(aside.tier))
        self.assertEqual("O_TMPFILE", self.store.prepare())
        self.assertEqual(["O_TMPFILE"], probed)
        self.assertEqual([], os.listdir(self.incoming))

    def once(self, fault: Call) -> Call:
        """``fault``, but only the first time."""

        def call(*args: Any, **named: Any) -> Any:
            self.kernel.faults.clear()
            return fault(*args, **named)

        return call

    def test_no_unnamed_files(self) -> None:
        """Without O_TMPFILE, or a way to link it, private names are used."""
        for call, number in (
            ("open unnamed", errno.EOPNOTSUPP),
            ("open unnamed", errno.EISDIR),
            ("open unnamed", errno.EINVAL),
            ("link", errno.EXDEV),
            ("link", errno.ENOENT),
        ):
            self.kernel.faults[call] = self.once(fails(number))
            self.store = self.make()
            self.assertEqual("temporary name and hard link", self.store.prepare())
            self.assertEqual([], os.listdir(self.incoming))
            self.push(b"content", overwrite=True)
            self.store.close()

    def test_no_tier(self) -> None:
        """A filesystem that supports neither is refused, with both reasons."""
        for number, word in (
            (errno.EOPNOTSUPP, "Operation not supported"),
            (errno.EPERM, "Operation not permitted"),
        ):
            self.kernel.faults["open unnamed"] = fails(errno.EISDIR)
            self.kernel.faults["link"] = fails(number)
            self.assert_unusable(
                "the filesystem supports no atomic publish (O_TMPFILE: Is a "
                f"directory; temporary name and hard link: {word})"
            )
            self.assertEqual([], os.listdir(self.incoming))

    def test_no_fsync(self) -> None:
        """So is one that cannot sync a folder."""
        self.kernel.faults["fsync incoming"] = fails(errno.EINVAL)
        self.assert_unusable(
            "the filesystem supports no atomic publish (O_TMPFILE: Invalid "
            "argument; temporary name and hard link: Invalid argument)"
        )
        self.assertEqual([], os.listdir(self.incoming))

    def test_writer(self) -> None:
        """Writers use the tier that was found."""
        self.store.prepare()
        writer = self.writer()
        assert isinstance(writer, DirectoryWriter)
        self.assertIsInstance(writer._aside, UnnamedFile)


class LogTests(SynchronousTestCase):
    """Disk errors in the log."""

    def test_disk(self) -> None:
        """A log line of a thread names the push."""

        def write() -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        async def push() -> None:
            begin_request("0a1b")
            await Home("/", LinesAtOnce()).run("a", write)

        with capturedLogs() as events:
            self.failureResultOf(Deferred.fromCoroutine(push()), Refusal)
        (line,) = map(formatEvent, events)
        said = "request=0a1b: disk error during write: Input/output error"
        self.assertEqual(said, line)
