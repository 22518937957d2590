"""``filebucket-push`` as one file, for ``make client`` and for the Debian package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from twisted.trial.unittest import SkipTest

from filebucket import __version__
from filebucket.test.kit.integration import IntegrationCase
from filebucket.test.kit.server import OTHER, PATIENCE

TOP = Path(__file__).parents[3]
BUILD = TOP / ".ci" / "client.py"

OLDEST = (3, 9)


def pythons() -> dict[tuple[int, int], str]:
    """The interpreters of this machine, in the path and of pyenv, by version."""
    places = [Path(each) for each in os.get_exec_path()]
    places += Path("~/.pyenv/versions").expanduser().glob("*/bin")
    found = {sys.version_info[:2]: sys.executable}
    # Those in shims run another version, or none.
    for place in (each for each in places if each.name != "shims"):
        for each in place.glob("python[23].*"):
            version = re.fullmatch(r"python(\d)\.(\d+)", each.name)
            if version and shutil.which(each):
                found.setdefault((int(version[1]), int(version[2])), str(each))
    return found


class ZipappTests(IntegrationCase):
    """On each Python of this machine."""

    def setUp(self) -> None:
        if not BUILD.exists():
            raise SkipTest("installed without its source")
        super().setUp()
        self.program = self.build("filebucket-push")

    def build(self, name: str, *more: str, epoch: int | None = None) -> Path:
        path = self.folder / name
        given = {} if epoch is None else {"SOURCE_DATE_EPOCH": str(epoch)}
        subprocess.run(
            [sys.executable, str(BUILD), str(path), *more],
            env={**os.environ, **given},
            check=True,
            timeout=PATIENCE,
        )
        return path

    def run_by(
        self, python: str, program: Path, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it in another folder, without the modules that tests import."""
        return subprocess.run(
            [python, "-E", "-s", str(program), *arguments],
            cwd="/",
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def test_same_bytes(self) -> None:
        """The same source gives the same file, whenever and wherever it is built."""
        first = self.program.read_bytes()
        self.assertEqual(first, self.build("other").read_bytes())
        dated = self.build("dated", epoch=1800000000)
        self.assertNotEqual(first, dated.read_bytes())
        self.assertEqual(
            dated.read_bytes(), self.build("d", epoch=1800000000).read_bytes()
        )
        with zipfile.ZipFile(dated) as archive:
            self.assertEqual(
                {(2027, 1, 15, 8, 0, 0)}, {e.date_time for e in archive.filelist}
            )

    def test_content(self) -> None:
        """The client, its license and the version; nothing of the server, no caches."""
        with zipfile.ZipFile(self.program) as archive:
            names = archive.namelist()
        self.assertEqual(sorted(names), names)
        others = {each for each in names if not each.startswith("filebucket/client/")}
        self.assertEqual({"LICENSE", "__main__.py", "filebucket/__init__.py"}, others)
        modules = {each.name for each in TOP.glob("filebucket/client/*.py")}
        self.assertEqual(modules, {Path(e).name for e in set(names) - others})

    def test_first_line(self) -> None:
        """It is a program of the path's Python, or of the one that a packager names."""
        self.assertEqual(
            b"#!/usr/bin/env python3", self.program.read_bytes().split(b"\n")[0]
        )
        packaged = self.build("packaged", "/usr/bin/python3")
        self.assertEqual(b"#!/usr/bin/python3", packaged.read_bytes().split(b"\n")[0])
        self.assertTrue(os.access(packaged, os.X_OK))

    def test_push(self) -> None:
        """A file, and a command, by each Python that is new enough."""
        server = self.server()
        token = self.file("token", f"Authorization: Bearer {OTHER}\n".encode())
        options = ("--url", server.url, "--token-file", str(token), "--retry-for", "0")
        expected = {}
        # On Windows, the name's end chooses the program that runs it.
        program = self.folder / "filebucket-push.pyz"
        self.program.rename(program)
        for version, python in pythons().items():
            if version < OLDEST:
                continue
            label = "{}.{}".format(*version)
            done = self.run_by(python, program, "--version")
            self.assertEqual(
                f"filebucket-push {__version__}\n", done.stdout, done.stderr
            )
            for name, more in (
                (f"file-{label}", (str(self.file(f"file-{label}")),)),
                (f"exec-{label}", ("--exec", "--", "printf", "content")),
            ):
                done = self.run_by(python, program, *options, "--name", name, *more)
                self.assertEqual((0, ""), (done.returncode, done.stderr), label)
                expected[f"web01/{name}"] = b"content"
        self.assertEqual(expected, server.stored())

    def test_too_old(self) -> None:
        """An older Python says so, without a traceback."""
        old = [path for version, path in pythons().items() if version < OLDEST]
        if not old:
            raise SkipTest("there is no Python older than 3.9")
        for python in old:
            done = self.run_by(python, self.program, "--version")
            self.assertEqual(
                (2, "filebucket-push needs Python 3.9 or newer\n"),
                (done.returncode, done.stderr),
                python,
            )
