"""``filebucket get``."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import ANY

from click.testing import Result

from filebucket.catalogue.database import FILE
from filebucket.catalogue.files import Files
from filebucket.catalogue.view import View
from filebucket.model.records import Drill, Series
from filebucket.store import archive, target
from filebucket.store.archive import StoredFile
from filebucket.store.interfaces import NotAFileError, UnsteadyError
from filebucket.test.kit.commands import DAY, TOKEN, UpkeepCase
from filebucket.upkeep import drill as drills


class GetCase(UpkeepCase):
    """Works in an empty folder.

    :ivar target: that folder
    """

    def setUp(self) -> None:
        super().setUp()
        self.target = self.folder / "target"
        self.target.mkdir()
        before = os.getcwd()
        os.chdir(self.target)
        self.addCleanup(os.chdir, before)

    def there(self) -> dict[str, bytes]:
        """The content of the files that were written."""
        return {each.name: each.read_bytes() for each in self.target.iterdir()}

    def fails(self, *arguments: str) -> str:
        """The one line of a command that leaves nothing behind."""
        before = self.there()
        line = self.refused("get", *arguments)
        self.assertEqual(before, self.there())
        self.assertNotIn(TOKEN, line)
        return line.removeprefix("Error: ")


class WrittenTests(GetCase):
    def test_newest(self) -> None:
        """It gets its own name, and only its owner may read it."""
        self.push("db-1", b"one", age=2 * DAY)
        self.push("db-2", b"two", age=DAY)
        printed = self.run_("get", "web01")
        self.assertRegex(
            printed,
            r"^db-2: 3 B, received \S+ \S+ \(24 h ago\), checksum verified\n$",
        )
        self.assertEqual({"db-2": b"two"}, self.there())
        self.assertEqual(0o600, (self.target / "db-2").stat().st_mode & 0o777)

    def test_series_and_names(self) -> None:
        for name in ("db-1", "db-2", "etc-1"):
            self.push(name, name.encode())
        for wanted, name in (("etc-1", "etc-1"), ("db-1", "db-1"), ("d*", "db-2")):
            self.run_("get", "web01", wanted)
            self.assertEqual({name: name.encode()}, self.there())
            (self.target / name).unlink()

    def test_output(self) -> None:
        """A path, or a folder."""
        self.push("db-1")
        printed = self.run_("get", "web01", "-o", "new")
        self.assertIn("new: db-1, 7 B, received", printed)
        (self.target / "folder").mkdir()
        for path in ("folder", f"{self.target}/folder/other"):
            self.run_("get", "web01", "-o", path)
        self.assertEqual({"db-1", "other"}, set(os.listdir(self.target / "folder")))

    def test_many_pieces(self) -> None:
        self.patch(archive, "READ_SIZE", 1000)
        content = os.urandom(12345)
        self.push("db", content)
        self.run_("get", "web01")
        self.assertEqual({"db": content}, self.there())

    def test_json(self) -> None:
        self.push("db-1")
        self.assertEqual(
            {
                "bucket": "web01",
                "series": "db-1",
                "name": "db-1",
                "size": 7,
                "sha256": hashlib.sha256(b"content").hexdigest(),
                "received_at": ANY,
                "output": "new",
            },
            self.json("get", "web01", "--output", "new"),
        )

    def test_at(self) -> None:
        """As of the end of a day or second, or a duration ago."""
        now = time.time()
        for name, age in (("old", 3.0), ("new", 1.0)):
            self.push(name, age=age * DAY)
        at = time.localtime(now - 3 * DAY)
        for text in (
            "2d",
            time.strftime("%Y-%m-%d", at),
            time.strftime("%Y-%m-%d %H:%M:%S", at),
        ):
            self.run_("get", "web01", "--at", text, "--overwrite")
            self.assertEqual({"old"}, set(self.there()), text)
        self.assertIn("no file from that time", self.fails("web01", "--at", "9d"))
        self.assertIn("such as", self.misuse("get", "web01", "--at", "noon"))

    def test_overwrite(self) -> None:
        """Only if that is asked for, and at once."""
        self.push("db")
        path = self.target / "db"
        path.write_text("mine")
        self.assertEqual(
            "db: already exists; --overwrite replaces it", self.fails("web01")
        )
        self.run_("get", "web01", "--overwrite")
        self.assertEqual({"db": b"content"}, self.there())

    def test_skipped(self) -> None:
        """A newer file that may be bad is named."""
        self.push("good", age=5 * DAY)
        self.push("bad-", b"", age=2 * DAY)
        result = self.invoke("get", "web01")
        self.assertIn(
            "Warning: skipped 1 newer file that may be bad: bad- is empty\n",
            result.output,
        )
        self.assertEqual({"good"}, set(self.there()))

    def test_pruned_meanwhile(self) -> None:
        """A file that is open can be read to its end."""
        path = self.push("db", b"x" * 5000)
        self.patch(archive, "READ_SIZE", 1000)
        write = target.Target.write

        def remove(this: target.Target, piece: memoryview) -> None:
            path.unlink(missing_ok=True)
            write(this, piece)

        self.patch(target.Target, "write", remove)
        self.run_("get", "web01")
        self.assertEqual({"db": b"x" * 5000}, self.there())


class StdoutTests(GetCase):
    def get(self, *arguments: str) -> Result:
        return self.invoke("get", "web01", "--output", "-", *arguments)

    def test_whole(self) -> None:
        """Standard output has only the bytes."""
        content = bytes(range(256)) * 9
        self.push("db", content)
        result = self.get()
        self.assertEqual(0, result.exit_code)
        self.assertTrue(result.stdout_bytes.startswith(content))
        self.assertEqual({}, self.there())

    def test_damaged(self) -> None:
        """The exit status and an error decide, since the bytes are gone."""
        self.damage(self.push("db"))
        result = self.get()
        self.assertEqual(1, result.exit_code)
        self.assertIn("do not use the output\n", result.output)
        self.assertNotIn("verified", result.output)

    def test_misused(self) -> None:
        for words in (("-o", "-", "--json"), ("--damaged",)):
            self.assertIn("Error: --", self.misuse("get", "web01", *words))


class DrillTests(GetCase):
    """Restore tests."""

    def setUp(self) -> None:
        super().setUp()
        self.push("db", b"content")

    def drill(self, line: str, *arguments: str) -> Result:
        return self.invoke("get", "web01", "--exec", line, *arguments)

    def series(self) -> Series:
        with closing(View.open(str(self.home))) as view:
            (found,) = view.worst(["web01"], time.time(), 9)["web01"]
        return found

    def test_passed(self) -> None:
        result = self.drill("cat >got")
        self.assertRegex(
            result.output,
            r"^db: 7 B, received \S+ \S+ \(3 days ago\), checksum verified,"
            r" restore test passed\n$",
        )
        self.assertEqual((0, {"got": b"content"}), (result.exit_code, self.there()))
        found = self.series()
        self.assertLess(time.time() - 60, found.drilled_at or 0)
        self.assertEqual(found.drilled_at, found.restored_at)
        self.assertEqual(("db", None), (found.drilled_name, found.drill_error))

    def test_environment(self) -> None:
        names = [f"FILEBUCKET_{x}" for x in ("BUCKET", "SERIES", "NAME", "SIZE")]
        self.drill(f"printenv {' '.join(names)} FILEBUCKET_SHA256 >got")
        sha256 = hashlib.sha256(b"content").hexdigest()
        self.assertEqual(
            ["web01", "db", "db", "7", sha256], self.there()["got"].decode().split()
        )

    def test_failed(self) -> None:
        """It is recorded; the last one that passed stays."""
        self.assertEqual(0, self.drill("true").exit_code)
        passed = self.series().restored_at
        self.assertEqual(
            "db: the restore test failed: the command exited with 7",
            self.fails("web01", "--exec", "exit 7"),
        )
        found = self.series()
        self.assertEqual("the command exited with 7", found.drill_error)
        self.assertEqual(passed, found.restored_at)

    def test_damaged(self) -> None:
        """The command is ended, and does not take that for the end of the file."""
        self.damage(self.home / "web01" / "db")
        later = time.time() + 3600
        self.patch(time, "time", lambda: later)
        reason = "its content differs from what was received"
        self.assertEqual(
            f"db: the restore test failed: {reason}",
            self.fails("web01", "--exec", "cat >/dev/null; touch whole"),
        )
        self.assertEqual(reason, self.series().drill_error)

    def test_changed_just_now(self) -> None:
        """A push may have replaced it: that is no result."""
        self.put("db", b"another")
        line = self.fails("web01", "--exec", "true")
        self.assertIn("try again in a minute", line)
        self.assertIsNone(self.series().drilled_at)

    def test_unreadable(self) -> None:
        """A missing file, and a disk error."""
        path = self.home / "web01" / "db"
        path.rename(path.with_name("away"))
        text = "db: the restore test failed: the file is gone"
        self.assertEqual(text, self.fails("web01", "--exec", "true"))
        self.assertEqual("the file is gone", self.series().drill_error)
        path.with_name("away").rename(path)

        def fail(this: StoredFile, write: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(StoredFile, "copy", fail)
        self.fails("web01", "--exec", "cat >/dev/null; touch whole")
        self.assertEqual("Input/output error", self.series().drill_error)

    def test_unsteady(self) -> None:
        def fail(this: StoredFile, write: object) -> None:
            raise UnsteadyError

        self.patch(StoredFile, "copy", fail)
        self.assertIn("try again", self.fails("web01", "--exec", "true"))
        self.assertIsNone(self.series().drilled_at)

    def test_not_recorded(self) -> None:
        """It says so, and fails, whatever the result was."""
        catalogue = self.home / FILE
        for line, result in (
            ("true", "passed, but it was not recorded"),
            ("false", "failed: the command exited with 1; it was not recorded"),
        ):
            moved = f"mv '{catalogue}' '{catalogue}.away'; {line}"
            self.assertEqual(
                f"db: the restore test {result}: the catalogue: not created yet; start"
                " the daemon or run filebucket reindex to create it",
                self.fails("web01", "--exec", moved),
            )
            os.rename(f"{catalogue}.away", catalogue)
        self.assertIsNone(self.series().drilled_at)

    def test_another_catalogue(self) -> None:
        """The row of the file is not in the catalogue any more."""
        drilled = Files.drilled

        def drill(this: Files, found: Drill) -> bool:
            with this._change() as do:
                do("DELETE FROM push")
            return drilled(this, found)

        self.patch(Files, "drilled", drill)
        self.assertIn(
            "the catalogue no longer has the file",
            self.fails("web01", "--exec", "true"),
        )

    def test_cannot_start(self) -> None:
        self.patch(drills, "SHELL", "/nothing-like-this")
        self.assertEqual(
            "the command cannot be started: No such file or directory",
            self.fails("web01", "--exec", "true"),
        )
        self.assertIsNone(self.series().drilled_at)

    def test_json(self) -> None:
        """Of both results."""
        expected = {
            "bucket": "web01",
            "series": "db",
            "name": "db",
            "size": 7,
            "sha256": hashlib.sha256(b"content").hexdigest(),
            "received_at": ANY,
            "drilled_at": ANY,
            "passed": True,
            "error": None,
            "recorded": True,
        }
        self.assertEqual(expected, self.json("get", "web01", "--exec", "true"))
        result = self.drill("false", "--json")
        self.assertEqual(1, result.exit_code)
        self.assertEqual(
            {**expected, "passed": False, "error": "the command exited with 1"},
            json.loads(result.output.partition("Error: ")[0]),
        )

    def test_misused(self) -> None:
        for words in (("-o", "x"), ("--overwrite",), ("db", "--damaged"), ("-o", "-")):
            line = self.misuse("get", "web01", "--exec", "true", *words)
            self.assertIn("--exec excludes", line)
        self.assertIn("COMMAND", self.misuse("get", "web01", "--exec", " "))

    def test_ignored_child(self) -> None:
        """A parent may ignore the end of its children."""
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGCHLD, before)
        self.assertIn("exited with 3", self.fails("web01", "--exec", "exit 3"))
        self.assertEqual(signal.SIG_IGN, signal.getsignal(signal.SIGCHLD))


class RefusedTests(GetCase):
    def test_damaged(self) -> None:
        """The content differs, or was truncated."""
        path = self.push("db")
        self.damage(path)
        os.utime(path, (1, 1))
        self.age(path)
        self.assertEqual(
            "db: its content differs from what was received; nothing was written",
            self.fails("web01"),
        )
        self.put("db", b"cont")
        self.assertIn("4 bytes on disk, but 7 were received", self.fails("web01"))

    def age(self, path: Path) -> None:
        """From now on, all changes are old."""
        later = time.time() + 3600
        self.patch(time, "time", lambda: later)

    def test_changed_just_now(self) -> None:
        """It may be a push whose row is not written yet."""
        self.put(self.push("db").name, b"another")
        self.assertIn("try again in a minute", self.fails("web01"))

    def test_known_damage(self) -> None:
        """It is never chosen, and with its name only if that is asked for."""
        self.damage(self.push("db"))
        self.found("verify")
        self.assertEqual(
            "web01: there is no good file; db is damaged", self.fails("web01")
        )
        text = "db is damaged; --damaged gets it all the same"
        self.assertEqual(text, self.fails("web01", "db"))
        self.age(self.home)
        result = self.invoke("get", "web01", "db", "--damaged")
        self.assertEqual(1, result.exit_code)
        self.assertIn("Warning: db is damaged\n", result.output)
        self.assertIn("it was written all the same\n", result.output)
        self.assertEqual({"db": b"content"[::-1]}, self.there())

    def test_damaged_and_no_name(self) -> None:
        self.push("db-1")
        self.assertIn("exactly this name", self.fails("web01", "db*", "--damaged"))

    def test_none(self) -> None:
        self.push("db-1")
        for wanted in ("other", "\udcff", f"x{TOKEN}"):
            self.assertIn(
                "there is no file or series of that name", self.fails("web01", wanted)
            )
        self.assertIn("there is no file", self.fails(self.nameless.label))
        self.assertEqual(2, self.invoke("get", "nope").exit_code)

    def test_no_catalogue(self) -> None:
        self.assertIn("the catalogue: not created yet", self.fails("web01"))

    def test_gone(self) -> None:
        """A missing file, and something else in its place."""
        path = self.push("db")
        path.unlink()
        self.assertIn("db: the file is gone", self.fails("web01"))
        os.mkfifo(path)
        self.assertEqual("db: not a regular file", self.fails("web01"))
        (self.home / "web01").rename(self.home / "web02")
        self.assertIn("db: the file is gone", self.fails("web01"))

    def test_disk_error(self) -> None:
        """Nothing of the file stays."""
        self.push("db", b"x" * 5000)

        def fail(*arguments: object) -> int:
            raise OSError(5, "Input/output error")

        self.patch(os, "readv", fail)
        self.assertEqual("db: Input/output error", self.fails("web01"))

    def test_unsteady(self) -> None:
        path = self.push("db", b"x" * 5000)
        self.patch(archive, "READ_SIZE", 1000)
        write = target.Target.write

        def append(this: target.Target, piece: memoryview) -> None:
            os.truncate(path, 9999)
            write(this, piece)

        self.patch(target.Target, "write", append)
        self.assertIn("changed while it was being read", self.fails("web01"))

    def test_full_disk(self) -> None:
        self.push("db", b"x" * 5000)

        def fail(fd: int, piece: bytes) -> int:
            raise OSError(28, "No space left on device")

        self.patch(os, "write", fail)
        self.assertEqual("db: No space left on device", self.fails("web01"))

    def test_interrupted(self) -> None:
        """By Ctrl-C, or by SIGTERM: the handler is restored."""
        self.push("db", b"x" * 5000)
        before = signal.getsignal(signal.SIGTERM)

        def stop(this: target.Target, piece: memoryview) -> None:
            signal.raise_signal(signal.SIGTERM)

        self.patch(signal, "getsignal", lambda number: signal.SIG_DFL)
        self.patch(target.Target, "write", stop)
        result = self.invoke("get", "web01")
        self.assertEqual((1, "\nAborted!\n"), (result.exit_code, result.output))
        self.assertEqual({}, self.there())
        self.assertIs(before, signal.signal(signal.SIGTERM, before or signal.SIG_DFL))


class HostileTests(GetCase):
    """Clients choose names, and an attacker may have changed the catalogue."""

    def test_hidden_name(self) -> None:
        """A name that has an effect in a folder is not created there unasked."""
        for name in (".profile", "-rf"):
            self.push(name, age=1.0)
            self.assertIn(
                "a client chose this name",
                self.fails("web01", f"[{name[0]}]{name[1:]}"),
            )
            self.run_("get", "web01", "-o", f"{self.target}/x", "--overwrite")
        self.assertEqual({"x"}, set(self.there()))

    def test_path_as_name(self) -> None:
        """No file is read or written outside of the bucket and the folder."""
        self.push("db")
        (self.folder / "evil").write_bytes(b"content")
        with closing(sqlite3.connect(self.home / FILE)) as catalogue:
            catalogue.execute("UPDATE push SET name = '../../evil'")
            catalogue.commit()
        self.assertIn(
            "the catalogue has an invalid entry: a name may not", self.fails("web01")
        )

    def test_shown(self) -> None:
        """Escaped, and tokens are hidden; the file has its own name."""
        name = f"\u202e{TOKEN}"
        self.push(name)
        result = self.invoke("get", "web01")
        self.assertEqual(0, result.exit_code, result.output)
        self.assertNotIn(TOKEN, result.output)
        self.assertNotIn("\u202e", result.output)
        self.assertEqual({name}, set(self.there()))
        self.assertNotIn(TOKEN, self.refused("get", "web01"))

    def test_of_another_process(self) -> None:
        """What opened the file may be led astray: all that it says is checked."""
        ours, theirs = os.pipe()
        for each in (ours, theirs):
            self.addCleanup(os.close, each)
        self.assertRaises(NotAFileError, StoredFile.of, ours)
