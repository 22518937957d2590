"""``filebucket sweep``."""

from __future__ import annotations

import os
import time
from contextlib import closing

from filebucket.catalogue.journal import Journal
from filebucket.config.load import load
from filebucket.model.records import Received
from filebucket.store.s3 import remove
from filebucket.store.s3.interfaces import DeniedError
from filebucket.store.s3.records import Keys, new_id
from filebucket.store.s3.remove import S3Remover
from filebucket.store.s3.sweep import SETTLED
from filebucket.test.kit.blocking import MemoryBucket, Objects
from filebucket.test.kit.commands import DAY, HASH, CliCase

KEYS = Keys("")


class SweepTests(CliCase):
    """An object store in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.names, self.data = MemoryBucket(), MemoryBucket()
        self.names.now = self.data.now = self.at = time.time()
        self.objects = Objects(KEYS, self.names, self.data)
        remover = S3Remover(self.names, self.data, KEYS)
        self.patch(remove, "remover_of", lambda s3, who: remover)
        path = self.folder / "credentials"
        path.write_text(
            "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n"
        )
        self.patch(os, "environ", {**os.environ, "COLUMNS": "1000"})
        self.buckets = [
            {"name": name, "token_sha256": HASH[:-1] + str(number)}
            for number, name in enumerate(("web01", "web02"))
        ]
        self.configure(delete_credentials=str(path))
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        Journal.open(str(self.home)).close()

    def configure(self, **keys: str) -> None:
        store = {
            "endpoints": ["http://127.0.0.1:1"],
            "names_bucket": "names",
            "data_bucket": "data",
            "credentials": str(self.folder / "credentials"),
            **keys,
        }
        self.write(*self.buckets, store={"s3": store})

    def leave(self, bucket: str, name: str, age: float = 2 * DAY) -> str:
        key = KEYS.data(bucket, name, new_id())
        self.data.objects[key] = b"left", self.at - age
        return key

    def test_sweep(self) -> None:
        """Those of all buckets, or of some, are printed."""
        self.objects.store("web01", "kept", b"content", self.at)
        for bucket in ("web01", "web02"):
            self.leave(bucket, "a")
            self.leave(bucket, "b", DAY / 2)
        lines = self.run_("sweep", "web02", "--dry-run").splitlines()
        self.assertEqual(
            [
                "deleted        4 B  web02  a",
                "Would delete 1 object (4 B); 1 too new.",
            ],
            lines,
        )
        self.assertEqual(5, len(self.data.objects))
        lines = self.run_("sweep").splitlines()
        self.assertEqual("Deleted 2 objects (8 B); 2 too new.", lines[-1])
        self.assertEqual(3, len(self.data.objects))
        line = self.run_("sweep", "--older-than", "1h").splitlines()[-1]
        self.assertEqual("Deleted 2 objects (8 B).", line)

    def test_json(self) -> None:
        self.leave("web01", "a")
        found = self.json("sweep")
        (one,) = found.pop("objects")
        self.assertTrue(one.pop("modified_at"))
        self.assertEqual(
            {
                "bucket": "web01",
                "name": "a",
                "size": 4,
                "fate": "deleted",
                "reason": None,
            },
            one,
        )
        counts = {"deleted": 1, "freed": 4, "young": 0, "failed": 0}
        self.assertEqual({"dry_run": False, **counts}, found)
        self.assertEqual([], self.json("sweep")["objects"])

    def test_fails(self) -> None:
        def refuse(call: str, key: str) -> None:
            if call == "delete":
                raise DeniedError("403 AccessDenied", "AccessDenied")

        self.leave("web01", "a")
        self.data.before = refuse
        result = self.invoke("sweep")
        self.assertEqual(1, result.exit_code)
        self.assertEqual(
            [
                "failed         4 B  web01  a: 403 AccessDenied",
                "Deleted 0 objects (0 B); 1 failed.",
            ],
            result.output.splitlines(),
        )

    def test_missing_record(self) -> None:
        """The data of a file of the catalogue stays."""
        bucket = load(str(self.file)).buckets[0]
        row = Received(bucket.key, "a", "a", 4, "0" * 64, self.at, request="r")
        with closing(Journal.open(str(self.home))) as journal:
            journal.record([row], [], lambda key: bucket)
        self.leave("web01", "a")
        self.leave("web02", "a")
        result = self.invoke("sweep")
        self.assertEqual(1, result.exit_code)
        self.assertIn("web01  a: the catalogue has this file", result.output)
        self.assertIn("Deleted 1 object (4 B); 1 failed.", result.output)

    def test_parts(self) -> None:
        """It says why it waits."""
        slept: list[float] = []
        self.patch(time, "sleep", slept.append)
        self.data.multipart.add(self.leave("web01", "a"))
        self.assertIn("Waiting 15 minutes", self.run_("sweep"))
        self.assertLess(SETTLED - 60, slept[0])
        self.assertEqual({}, self.data.objects)

    def test_not_allowed(self) -> None:
        """A dry run needs no right to delete."""
        self.leave("web01", "a")
        self.configure()
        self.assertIn("delete_credentials", self.refused("sweep"))
        self.assertIn("Would delete 1 object", self.run_("sweep", "--dry-run"))

    def test_too_short(self) -> None:
        result = self.invoke("sweep", "--older-than", "59m")
        self.assertEqual(2, result.exit_code)
        self.assertIn("must be at least 1h", result.output)

    def test_no_store(self) -> None:
        """Then the timer does no harm."""
        self.write(*self.buckets)
        self.assertIn("Nothing to sweep", self.run_("sweep"))
        self.assertEqual([], self.json("sweep")["objects"])
