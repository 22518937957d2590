"""The commands with which an operator looks after what is there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path

from click.testing import Result
from twisted.trial.unittest import SkipTest

from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.cli import verify
from filebucket.config.load import load
from filebucket.model.records import File, Received
from filebucket.test.cli.test_main import CliCase
from filebucket.test.kit.server import PATIENCE

TOKEN = "e" * 32
DAY = 24 * 3600.0
NOBODY = 65534


class UpkeepCase(CliCase):
    """Has a home with two buckets, one without a name."""

    def setUp(self) -> None:
        super().setUp()
        self.write({"name": "web01", "token": "f" * 32}, TOKEN)
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        self.named, self.nameless = load(str(self.file)).buckets
        self.idle: list[bool] = []
        self.patch(verify, "be_idle", lambda: self.idle.append(True))
        self.patch(time, "sleep", lambda seconds: None)

    def put(
        self, name: str, content: bytes = b"content", folder: str = "web01"
    ) -> Path:
        """A file of some days ago."""
        path = self.home / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        at = time.time() - 3 * DAY
        os.utime(path, (at, at))
        return path

    def push(
        self, name: str, content: bytes = b"content", age: float = 3 * DAY
    ) -> Path:
        """A file with its row."""
        sha256 = hashlib.sha256(content).hexdigest()
        at = time.time() - age
        row = Received("web01", name, name, len(content), sha256, at, request="x")
        with closing(Journal.open(str(self.home))) as journal:
            journal.record([row], [], {"web01": self.named}.get)
        return self.put(name, content)

    def damage(self, path: Path) -> None:
        """Another content of the same size."""
        self.put(path.name, path.read_bytes()[::-1])

    def files(self) -> dict[str, File]:
        with closing(View.open(str(self.home))) as view:
            return {each.received.name: each for each in view.latest(100)}

    def found(self, *arguments: str) -> list[str]:
        """What it prints that has found something."""
        result = self.invoke(*arguments)
        self.assertEqual(1, result.exit_code, result.output)
        self.assertNotIn(TOKEN, result.output)
        return result.output.splitlines()

    def misuse(self, *arguments: str) -> str:
        """The last line of its complaint."""
        result: Result = self.invoke(*arguments)
        self.assertEqual(2, result.exit_code, result.output)
        return result.output.splitlines()[-1]


class ReindexTests(UpkeepCase):
    """``reindex``."""

    def test_enters(self) -> None:
        """It makes a catalogue of what is there."""
        self.put("a")
        self.put("b", folder=TOKEN)
        output = self.run_("reindex")
        self.assertEqual("2 files, 2 read (14 B): 2 entered\n", output)
        self.assertEqual({"a", "b"}, set(self.files()))
        self.assertEqual("2 files, 0 read (0 B): in order\n", self.run_("reindex"))
        self.assertEqual([], self.idle)

    def test_findings(self) -> None:
        """One a line, and nothing in it that a terminal would obey."""
        self.push("a").unlink()
        (self.put("b").parent / "esc\x1b[31m").mkdir()
        self.assertEqual(
            [
                "missing     web01  a",
                "stranger    web01  esc\\x1b[31m: a name may not contain control"
                " characters",
                "2 files, 1 read (7 B): 1 missing, 1 stranger, 1 entered",
            ],
            self.found("reindex"),
        )
        self.assertNotIn("missing", self.run_("reindex"))
        output = self.run_("reindex", "--accept")
        self.assertIn("accepted    web01  a\n", output)
        self.assertEqual("pruned", self.files()["a"].fate)

    def test_json(self) -> None:
        """The same for programs."""
        self.put("a")
        (self.home / TOKEN).symlink_to(TOKEN)
        output = self.invoke("reindex", "--json").output
        found = json.loads(output)
        self.assertEqual((1, 1), (found["entered"], found["unreadable"]))
        self.assertEqual(
            [
                {
                    "kind": "unreadable",
                    "bucket": self.nameless.label,
                    "name": None,
                    "reason": "Too many levels of symbolic links",
                }
            ],
            found["findings"],
        )
        self.assertNotIn(TOKEN, output)
        (self.home / TOKEN).unlink()
        self.assertEqual([], self.json("reindex")["findings"])

    def test_no_home(self) -> None:
        """Where there is none, none is made: its disk may not be mounted."""
        shutil.rmtree(self.home / ".filebucket")
        self.assertIn("no home, or one that no daemon", self.refused("reindex"))
        self.assertIn("there is no catalogue yet", self.refused("verify"))
        self.assertEqual([], list(self.home.iterdir()))


class VerifyTests(UpkeepCase):
    """``verify``."""

    def test_in_order(self) -> None:
        """It says so, and has done it with nobody in the way."""
        self.push("a")
        self.assertEqual("1 file, 1 read (7 B): in order\n", self.run_("verify"))
        self.assertEqual([True], self.idle)
        self.assertIsNotNone(self.files()["a"].verified_at)

    def test_findings(self) -> None:
        """Rot, loss, strangers; as JSON, too."""
        self.damage(self.push("a"))
        self.push("b").unlink()
        self.put("c")
        lines = self.found("verify")
        self.assertEqual(
            [
                "missing     web01  b",
                "stranger    web01  c: no push of it is known",
                "damaged     web01  a: it is not what was received",
                "2 files, 1 read (7 B): 1 damaged, 1 missing, 1 stranger",
            ],
            lines,
        )
        found = json.loads("".join(self.found("verify", "--json")))
        kinds = ["missing", "stranger", "damaged"]
        self.assertEqual(kinds, [each["kind"] for each in found["findings"]])
        self.assertEqual([1, 1, 1], [found[kind] for kind in kinds])

    def test_options(self) -> None:
        """Which buckets, since when, and how fast."""
        self.push("a", age=40 * DAY)
        self.push("b")
        output = self.run_("verify", "web01", "--older-than", "30d", "--rate", "1MiB/s")
        self.assertEqual("2 files, 1 read (7 B): in order\n", output)
        self.assertEqual(
            "0 files, 0 read (0 B): in order\n",
            self.run_("verify", self.nameless.label),
        )

    def test_misused(self) -> None:
        """That is no finding."""
        for arguments, text in (
            (["nope"], "there is no bucket 'nope'"),
            (["--rate", "0"], "nothing a second"),
            (["--rate", "fast"], "not a size"),
            (["--older-than", "soon"], "not a time span"),
            (["--sha256sums", "-", "--json"], "goes with --config and buckets only"),
        ):
            self.assertIn(text, self.misuse("verify", *arguments))

    def test_no_catalogue(self) -> None:
        """It says what makes one."""
        self.assertIn("filebucket reindex", self.refused("verify"))

    def test_hook_takes_long(self) -> None:
        """The row of a push comes after its hook: so long nobody is accused."""
        (self.folder / "post-push.sh").touch()
        self.put("a")
        with closing(Journal.open(str(self.home))):
            output = self.run_("verify")
        self.assertIn("left        web01  a: it is new", output)


class SumsTests(UpkeepCase):
    """``verify --sha256sums``."""

    def setUp(self) -> None:
        super().setUp()
        self.put("a 1")
        self.put("ü", folder=TOKEN)
        self.run_("reindex")

    def check(self, sums: Path) -> str:
        """What sha256sum says."""
        if shutil.which("sha256sum") is None:
            raise SkipTest("there is no sha256sum")
        return subprocess.run(
            ["sha256sum", "-c", str(sums)],
            cwd=self.home,
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        ).stdout

    def test_file(self) -> None:
        """All is in it, so that nobody else may read it; nothing is read for it."""
        sums = self.folder / "SHA256SUMS"
        sums.write_text("old")
        sums.chmod(0o644)
        (self.home / "web01").rename(self.folder / "aside")
        self.assertEqual("", self.run_("verify", "--sha256sums", str(sums)))
        (self.folder / "aside").rename(self.home / "web01")
        self.assertEqual(0o600, sums.stat().st_mode & 0o777)
        self.assertEqual(f"web01/a 1: OK\n{TOKEN}/ü: OK\n", self.check(sums))
        self.assertEqual([], self.idle)

    def test_stdout(self) -> None:
        """What anybody may see has no token in it."""
        output = self.run_("verify", "--sha256sums", "-")
        self.assertIn("  web01/a 1\n", output)
        self.assertIn(f"{self.nameless.label} is left out", output)
        self.assertNotIn(TOKEN, output)
        output = self.run_("verify", "--sha256sums", "-", "web01")
        self.assertNotIn("left out", output)
        self.put(f"x-{TOKEN}")
        self.run_("reindex")
        output = self.run_("verify", "--sha256sums", "-", "web01")
        self.assertIn("  web01/a 1\n1 file left out: a token is in the name;", output)
        self.assertNotIn(TOKEN, output)

    def test_cannot_write(self) -> None:
        """A line says why, and nothing is left."""
        text = self.refused("verify", "--sha256sums", str(self.folder / "x" / "sums"))
        self.assertIn("No such file", text)

    def test_other_names(self) -> None:
        """What somebody put in its place is replaced, and not written to."""
        sums, new = self.folder / "sums", self.folder / "sums.new"
        new.symlink_to(self.folder / "elsewhere")
        self.run_("verify", "--sha256sums", str(sums))
        self.assertFalse((self.folder / "elsewhere").exists())
        victim = self.home / "web01" / "a 1"
        os.link(victim, new)
        self.run_("verify", "--sha256sums", str(sums))
        self.assertEqual(b"content", victim.read_bytes())
        self.assertFalse(new.exists())
