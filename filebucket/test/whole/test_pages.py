"""Documents whose blocks run from top to bottom."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import tempfile
from pathlib import Path

from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.examples import nginx_server, shape
from filebucket.test.kit.integration import need
from filebucket.test.kit.nginx import nginx_command
from filebucket.test.kit.pages import CONTENT, DB01, WEB01, PageCase, shifted, steps
from filebucket.test.kit.programs import Program, free_ports
from filebucket.test.kit.server import OTHER, PATIENCE, TOKEN, comes, listens
from filebucket.test.kit.tree import TREE


class ClientTests(PageCase):
    """Each command pushes a file."""

    def setUp(self) -> None:
        super().setUp()
        self.start()
        self.names: list[str] = []

    def stored(self, command: str) -> None:
        """A command has stored a file. It is removed, so that the next one can store it
        again.
        """
        found = sorted((self.home / "web01").glob("*"))
        pushes = re.search("curl|push|wget", command) is not None
        self.assertEqual(pushes, bool(found), command)
        for path in found:
            self.names.append(path.name)
            if path.name == "db.gz":
                self.assertEqual(CONTENT, path.read_bytes())
            path.unlink()

    def test_pushing(self) -> None:
        for program in ("gpg", "wget", "tar"):
            need(program)
        gnupg = tempfile.TemporaryDirectory()
        self.addCleanup(gnupg.cleanup)
        self.addCleanup(self.sh, "gpgconf --kill all", GNUPGHOME=gnupg.name)
        self.environ["GNUPGHOME"] = gnupg.name
        self.program("curl.exe", '#!/bin/sh\nexec curl "$@"\n')
        (self.work / ".backup-passphrase").write_text("x")
        self.play(after=self.stored)

    def test_readme(self) -> None:
        self.play(after=self.stored)

    def test_manuals(self) -> None:
        need("tar")
        self.play(before={"filebucket": lambda: None}, after=self.stored)


class ServerTests(PageCase):
    """The operator's commands."""

    def found(self) -> None:
        """A file of the document is there."""
        (self.home / "web01").mkdir(exist_ok=True)
        path = self.home / "web01" / shifted("db-2026-11-26.sql.gz")
        path.write_bytes(CONTENT)
        self.succeeds("filebucket reindex")

    def test_command(self) -> None:
        self.start(buckets=[DB01])
        (self.work / "names").write_text("web02\nweb03\n")
        self.play(
            before={
                "filebucket hold": self.found,
                "filebucket bucket remove": lambda: self.succeeds(
                    "filebucket hold --release web01 db-2026-11-26.sql.gz"
                ),
                "filebucket log": lambda: self.succeeds(
                    "filebucket bucket add web01; filebucket reload"
                ),
            }
        )

    def test_watching(self) -> None:
        need("sqlite3")
        self.start(buckets=[DB01])

        def fail() -> None:
            self.assertIn("this is a test", (self.root / "run/mail").read_text())
            self.program("sendmail", "#!/bin/sh\nexit 1\n")
            report = "-H 'Content-Type: text/plain' --data-binary failed"
            self.succeeds(f"curl -sS {report} $URL/{TOKEN}/db")
            self.logged(" alert about ")

        hook = "/usr/share/doc/file-bucket/examples/hooks/alert-mail.sh"
        install = f"cp {hook} /etc/file-bucket/alert.sh"
        self.play(
            before={
                "filebucket alert": lambda: self.succeeds(install),
                "journalctl": fail,
            }
        )
        self.assertTrue((self.work / "copy.sqlite3").exists())

    def test_hooks(self) -> None:
        self.start()
        self.play()

    def test_monitoring(self) -> None:
        self.start()
        self.play()

    def test_keeping(self) -> None:
        self.start()
        (self.root / "var/tmp").mkdir()
        self.play(before={"$ filebucket hold": self.found})

    def test_first(self) -> None:
        """The first bucket, in several documents."""
        self.start(buckets=[])

        numbers = iter(range(9))

        def remove() -> None:
            other = f"before-{next(numbers)}"
            self.config.write_text(self.config.read_text().replace("web01", other))

        self.play(before={"filebucket bucket add": remove})

    def test_refused(self) -> None:
        self.start()
        (self.work / "a.gz").write_bytes(CONTENT)
        self.sh("curl -T a.gz $URL/$TOKEN/")
        # Addresses as long as in the document.
        client = "curl --interface 127.0.0.9 --local-port 5000-5999"
        for path in ("wrong/", "$TOKEN/a.gz"):
            self.sh(f"{client} -T db.gz $URL/{path}")
        (text,) = self.listed()
        ((command, shown),) = steps(text)
        self.assertTrue(comes(lambda: " 405 " in self.sh(command).stdout))
        terminal = f"script -qec 'stty cols 80; {command}' /dev/null"
        printed = self.succeeds(terminal, TERM="dumb")
        self.assertEqual(shape(shown), shape(printed))

    def test_logging(self) -> None:
        """The lines of a push and of a refusal."""
        self.start()
        (self.work / "db.gz").write_bytes(b"x" * 11346)
        self.sh("curl -T db.gz $URL/$TOKEN/; curl $URL/wrong/")
        journal, *lines = "\n".join(self.listed()).splitlines()
        self.logged("refused .*no such token")
        for line in lines:
            self.assertIn(shape(line), shape(self.log))
        self.succeeds(journal)

    def test_json_log(self) -> None:
        """The same keys in the same order."""
        self.start(log_format="json")
        self.sh("curl -T db.gz $URL/$TOKEN/")
        self.logged('"event": "push"')
        (text,) = self.listed()
        (line,) = (each for each in self.log.splitlines() if '"event": "push"' in each)
        shown, printed = json.loads(text), json.loads(line)
        self.assertEqual(list(shown), list(printed))
        for key, value in shown.items():
            self.assertIs(type(value), type(printed[key]), key)

    def test_health(self) -> None:
        self.start(min_free_space="100 %")
        self.play()

    def test_status(self) -> None:
        """Problems below the table."""
        need("jq")
        old = {"name": "old", "token_sha256": "0" * 64}
        self.start(buckets=[WEB01, DB01, old])
        new = {"name": "web03", "token_sha256": "3" * 64}
        self.push(OTHER, f1=CONTENT, f2=CONTENT)
        self.sh("curl -T db.gz $URL/$TOKEN/f1")
        report = "-H 'Content-Type: text/plain' --data-binary"
        failure = "'pg_dump exited with 1\n\nno route to host\n'"
        self.succeeds(f"curl -sS {report} {failure} $URL/$TOKEN/db-2026-11-28.sql.gz")
        self.assertTrue(comes(lambda: " f2 " in self.sh("filebucket log").stdout))
        (self.home / "web01/f2").unlink()
        self.sh("filebucket reindex")
        text = self.config.read_text()
        config = json.loads(text)
        config["buckets"] = [WEB01, {**DB01, "quota": "1 GB"}, new]
        self.config.write_text(json.dumps(config))
        table, due, missing, failed, followed, journal, line = self.listed()
        shown = self.sh("filebucket status").stdout
        header = shape(table.splitlines()[1])
        self.assertTrue(shape(shown).startswith(header), shown)
        self.assertIn(shape(due), shape(shown))
        self.assertTrue(shape(missing).startswith(header), missing)
        self.assertRegex(shown, r"\nweb01 +f# +1 missing ")
        self.assertIn(shape(failed), shape(shown))
        command, reason = followed[2:].splitlines()
        self.assertIn(reason, self.succeeds(command, FOLLOWED=reason))
        self.assertIn("bucket=web01", self.succeeds(journal))
        printed = self.sh("filebucket status --line").stdout
        names = [re.findall(r"(\w+)=\d", each) for each in (line, printed)]
        self.assertEqual(*names)


