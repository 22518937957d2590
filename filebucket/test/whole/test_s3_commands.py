"""The commands, with files in a real object store."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from twisted.trial.unittest import SkipTest

from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.config.load import load
from filebucket.model.objects import LEAST_PART, S3
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.store.s3 import sweep
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.records import Keys, Record, new_id
from filebucket.store.s3.remove import DeletingBucket
from filebucket.test.kit import ceph, s3
from filebucket.test.kit.blocking import Objects
from filebucket.test.kit.children import bounded
from filebucket.test.kit.commands import DAY, HASH, CliCase
from filebucket.test.kit.server import NOBODY, OTHER, PATIENCE, Server, comes

NAMES = "file-bucket-test-names"
DATA = "file-bucket-test-data"


class StoreCase(CliCase):
    """A configuration with an object store, a home and a bucket."""

    def engine(self) -> tuple[str, s3.Credentials]:
        """A server, and credentials that may do everything."""
        return s3.shared().url, s3.ACCOUNT

    def setUp(self) -> None:
        url, self.who = self.engine()
        for name in (NAMES, DATA):
            status, answer = s3.call(url, self.who, "PUT", f"/{name}")
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
        who = Credentials(self.who.key, self.who.secret)
        store = S3((url,), NAMES, DATA)
        buckets = [DeletingBucket(store, each, who) for each in (NAMES, DATA)]
        for each in buckets:
            self.addCleanup(each.close)
        self.objects = Objects(Keys(self.prefix), *buckets)
        self.configure()

    def write_credentials(self, secret: str | None = None) -> None:
        self.credentials.write_text(
            "[default]\n"
            f"aws_access_key_id = {self.who.key}\n"
            f"aws_secret_access_key = {secret or self.who.secret}\n"
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


class CephCommandTests(CommandTests):
    """The same with Ceph, if there is one."""

    def engine(self) -> tuple[str, s3.Credentials]:
        return ceph.named()


class RootTests(StoreCase):
    """Commands that root runs have the rights of the home's owner."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root has rights to give up")
        super().setUp()
        # In a folder that other users can enter, unlike those of tests.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self.file = self.folder / "config.json"
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        self.credentials = self.folder / "credentials"
        self.write_credentials()
        self.deleting = self.folder / "deleting"
        shutil.copyfile(self.credentials, self.deleting)
        self.configure(keep={"last": 1}, hold="1h")
        self.file.write_text(
            self.file.read_text().replace(
                f'"delete_credentials": "{self.credentials}"',
                f'"delete_credentials": "{self.deleting}"',
            )
        )

    def give(self) -> None:
        """Give the home and the daemon's credentials to its user."""
        os.chown(self.credentials, NOBODY, NOBODY)
        self.credentials.chmod(0o600)
        self.deleting.chmod(0o600)
        for folder, folders, files in os.walk(self.home):
            for each in (".", *folders, *files):
                os.chown(Path(folder) / each, NOBODY, NOBODY)

    def process(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "filebucket", *arguments]
        return subprocess.run(
            [*command, "--config", str(self.file)],
            cwd=self.folder,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )

    def test_all(self) -> None:
        """They read and delete, and leave files of the owner only. Root's file is
        written by root.
        """
        content = os.urandom(2_000_000)
        for age in (3, 2, 1):
            self.push(f"db-{age}", content, age=age * DAY)
        self.give()
        (self.folder / "target").mkdir(mode=0o700)
        target = self.folder / "target" / "db"
        for arguments in (
            ("reindex",),
            ("verify",),
            ("get", "web01", "-o", str(target)),
            ("get", "web01", "--exec", f"cmp - {target}"),
            ("prune",),
            ("sweep",),
        ):
            done = self.process(*arguments)
            self.assertEqual(0, done.returncode, (arguments, done))
        self.assertEqual(content, target.read_bytes())
        self.assertEqual(0, target.stat().st_uid)
        self.assertEqual({"db-1"}, self.there())
        owners = {each.stat().st_uid for each in (self.home / ".filebucket").iterdir()}
        self.assertEqual({NOBODY}, owners)

    def test_delete_credentials(self) -> None:
        """Those that delete need no others."""
        for age in (2, 1):
            self.push(f"db-{age}", age=age * DAY)
        self.give()
        os.chown(self.credentials, 0, 0)
        for command in ("prune", "sweep"):
            done = self.process(command)
            self.assertEqual(0, done.returncode, done)
        self.assertEqual({"db-1"}, self.there())

    def test_credentials_of_root(self) -> None:
        """The owner must be allowed to read those of the daemon."""
        self.push("db-1")
        self.give()
        os.chown(self.credentials, 0, 0)
        done = self.process("get", "web01", "-o", "db")
        self.assertEqual(1, done.returncode)
        self.assertIn(b"credentials: Permission denied for user ", done.stderr)


class MemoryTests(StoreCase):
    """Credentials that only root may read stay in the memory of a process that has
    become the home's owner.
    """

    AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

    def reads(self, pid: int) -> bool:
        """Whether the owner can look into a process."""
        return not subprocess.run(
            [*self.AS_NOBODY, "cat", f"/proc/{pid}/environ"],
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        ).returncode

    def test_private(self) -> None:
        """Other processes of the owner cannot read it."""
        if os.geteuid() != 0:
            raise SkipTest("only root has rights to give up")
        for path in (self.home, self.home / ".filebucket"):
            os.chown(path, NOBODY, NOBODY)
        code = (
            "import sys\n"
            "from filebucket.base.owner import become_owner_of\n"
            f"become_owner_of({str(self.home)!r}, '.filebucket')\n"
            "print(flush=True)\n"
            "sys.stdin.read()\n"
        )
        for command, readable in (
            ([sys.executable, "-c", code], False),
            # A process that has been of that user since it began.
            ([*self.AS_NOBODY, "sh", "-c", "echo; exec cat"], True),
        ):
            with bounded(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            ) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                self.assertEqual(b"\n", process.stdout.readline())
                self.assertEqual(readable, self.reads(process.pid))
                process.stdin.close()


