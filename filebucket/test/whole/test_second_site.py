"""The scripts in docs/how-to/second-site.rst that copy to S3, as they are written
there, and attacks with the credentials of the backup server and of the account.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from filebucket.test.kit.blocks import DocumentCase
from filebucket.test.kit.integration import need
from filebucket.test.kit.machine import MachineCase
from filebucket.test.kit.s3 import ACCOUNT, S3, Credentials
from filebucket.test.kit.server import OTHER, TOKEN

RCLONE = "Copy with rclone"

URL = "https://s3.example.org"
TIME = "2026-11-27T12:00:00Z"
EXAMPLE = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
"""In the document."""

UTC_TIME = "%Y-%m-%dT%H:%M:%SZ"
RETENTION = (
    "<Retention><Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>"
)
SUSPENDED = (
    b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"
)

FILES = {"db-1.gz": b"one\n", "db-2.gz": os.urandom(6_000_000)}


class LockCase(DocumentCase, MachineCase):
    """Has stored files, and a bucket with object lock."""

    page = "second-site.rst"

    def setUp(self) -> None:
        super().setUp()
        for program in ("aws", "rclone", "restic"):
            need(program)
        self.s3 = S3(self.root / "s3")
        self.addCleanup(self.s3.stop)
        self.configure(
            {"name": "web01", "token": OTHER}, {"name": "db 02", "token": TOKEN}
        )
        self.succeeds("systemctl start file-bucket")
        self.addCleanup(self.sh, "systemctl stop file-bucket")
        self.push(OTHER, **FILES)
        self.push(TOKEN, other=b"other\n")
        self.s3.wait()
        heading = "Create credentials that cannot delete"
        (self.work / "add-only.json").write_text(self.script(heading, "{"))
        create = self.script("Create the bucket")
        self.aws(create)
        exports, _, _ = create.partition("\n")
        printed = self.aws(f"{exports}\n{self.script(heading, 'aws')}")
        key = json.loads(printed[printed.rindex('{\n    "AccessKey"') :])["AccessKey"]
        self.stolen = Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    def script(self, heading: str, starts: str = "", page: str = "") -> str:
        """For this server."""
        return super().script(heading, starts, page).replace(URL, self.s3.url)

    def write(self, name: str, example: str, who: Credentials) -> None:
        """Write a file of the document, with credentials."""
        text = example.replace(EXAMPLE[0], who.key).replace(EXAMPLE[1], who.secret)
        (self.work / name).write_text(text)

    def aws(self, script: str) -> str:
        """Run a script with the account's credentials."""
        return self.succeeds(
            script,
            AWS_ACCESS_KEY_ID=ACCOUNT.key,
            AWS_SECRET_ACCESS_KEY=ACCOUNT.secret,
        )

    def versions(self) -> set[tuple[str, str]]:
        """The name and version of everything in the bucket but delete markers."""
        status, listed = self.s3.call(ACCOUNT, "GET", "/backups", {"versions": ""})
        self.assertEqual(200, status, listed)
        xml = listed.decode().replace(
            ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', ""
        )
        return {
            (each.findtext("Key", ""), each.findtext("VersionId", ""))
            for each in ElementTree.fromstring(xml).iter("Version")
        }

    def attack(self, who: Credentials) -> set[str]:
        """Try everything that could destroy the versions that exist now.

        :returns: what succeeded
        """
        before = self.versions()
        self.assertNotEqual(set(), before)
        succeeded = set()

        def attempt(
            what: str,
            method: str,
            path: str,
            query: dict[str, str] | None = None,
            body: bytes = b"",
            **headers: str,
        ) -> None:
            status, _ = self.s3.call(who, method, path, query, body, **headers)
            self.assertLess(status, 500)
            if status < 300:
                succeeded.add(what)

        soon, late = (
            datetime.fromtimestamp(time.time() + days * 86400, UTC).strftime(UTC_TIME)
            for days in (1, 90)
        )
        shorter = RETENTION.format("GOVERNANCE", soon).encode()
        longer = RETENTION.format("COMPLIANCE", late).encode()
        bypass = {"x_amz_bypass_governance_retention": "true"}
        for key, version in sorted(before):
            path, exact = f"/backups/{key}", {"versionId": version}
            attempt("delete version", "DELETE", path, exact)
            attempt("delete version", "DELETE", path, exact, b"", **bypass)
            retention = {**exact, "retention": ""}
            attempt("shorten", "PUT", path, retention, shorter, **bypass)
            attempt("delete", "DELETE", path)
            attempt("replace", "PUT", path, None, b"evil\n")
            # To shorten needs the same right. The newest version gets a new time of
            # modification from SeaweedFS, so that this would hide an older one.
            attempt("lengthen", "PUT", path, {"retention": ""}, longer)
        attempt("suspend versions", "PUT", "/backups", {"versioning": ""}, SUSPENDED)
        attempt("delete bucket", "DELETE", "/backups")
        self.assertEqual(set(), before - self.versions())
        return succeeded

    def now(self) -> str:
        """The time, before which and after which is another second."""
        time.sleep(1.1)
        at = datetime.fromtimestamp(time.time(), UTC).strftime(UTC_TIME)
        time.sleep(1.1)
        return at

    def same(self, folder: Path) -> None:
        """All stored files are in this folder."""
        for name, content in FILES.items():
            self.assertEqual(content, (folder / "web01" / name).read_bytes())
        self.assertEqual(b"other\n", (folder / "db 02" / "other").read_bytes())

    def as_of(self, at: str, folder: str) -> str:
        """The script that gets what was there at a time, from a folder."""
        starts = f"rclone --config account.conf --s3-version-at {TIME} copy \\\n"
        found = self.script("After an attack on S3", f"{starts}    second:{folder}")
        self.write("account.conf", self.script(RCLONE, "[second]"), ACCOUNT)
        return found.replace(TIME, at)


