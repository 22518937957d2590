"""The examples in docs/how-to/client.rst, as they are written there.

Only addresses and paths are replaced. Programs that need a database are replaced by
fakes that check their arguments.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from filebucket.test.kit.blocks import AS_POSTGRES, DocumentCase
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.integration import IntegrationCase, need
from filebucket.test.kit.server import OTHER, PATIENCE, Server, comes
from filebucket.test.kit.tree import TREE

FILES = TREE / "contrib" / "client"

URL = "https://backup.example.org:1443"
DAY = "2026-11-28"
"""The day in the document. It replaces today's in the names of stored files."""

CONTENT = b"content\n"

FAKES = {
    "pg_dump": 'case "$*" in shop | "-Fc shop") echo dump ;; *) exit 9 ;; esac',
    "pg_dumpall": '[ $# = 0 ] && id -un >"$HOME/dumped-by" && echo dump',
    "mariadb-dump": '[ "$*" = "--single-transaction shop" ] && echo dump',
    "runuser": AS_POSTGRES,
    "mail": 'echo "$*"; cat',
}


class ExampleCase(DocumentCase, IntegrationCase):
    """Has the client, a daemon, and a machine whose root folder is ``root``."""

    page = "client.rst"

    def setUp(self) -> None:
        super().setUp()
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.root = self.folder / "root"
        self.home = self.folder / "home"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "etc" / "hostname").write_bytes(CONTENT)
        self.home.mkdir()
        self.token = self.home / ".file-bucket"
        self.token.write_text(f"Authorization: Bearer {OTHER}\n")
        self.token.chmod(0o600)
        self.program(
            "filebucket-push",
            f'exec {shlex.quote(sys.executable)} -m filebucket.client "$@"',
        )
        for name, script in FAKES.items():
            self.program(name, script)

    def program(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def sh(
        self, server: Server, script: str, *, shell: str = "/bin/sh", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it with the server, and with paths in the root of this test."""
        script = script.replace(URL, server.url).replace("/usr/sbin/runuser", "runuser")
        script = script.replace("-C / ", f"-C {self.root} ")
        script = re.sub(
            r"/srv/(?=restic|borg)|(?<=-C )/srv\b", f"{self.root}/srv/", script
        )
        script = re.sub(r"(?<=[ =])/(?=etc\b)", f"{self.root}/", script)
        return subprocess.run(
            [shell, "-ec", script],
            cwd=self.home,
            env={
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "HOME": str(self.home),
                "FILEBUCKET_URL": server.url,
                **environ,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def succeeds(self, server: Server, script: str, **environ: str) -> dict[str, bytes]:
        """The files that are stored after it has succeeded, without a word."""
        done = self.sh(server, script, **environ)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        return {
            re.sub(r"\d{4}-\d\d-\d\d", DAY, name.partition("/")[2]): content
            for name, content in server.stored().items()
        }

    def names(self, archive: bytes) -> list[str]:
        """The names of files in a tar archive."""
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            return [each.name for each in opened if each.isfile()]


class FirstPushTests(ExampleCase):
    def test_first(self) -> None:
        """The token's file is private, and the file is stored under its name."""
        self.token.unlink()
        (self.home / "db.gz").write_bytes(CONTENT)
        server = self.server()
        script = self.script("First push", "(umask 077;")
        self.assertEqual({"db.gz": CONTENT}, self.succeeds(server, script, TOKEN=OTHER))
        self.assertEqual(0o100600, self.token.stat().st_mode)

    def test_dated(self) -> None:
        (self.home / "db.gz").write_bytes(CONTENT)
        script = self.script("First push", "filebucket-push --name")
        stored = self.succeeds(self.server(), script)
        self.assertEqual({f"db-{DAY}.gz": CONTENT}, stored)

    def test_receipts(self) -> None:
        for name in ("db.gz", "etc.tar.gz"):
            (self.home / name).write_bytes(name.encode())
        script = self.script("First push", "filebucket-push --receipt")
        done = self.sh(self.server(), script)
        self.assertEqual("db.gz: OK\netc.tar.gz: OK\n", done.stdout, done.stderr)


class CommandTests(ExampleCase):
    def test_tar(self) -> None:
        """By ``--exec`` and from a pipe."""
        for heading, starts in (
            ("Push the output of a command", "filebucket-push --name 'etc"),
            ("Push from a pipe", "tar "),
        ):
            server = self.server()
            stored = self.succeeds(server, self.script(heading, starts))
            self.assertEqual([f"etc-{DAY}.tar.gz"], list(stored))
            self.assertEqual(["etc/hostname"], self.names(*stored.values()))
            server.stop()
            shutil.rmtree(server.home)

    def test_pipelines(self) -> None:
        """They are stored if each command succeeds, and only then."""
        names = {"shop": f"shop-{DAY}.sql.gz", "all": f"all-{DAY}.sql.gz"}
        for heading, starts, name, program in (
            (
                "Push the output of a command",
                "cd / && filebucket-push --name 'shop",
                "shop",
                "pg_dump",
            ),
            ("PostgreSQL", "cd / && filebucket-push --name 'all", "all", "pg_dumpall"),
            ("MySQL and MariaDB", "filebucket-push", "shop", "mariadb-dump"),
        ):
            page = "databases.rst" if "SQL" in heading else ""
            script = self.script(heading, starts, page)
            server = self.server()
            stored = self.succeeds(server, script)
            self.assertEqual([names[name]], list(stored), heading)
            server.stop()
            shutil.rmtree(server.home)
            server.start()
            self.program(program, "echo half; exit 1")
            done = self.sh(server, script)
            self.assertEqual((3, {}), (done.returncode, server.stored()), heading)
            server.stop()

    def test_postgresql(self) -> None:
        """As ``postgres``, and as root."""
        for starts in ("filebucket-push", "cd / && filebucket-push --name 'shop"):
            server = self.server()
            script = self.script("PostgreSQL", starts, "databases.rst")
            stored = self.succeeds(server, script)
            self.assertEqual({f"shop-{DAY}.dump": b"dump\n"}, stored)
            server.stop()
            shutil.rmtree(server.home)

    def test_changed_files(self) -> None:
        """tar's status 1 is accepted by the second command, and 2 by none."""
        need("tar")
        (self.root / "srv").mkdir()
        plain, tolerant = self.section("Folders")
        for status, script, expected in (
            (0, plain, 0),
            (1, plain, 3),
            (1, tolerant, 0),
            (2, tolerant, 3),
        ):
            self.program("tar", f'/bin/tar "$@"; exit {status}')
            server = self.server()
            done = self.sh(server, script)
            self.assertEqual(expected, done.returncode, done.stderr)
            self.assertEqual(expected == 0, bool(server.stored()))
            server.stop()
            shutil.rmtree(server.home)


class RepositoryTests(ExampleCase):
    """The whole way: back up, push, restore."""

    def setUp(self) -> None:
        super().setUp()
        (self.root / "srv").mkdir()
        self.restored = self.folder / "restored"
        self.restored.mkdir()

    def unpack(self, stored: dict[str, bytes]) -> None:
        (archive,) = stored.values()
        path = self.folder / "archive"
        path.write_bytes(archive)
        self.run_("tar", "-xf", str(path))

    def run_(self, *command: str, **environ: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.restored,
            env={**os.environ, "HOME": str(self.home), **environ},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def test_restic(self) -> None:
        need("restic")
        password = {"RESTIC_PASSWORD": "x", "XDG_CACHE_HOME": str(self.folder)}
        self.run_("restic", "init", "-r", f"{self.root}/srv/restic", **password)
        script = self.script("restic and borg", "restic")
        self.unpack(self.succeeds(self.server(), script, **password))
        self.run_(
            "restic", "-r", "restic", "restore", "latest", "--target", ".", **password
        )
        (found,) = self.restored.rglob("hostname")
        self.assertEqual(CONTENT, found.read_bytes())

    def test_borg(self) -> None:
        """The repository, whose lock is not in it, and the newest archive alone."""
        need("borg")
        environ = {
            "BORG_BASE_DIR": str(self.folder),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }
        elsewhere = {**environ, "BORG_BASE_DIR": str(self.restored)}
        repository = f"{self.root}/srv/borg"
        self.run_("borg", "init", "-e", "none", repository, **environ)
        for name in ("first", "second"):
            etc = str(self.root / "etc")
            self.run_("borg", "create", f"{repository}::{name}", etc, **environ)
        server = self.server()
        whole = self.script("restic and borg", "filebucket-push --name 'borg")
        stored = self.succeeds(server, whole, **environ)
        self.unpack(stored)
        self.assertFalse(list(self.restored.rglob("lock.*")))
        self.assertEqual(
            "first\nsecond\n", self.run_("borg", "list", "--short", "borg", **elsewhere)
        )
        newest = self.script("restic and borg", "filebucket-push --name 'newest")
        stored = self.succeeds(server, newest, **environ)
        (name,) = self.names(stored[f"newest-{DAY}.tar"])
        self.assertEqual("hostname", Path(name).name)


class TimeTests(ExampleCase):
    """What runs at its time."""

    def test_copies(self) -> None:
        """The files in contrib/client are blocks of the documents."""
        files = [path.read_text(encoding="utf-8") for path in FILES.iterdir()]
        self.assertEqual(7, len(files))
        self.assertEqual(sorted(files), sorted(self.listed()))

    def test_cron(self) -> None:
        """cron runs them with its own path, in the home folder, and mails nothing."""
        crontab = (FILES / "push.cron").read_text()
        settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", crontab))
        self.assertEqual({"PATH", "MAILTO", "FILEBUCKET_URL"}, set(settings))
        lines = re.findall(r"(?m)^(?:[\d*]+ +){5}root +(.*)$", crontab)
        self.assertEqual(2, len(lines))
        self.assertNotIn("%", crontab)
        server = self.server()
        for line in lines:
            stored = self.succeeds(server, line)
        self.assertEqual({f"etc-{DAY}.tar.gz", f"shop-{DAY}.dump"}, set(stored))
        # The next time the names are taken: cron mails why.
        done = self.sh(server, lines[0])
        self.assertEqual(1, done.returncode)
        self.assertRegex(
            done.stderr,
            r"\Afilebucket-push: etc-.*a file with that name already exists",
        )

    def test_units(self) -> None:
        """systemd understands them, and the command stores a dump."""
        need("systemd-analyze")
        folder = self.folder / "units"
        shutil.copytree(FILES, folder)
        service = folder / "push-shop.service"
        text = service.read_text()
        command = re.search(r"(?m)^ExecStart=/usr/bin/(.*)$", text)
        assert command is not None
        service.write_text(text.replace("/usr/bin/filebucket-push", "/bin/true"))
        units = [
            str(each)
            for each in folder.iterdir()
            if each.suffix in {".service", ".timer"}
        ]
        self.assertEqual(3, len(units))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        credentials = self.folder / "credentials"
        credentials.mkdir()
        (credentials / "file-bucket").write_text(f"{OTHER}\n")
        self.token.unlink()
        stored = self.succeeds(
            self.server(), command[1], CREDENTIALS_DIRECTORY=str(credentials)
        )
        self.assertEqual({f"shop-{DAY}.dump": b"dump\n"}, stored)

    def test_windows(self) -> None:
        """The task's arguments are those of the client."""
        script = (FILES / "push.ps1").read_text()
        parts = re.search(r"(?s)\$push = (.*?)\n\n", script)
        assert parts is not None
        words = " ".join(re.findall(r'"(.*?)"', parts[1])).replace("$folder\\", "")
        (self.home / "token").write_text(f"{OTHER}\r\n")
        (self.home / "db.bak").write_bytes(CONTENT)
        words = words.replace("C:\\Data\\", "").replace(".pyz", "")
        # A line goes on after a grave accent.
        heading = "Every night, with filebucket-push"
        once = self.script(heading, "Set-Content", "windows.rst").partition("\npy ")[2]
        once = once.replace("`\n", "").replace("C:\\Backup\\", "").replace(".pyz", "")
        once = once.replace("C:\\Data\\", "")
        stored = self.succeeds(self.server(), f"{words}; {once}")
        self.assertEqual({f"db-{DAY}.bak": CONTENT, "db.bak": CONTENT}, stored)


class EncryptionTests(ExampleCase):
    def test_restore(self) -> None:
        """Only the private key restores it, and the server never has the content."""
        need("age-keygen")
        title = "Encrypt, and restore"
        server = self.server()
        done = self.sh(server, self.script(title, "age-keygen"))
        public = re.search(r"age1\w+", done.stdout + done.stderr)
        assert public is not None
        script = re.sub(r"age1\w+", public[0], self.script(title, "filebucket-push"))
        stored = self.succeeds(server, script)
        name = f"etc-{DAY}.tar.gz.age"
        self.assertEqual([name], list(stored))
        self.assertTrue(stored[name].startswith(b"age-encryption.org/v1\n"))
        python, config = (
            shlex.quote(str(each)) for each in (sys.executable, server.config_file)
        )
        self.program(
            "ssh", f'[ "$1" = root@backup ] && shift && "$@" --config {config}'
        )
        self.program("filebucket", f'exec {python} -m filebucket "$@"')
        restore = self.script(title, "ssh")
        # The catalogue has the file a moment after the answer.
        self.assertTrue(comes(lambda: self.sh(server, restore).returncode == 0))
        encrypted = (self.home / "etc.tar.gz.age").read_bytes()
        self.assertEqual(stored[name], encrypted)
        self.assertEqual(CONTENT, (self.home / "etc" / "hostname").read_bytes())


class OptionTests(ExampleCase):
    def test_messages(self) -> None:
        """The refusals that the document shows. The same file again is no error."""
        (self.home / "db.gz").write_bytes(CONTENT)
        server = self.server()
        other = "filebucket-push --name db-2026-11-28.gz db.gz"
        self.succeeds(server, f"filebucket-push db.gz; filebucket-push db.gz; {other}")
        (self.home / "db.gz").write_bytes(b"other")
        done = self.sh(server, f"filebucket-push db.gz || {other}")
        (shown,) = self.section("Exit statuses")
        self.assertEqual(shown.split(), done.stderr.split())

    def test_json(self) -> None:
        """The keys, and what can be compared of the values."""
        (self.home / "db.gz").write_bytes(b"content")
        server = self.server()
        (shown,) = self.section("Output for scripts")
        examples = [json.loads(each) for each in re.findall(r"(?s)\{.*?\}", shown)]
        for example, status in zip(examples, (0, 1), strict=True):
            done = self.sh(server, "filebucket-push --json db.gz")
            (self.home / "db.gz").write_bytes(b"other")
            self.assertEqual(status, done.returncode)
            printed = json.loads(done.stdout)
            self.assertEqual(set(example), set(printed))
            for key in ("name", "stored", "size", "status", "retries"):
                self.assertEqual(example.get(key), printed.get(key))
            for key in ("sha256", "error"):
                begins = example.get(key, "").rstrip(".")
                self.assertTrue(printed.get(key, "").startswith(begins), printed)
        digest = hashlib.sha256(b"content").hexdigest()
        self.assertTrue(digest.startswith(examples[0]["sha256"].rstrip(".")))

    def test_tls(self) -> None:
        """With the server's own certificate."""
        (self.home / "db.gz").write_bytes(CONTENT)
        write_pair(self.home)
        key, certificate = self.home / "key.pem", self.home / "cert.pem"
        listen = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        server = self.server(listen=[listen])
        script = self.script("TLS, proxies, UNIX sockets", "filebucket-push --url")
        script = script.replace(URL, server.url)
        self.assertEqual({"db.gz": CONTENT}, self.succeeds(server, script))

    def test_unix_socket(self) -> None:
        (self.home / "db.gz").write_bytes(CONTENT)
        # A socket's path has up to 107 bytes.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/s"
        server = self.server(listen=[f"unix:{path}"])
        script = self.script("TLS, proxies, UNIX sockets", "filebucket-push --unix")
        script = script.replace("/run/file-bucket/socket", path)
        done = self.sh(server, script, FILEBUCKET_URL="")
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        self.assertEqual({"web01/db.gz": CONTENT}, server.stored())


class OtherDocumentTests(ExampleCase):
    """The lines about the client, and those about curl instead, elsewhere."""

    def pushed(self, script: str) -> dict[str, bytes]:
        """The files that are stored by a script."""
        server = self.server()
        script = script.replace("http://backup:1234", server.url)
        stored = self.succeeds(server, script, URL=server.url, TOKEN=OTHER)
        server.stop()
        shutil.rmtree(server.home)
        return stored

    def test_client(self) -> None:
        (self.home / "db.gz").write_bytes(CONTENT)
        dump = {f"shop-{DAY}.dump": b"dump\n"}
        line = self.script("Push", "PATH=", "README.rst")
        self.assertEqual(dump, self.pushed(line.partition(" root ")[2]))
        script = self.script("Use filebucket-push", page="resuming.rst")
        both = {"db.gz": CONTENT, "shop.dump": b"dump\n"}
        self.assertEqual(both, self.pushed(script))
        script = self.script("First push", "(umask", "debian.rst")
        self.assertEqual({"db.gz": CONTENT}, self.pushed(script))

    def test_curl(self) -> None:
        """The server checks the digest, and a refusal is an error with its reason."""
        need("curl")
        (self.home / "db.gz").write_bytes(CONTENT)
        (script,) = re.findall(
            r"(?s)curl [^\n]*--retry.*? -T db.gz \$URL/",
            self.script("Push", "#", "README.rst"),
        )
        self.assertEqual({"db.gz": CONTENT}, self.pushed(script))
        server = self.server()
        self.sh(server, script, URL=server.url)
        (self.home / "db.gz").write_bytes(b"other")
        done = self.sh(server, script, URL=server.url)
        self.assertEqual(22, done.returncode)
        self.assertIn("already exists", done.stdout)

    def test_script(self) -> None:
        """The script for cron without Python: a failed dump is reported, not stored."""
        need("curl")
        server = self.server()
        script = self.script("Push from cron", "#!", "pushing.rst")
        script = script.replace("http://backup:1234", server.url)
        script = script.replace("/root/.file-bucket", str(self.token))
        script = script.replace("/usr/sbin/runuser", "runuser")
        dumps = '[ "$*" = "-Fc shop" ] && echo dump'
        no_route = "echo connecting >&2; echo no route >&2; exit 1"
        self.program("pg_dump", f"{dumps}; {no_route}")
        done = self.sh(server, script)
        self.assertEqual((1, {}), (done.returncode, server.stored()))
        failure = "push-shop: NOT stored: pg_dump exited with 1: no route"
        expected = ("", f"connecting\nno route\n{failure}\n")
        self.assertEqual(expected, (done.stdout, done.stderr))
        server.wait_for("text='pg_dump exited with 1: no route'")
        away = script.replace(server.url, "http://127.0.0.1:1")
        done = self.sh(server, away)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertRegex(done.stderr, rf"\ncurl: .*\n{failure} \(not reported\)\n\Z")
        self.program("pg_dump", dumps)
        done = self.sh(server, away.replace("--retry 5", "--retry 0"))
        self.assertEqual(1, done.returncode)
        self.assertTrue(
            done.stderr.endswith(
                "\npush-shop: NOT stored: no answer from http://127.0.0.1:1\n"
            ),
            done.stderr,
        )
        self.program("pg_dump", f"echo slow >&2; {dumps}")
        done = self.sh(server, script.replace(".dump", ".slow"))
        self.assertEqual((0, "", "slow\n"), (done.returncode, done.stdout, done.stderr))
        stored = len(server.stored())
        self.program("pg_dump", dumps)
        done = self.sh(server, script)
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))
        self.assertEqual([b"dump\n"] * (stored + 1), list(server.stored().values()))
        self.token.write_text(f"Authorization: Bearer {OTHER[::-1]}\n")
        done = self.sh(server, script)
        self.assertEqual(1, done.returncode)
        self.assertRegex(
            done.stderr, r"(?s)403.*\npush-shop: NOT stored: no such token\n\Z"
        )