class ListeningTests(PageCase):
    def test_listening(self) -> None:
        """The certificates are made and used."""
        (self.root / "etc/nginx/conf.d").mkdir(parents=True)
        self.program("nginx", '#!/bin/sh\n[ "$*" = -t ]\n')

        def self_signed() -> None:
            self.start()
            self.succeeds("cp /etc/file-bucket/cert.pem .")

        def of_clients() -> None:
            self.succeeds("systemctl stop file-bucket; rm /etc/file-bucket/cert.pem")
            made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256"
            subject = "-nodes -days 2 -subj /CN=web01"
            self.succeeds(f"{made} {subject} -keyout web01.key -out web01.pem")
            self.succeeds("cp web01.pem /etc/file-bucket/clients.pem")
            files = "key.pem:cert.pem:clientCA=clients.pem:interface=127.0.0.1"
            (self.home / "web01/db.gz").unlink()
            self.start(listen=[f"ssl:{self.tls}:{files}"])

        self.play(
            before={
                "curl --fail-with-body --cacert": self_signed,
                "curl --fail-with-body --cert": of_clients,
            }
        )
        self.assertEqual(CONTENT, (self.home / "web01/db.gz").read_bytes())

    def test_admin(self) -> None:
        """nginx asks for a password before the status page."""
        need("nginx")
        (server,) = self.listed()
        self.start()
        (port,) = free_ports(1)
        folder = self.nginx_folder()
        write_pair(folder)
        self.succeeds(f"echo admin:$(openssl passwd -apr1 x) >{folder}/htpasswd")
        self.start_nginx(folder, server, port)
        url = f"https://127.0.0.1:{port}/healthz"
        self.assertEqual("ok\n", self.succeeds(f"curl -sS -k -u admin:x {url}"))
        self.assertIn("401", self.succeeds(f"curl -sS -k {url}"))

    def test_health_check(self) -> None:
        """nginx passes on /healthz alone; HAProxy checks the daemon, or nginx."""
        for program in ("haproxy", "nginx"):
            need(program)
        check, server = self.listed()
        self.start(
            listen=[f"haproxy:tcp:{self.port}:interface=127.0.0.1"],
            trusted_proxies=["127.0.0.1"],
        )
        folder = self.nginx_folder()
        (healthz,) = free_ports(1)
        self.start_nginx(folder, server, healthz)
        url = f"http://127.0.0.1:{healthz}"
        self.assertEqual("ok\n", self.succeeds(f"curl -sS {url}/healthz"))
        for path in ("", "metrics", "healthz/x"):
            self.assertIn("404", self.succeeds(f"curl -sS {url}/{path}"))
        for name, port in (("daemon", self.admin), ("nginx", healthz)):
            self.check_with_haproxy(folder / name, check, port)

    def nginx_folder(self) -> Path:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        # If root starts nginx, its workers run as another user.
        folder.chmod(0o755)
        return folder

    def start_nginx(self, folder: Path, server: str, port: int) -> None:
        """Start nginx with a server of the document, in front of the admin listener."""
        text = nginx_server(server, folder, port)
        text = text.replace("127.0.0.1:1235", f"127.0.0.1:{self.admin}")
        command = nginx_command(folder, text)
        program = Program("nginx", folder, command, lambda: listens(port)).start()
        self.addCleanup(program.stop)

    def check_with_haproxy(self, folder: Path, check: str, port: int) -> None:
        """Start HAProxy; it is ready when the check has passed."""
        folder.mkdir()
        (front,) = free_ports(1)
        lines = check.replace("1235", str(port)).replace("1443", str(self.port))
        config = folder / "haproxy.cfg"
        config.write_text(
            "global\n log stdout format raw local0\n"
            "defaults\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"
            f"frontend push\n bind 127.0.0.1:{front}\n default_backend file-bucket\n"
            f"backend file-bucket\n log global\n option log-health-checks\n{lines}\n"
        )
        command = ["haproxy", "-db", "-f", str(config)]
        log = folder / "haproxy.log"
        passed = "succeeded, reason: Layer7 check passed"
        proxy = Program("haproxy", folder, command, lambda: passed in log.read_text())
        proxy.start()
        self.addCleanup(proxy.stop)
        answer = self.succeeds(f"curl -sS http://127.0.0.1:{front}/")
        self.assertEqual("no such token\n", answer)

    def test_renewed(self) -> None:
        """The log lines about a new certificate, half of one, and a missing one."""
        dropped, *renewals = self.listed()
        folder = self.config.parent
        write_pair(folder)
        (folder / "clients.pem").write_bytes((folder / "cert.pem").read_bytes())
        files = "key.pem:cert.pem:clientCA=clients.pem:interface=127.0.0.1"
        self.start(listen=[f"ssl:{self.tls}:{files}"])
        self.sh("curl https://backup:1443/")
        self.logged("dropped client=")
        self.assertIn(shape(dropped), shape(self.log))
        key = (folder / "key.pem").read_bytes()
        new = self.root / "new"
        new.mkdir()
        write_pair(new)
        (folder / "cert.pem").write_bytes((new / "cert.pem").read_bytes())
        self.logged("TLS: changed files not loaded")
        self.assertNotEqual(key, (new / "key.pem").read_bytes())
        (folder / "key.pem").write_bytes((new / "key.pem").read_bytes())
        self.logged("TLS: new certificate loaded")
        log = self.log.replace(f"ssl:{self.tls}:{files}", "ssl:1443:k.pem:c.pem")
        for each in renewals:
            self.assertIn(shape(each), shape(log))