class LockTests(LockCase):
    def test_rclone(self) -> None:
        self.write("rclone.conf", self.script(RCLONE, "[second]"), self.stolen)
        old = self.home / "web01" / "db-1.gz"
        os.utime(old, (1.7e9, 1.7e9))
        copy = self.script(RCLONE, "install")
        self.succeeds(copy)
        self.assertEqual(3, len(self.versions()))
        # The unit runs the same command.
        unit = self.script(RCLONE, "[Unit]")
        command = unit.partition("ExecStart=")[2]
        self.assertTrue(command and copy.endswith(command), command)
        check = self.script(RCLONE, "filebucket verify")
        self.succeeds(check)
        # All files are lost, also the catalogue; the times of receipt stay.
        self.succeeds("systemctl stop file-bucket")
        self.home.rename(self.root / "lost")
        self.home.mkdir()
        self.succeeds(self.script("Get the files back from S3"))
        self.same(self.home)
        self.assertEqual(1.7e9, old.stat().st_mtime)
        at = self.now()
        self.assertEqual({"replace"}, self.attack(self.stolen))
        # The next copy and the check find that.
        self.assertIn("immutable file modified", self.sh(copy).stderr)
        self.assertIn("differ", self.sh(check).stderr)
        # The account's credentials can add delete markers, too.
        self.assertEqual({"delete", "lengthen", "replace"}, self.attack(ACCOUNT))
        self.succeeds(self.as_of(at, "backups/files"))
        self.same(self.root / "srv/restore")

    def test_restic(self) -> None:
        heading = "Copy with restic"
        self.write("restic.env", self.script(heading, "export"), self.stolen)
        create, back_up, restore = self.section(heading)[1:]
        self.succeeds(create)
        for _ in range(2):
            self.succeeds(back_up)
        self.succeeds(restore)
        restored = self.root / "srv/restore" / str(self.home)[1:]
        self.assertEqual(["web01"], os.listdir(restored))
        at = self.now()
        # restic may delete its own locks.
        self.assertEqual({"delete", "replace"}, self.attack(self.stolen))
        self.attack(ACCOUNT)
        self.assertNotEqual(0, self.sh(restore).returncode)
        self.succeeds(self.as_of(at, "backups/restic"), RESTIC_PASSWORD="...")
        self.same(restored)
