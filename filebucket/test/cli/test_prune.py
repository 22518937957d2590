"""``filebucket prune``: what it prints."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.config.load import load
from filebucket.model.mask import mask
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.store.archive import UPLOADS
from filebucket.store.remove import Removals, prune_lock
from filebucket.test.kit.commands import HASH, TOKEN, CliCase

DAY = 24 * 3600.0


class PruneCase(CliCase):
    """A home with files, and a configuration."""

    def setUp(self) -> None:
        super().setUp()
        given = {"TZ": "Europe/Berlin", "COLUMNS": "1000"}
        self.patch(os, "environ", {**os.environ, **given})
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        self.now = time.time()

    def bucket(self, **settings: Any) -> dict[str, Any]:
        return {"name": "web01", "token_sha256": HASH, **settings}

    def push(self, *ages: float, name: str = "db-", size: int = 1500) -> None:
        """Push files of a series to the first bucket; their ages are in days."""
        bucket = load(str(self.file)).buckets[0]
        folder = self.home / bucket.directory
        folder.mkdir(exist_ok=True)
        rows = []
        for age in ages:
            file = folder / f"{name}{age:g}"
            file.write_bytes(bytes(size))
            at = self.now - age * DAY
            os.utime(file, (at, at))
            series = series_of(mask([bucket])(file.name), bucket.series)
            received = Received(
                bucket.key, series, file.name, size, "0" * 64, at, request="r"
            )
            rows.append(received)
        with closing(Journal.open(str(self.home))) as journal:
            journal.record(rows, (), lambda key: bucket)

    def there(self) -> set[str]:
        return set(os.listdir(self.home / "web01"))


class OutputTests(PruneCase):
    def lines(self, *arguments: str) -> list[str]:
        """The printed lines, with times replaced."""
        printed = self.run_("prune", *arguments)
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", printed).splitlines()

    def test_killed_and_keep_taken_out(self) -> None:
        """Files that a killed prune was about to delete stay, in all buckets."""
        self.write(
            self.bucket(),
            {"name": "web02", "token_sha256": "0" * 64, "keep": {"last": 1}},
        )
        self.push(9)
        with closing(Inventory.open(str(self.home))) as inventory:
            ((_, row),) = inventory.kept_rows([1])
            inventory.prune([row.id], self.now)
            self.run_("prune", "web02")
            self.assertEqual([], inventory.being_pruned())
        self.assertEqual({"db-9"}, self.there())

    def test_no_keep(self) -> None:
        """One line, even without a home."""
        for words in ((), ("--dry-run",), ("web01",)):
            self.write(self.bucket(), home="nowhere")
            which = "none of these buckets" if "web01" in words else "no bucket"
            self.assertEqual(
                [f"Nothing to prune: {which} has 'keep' in the configuration."],
                self.lines(*words),
            )
        self.assertEqual(
            {"files": [], "dry_run": False, "pruned": 0, "freed": 0, "kept": 0}
            | {"left": 0, "failed": 0},
            self.json("prune"),
        )

    def test_dry_run(self) -> None:
        self.write(self.bucket(keep={"last": 1}))
        self.push(30, 9, 8)
        self.push(40, name="log-", size=3 * 1024**2)
        self.assertEqual(
            [
                "web01 db-#",
                "  kept        TIME   1.5 KiB  db-8  last 1 of 1, last good file",
                "  pruned      TIME   1.5 KiB  db-9",
                "  pruned      TIME   1.5 KiB  db-30",
                "web01 log-#",
                "  kept        TIME   3.0 MiB  log-40  last 1 of 1, last good file",
                "Would prune 2 files (2.9 KiB); 2 kept.",
            ],
            self.lines("--dry-run"),
        )
        self.assertEqual({"db-8", "db-9", "db-30", "log-40"}, self.there())

    def test_narrow(self) -> None:
        """Reasons that do not fit are below the file; its name is complete."""
        self.write(self.bucket(keep={"last": 1}))
        self.push(8, name="customers-production-full-dump-")
        self.push(8)
        os.environ["COLUMNS"] = "70"
        self.assertEqual(
            [
                "web01 customers-production-full-dump-#",
                "  kept        TIME   1.5 KiB  customers-production-full-dump-8",
                "              last 1 of 1, last good file",
                "web01 db-#",
                "  kept        TIME   1.5 KiB  db-8",
                "              last 1 of 1, last good file",
                "Would prune 0 files (0 B); 2 kept.",
            ],
            self.lines("--dry-run"),
        )

    def test_times(self) -> None:
        """Times are in the local zone."""
        self.write(self.bucket(keep={"last": 1}))
        self.now = 1_700_000_000 + DAY
        self.push(1)
        self.assertIn(" 2023-11-14 23:13:20 ", self.run_("prune", "--dry-run"))

    def test_prunes(self) -> None:
        self.write(self.bucket(keep={"last": 1}))
        self.push(9, 8, size=800)
        self.assertEqual(
            [
                "web01 db-#",
                "  pruned      TIME     800 B  db-9",
                "Pruned 1 file (800 B); 1 kept.",
            ],
            self.lines(),
        )
        self.assertEqual({"db-8"}, self.there())
        self.assertEqual(["Pruned 0 files (0 B); 1 kept."], self.lines())

    def test_uploads(self) -> None:
        """Unfinished uploads are no files: prune, reindex and verify leave them alone,
        also if the file of one has its name already.
        """
        self.write(self.bucket(keep={"last": 1}))
        self.push(9, 8)
        uploads = self.home / UPLOADS
        uploads.mkdir()
        for number, name in enumerate(("db-9", "db-8")):
            os.link(self.home / "web01" / name, uploads / f"{number:032x}")
            (uploads / f"{number:032x}.json").write_text("{}")
        (uploads / ("f" * 32)).write_bytes(b"con")
        before = {each.name: each.read_bytes() for each in uploads.iterdir()}
        found = "2 files, 0 read (0 B): no problems found\n"
        self.assertEqual(found, self.run_("reindex"))
        self.assertEqual("Pruned 1 file (1.5 KiB); 1 kept.", self.lines()[-1])
        self.assertEqual({"db-8"}, self.there())
        result = self.invoke("verify")
        self.assertIn("1 file, 1 read", result.output)
        after = {each.name: each.read_bytes() for each in uploads.iterdir()}
        self.assertEqual(before, after)

    def test_json(self) -> None:
        self.now = 1_700_000_000
        self.write(self.bucket(keep={"last": 1}))
        self.push(9, 8)
        pruned = {
            "bucket": "web01",
            "series": "db-#",
            "name": "db-9",
            "received_at": "2023-11-05T22:13:20.000Z",
            "size": 1500,
            "fate": "pruned",
            "reasons": [],
        }
        kept = {
            **pruned,
            "name": "db-8",
            "received_at": "2023-11-06T22:13:20.000Z",
            "fate": "kept",
            "reasons": ["last 1 of 1", "last good file"],
        }
        rest = {"pruned": 1, "freed": 1500, "kept": 1, "left": 0, "failed": 0}
        self.assertEqual(
            {"files": [kept, pruned], "dry_run": True, **rest},
            self.json("prune", "--dry-run"),
        )
        self.assertEqual(
            {"files": [pruned], "dry_run": False, **rest}, self.json("prune")
        )

    def test_buckets(self) -> None:
        other = self.bucket(name="web02", token_sha256="1" * 64, keep={"last": 1})
        self.write(self.bucket(keep={"last": 1}), other)
        self.push(9, 8)
        self.assertEqual(["Pruned 0 files (0 B); 0 kept."], self.lines("web02"))
        self.assertEqual({"db-9", "db-8"}, self.there())
        self.assertEqual(
            "Pruned 1 file (1.5 KiB); 1 kept.", self.lines("web01", "web02")[-1]
        )
        self.assertEqual(
            "Error: there is no bucket 'web03'; did you mean 'web02'?",
            self.misused("prune", "web01", "web03"),
        )

    def test_help(self) -> None:
        output = " ".join(self.run_("prune", "--help").split())
        self.assertIn("keeps the files that the bucket's 'keep' rules select", output)
        self.assertIn("also keeps the oldest file", output)

    def test_left_and_failed(self) -> None:
        """Changed files are left alone; a bucket that cannot be pruned is a failure."""
        self.write(self.bucket(keep={"last": 1}))
        self.push(9, 8, 7)
        (self.home / "web01" / "db-8").write_bytes(b"")
        self.assertEqual(
            [
                "web01 db-#",
                "  left alone  TIME   1.5 KiB  db-8  0 bytes on disk, but 1500"
                " were received",
                "  pruned      TIME   1.5 KiB  db-9",
                "Pruned 1 file (1.5 KiB); 1 kept, 1 left alone.",
            ],
            self.lines(),
        )
        (self.home / "web01").rename(self.folder / "elsewhere")
        (self.home / "web01").symlink_to(self.folder / "elsewhere")
        result = self.invoke("prune")
        self.assertEqual(1, result.exit_code)
        self.assertEqual(
            [
                "web01",
                "  failed      cannot open the bucket's folder: it is a symbolic"
                " link, or not a folder",
                "Pruned 0 files (0 B); 0 kept, 1 failed.",
            ],
            result.output.splitlines(),
        )

    def test_names(self) -> None:
        """Tokens are masked, and control characters escaped."""
        self.write({"token": TOKEN, "keep": {"last": 1}})
        self.push(9, 8, name=f"{TOKEN}\u202e-")
        self.assertEqual(2, len(os.listdir(self.home / TOKEN)))
        label = f"#{HASH[:6]}"
        for words in ((), ("--dry-run",), ("--json",), ("--json", "--dry-run")):
            output = self.run_("prune", *words)
            self.assertNotIn(TOKEN, output)
            self.assertNotIn("\u202e", output)
        self.push(19, name=f"{TOKEN}\u202e-")
        self.assertIn(f"  {label}\\u202e-19\n", self.run_("prune"))

    def test_no_catalogue(self) -> None:
        self.write(self.bucket(keep={"last": 1}))
        line = self.refused("prune")
        self.assertTrue(line.startswith("Error: the catalogue: not created yet"), line)
        # Only the lock is there.
        self.assertEqual(["prune"], os.listdir(self.home / ".filebucket"))

    def test_held_meanwhile(self) -> None:
        """A file that was held while prune waited for the lock is not deleted."""
        held = {"db-9": {"until": "2999-01-01", "reason": "case 7"}}
        keeping = self.bucket(keep={"last": 1})
        self.write(keeping)
        self.push(9, 8)
        lock = fcntl.flock

        def hold(*arguments: int) -> None:
            self.write({**keeping, "held": held})
            lock(*arguments)

        self.patch(fcntl, "flock", hold)
        self.assertEqual("Pruned 0 files (0 B); 2 kept.\n", self.run_("prune"))
        self.assertEqual({"db-9", "db-8"}, self.there())

    def test_held_right_before(self) -> None:
        """A file that was held while prune runs is not deleted, whatever an attacker
        has done to the lock in the home."""
        keeping = self.bucket(keep={"last": 1})
        self.write(keeping)
        self.push(9, 8, 7, 6)
        remove = Removals.remove

        def hold_then(*arguments: Any) -> str | None:
            held = {"until": "2999-01-01", "reason": "case 7"}
            self.write({**keeping, "held": {"db-8": held}})
            return remove(*arguments)

        self.patch(Removals, "remove", hold_then)
        output = self.run_("prune")
        self.assertIn("held until 2999-01-01: case 7", output)
        self.assertIn("left alone", output)
        self.assertEqual({"db-8", "db-6"}, self.there())

    def test_configuration_gone(self) -> None:
        """Nothing is deleted if it cannot be read any longer."""
        keeping = self.bucket(keep={"last": 1})
        self.write(keeping)
        remove = Removals.remove
        without = self.bucket() | {"name": "web09"}
        for change, reason in (
            (self.file.unlink, "cannot be read: No such file or directory"),
            (lambda: self.file.write_text("{"), "is not valid JSON"),
            (lambda: self.write(without), "bucket web01 was removed meanwhile"),
        ):
            self.write(keeping)
            self.push(9, 8)

            def change_then(
                *arguments: Any, change: Callable[[], object] = change
            ) -> str | None:
                change()
                return remove(*arguments)

            self.patch(Removals, "remove", change_then)
            self.assertIn(reason, self.refused("prune"))
            self.assertEqual({"db-9", "db-8"}, self.there())

    def test_configuration_of_root(self) -> None:
        """The owner of the home need not be allowed to read it."""
        self.write(self.bucket(keep={"last": 1}))
        self.push(9, 8)
        remove, stat = Removals.remove, os.stat

        def forbidden(path: Any, **arguments: Any) -> os.stat_result:
            if path == str(self.file):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return stat(path, **arguments)

        def forbid_then(*arguments: Any) -> str | None:
            self.patch(os, "stat", forbidden)
            return remove(*arguments)

        self.patch(Removals, "remove", forbid_then)
        self.run_("prune")
        self.assertEqual({"db-8"}, self.there())

    def test_one_at_a_time(self) -> None:
        """A second prune is refused; a dry run is not."""
        self.write(self.bucket(keep={"last": 1}))
        self.push(9, 8)
        with prune_lock(str(self.home)):
            self.assertEqual(
                "Error: another filebucket prune is running", self.refused("prune")
            )
            self.run_("prune", "--dry-run")
        self.assertEqual({"db-9", "db-8"}, self.there())