class TryTests(PageCase):
    """The first pages of the README, and of those that the package adds to."""

    def test_try(self) -> None:
        """``config.json``, on other ports."""
        text = (TREE / "config.json").read_text()
        for old, new in (("1234", self.port), ("1235", self.admin)):
            text = text.replace(old, str(new))
        text = text.replace('"buckets",', f'"{self.home}",')
        config = self.work / "config.json"
        config.write_text(text)
        program = (self.root / "bin/filebucket").read_text()
        self.program("filebucket", program.replace(str(self.config), str(config)))
        with (self.work / ".curlrc").open("a") as curlrc:
            curlrc.write(f"connect-to = 127.0.0.1:1234:127.0.0.1:{self.port}\n")
        (self.work / ".venv").mkdir()
        (self.work / ".venv/bin").symlink_to(self.root / "bin")
        (self.work / "README.rst").write_bytes(CONTENT)
        self.succeeds("systemctl start file-bucket")
        self.addCleanup(self.sh, "systemctl stop file-bucket")
        self.play()
        self.assertEqual(CONTENT, (self.home / "web01/README.rst").read_bytes())

    def test_debian(self) -> None:
        """With a systemd that only knows which units there are."""
        override = self.root / "etc/systemd/system/file-bucket.service.d/override.conf"
        override.parent.mkdir()
        override.write_text("[Service]\n")
        for each in ("filter.d", "jail.d"):
            (self.root / "etc/fail2ban" / each).mkdir(parents=True)
        self.configure()
        (self.work / "key.pem").write_text("key")
        (self.work / "fullchain.pem").write_text("chain")
        self.play()
        etc = self.root / "etc"
        for path in (
            "file-bucket/fullchain.pem",
            "file-bucket/report.sh",
            "fail2ban/filter.d/file-bucket.conf",
            "systemd/system/file-bucket-prune.service.d/override.conf",
        ):
            self.assertTrue((etc / path).exists(), path)

    def test_installing(self) -> None:
        """From a checkout, or without one, into the folders of this machine."""
        self.environ["TREE"] = str(TREE)
        configure, units, without = self.listed()
        self.succeeds(without)
        self.assertIn("web01", self.succeeds("filebucket bucket list"))
        self.succeeds(f'cd "$TREE"\n{configure}')
        self.assertIn("web01", self.succeeds("filebucket bucket list"))
        self.succeeds(f'cd "$TREE"\n{units}')
        installed = self.root / "etc/systemd/system"
        expected = {
            each.name
            for each in (TREE / "debian").glob("file-bucket*.*")
            if each.suffix in {".service", ".timer"}
        }
        self.assertEqual(expected, {e.name for e in installed.iterdir() if e.is_file()})
        text = (installed / "file-bucket.service").read_text()
        self.assertIn("ExecStart=/opt/file-bucket/bin/filebucket serve", text)
        self.assertNotIn("/usr/bin/filebucket", text)


