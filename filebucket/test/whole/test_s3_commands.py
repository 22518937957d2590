"""The commands, with files in a real object store."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import closing
from typing import Any

from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.config.load import load
from filebucket.model.objects import S3
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.store.s3 import sweep
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.records import Keys, Record, new_id
from filebucket.store.s3.remove import DeletingBucket
from filebucket.test.kit import s3
from filebucket.test.kit.blocking import Objects
from filebucket.test.kit.children import bounded
from filebucket.test.kit.commands import DAY, HASH, CliCase

NAMES = "file-bucket-test-names"
DATA = "file-bucket-test-data"


class StoreCase(CliCase):
    """A configuration with an object store, a home and a bucket."""

    def setUp(self) -> None:
        url = s3.shared().url
        for name in (NAMES, DATA):
            status, answer = s3.call(url, s3.ACCOUNT, "PUT", f"/{name}")
            self.assertIn(status, {200, 409}, answer)
        self.prefix = f"{secrets.token_hex(8)}/"
        self.url = url
        super().setUp()
        # Connections that the commands leave open.
        self.addCleanup(gc.collect)
        self.sleep = time.sleep
        self.slept: list[float] = []
        self.patch(time, "sleep", self.slept.append)
        self.credentials = self.folder / "credentials"
        self.write_credentials()
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        who = Credentials(s3.ACCOUNT.key, s3.ACCOUNT.secret)
        store = S3((url,), NAMES, DATA)
        buckets = [DeletingBucket(store, each, who) for each in (NAMES, DATA)]
        for each in buckets:
            self.addCleanup(each.close)
        self.objects = Objects(Keys(self.prefix), *buckets)
        self.configure()

    def write_credentials(self, secret: str = s3.ACCOUNT.secret) -> None:
        self.credentials.write_text(
            "[default]\n"
            f"aws_access_key_id = {s3.ACCOUNT.key}\n"
            f"aws_secret_access_key = {secret}\n"
        )

    def configure(self, url: str | None = None, **settings: Any) -> None:
        keys = {"overwrite": False, **settings}
        self.write(
            {"name": "web01", "token_sha256": HASH, **keys},
            store={
                "s3": {
                    "endpoints": [url or self.url],
                    "region": s3.REGION,
                    "names_bucket": NAMES,
                    "data_bucket": DATA,
                    "prefix": self.prefix,
                    "credentials": str(self.credentials),
                    "delete_credentials": str(self.credentials),
                }
            },
        )

    def push(
        self,
        name: str,
        content: bytes = b"content",
        age: float = 3 * DAY,
        wrong: bytes = b"",
    ) -> Record:
        """Store a file and its row.

        :param wrong: data that gets stored instead
        """
        at = time.time() - age
        record = self.objects.store("web01", name, content, at, wrong)
        sha256 = hashlib.sha256(content).hexdigest()
        series = series_of(name, ())
        row = Received("web01", series, name, len(content), sha256, at, request="x")
        bucket = load(str(self.file)).buckets[0]
        with closing(Journal.open(str(self.home))) as journal:
            journal.record([row], [], {"web01": bucket}.get)
        return record

    def fates(self) -> dict[str, tuple[str, bool]]:
        with closing(View.open(str(self.home))) as view:
            return {
                each.received.name: (each.fate, each.damaged)
                for each in view.latest(100)
            }

    def there(self) -> set[str]:
        """The names of all records."""
        prefix = self.objects.keys.names("web01")
        page = self.objects.names.page(prefix)
        return {each.key.removeprefix(prefix) for each in page.objects}

    def data(self) -> set[str]:
        """The keys of all data."""
        page = self.objects.data.page(self.objects.keys.all_data())
        return {each.key for each in page.objects}


class CommandTests(StoreCase):
    def test_reindex(self) -> None:
        """Records are enough to rebuild a catalogue."""
        for number in range(20):
            at = time.time() - DAY
            self.objects.store("web01", f"db {number}+.gz", bytes(number), at)
        self.assertIn("20 files, 0 read (0 B): 20 added", self.run_("reindex"))
        self.assertIn("no problems found", self.run_("reindex"))
        self.assertEqual(20, len(self.fates()))

    def test_verify(self) -> None:
        """Damaged, lost and missing files are found."""
        self.push("good", os.urandom(3_000_000))
        self.push("damaged", b"content", wrong=b"CONTENT")
        lost = self.push("lost")
        self.push("missing")
        self.objects.data.delete(lost.data)
        self.objects.names.delete(self.objects.keys.name("web01", "missing"))
        self.objects.store("web01", "unknown", b"x", time.time() - DAY)
        result = self.invoke("verify")
        self.assertEqual(1, result.exit_code, result.output)
        self.assertIn("2 damaged, 1 missing, 1 unknown", result.output)
        self.assertIn("lost: its data is not in the object store", result.output)
        kept = {
            "good": ("kept", False),
            "damaged": ("kept", True),
            "lost": ("kept", True),
            "missing": ("missing", False),
        }
        self.assertEqual(kept, self.fates())

    def test_out_of_reach(self) -> None:
        """No file is missing or damaged then, and each command says why it failed in
        one line, without a secret.
        """
        self.push("a")
        before = self.fates()
        self.configure(url="http://127.0.0.1:1")
        for command in (("reindex",), ("verify",)):
            result = self.invoke(*command)
            self.assertEqual(1, result.exit_code, result.output)
            self.assertIn("127.0.0.1:1 cannot be reached", result.output)
        line = self.refused("get", "web01", "-o", str(self.folder / "a"))
        self.assertIn("a: 127.0.0.1:1 cannot be reached: Connection refused", line)
        line = self.refused("sweep")
        self.assertIn("bucket web01: 127.0.0.1:1 cannot be reached", line)
        self.configure()
        self.write_credentials("wrong-secret")
        for command in (("reindex",), ("verify",)):
            result = self.invoke(*command)
            self.assertEqual(1, result.exit_code, result.output)
            self.assertIn("SignatureDoesNotMatch", result.output)
            self.assertNotIn("wrong-secret", result.output)
        self.credentials.unlink()
        line = self.refused("verify")
        self.assertIn("No such file or directory", line)
        self.assertEqual(before, self.fates())

    def test_get(self) -> None:
        """A file is streamed, compared, written and given to a command."""
        content = os.urandom(5_000_000)
        self.push("db.gz", content)
        target = self.folder / "target"
        output = self.run_("get", "web01", "-o", str(target))
        self.assertIn("checksum verified", output)
        self.assertEqual(content, target.read_bytes())
        seen = self.folder / "seen"
        self.run_("get", "web01", "--exec", f"cat > {seen}")
        self.assertEqual(content, seen.read_bytes())
        self.run_("get", "web01", "--exec", "true")
        self.push("bad.gz", content, wrong=content[::-1])
        seen.unlink()
        line = self.refused("get", "web01", "bad.gz", "-o", str(self.folder / "bad"))
        self.assertIn("its content differs from what was received", line)
        self.assertFalse((self.folder / "bad").exists())
        line = self.refused("get", "web01", "bad.gz", "--exec", "cat >/dev/null")
        self.assertIn("the restore test failed", line)
        lost = self.push("lost.gz")
        self.objects.data.delete(lost.data)
        line = self.refused("get", "web01", "lost.gz", "-o", str(self.folder / "lost"))
        self.assertIn("lost.gz: its data is not in the object store", line)
        self.objects.names.delete(self.objects.keys.name("web01", "lost.gz"))
        line = self.refused("get", "web01", "lost.gz", "-o", str(self.folder / "lost"))
        self.assertIn("lost.gz: the file is gone", line)

    def test_get_is_killed(self) -> None:
        """Nothing is left behind: no file, and no process that reads on."""
        self.push("db.gz", os.urandom(20_000_000))
        command = [sys.executable, "-m", "filebucket", "get", "web01"]
        command += ["--config", str(self.file), "-o", "-"]
        with bounded(subprocess.Popen(command, stdout=subprocess.PIPE)) as process:
            assert process.stdout is not None
            process.stdout.read(1_000_000)
            process.send_signal(signal.SIGKILL)
            process.stdout.read()
        # The pipe has an end only if the child is gone, too.
        self.assertEqual(-signal.SIGKILL, process.returncode)

    def test_hold(self) -> None:
        """Only files that are there can be held; a mark of prune is waited for."""
        until = ("--until", "2099-12-31", "--reason", "case 7")
        line = self.refused("hold", "web01", "db.gz", *until)
        self.assertIn("bucket 'web01' has no file db.gz", line)
        self.push("db.gz")
        self.run_("hold", "web01", "db.gz", *until)
        self.assertIn("stored", self.run_("hold", "web01"))
        self.configure()
        mark = self.objects.keys.mark("web01", "db.gz")
        self.objects.names.put(mark, b"")
        line = self.refused("hold", "web01", "db.gz", *until)
        self.assertIn("now held, but a prune that has not ended may delete", line)

    def test_prune(self) -> None:
        """Old files go, with their data, and marks of a prune that was killed."""
        self.configure(keep={"last": 1}, hold="1h")
        for age in (3, 2, 1):
            self.push(f"db-{age}", age=age * DAY)
        self.assertIn("Would prune 2 files", self.run_("prune", "--dry-run"))
        self.assertEqual(3, len(self.data()))
        mark = self.objects.keys.mark("web01", "db-9")
        self.objects.names.put(mark, b"")
        self.assertIn("Pruned 2 files (14 B); 1 kept.", self.run_("prune"))
        self.assertEqual({"db-1"}, self.there())
        self.assertEqual(1, len(self.data()))
        self.assertLess(100, self.slept[-1])
        self.assertEqual(0, len(self.objects.names.page(f"{self.prefix}p").objects))
        self.credentials.unlink()
        self.assertIn("No such file or directory", self.refused("prune"))

    def test_sweep(self) -> None:
        """Data without a record goes if it is old."""
        kept = self.push("db.gz")
        left = self.objects.keys.data("web01", "db.gz", new_id())
        self.objects.data.put(left, b"left")
        self.assertIn("Deleted 0 objects (0 B); 1 too new.", self.run_("sweep"))
        self.assertEqual(2, len(self.data()))
        result = self.invoke("sweep", "--older-than", "59m")
        self.assertEqual(2, result.exit_code)
        self.patch(sweep, "LEAST_GRACE", 0.0)
        old = ("sweep", "--older-than", "1s")
        self.sleep(3)
        self.assertIn("Would delete 1 object (4 B).", self.run_(*old, "--dry-run"))
        found = json.loads(self.run_(*old, "--json"))
        self.assertEqual((1, 4), (found["deleted"], found["freed"]))
        self.assertEqual("db.gz", found["objects"][0]["name"])
        self.assertEqual({kept.data}, self.data())
        self.assertIn("Deleted 0 objects", self.run_(*old))

    def test_seal(self) -> None:
        """The object store does that itself."""
        self.assertIn("Nothing to seal", self.run_("seal"))
        self.assertIn("object lock", self.refused("seal", "--lift"))
