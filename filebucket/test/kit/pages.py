"""A server, and a client beside it, on which the blocks of a document run."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime

from filebucket.test.kit.blocks import DocumentCase
from filebucket.test.kit.examples import shape
from filebucket.test.kit.integration import need
from filebucket.test.kit.machine import MachineCase
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import OTHER, TOKEN, comes
from filebucket.test.kit.tree import TREE

CONTENT = b"content\n" * 1000

WRITTEN = date(2026, 11, 28)
"""Today in the documents."""

WEB01, DB01 = (
    {"name": name, "token_sha256": hashlib.sha256(token.encode()).hexdigest()}
    for name, token in (("web01", OTHER), ("db01", TOKEN))
)

_PUSH = """\
#!{python}
import socket
from filebucket.client.main import main
real = socket.getaddrinfo
def found(host, port, *rest, **others):
    there = {there}.get(f"{{host}}:{{port}}", (host, port))
    return real(*there, *rest, **others)
socket.getaddrinfo = found
main()
"""
"""filebucket-push, which finds the addresses of the documents."""

_FAKES = {
    "chown": '#!/bin/sh\ncase $1 in root:*) [ -e "$2" ] ;; *) exit 9 ;; esac\n',
    "chgrp": "#!/bin/sh\n[ $1 = file-bucket ] && [ -e $2 ]\n",
    "editor": "#!/bin/sh\n[ -w $1 ]\n",
    "journalctl": "#!/bin/sh\n[ $1 = -u ] && cat {run}/log\n",
    "mail": "#!/bin/sh\ncat >>{run}/mail\n",
    "sendmail": "#!/bin/sh\ncat >>{run}/mail\n",
    "pg_dump": '#!/bin/sh\ncase "$*" in shop | "-Fc shop") echo dump ;; *) exit 9 ;; '
    "esac\n",
}

_FOLLOW = r"""{
    \g<0> >followed &
    timeout 60 sh -c 'until grep -q "$FOLLOWED" followed; do sleep 0.05; done'
    kill $!
    cat followed
} """
"""A command that has no end is stopped after it printed what a test waits for."""

_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 "
    "-keyout key.pem -out cert.pem -subj /CN=backup.example.org "
    "-addext subjectAltName=DNS:backup,DNS:backup.example.org"
)


class PageCase(DocumentCase, MachineCase):
    """Runs the blocks that the list gives to a test, in the order of the document.

    The server has the buckets web01 and db01. It listens with TCP, with TLS and on a
    UNIX socket, and ``backup`` and ``backup.example.org`` lead to it. The variables URL
    and TOKEN, ``.file-bucket`` and ``db.gz`` are there.
    """

    def setUp(self) -> None:
        super().setUp()
        for program in ("curl", "openssl"):
            need(program)
        self.tls, self.admin = free_ports(2)
        # The path of a socket has up to 107 bytes.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.socket = f"{folder.name}/socket"
        there = {
            "backup:1234": self.port,
            "backup:1443": self.tls,
            "backup.example.org:1443": self.tls,
            "localhost:1235": self.admin,
            "10.0.0.11:1235": self.admin,
        }
        certificate = self.config.parent / "cert.pem"
        lines = [f"connect-to = {a}:127.0.0.1:{port}\n" for a, port in there.items()]
        (self.work / ".curlrc").write_text(f"cacert = {certificate}\n{''.join(lines)}")
        self.environ = {
            "URL": self.url,
            "TOKEN": OTHER,
            "FILEBUCKET_URL": "https://backup.example.org:1443",
            "SSL_CERT_FILE": str(certificate),
            "FOLLOWED": ".",
        }
        run = shlex.quote(str(self.root / "run"))
        for name, script in _FAKES.items():
            self.program(name, script.format(run=run))
        found = {at: ("127.0.0.1", port) for at, port in there.items()}
        self.program(
            "filebucket-push", _PUSH.format(python=sys.executable, there=found)
        )
        token = self.work / ".file-bucket"
        token.write_text(f"Authorization: Bearer {OTHER}\n")
        token.chmod(0o600)
        (self.work / "db.gz").write_bytes(CONTENT)
        documents = self.root / "usr/share/doc/file-bucket"
        (documents / "examples").mkdir(parents=True)
        (documents / "contrib").symlink_to(TREE / "contrib")
        (documents / "examples/hooks").symlink_to(TREE / "hooks")
        (documents / "examples/contrib").symlink_to(TREE / "contrib")

    def start(self, **keys: object) -> None:
        """Start the daemon.

        :param keys: other keys of its configuration
        """
        given = {
            "home": str(self.home),
            "listen": [
                f"tcp:{self.port}:interface=127.0.0.1",
                f"ssl:{self.tls}:key.pem:cert.pem:interface=127.0.0.1",
                f"unix:{self.socket}",
            ],
            "admin": f"tcp:{self.admin}:interface=127.0.0.1",
            "buckets": [WEB01, DB01],
        }
        self.config.write_text(json.dumps({**given, **keys}, indent=4))
        if not (self.config.parent / "cert.pem").exists():
            self.succeeds(f"cd /etc/file-bucket; {_CERTIFICATE}")
        self.home.chmod(0o700)
        self.succeeds("systemctl start file-bucket")
        self.addCleanup(self.sh, "systemctl stop file-bucket")

    def sh(self, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
        script = script.replace("/run/file-bucket/socket", self.socket)
        script = re.sub(
            r"(backup[\w.]*:\d+/|Bearer )(?:<token>|TOKEN)", rf"\1{OTHER}", script
        )
        script = re.sub(r"filebucket log --follow[^|\n]*", _FOLLOW, script)
        return super().sh(shifted(script), **{**self.environ, **environ})

    def play(
        self,
        statuses: Mapping[str, int] | None = None,
        before: Mapping[str, Callable[[], object]] | None = None,
        after: Callable[[str], object] = lambda command: None,
    ) -> None:
        """Run all blocks. One that is no command is in the output of the last one.

        :param statuses: the exit statuses of commands that begin so, if not 0
        :param before: what happens before a block that begins so
        :param after: what happens after each command
        """
        shown = ""
        for text in self.listed():
            for starts, happens in (before or {}).items():
                if text.startswith(starts):
                    happens()
            for command, expected in steps(text, self.is_command(text)):
                if command:
                    wanted = (
                        s for b, s in (statuses or {}).items() if command.startswith(b)
                    )
                    done = self.sh(command)
                    shown = (done.stdout + done.stderr).replace(str(self.root), "")
                    self.assertEqual(
                        next(wanted, 0), done.returncode, f"{command}\n{shown}"
                    )
                    after(command)
                self.assertIn(shape(expected), shape(shown), shown)

    def is_command(self, text: str) -> bool:
        """Whether a block begins as a script does."""
        found = re.match(r"\(?(?:umask 077; )?([\w./-]+)(?=[\s;]|$)", text)
        if found is None:
            return re.match(r"\$ |#|[A-Z_]+=", text) is not None
        known = {".", "cd", "export", "for", "set"}
        return (
            found[1] in known
            or "/" in found[1]
            or bool(shutil.which(found[1], path=self.path))
        )

    def logged(self, pattern: str) -> None:
        """Wait for a line in the daemon's log."""
        there = comes(lambda: re.search(pattern, self.log) is not None)
        self.assertTrue(there, self.log)


def shifted(text: str) -> str:
    """With dates that are as far from today as its own are from the documents' day."""
    today = datetime.now(UTC).date()

    def date_of(found: re.Match[str]) -> str:
        return str(today + (date.fromisoformat(found[0]) - WRITTEN))

    return re.sub(r"\b20\d\d-\d\d-\d\d\b", date_of, text)


def steps(text: str, is_command: bool = True) -> list[tuple[str, str]]:
    """Commands, each with the output that the document shows."""
    if not is_command:
        return [("", text)]
    if not text.startswith("$ "):
        # Notes in a column are no arguments.
        return [(re.sub(r"(?m)(?<=\S) {2,}[^\s\\].*$", "", text), "")]
    parts = re.split(r"(?m)^\$ ", text)[1:]
    return [(each.partition("\n")[0], each.partition("\n")[2]) for each in parts]