class OutputTests(PageCase):
    """What programs print."""

    def test_protocol(self) -> None:
        """A push, byte for byte, its answer, and the same lines elsewhere."""
        receipt, push, header, form = self.listed()
        request, answer = push.split("HTTP/1.1 200 OK\n")
        token = request[5:37]
        digest = hashlib.sha256(token.encode()).hexdigest()
        self.start(buckets=[{"name": "web01", "token_sha256": digest}])
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.sendall(request.rstrip("\n").replace("\n", "\r\n").encode())
            printed = client.recv(65536).decode().replace("\r\n", "\n")
        status, _, rest = printed.partition("\n")
        self.assertEqual("HTTP/1.1 200 OK", status)
        shown, given = (
            [shape(line) for line in text.splitlines()] for text in (answer, rest)
        )
        self.assertEqual(shown, given)
        self.assertIn(header, answer)
        self.assertTrue(answer.endswith(receipt))
        self.assertEqual("<SHA-256 in hex>  <name>\\n\n", form)

    def test_report(self) -> None:
        self.start()
        self.play()
        self.logged("failed bucket=web01")

    def test_check(self) -> None:
        (shown,) = self.listed()
        self.start()
        line = shown.replace("[0]", "[1]").replace(
            "drop.example.com", "backup.example.org"
        )
        self.assertIn(shape(line), shape(self.succeeds("filebucket check")))

    def test_verify(self) -> None:
        (shown,) = self.listed()
        self.start(buckets=[DB01])
        self.store("db01", "db.gz", b"x" * 11346)
        path = self.home / "db01/db.gz"
        before = path.stat()
        path.write_bytes(b"y" * 11346)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        (self.home / "db01/odd.txt").write_text("odd")
        done = self.sh("filebucket verify")
        self.assertEqual(shape(shown), shape(done.stdout))

    def test_prune(self) -> None:
        """What the rules keep, and what prune fails to delete."""
        (shown,) = self.listed()
        self.config.write_text(
            json.dumps(
                {
                    "home": str(self.home),
                    "buckets": [
                        {**WEB01, "keep": {"daily": 2, "monthly": 1}, "hold": "7d"}
                    ],
                }
            )
        )
        for day in (16, 17, 18, 24):
            name = shifted(f"db-2026-11-{day}.sql.gz")
            self.store("web01", name, b"x", (28 - day) * 86400.0)
        printed = self.succeeds("filebucket prune --dry-run")
        self.assertEqual(shape(shown), shape(printed))

    def test_verdict(self) -> None:
        """A pre-push hook that fails refuses the push."""
        (script,) = self.listed()
        comment = '# Your checks, which end with "exit" to refuse.'
        for line, status in ((":", 0), ("echo $unset", 1), ("if then", 1), ("exit", 1)):
            (self.work / "hook.sh").write_text(script.replace(comment, line))
            self.assertEqual(status, self.sh("sh hook.sh").returncode, line)

    def test_chains(self) -> None:
        """Several hooks for one event."""
        need("tar")
        pre, post = self.listed()
        folder = self.config.parent
        for each in (TREE / "hooks").glob("*.sh"):
            (folder / each.name).write_bytes(each.read_bytes())
            (folder / each.name).chmod(0o755)
        for name, script in (("pre-push.sh", pre), ("post-push.sh", post)):
            hook = script.replace("/etc/file-bucket", str(folder))
            (folder / name).write_text(hook)
            (folder / name).chmod(0o755)
        self.start()
        (self.work / "evil.exe").write_bytes(CONTENT)
        self.assertEqual(22, self.sh("curl -fT evil.exe $URL/$TOKEN/").returncode)
        self.succeeds("curl -fT db.gz $URL/$TOKEN/")
        self.assertIn("db.gz", (self.root / "run/mail").read_text())


