"""A backup server below a test's folder, to run documents on as scripts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from typing import Any
from urllib.request import Request, urlopen

from filebucket.catalogue.journal import Journal
from filebucket.config.load import load
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.test.kit.integration import IntegrationCase, ended
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import PATIENCE
from filebucket.test.kit.tree import TREE

_ROOTS = (
    r"(?<![\w.:/}])/(?=(?:etc|root|srv|usr/share/(?:doc/)?file-bucket|var)\b)"
    r"|(?<=-C )/(?= )"
)
"""Where a path begins that is below the test's folder. Others are the real machine's.
"""

_OWNER = r"-o (?:root|file-bucket) -g file-bucket "
"""Options of install. The owner of all files is the user who runs the test."""

_FAKES = {
    # The service of the Debian package. Its timers do nothing.
    "systemctl": """\
#!/bin/bash
for unit in "${{@:2}}"; do
    case $unit in
    -* | *\\** | push-shop* | fail2ban | nginx) ;;
    *)
        unit={units}/${{unit/@*/@}}
        [ -e "$unit" ] || [ -e "$unit.service" ] || exit 5 ;;
    esac
done
[ "$1 $2" != "reload file-bucket" ] || exec filebucket reload
case "$1 $2" in
"stop file-bucket" | "stop file-bucket*" | "restart file-bucket")
    if [ -e {run}/pid ]; then
        kill "$(cat {run}/pid)" && tail --pid="$(cat {run}/pid)" -f /dev/null
        rm {run}/pid
    fi ;;
esac
case "$1 $2" in
"start file-bucket" | "restart file-bucket")
    [ ! -e {run}/pid ] || exit 0
    : >{run}/log
    setsid filebucket serve </dev/null >>{run}/log 2>&1 &
    echo $! >{run}/pid
    tail --pid=$! -n +1 -f {run}/log | grep -q 'catalogue: ' ||
        {{ cat {run}/log; exit 1; }} ;;
esac
""",
    "runuser": """\
#!/bin/sh
[ "$1 $2 $3" = "-u file-bucket --" ] && shift 3 && exec "$@"
""",
    "chown": """\
#!/bin/sh
[ "$1 $2" = "-hR file-bucket:file-bucket" ] && [ -d "$3" ]
""",
    "filebucket": """\
#!{python}
from filebucket.config import config
config.DEFAULT_CONFIG = {config!r}
from filebucket.cli.main import main
main(prog_name="filebucket")
""",
    "filebucket-push": """\
#!/bin/sh
exec {python} -m filebucket.client "$@"
""",
}


class MachineCase(IntegrationCase):
    """Has a configuration, a storage folder, and the daemon as a service.

    :ivar root: its root folder
    :ivar home: its storage folder
    :ivar config: its configuration
    :ivar work: the folder in which scripts run, the home of root
    """

    def setUp(self) -> None:
        super().setUp()
        self.root = self.folder
        self.home = self.root / "var/lib/file-bucket"
        self.config = self.root / "etc/file-bucket/config.json"
        self.work = self.root / "root"
        self._service = self.root / "run"
        self._bin = self.root / "bin"
        units = self.root / "etc/systemd/system"
        for each in (self.home, self.config.parent, units, self.work):
            each.mkdir(parents=True)
        for each in (self._service, self._bin):
            each.mkdir()
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        for name, script in _FAKES.items():
            self.program(
                name,
                script.format(
                    run=shlex.quote(str(self._service)),
                    python=sys.executable,
                    config=str(self.config),
                    units=shlex.quote(str(TREE / "debian")),
                ),
            )
        self.addCleanup(self._kill)

    def program(self, name: str, script: str) -> None:
        """Install a program."""
        path = self._bin / name
        path.write_text(script)
        path.chmod(0o755)

    def configure(self, *buckets: object, **keys: object) -> None:
        """Write a configuration."""
        given = {"host": "127.0.0.1", "port": self.port, "home": str(self.home)}
        self.config.write_text(json.dumps({**given, **keys, "buckets": buckets}))

    def store(
        self, bucket: str, name: str, content: bytes, age: float = 3600.0
    ) -> None:
        """Store a file, and add it to the catalogue, as a push in the past does.

        :param age: seconds since the push
        """
        at = time.time() - age
        path = self.home / bucket / name
        for each in (path.parent, self.home / ".filebucket"):
            each.mkdir(exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (at, at))
        digest = hashlib.sha256(content).hexdigest()
        row = Received(
            *(bucket, series_of(name, ()), name, len(content), digest, at),
            client="192.0.2.1:50000",
            request="x",
        )
        (configured,) = (
            each for each in load(str(self.config)).buckets if each.name == bucket
        )
        with closing(Journal.open(str(self.home))) as journal:
            journal.record([row], [], lambda key: configured)

    def _kill(self) -> None:
        """Kill the daemon if a failed test has not stopped it."""
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self._service / "pid").read_text())
            os.kill(pid, signal.SIGKILL)
            ended(pid)

    @property
    def log(self) -> str:
        """The output of the daemon since its last start."""
        return (self._service / "log").read_text()

    @property
    def path(self) -> str:
        """Where its programs are."""
        path = (str(self._bin), "/usr/sbin:/usr/bin:/sbin:/bin", os.environ["PATH"])
        return ":".join(path)

    def sh(self, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a script as root of this machine."""
        script = re.sub(_ROOTS, f"{self.root}/", re.sub(_OWNER, "", script))
        return subprocess.run(
            ["/bin/bash", "-ec", script],
            cwd=self.work,
            env={
                "PATH": self.path,
                "HOME": str(self.work),
                "LANG": "C.UTF-8",
                **environ,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def succeeds(self, script: str, **environ: str) -> str:
        """The output of a script that must succeed."""
        done = self.sh(script, **environ)
        output = done.stdout + done.stderr
        self.assertEqual(0, done.returncode, f"{script}\n{output}")
        return output

    def json(self, command: str) -> Any:
        """The output of a command that prints JSON."""
        return json.loads(self.sh(f"{command} --json").stdout)

    def push(self, token: str, **files: bytes) -> None:
        """Push files, with their checksums."""
        for name, content in files.items():
            digest = {"X-Checksum-Sha256": hashlib.sha256(content).hexdigest()}
            url = f"{self.url}/{token}/{name}"
            request = Request(url, content, digest, method="PUT")
            with urlopen(request, timeout=PATIENCE) as answer:
                self.assertEqual(200, answer.status)
