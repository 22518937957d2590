"""The scripts in docs/how-to/disaster.rst, and those that move the storage folder in
docs/how-to/installing.rst, as they are written there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import threading

from filebucket.test.kit.blocks import DocumentCase
from filebucket.test.kit.integration import need
from filebucket.test.kit.machine import MachineCase
from filebucket.test.kit.server import OTHER, TOKEN, comes
from filebucket.test.kit.tree import TREE

BACK_UP = "Back up the server itself"
NEW = "Use the disk in a new machine"
CATALOGUE = "Rebuild or restore the catalogue"
CONFIGURATION = "Rebuild the configuration"
DISK = "Rescue a damaged disk"

FILES = {f"db-{day}.gz": b"%d\n" % day * 1000 for day in range(1, 9)}


class DisasterCase(DocumentCase, MachineCase):
    """Has a daemon with files in two buckets, and a document."""

    page = "disaster.rst"

    def setUp(self) -> None:
        super().setUp()
        for program in ("jq", "rsync", "sqlite3", "tar"):
            need(program)
        self.configure(
            {"name": "web01", "token": OTHER}, {"name": "db 02", "token": TOKEN}
        )
        self.catalogue = self.home / ".filebucket/catalogue.sqlite3"
        self.copy = self.root / "var/backups/file-bucket/catalogue.sqlite3"
        self.succeeds("systemctl start file-bucket")
        self.addCleanup(self.sh, "systemctl stop file-bucket")
        self.push(OTHER, **FILES)
        self.push(TOKEN, other=b"other\n")
        self.assertTrue(comes(lambda: len(self.pushes()) == len(FILES) + 1))

    def pushes(self) -> list[tuple[str, bool]]:
        """Each push in the catalogue: its name, and whether its client is known."""
        lines = self.sh("filebucket log --limit 100 --json").stdout.splitlines()
        rows = map(json.loads, lines)
        return sorted((each["name"], each["client"] is not None) for each in rows)

    def known(self, *names: str) -> list[tuple[str, bool]]:
        return sorted((name, True) for name in (*names, *FILES, "other"))

    def findings(self) -> dict[str, list[str]]:
        """What ``verify`` finds, by kind."""
        found: dict[str, list[str]] = {}
        for each in self.json("filebucket verify")["findings"]:
            found.setdefault(each["kind"], []).append(each["name"])
        return {kind: sorted(names) for kind, names in found.items()}

    def damage(self, name: str) -> None:
        """Change a byte, as a disk does: the time of modification stays."""
        path = self.home / "web01" / name
        before = path.stat()
        with path.open("r+b") as file:
            file.write(b"?")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class ServerTests(DisasterCase):
    """Its configuration and catalogue are backed up, and used on a new machine."""

    def test_new_machine(self) -> None:
        self.succeeds(self.script(BACK_UP, "install"))
        hook = self.config.parent / "post-push.sh"
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
        packed = re.findall(r"tar (-C / -c)z (.*)", self.script(BACK_UP, "filebucket"))
        ((options, names),) = packed
        self.succeeds(f"tar {options}zf server.tar.gz {names}")
        self.push(OTHER, later=b"later\n")
        self.assertTrue(comes(lambda: self.pushes() == self.known("later")))
        first, second = self.script(NEW, "apt").splitlines()
        self.assertEqual("apt install ./file-bucket_*.deb", first)
        self.succeeds(second)
        # The disk is mounted in the new machine, which has a package's configuration.
        shutil.rmtree(self.config.parent)
        self.config.parent.mkdir()
        self.configure()
        self.succeeds(self.script(NEW, "tar"))
        self.assertTrue(hook.exists())
        self.succeeds(self.script(NEW, "filebucket seal"))
        self.succeeds(self.script(NEW, "filebucket check"))
        self.succeeds(self.script(NEW, "filebucket verify"))
        self.assertEqual(self.known("later"), self.pushes())
        self.push(OTHER, again=b"again\n")
        self.assertTrue(comes(lambda: self.pushes() == self.known("again", "later")))

    def test_encrypted(self) -> None:
        """Pushed to another file-bucket, as it is written."""
        need("age")
        self.succeeds(self.script(BACK_UP, "install"))
        second = self.server()
        self.succeeds("age-keygen -o key.txt; age-keygen -y key.txt >public")
        (self.work / ".file-bucket").write_text(OTHER)
        (self.work / ".file-bucket").chmod(0o600)
        script = self.script(BACK_UP, "filebucket-push")
        script = script.replace("https://second.example.org:1443", second.url)
        script = re.sub(r"age1\w+", '"$(cat public)"', script)
        self.succeeds(script)
        ((name, content),) = second.stored().items()
        self.assertRegex(name, r"^web01/server-\d{4}-\d\d-\d\d\.tar\.gz\.age$")
        (self.work / "pushed.age").write_bytes(content)
        self.succeeds("age -d -i key.txt pushed.age >pushed.tar.gz")
        with tarfile.open(self.work / "pushed.tar.gz") as archive:
            names = archive.getnames()
        for path in (self.config, self.copy):
            self.assertIn(str(path.relative_to(self.root)), names)

    def test_restic(self) -> None:
        need("restic")
        self.succeeds(self.script(BACK_UP, "install"))
        environ = {"RESTIC_REPOSITORY": "repository", "RESTIC_PASSWORD": "x"}
        self.succeeds("restic init", **environ)
        self.succeeds(self.script(BACK_UP, "restic"), **environ)
        listed = self.succeeds("restic ls latest", **environ)
        for path in (self.config, self.copy):
            self.assertIn(f"{path}\n", listed)


class CatalogueTests(DisasterCase):
    def test_gone(self) -> None:
        """While the daemon runs: it is made again, without the history."""
        self.catalogue.unlink()
        self.succeeds(self.script(CATALOGUE, "filebucket reindex\n"))
        found = sorted((name, False) for name in (*FILES, "other"))
        self.assertEqual(found, self.pushes())
        self.succeeds(self.script(CATALOGUE, "filebucket verify"))
        sums = (self.work / "SHA256SUMS").read_text().splitlines()
        self.assertEqual(len(FILES) + 1, len(sums))

    def test_copy(self) -> None:
        """A file that was pushed after the copy was made, and one that was pruned."""
        self.succeeds(self.script(BACK_UP, "install"))
        self.push(OTHER, later=b"later\n")
        self.assertTrue(comes(lambda: self.pushes() == self.known("later")))
        (self.home / "web01" / "db-1.gz").unlink()
        self.catalogue.write_bytes(os.urandom(100_000))
        script = self.script(CATALOGUE, "systemctl stop")
        done = self.sh(script)
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertEqual({"missing": ["db-1.gz"]}, self.findings())
        self.assertEqual(sorted([*self.known(), ("later", False)]), self.pushes())
        self.succeeds(self.script(CATALOGUE, "filebucket reindex --accept"))
        self.succeeds("filebucket verify")

    def test_repeated(self) -> None:
        """A copy of the catalogue can be made again."""
        for _ in range(2):
            self.succeeds(self.script(BACK_UP, "install"))


class ConfigurationTests(DisasterCase):
    def test_gone(self) -> None:
        self.config.unlink()
        # The daemon does not need it.
        self.assertEqual(1, self.sh("filebucket reload").returncode)
        self.push(OTHER, later=b"later\n")
        self.assertTrue(comes(lambda: self.log.count("push bucket=web01") == 9))
        shipped = self.root / "usr/share/file-bucket/config.json"
        shipped.parent.mkdir(parents=True)
        own = json.loads((TREE / "debian/config.json").read_text())
        own |= {"host": "127.0.0.1", "port": self.port, "home": str(self.home)}
        shipped.write_text(json.dumps(own))
        self.assertIn("web01", self.succeeds(self.script(CONFIGURATION, "install")))
        names = (self.work / "names").read_text().splitlines()
        self.assertEqual(["db 02", "web01"], sorted(names))
        listed = (self.work / "tokens").read_text()
        tokens = dict(re.findall(r"(?m)^(web01|db 02) +(\S{32})$", listed))
        self.assertEqual(2, len(tokens))
        for name, token in tokens.items():
            self.push(token, **{f"new-{name[:2]}": b"new\n"})
        wanted = self.known("later", "new-db", "new-we")
        self.assertTrue(comes(lambda: self.pushes() == wanted))
        self.assertEqual(403, self.curl(f"{self.url}/{OTHER}/x", "-T", __file__)[0])
        # A machine's old token again.
        (self.work / ".file-bucket").write_text(f"Authorization: Bearer {OTHER}\n")
        self.program("ssh", '#!/bin/sh\n[ "$1" = root@web01 ] && shift && "$@"\n')
        digest = self.succeeds(self.script(CONFIGURATION, "ssh")).strip()
        config = json.loads(self.config.read_text())
        for bucket in config["buckets"]:
            if bucket["name"] == "web01":
                bucket["token_sha256"] = digest
        self.config.write_text(json.dumps(config))
        self.succeeds("filebucket reload")
        self.push(OTHER, old=b"old\n")


class DiskTests(DisasterCase):
    def test_damaged(self) -> None:
        """Half of the files cannot be read, or have changed."""
        self.succeeds(self.script(BACK_UP, "install"))
        stop, copy, catalogue, start, far, accept, timers = self.section(DISK)
        shutil.copytree(self.home, self.root / "far")
        self.succeeds(stop)
        for name in ("db-1.gz", "db-2.gz"):
            # rsync leaves out files that it cannot read.
            (self.home / "web01" / name).unlink()
        for name in ("db-3.gz", "db-4.gz"):
            self.damage(name)
        self.succeeds(f"install -d -o file-bucket -g file-bucket /srv/backups; {copy}")
        self.home.rename(self.root / "old")
        (self.root / "srv/backups").rename(self.home)
        self.catalogue.unlink()
        self.succeeds(catalogue)
        self.assertEqual(1, self.sh(start).returncode)
        lost = {
            "damaged": ["db-3.gz", "db-4.gz"],
            "missing": ["db-1.gz", "db-2.gz"],
        }
        self.assertEqual(lost, self.findings())
        # The client still has one of them, and the second server two.
        self.push(OTHER, **{"db-3.gz": FILES["db-3.gz"]})
        self.assertTrue(comes(lambda: self.findings()["damaged"] == ["db-4.gz"]))
        (self.root / "far/web01/db-2.gz").unlink()
        done = self.sh(
            far.replace("root@far:/var/lib/file-bucket", str(self.root / "far"))
            .replace("--chown=file-bucket:file-bucket", "")
            .replace("rsync", "! rsync")
        )
        self.assertIn("db-2.gz", done.stderr)
        self.assertEqual({"missing": ["db-2.gz"]}, self.findings())
        done = self.sh(accept.splitlines()[0])
        self.assertEqual(1, done.returncode)
        self.succeeds(accept.splitlines()[1])
        self.succeeds("filebucket verify")
        self.succeeds(timers)

    def test_second_server(self) -> None:
        """All files are lost, and the second server has them."""
        self.succeeds(self.script(BACK_UP, "install"))
        shutil.copytree(self.home, self.root / "far")
        self.succeeds("systemctl stop file-bucket")
        shutil.rmtree(self.home)
        self.home.mkdir()
        section = "Get the files back from the second server"
        script = self.script(section, page="second-site.rst")
        self.succeeds(
            script.replace(
                "root@far:/var/lib/file-bucket", str(self.root / "far")
            ).replace("--chown=file-bucket:file-bucket", "")
        )
        found = sorted((name, False) for name in (*FILES, "other"))
        self.assertEqual(found, self.pushes())


class MoveTests(DisasterCase):
    """While clients push."""

    page = "installing.rst"

    def test_moved(self) -> None:
        pushing = Pushing(self)
        pushing.start()
        self.addCleanup(pushing.stop)
        prepare, stop, copy, check, start, verify = self.section(
            "Move the storage folder"
        )
        pushing.wait(3)
        self.succeeds(prepare)
        pushing.wait(3)
        self.succeeds(stop)
        self.succeeds(copy)
        config = json.loads(self.config.read_text())
        new = self.root / "srv/backups"
        self.config.write_text(json.dumps({**config, "home": str(new)}))
        self.succeeds(check)
        self.succeeds(start)
        pushing.wait(3)
        pushing.stop()
        shutil.rmtree(self.home)
        wanted = self.known(*pushing.stored)
        self.assertTrue(comes(lambda: self.pushes() == wanted))
        self.assertIn("web01", self.succeeds(verify))
        self.assertEqual(set(pushing.stored), set(os.listdir(new / "web01")) - {*FILES})


class Pushing:
    """A client that pushes one file after the other.

    :ivar stored: the names of the files that got 200
    """

    def __init__(self, case: MachineCase) -> None:
        self._case = case
        self._stopped = False
        self._news = threading.Condition()
        self.stored: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._thread.join()

    def wait(self, count: int) -> None:
        """Wait for this number of new files."""
        before = len(self.stored)
        with self._news:
            done = self._news.wait_for(lambda: len(self.stored) >= before + count, 60)
        self._case.assertTrue(done, self._case.log)

    def _run(self) -> None:
        while not self._stopped:
            name = f"moving-{len(self.stored)}.gz"
            (self._case.work / name).write_bytes(os.urandom(50_000))
            # It waits for the daemon while that is stopped.
            self._case.succeeds(
                f"echo {OTHER} >.token; chmod 600 .token; filebucket-push"
                f" --token-file .token --url {self._case.url} {name}"
            )
            with self._news:
                self.stored.append(name)
                self._news.notify_all()