_KEEPS_FLAGS = """\
#!{python}
import json
import os
from filebucket.config import config
config.DEFAULT_CONFIG = {config!r}
from filebucket.cli.main import main
from filebucket.store.attributes import IMMUTABLE, KernelAttributes
from filebucket.test.kit.sealed import MemoryAttributes

class Flags(MemoryAttributes):
    def set(self, fd, flags):
        super().set(fd, flags)
        with open({flags!r}, "w") as file:
            json.dump([[*place, each] for place, each in self.flags.items()], file)

found = Flags(allowed="UNPRIVILEGED" not in os.environ)
if os.path.exists({flags!r}):
    with open({flags!r}) as file:
        found.flags = {{(a, b): each for a, b, each in json.load(file)}}
for name in ("get", "set", "is_written"):
    def call(self, *args, function=getattr(found, name)):
        return function(*args)
    setattr(KernelAttributes, name, call)
real = os.unlink
def unlink(path, *, dir_fd=None):
    at = os.lstat(path, dir_fd=dir_fd)
    if found.flags.get((at.st_dev, at.st_ino), 0) & IMMUTABLE:
        raise PermissionError(1, "Operation not permitted")
    real(path, dir_fd=dir_fd)
os.unlink = unlink
main(prog_name="filebucket")
"""
"""A command whose kernel keeps the flags of files in a file."""


