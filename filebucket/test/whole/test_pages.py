"""Documents whose blocks run from top to bottom."""

from __future__ import annotations

import tempfile

from filebucket.test.kit.integration import need
from filebucket.test.kit.pages import CONTENT, DB01, PageCase, shifted
from filebucket.test.kit.server import TOKEN


class ClientTests(PageCase):
    """Each command pushes a file."""

    def setUp(self) -> None:
        super().setUp()
        self.start()
        self.names: list[str] = []

    def stored(self) -> None:
        """A command has stored a file. It is removed, so that the next one can store it
        again.
        """
        found = sorted((self.home / "web01").glob("*"))
        self.assertNotEqual([], found)
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

        self.play(before={"journalctl": fail})
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