class RoundTripTests(StoreCase):
    """Files that a real daemon receives."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(time, "sleep", self.sleep)
        self.configure(keep={"last": 1}, hold="1h")
        config = json.loads(self.file.read_text())
        self.server = Server(
            self.folder / "server",
            buckets=[{"name": "web01", "token": OTHER, "keep": {"last": 1}}],
            store=config["store"],
        )
        self.server.config["store"]["s3"]["part_size"] = LEAST_PART
        self.server.write_config()
        self.file = self.server.config_file
        self.home = self.server.home
        self.addCleanup(self.server.stop)

    def send(self, name: str, content: bytes) -> int:
        """Push a file; returns the status."""
        url = f"{self.server.url}/{OTHER}/{name}"
        with (
            contextlib.suppress(HTTPError),
            urlopen(Request(url, content, method="PUT"), timeout=PATIENCE) as answer,
        ):
            return int(answer.status)
        return 0

    def test_back_again(self) -> None:
        """They are verified and restored, also with a catalogue that is rebuilt."""
        self.server.start()
        contents = {
            "empty-1": b"",
            "small-1": os.urandom(1000),
            "large-1": os.urandom(2 * LEAST_PART + 5),
        }
        for name, content in contents.items():
            self.assertEqual(200, self.send(name, content) if content else 200)
        del contents["empty-1"]
        self.assertIn("no problems found", self.run_("verify"))
        for rebuilt in (False, True):
            if rebuilt:
                self.server.signal(signal.SIGKILL)
                self.server.wait()
                for each in (self.home / ".filebucket").glob("catalogue*"):
                    each.unlink()
                self.server.start()
                self.assertTrue(comes(lambda: len(self.fates()) == 2))
                self.assertIn("no problems found", self.run_("verify"))
            for name, content in contents.items():
                target = self.folder / f"{name}-{rebuilt}"
                self.run_("get", "web01", name, "-o", str(target))
                self.assertEqual(content, target.read_bytes())

    def test_pushes_beside_prune(self) -> None:
        """Of pushes that replace files while these are pruned, each that was
        acknowledged is there afterwards.
        """
        hooks = self.server.folder / "hooks"
        hooks.mkdir()
        self.server.config["hooks"] = "hooks"
        self.server.config["buckets"][0]["hold"] = "0s"
        self.server.write_config()
        script = hooks / "pre-push.sh"
        script.write_text("#!/bin/sh\nexit 2\n")
        script.chmod(0o755)
        self.server.start()
        names = [f"db-{number}" for number in range(6)]
        acknowledged: dict[str, bytes] = {}

        def send(number: int) -> None:
            name, content = names[number % len(names)], os.urandom(100 + number)
            if self.send(name, content) == 200:
                acknowledged[name] = content

        for number, _ in enumerate(names):
            send(number)
        command = [sys.executable, "-m", "filebucket", "prune"]
        for round_ in range(3):
            with bounded(
                subprocess.Popen(
                    [*command, "--config", str(self.file)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            ) as process:
                number = 100 * (round_ + 1)
                while process.poll() is None:
                    send(number)
                    number += 1
        self.server.stop()
        there = self.there()
        prefix = self.objects.keys.names("web01")
        for name, content in acknowledged.items():
            if name not in there:
                continue
            text = self.objects.names.get(prefix + name, 100_000)
            record = Record.of(text, self.objects.keys, "web01", name)
            self.assertEqual(hashlib.sha256(content).hexdigest(), record.sha256)
            self.assertIn(record.data, self.data())
        # The last one is newest in its series, and nothing prunes it.
        self.assertLessEqual(1, len(there))
        marks = self.objects.names.page(self.objects.keys.all_marks()).objects
        self.assertEqual(0, len(marks))

    def test_copy(self) -> None:
        """To another server, also a file that is sent in parts; a file that is damaged
        here does not arrive.
        """
        far = Server(self.folder / "far", buckets=[{"name": "web01", "token": OTHER}])
        far.start()
        self.addCleanup(far.stop)
        self.server.start()
        contents = {
            "small": os.urandom(1000),
            "large": os.urandom(5 * LEAST_PART),
            "damaged": os.urandom(3000),
        }
        for name, content in contents.items():
            self.assertEqual(200, self.send(name, content))
        self.assertTrue(comes(lambda: len(self.fates()) == 3))
        (damaged,) = (each for each in self.data() if "/damaged~" in each)
        self.objects.data.put(damaged, bytes(3000))
        tokens = self.folder / "copy.json"
        tokens.write_text(json.dumps({"web01": OTHER}))
        tokens.chmod(0o600)
        command = ("copy", far.url, "--tokens", str(tokens), "--retry-for", "10s")
        result = self.invoke(*command)
        self.assertEqual(1, result.exit_code, result.output)
        self.assertIn("2 files sent", result.output)
        self.assertIn("damaged here, and not on the other server", result.output)
        contents.pop("damaged")
        stored = {name.rpartition("/")[2]: each for name, each in far.stored().items()}
        self.assertEqual(contents, stored)
