"""The tutorial and pages about other programs, as they are written there."""

from __future__ import annotations

import contextlib
import re
import shlex
import sqlite3
import tarfile
from io import BytesIO

from filebucket.test.kit.blocks import DocumentCase
from filebucket.test.kit.examples import shape
from filebucket.test.kit.integration import need
from filebucket.test.kit.machine import MachineCase
from filebucket.test.kit.pages import CONTENT, PageCase
from filebucket.test.kit.server import comes
from filebucket.test.kit.tree import TREE


class TutorialTests(DocumentCase, MachineCase):
    """All blocks in their order. Only the time passes faster."""

    def setUp(self) -> None:
        super().setUp()
        for program in ("curl", "sqlite3"):
            need(program)
        self.configure()
        self.home.chmod(0o700)
        for name in ("srv", "var/tmp"):
            (self.root / name).mkdir()
        hooks = self.root / "usr/share/doc/file-bucket/examples/hooks"
        hooks.parent.mkdir(parents=True)
        hooks.symlink_to(TREE / "hooks")
        crontabs = self.root / "etc/cron.d"
        crontabs.mkdir()
        for name in ("push-shop", "restore-shop"):
            (crontabs / name).touch()
        self.program("editor", "#!/bin/sh\n[ -x $1 ]\n")
        self.program("sleep", "#!/bin/sh\nexec /bin/sleep 1\n")
        self.succeeds("systemctl start file-bucket")
        self.addCleanup(self.sh, "systemctl stop file-bucket")
        self.token = ""

    def test_tutorial(self) -> None:
        for text in self.listed():
            if text.startswith(': "${'):
                self.edit(text)
                continue
            steps = re.split(r"(?m)^\$ ", text)[1:] if text[0] == "$" else [text]
            for step in steps:
                command, _, expected = step.partition("\n")
                while text[0] != "$" or command.count('"') % 2:
                    if not expected:
                        break
                    more, _, expected = expected.partition("\n")
                    command += f"\n{more}"
                self.run_step(command, expected)
        self.assertEqual([], sorted(self.work.iterdir()))

    def edit(self, text: str) -> None:
        """Find the lines in the hook, and replace it, since it needs the network."""
        hook = self.config.parent / "alert.sh"
        for name in re.findall(r'(?m)^: "\$\{(\w+)', text):
            self.assertRegex(hook.read_text(), rf'(?m)^: "\$\{{{name}[:=]')
        hook.write_text("#!/bin/sh\n")

    def run_step(self, command: str, expected: str) -> None:
        """Run a command. The output of one that shows pushes comes a moment later."""
        if command.startswith("TOKEN="):
            command = f"TOKEN={self.token}"
        state = shlex.quote(str(self.root / "run/state"))
        script = command.replace("127.0.0.1:1234", f"127.0.0.1:{self.port}")
        script = script.replace("/usr/local/bin/dump", f"{self.root}/bin/dump")
        script = (
            f"exec 2>&1; touch {state}; . {state} || cd; set +e\n"
            + script.replace("--expect 1m", "--expect 1s")
            + f"\nstatus=$?; {{ declare -p TOKEN FILEBUCKET_URL; echo cd $PWD; }}"
            f" >{state} 2>/dev/null; exit $status"
        )
        output = ""

        def as_shown() -> bool:
            nonlocal output
            done = self.sh(script)
            output = done.stdout.replace(str(self.root), "")
            return plain(expected) in plain(output)

        again = command.startswith(("filebucket status", "filebucket log"))
        self.assertTrue(
            comes(as_shown, 10) if again else as_shown(),
            f"{command}\n{plain(output)}\n{plain(expected)}",
        )
        if command.startswith("filebucket bucket add"):
            (self.token,) = re.findall(r"(?m)^ +([\w-]{32})$", output)