class SealingTests(PageCase):
    """No file is ever immutable for the real kernel."""

    def test_sealing(self) -> None:
        script = _KEEPS_FLAGS.format(
            python=sys.executable,
            config=str(self.config),
            flags=str(self.root / "flags"),
        )
        self.program("filebucket", script)
        self.program("chattr", '#!/bin/sh\nfor last; do :; done\n[ -d "$last" ]\n')
        seal, *others, failed = self.listed()
        web01 = {**WEB01, "keep": {"last": 1}, "hold": "1d"}
        web02 = {"name": "web02", "token_sha256": "2" * 64, "overwrite": True}
        (self.home / "web02").mkdir()
        self.start(seal="15m", buckets=[web01, web02])
        for name, days in (("db-2026-08-01.sql.gz", 120), ("db-2026-11-28.sql.gz", 0)):
            self.store("web01", shifted(name), CONTENT, days * 86400.0)
        self.push(OTHER, **{"db.gz": CONTENT})
        ((command, shown),) = steps(seal)
        numbers = re.compile(r"\d+")
        printed = self.succeeds(command)
        self.assertEqual(numbers.sub("N", shown), numbers.sub("N", printed))
        self.config.write_text(self.config.read_text().replace("15m", "1s"))
        self.assertTrue(comes(lambda: " 3 sealed before" in self.sh(command).stdout))
        printed = self.sh("filebucket prune", UNPRIVILEGED="1").stdout
        self.assertIn(shape(failed), shape(printed))
        self.assertEqual(6, len(others))
        for each in others:
            self.succeeds(each)
        self.assertIn("Sealed 3 files", self.succeeds(command))
        self.assertIn("Pruned 1 file", self.succeeds("filebucket prune"))
