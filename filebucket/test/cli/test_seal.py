"""``filebucket seal``: what it prints."""

from __future__ import annotations

import errno
import json
import os
import signal

import click

from filebucket.cli import seal
from filebucket.store.attributes import APPEND_ONLY, IMMUTABLE, KernelAttributes
from filebucket.store.seal import Home
from filebucket.test.kit.commands import HASH, TOKEN, CliCase
from filebucket.test.kit.sealed import replace_kernel


class SealTests(CliCase):
    """A home with a bucket, whose files need not be old."""

    def setUp(self) -> None:
        super().setUp()
        self.attributes = replace_kernel(self)
        self.home = self.folder / "home"
        self.bucket = self.home / "web01"
        (self.home / ".filebucket").mkdir(parents=True)
        self.bucket.mkdir()
        for name in ("a", TOKEN):
            (self.bucket / name).touch()
        seal = Home.seal
        self.patch(
            Home, "seal", lambda home, name, before: seal(home, name, before + 3600)
        )
        self.configure()

    def configure(self, **settings: object) -> None:
        self.write({"name": "web01", "token_sha256": HASH, **settings}, seal="15m")

    def sealed(self) -> set[str]:
        return {
            each.name
            for each in self.bucket.iterdir()
            if self.attributes.of(each) & IMMUTABLE
        }

    def test_seals(self) -> None:
        """The files, and the storage folder."""
        self.assertEqual("Sealed 2 files.\n", self.run_("seal"))
        self.assertEqual("Sealed 0 files; 2 sealed before.\n", self.run_("seal"))
        self.assertEqual({"a", TOKEN}, self.sealed())
        self.assertEqual(APPEND_ONLY, self.attributes.of(self.home))

    def test_json(self) -> None:
        found = {"already": 0, "young": 0, "lifted": 0, "left": 0, "failed": 0}
        self.assertEqual(
            {"sealed": 2, **found, "reasons": []}, self.json("seal", "web01")
        )

    def test_no_key(self) -> None:
        """Nothing is sealed, and that is no error: the timer runs all the same."""
        self.write({"name": "web01", "token_sha256": HASH}, home="nowhere")
        self.assertEqual(
            "Nothing to seal: 'seal' is not in the configuration.\n", self.run_("seal")
        )
        self.assertEqual(0, self.json("seal")["sealed"])

    def test_overwrite(self) -> None:
        self.configure(overwrite=True)
        self.assertEqual(
            "web01: not sealed: the bucket has overwrite\nSealed 0 files.\n",
            self.run_("seal"),
        )
        self.assertEqual(set(), self.sealed())

    def test_failed(self) -> None:
        """Each failure has a line, without a token."""
        for name in ("a", TOKEN):
            found = (self.bucket / name).stat()
            self.attributes.written.add((found.st_dev, found.st_ino))
        result = self.invoke("seal")
        self.assertEqual(1, result.exit_code)
        *lines, last = result.output.splitlines()
        self.assertEqual(
            [
                "web01  a: a process has it open for writing",
                "web01  web01: a process has it open for writing",
            ],
            sorted(lines),
        )
        self.assertEqual("Sealed 0 files; 2 failed.", last)
        result = self.invoke("seal", "--json")
        self.assertEqual(1, result.exit_code)
        self.assertNotIn(TOKEN, result.output)
        self.assertEqual(2, len(json.loads(result.output)["reasons"]))

    def test_not_root(self) -> None:
        """One line for the storage folder, and one for each file."""
        self.attributes.allowed = False
        result = self.invoke("seal")
        self.assertEqual(1, result.exit_code)
        self.assertEqual(
            "the storage folder: not permitted: run this as root",
            result.output.splitlines()[0],
        )

    def test_many_failures(self) -> None:
        """Not each of a million files has a line, but all are counted."""
        self.patch(seal, "MOST_REASONS", 1)
        for name in ("a", TOKEN):
            found = (self.bucket / name).stat()
            self.attributes.written.add((found.st_dev, found.st_ino))
        result = self.invoke("seal")
        self.assertEqual(2, len(result.output.splitlines()))
        self.assertIn("2 failed", result.output)

    def test_cannot_print(self) -> None:
        """All files are sealed, although the reason of a failure cannot be printed, as
        to a file on a full disk."""
        (self.bucket / "b").touch()
        os.link(self.bucket / "b", self.home / "b")

        def echo(*args: object, **kwargs: object) -> None:
            self.assertEqual({"a", TOKEN}, self.sealed())
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(click, "echo", echo)
        self.assertNotEqual(0, self.invoke("seal").exit_code)
        self.assertEqual({"a", TOKEN}, self.sealed())

    def test_signal(self) -> None:
        """A process that opens a file while it is looked at cannot end the command."""
        before = signal.getsignal(signal.SIGIO)
        self.addCleanup(signal.signal, signal.SIGIO, before)
        handlers = []

        def is_written(attributes: object, fd: int) -> bool:
            handlers.append(signal.getsignal(signal.SIGIO))
            return False

        self.patch(KernelAttributes, "is_written", is_written)
        self.run_("seal")
        self.assertEqual([signal.SIG_IGN] * 2, handlers)

    def test_lift(self) -> None:
        """One file, or all and the storage folder."""
        self.run_("seal")
        self.assertEqual("Lifted 1 file.\n", self.run_("seal", "--lift", "web01", "a"))
        self.assertEqual({TOKEN}, self.sealed())
        self.assertEqual(APPEND_ONLY, self.attributes.of(self.home))
        self.assertEqual("Lifted 1 file.\n", self.run_("seal", "--lift"))
        self.assertEqual(set(), self.sealed())
        self.assertEqual(0, self.attributes.of(self.home))

    def test_lift_without_key(self) -> None:
        """Files that were sealed before the key was removed."""
        self.run_("seal")
        self.write({"name": "web01", "token_sha256": HASH})
        self.assertEqual(2, self.json("seal", "--lift", "web01")["lifted"])

    def test_lift_nothing(self) -> None:
        """A name that does not exist is an error."""
        result = self.invoke("seal", "--lift", "web01", "b")
        self.assertEqual(1, result.exit_code)
        self.assertEqual(
            "web01  b: there is no such file\nLifted 0 files; 1 failed.\n",
            result.output,
        )

    def test_unknown_bucket(self) -> None:
        self.assertIn("there is no bucket 'web02'", self.misused("seal", "web02"))