class CertificateTests(PageCase):
    """The pages about certificates. Clients reach the server by its name."""

    def setUp(self) -> None:
        super().setUp()
        self.start()
        self.etc = self.config.parent
        self.program("update-ca-certificates", "#!/bin/sh\n")

    def answer(self, *arguments: str) -> str:
        """The answer to a request without a valid token, over TLS."""
        done = self.sh(
            f"curl -sS {' '.join(arguments)} https://backup.example.org:1443/"
        )
        return done.stdout + done.stderr

    def test_certbot(self) -> None:
        """The deploy hook copies the files of the renewed certificate."""
        page = "tls-certbot.rst"
        script = self.script("Get the certificate", "#!", page)
        self.succeeds(f"cat >/etc/file-bucket/deploy-certificate <<'END'\n{script}END")
        live = self.root / "etc/letsencrypt/live/backup.example.org"
        live.mkdir(parents=True)
        for ours, theirs in (("key", "privkey"), ("cert", "fullchain")):
            (live / f"{theirs}.pem").write_bytes(
                (self.etc / f"{ours}.pem").read_bytes()
            )
        self.succeeds("chmod 755 /etc/file-bucket/deploy-certificate")
        self.succeeds(self.script("What can go wrong", "RENEWED", page))
        for name in ("privkey.pem", "fullchain.pem"):
            self.assertEqual(0o100640, (self.etc / name).stat().st_mode)
        config = self.config.read_text()
        self.config.write_text(
            config.replace("key.pem:cert.pem", "privkey.pem:fullchain.pem")
        )
        self.succeeds(self.script("Let the daemon use it", "filebucket", page))
        same = self.script("Behind a reverse proxy", "filebucket", "reverse-proxy.rst")
        self.assertEqual(self.script("Let the daemon use it", "filebucket", page), same)
        self.assertEqual("no such token\n", self.answer())
        shown = self.script("Check", "$ curl", page).splitlines()
        self.assertEqual(shown[1], self.answer().strip())

    def test_private_ca(self) -> None:
        """A server and a client with certificates of the CA."""
        page = "tls-private-ca.rst"
        # openssl asks a terminal for the passphrase.
        ca = self.script("Make the CA", page=page).replace("-keyout", "-noenc -keyout")
        self.succeeds(ca)
        self.succeeds(self.script("Make the server's certificate", "cd ", page))
        self.succeeds("cp /etc/file-bucket/server.csr .")
        sign = self.script("Make the server's certificate", "cat ", page)
        self.assertIn("cert.pem: OK", self.succeeds(sign))
        self.succeeds("cp cert.pem ca.pem /etc/file-bucket/")
        activate = self.script("Make the server's certificate", "cp ", page)
        trusted = "/usr/local/share/ca-certificates"
        self.assertIn(trusted, activate)
        self.succeeds(activate.replace(trusted, str(self.root / "run")))
        for command in self.script("Let the clients trust it", page=page).split(
            "\nfilebucket"
        ):
            client = command if command.startswith("curl") else f"filebucket{command}"
            self.succeeds(client)
            (self.home / "web01/db.gz").unlink()
        (check,) = self.section("Check", page)
        self.assertIn("--cacert ca.pem", check)
        self.assertEqual("no such token\n", self.answer("--cacert ca.pem"))
        for starts in ("openssl", "cat "):
            self.succeeds(self.script("Certificates for clients", starts, page))
        config = self.config.read_text()
        self.config.write_text(
            config.replace("key.pem:cert.pem", "key.pem:cert.pem:clientCA=ca.pem")
        )
        self.succeeds("systemctl restart file-bucket")
        self.assertIn("certificate required", self.answer("--cacert ca.pem"))
        self.succeeds(self.script("Certificates for clients", "curl", page))
        self.assertEqual(CONTENT, (self.home / "web01/db.gz").read_bytes())


