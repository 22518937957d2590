"""Tests of :mod:`filebucket.daemon.problems`."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.config.load import parse
from filebucket.daemon import control
from filebucket.daemon.applied import Applied, fingerprints, identity
from filebucket.daemon.control import StatusFile
from filebucket.daemon.problems import problems_of
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.control import status_file


class ProblemCase(SynchronousTestCase):
    """Has a configuration, and this process as its daemon."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "home" / ".filebucket").mkdir(parents=True)
        self.file = self.folder / "config.json"
        self.process: int | None = os.getpid()
        self.patch(control, "daemon_of", lambda home: self.process)
        self.write()

    def write(self, *buckets: str, **keys: object) -> None:
        """Write a configuration with these buckets."""
        given = [{"name": each, "token_sha256": "ab" * 32} for each in buckets]
        self.text = json.dumps({"home": "home", "buckets": given, **keys})
        self.file.write_text(self.text)
        self.config = parse(self.text, str(self.file))

    def start(self, path: str | None = None) -> StatusFile:
        """Start a daemon, with the present configuration.

        :param path: the file that it reads
        :returns: its files
        """
        applied = Applied(
            identity(self.text), self.config.keys, fingerprints(self.config.buckets)
        )
        daemon = status_file(self.config.home, path or str(self.file), applied)
        daemon.startService()
        self.addCleanup(daemon.stopService)
        return daemon

    def found(self, daemon: bool = True, path: str | None = None) -> list[Problem]:
        text = identity(self.text)
        return problems_of(
            path or str(self.file), text, self.config, time.time(), daemon
        )


class DaemonTests(ProblemCase):
    """The daemon."""

    def test_runs(self) -> None:
        self.start()
        self.assertEqual([], self.found())

    def test_down(self) -> None:
        self.start()
        self.process = None
        text = "the daemon does not run: no push arrives"
        self.assertEqual([Problem(Kind.DAEMON, CRITICAL, text)], self.found())
        self.assertEqual([], self.found(daemon=False))

    def test_outage(self) -> None:
        """As the daemon has noticed it last; one that does not run notices nothing."""
        daemon = self.start()
        daemon.tell_outage("no answer\x1b")
        text = "no push can be stored: no answer\\x1b"
        self.assertEqual([Problem(Kind.STORE, CRITICAL, text)], self.found())
        self.write("web01")
        kinds = [each.kind for each in self.found()]
        self.assertEqual([Kind.STORE, Kind.RELOAD], kinds)
        self.process = None
        self.assertEqual([Kind.DAEMON], [each.kind for each in self.found()])

    def test_down_beside_others(self) -> None:
        """Other daemons, which share the catalogue, receive the pushes."""
        self.start()
        self.process = None
        self.write(catalogue={"postgresql": "host=db"})
        text = "the daemon of this machine does not run"
        self.assertEqual([Problem(Kind.DAEMON, WARNING, text)], self.found())

    def test_another_namespace(self) -> None:
        """It runs. The name of its file is that in another namespace."""
        self.start("/in/a/container.json")
        for self.process in (0, -1):
            self.assertEqual([], self.found())

    def test_may_not_be_read(self) -> None:
        def refuse(home: str) -> None:
            raise OSError(error, os.strerror(error))

        self.patch(control, "daemon_of", refuse)
        self.patch(os, "getuid", lambda: 1000)
        for error, hint in (
            (errno.EACCES, "; run this as root or as the daemon's user"),
            (errno.EPERM, ""),
        ):
            text = f"cannot tell whether the daemon runs: {os.strerror(error)}{hint}"
            self.assertEqual([Problem(Kind.DAEMON, WARNING, text)], self.found())

    def test_malformed(self) -> None:
        self.start()
        (self.folder / "home" / ".filebucket" / "applied.json").write_text("{")
        text = (
            "cannot tell whether a reload is due: the daemon's file applied.json is"
            " malformed"
        )
        self.assertEqual([Problem(Kind.RELOAD, WARNING, text)], self.found())

    def test_another_file(self) -> None:
        self.start("/etc/other\n\x1b.json")
        text = "the daemon reads another configuration, /etc/other \\x1b.json"
        self.assertEqual([Problem(Kind.RELOAD, WARNING, text)], self.found())

    def test_another_name(self) -> None:
        link = self.folder / "link.json"
        link.symlink_to(self.file)
        self.start(str(link))
        self.write("a")
        ((found,)) = self.found()
        self.assertIn("a reload is due", found.text)

    def test_reload_due(self) -> None:
        self.write("old")
        self.start()
        self.write("new", port=80)
        text = (
            "a reload is due (1 new bucket is refused with 403: new; 1 removed bucket"
            " still accepts pushes: old); a restart is due to apply port"
        )
        self.assertEqual([Problem(Kind.RELOAD, WARNING, text)], self.found())
        self.assertEqual([], self.found(daemon=False))

    def test_unknown(self) -> None:
        """A daemon that starts, or of an older version."""
        self.start()
        (self.folder / "home" / ".filebucket" / "applied.json").unlink()
        self.write("new")
        self.assertEqual([], self.found())


class CertificateTests(ProblemCase):
    """Certificates of the configuration."""

    def test_ends(self) -> None:
        self.process = None
        write_pair(self.folder)
        pair = "privateKey=key.pem:certKey=cert.pem"
        for keys in (
            {"listen": ["tcp:1", f"ssl:2:{pair}"]},
            {"admin": f"ssl:2:{pair}"},
        ):
            self.write(**keys)
            (found,) = self.found(daemon=False)
            self.assertEqual(Kind.CERTIFICATE, found.kind)
            self.assertEqual(WARNING, found.severity)
            self.assertIn("certificate of CN=server expires on", found.text)

    def test_unreadable(self) -> None:
        self.write(listen=["ssl:2:gone.pem"])
        self.assertEqual([], self.found(daemon=False))