class ScriptTests(PageCase):
    """Scripts that other programs run."""

    def setUp(self) -> None:
        super().setUp()
        need("tar")
        self.start()

    def installed(self, script: str) -> str:
        """A script whose programs and paths are this test's."""
        script = script.replace("https://backup.example.org:1443", self.url)
        script = script.replace("/usr/local/bin:/usr/bin:/bin", self.path)
        return script.replace("/root/", f"{self.work}/")

    def test_proxmox(self) -> None:
        """vzdump calls it with an almost empty environment, in each phase."""
        page = "proxmox.rst"
        self.succeeds(self.script("Set it up", "filebucket", page))
        path = self.work / "vzdump-push"
        script = self.installed((TREE / "contrib/client/vzdump-push").read_text())
        path.write_text(script)
        path.chmod(0o755)
        archive = self.work / "vzdump-qemu-100-2026_11_29-02_30_00.vma.zst"
        archive.write_bytes(CONTENT)
        self.succeeds(f"env -i {path} job-start")
        for phase in ("backup-start", "backup-end", "log-end"):
            target = f"TARGET={archive}" if phase == "backup-end" else ""
            self.succeeds(f"env -i VMTYPE=qemu {target} {path} {phase} snapshot 100")
        stored = self.home / "web01" / archive.name
        self.assertEqual(CONTENT, stored.read_bytes())
        archive.write_bytes(b"other")
        done = self.sh(f"env -i TARGET={archive} {path} backup-end snapshot 100")
        self.assertEqual(1, done.returncode)
        self.assertIn("already exists", done.stderr)

    def test_synology(self) -> None:
        """The folder is pushed as an archive, and nothing is left on the volume."""
        page = "synology.rst"
        self.succeeds(self.script("Set it up", "filebucket", page))
        self.succeeds(self.script("Set it up", "(umask", page))
        volume = self.root / "volume1"
        (volume / "data").mkdir(parents=True)
        (volume / "data/photo.jpg").write_bytes(CONTENT)
        script = (TREE / "contrib/client/push-data.sh").read_text()
        script = self.installed(script).replace("/volume1", str(volume))
        path = self.work / "push-data.sh"
        path.write_text(script)
        done = self.sh(f"sh {path}")
        self.assertEqual(0, done.returncode, done.stderr)
        (stored,) = (self.home / "web01").iterdir()
        self.assertRegex(stored.name, r"^data-\d{4}-\d\d-\d\d\.tar\.gz$")
        self.assertIn(stored.name, done.stdout)
        with tarfile.open(fileobj=BytesIO(stored.read_bytes())) as archive:
            self.assertIn("data/photo.jpg", archive.getnames())
        self.assertEqual(["data"], [each.name for each in volume.iterdir()])
        (volume / "data").rename(volume / "moved")
        self.assertNotEqual(0, self.sh(f"sh {path}").returncode)

    def test_buckets(self) -> None:
        """The buckets of network devices."""
        for text in self.listed():
            self.succeeds(text)
        self.logged(r"reloaded: 4 buckets \(1 token added")

    def test_sqlite(self) -> None:
        """A copy or SQL text is pushed, and restored. A damaged database is not."""
        need("sqlite3")
        page = "databases.rst"
        srv = self.root / "srv"
        srv.mkdir()
        (self.root / "var/tmp").mkdir()
        fill = (
            "CREATE TABLE orders (euros INTEGER); INSERT INTO orders VALUES (30), (7)"
        )
        self.succeeds(f"sqlite3 /srv/shop.db '{fill}'")
        self.environ["FILEBUCKET_URL"] = self.url
        script = self.script("SQLite", "#!", page)
        push = self.script("SQLite", "filebucket-push", page)
        last = 'cat "$folder/copy"'
        self.assertIn(last, script)
        text = script.replace(last, 'sqlite3 "$folder/copy" .dump')
        # The tutorial has the same.
        tutorial = (TREE / "docs/tutorial.rst").read_text()
        self.assertIn(text, re.sub("(?m)^    ", "", tutorial))
        script, text = (
            each.replace("/var/", f"{self.root}/var/") for each in (script, text)
        )
        for suffix, dump in ((".db", script), (".sql", text)):
            self.program("dump-sqlite", dump)
            self.succeeds(push.replace(".db'", f"{suffix}'"))
            words = ("filebucket", "get", "shop", f"'shop-*{suffix}'")
            test = self.script("Test the restore", " ".join(words), page)
            test = test.replace("get shop", "get web01")
            shows = lambda test=test: "2\n" in self.sh(test).stdout  # noqa: E731
            self.assertTrue(comes(shows, 10))
        found = sorted((self.home / "web01").iterdir())
        self.assertEqual([".db", ".sql"], [each.suffix for each in found])
        with contextlib.closing(sqlite3.connect(found[0])) as copy:
            rows = copy.execute("SELECT euros FROM orders").fetchall()
        self.assertEqual([(30,), (7,)], rows)
        (check,) = self.section("Check", page)
        self.assertIn("shop-", self.succeeds(check.replace(" shop", " web01")))
        whole = (srv / "shop.db").read_bytes()
        half = len(whole) // 2
        # VACUUM INTO copies the first of these without an error, and .dump reads it;
        # from the second, it copies no row.
        copied, emptied = (
            whole[:offset] + bytes(4) + whole[offset + 4 :]
            for offset in (half + 8, half + 3)
        )
        (srv / "shop.db").write_bytes(copied)
        self.succeeds(push.replace("dump-sqlite", "cat").replace("{date}", "z"))
        test = self.script("Test the restore", "filebucket get shop 'shop-*.db'", page)
        test = test.replace("get shop 'shop-*.db'", "get web01 shop-z.db")
        fails = lambda: "restore test failed" in self.sh(test).stderr  # noqa: E731
        self.assertTrue(comes(fails, 10))
        found.append(self.home / "web01/shop-z.db")
        for damaged in (
            copied,
            emptied,
            b"no database" * 1000,
            whole[:half] + bytes(half),
            whole[:half],
            None,
        ):
            (srv / "shop.db").unlink()
            if damaged is not None:
                (srv / "shop.db").write_bytes(damaged)
            for dump in (script, text):
                self.program("dump-sqlite", dump)
                self.assertEqual(3, self.sh(push.replace("{date}", "x")).returncode)
            self.assertEqual(found, sorted((self.home / "web01").iterdir()))
        self.assertEqual([], [*srv.iterdir(), *(self.root / "var/tmp").iterdir()])


def plain(text: str) -> str:
    """An output without times, ages and sizes."""
    for pattern, word in (
        (r'"\S+/srv/', '"/srv/'),
        (r"-\d{6}\.sql", "-TIME.sql"),
        (r"\b\d\.\d\d\b", "SECONDS"),
        (r"\b\d\d:\d\d(?::\d\d)?\b", "TIME"),
        (r"\b\d+ ?(?:s|m|min|h)\b(?: ago)?|just now", "AGE"),
        (r"(?m)^(-rw\S+) .* (\S+)$", r"\1 \2"),
        (r"\b\d{1,5} *B\b", "SIZE"),
        (r"\b20\d\d-\d\d\b(?!-)", "MONTH"),
        ("unknown token [0-9a-f]{6}", "unknown token"),
    ):
        text = re.sub(pattern, word, text)
    return shape(text)
