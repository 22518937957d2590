"""The documents agree with the code and with each other."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket import __version__
from filebucket.config.config import EXAMPLE_TOKENS
from filebucket.config.load import load
from filebucket.model.token import token_digest
from filebucket.test.kit import words
from filebucket.test.kit.links import broken, documents

TOP = Path(__file__).parents[2]


class DocumentsCase(SynchronousTestCase):
    """Needs the source."""

    def setUp(self) -> None:
        if not (TOP / "CHANGELOG.rst").exists():
            raise SkipTest("installed without its source")

    def read(self, name: str) -> str:
        return (TOP / name).read_text(encoding="utf-8")


class ReleaseTests(DocumentsCase):
    """Data of a release that several files repeat."""

    def test_changelog(self) -> None:
        """The newest section is Unreleased, and the next one is this version."""
        sections = re.findall(r"(?m)^(.+)\n={3,}$", self.read("CHANGELOG.rst"))
        self.assertEqual(["Changelog", "Unreleased"], sections[:2])
        self.assertRegex(
            sections[2], rf"^{re.escape(__version__)} - \d{{4}}-\d\d-\d\d$"
        )

    def test_groups(self) -> None:
        """Each group is one from Keep a Changelog."""
        groups = re.findall(r"(?m)^(.+)\n-{3,}$", self.read("CHANGELOG.rst"))
        known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
        self.assertEqual(set(), set(groups) - known)
        self.assertIn("Added", groups)

    def test_debian(self) -> None:
        """Debian's changelog begins with the same version and day."""
        first = re.search(
            r"(?sm)^file-bucket \((.+?)\).*?^ -- .+?>  (.+?)$",
            self.read("debian/changelog"),
        )
        assert first is not None
        self.assertEqual(__version__, first[1])
        day = parsedate_to_datetime(first[2]).date()
        self.assertIn(f"\n{first[1]} - {day}\n", self.read("CHANGELOG.rst"))

    def test_address(self) -> None:
        """Vulnerabilities are reported to the package's maintainer."""
        maintainer = re.search(
            r"(?m)^Maintainer: .*<(.+)>$", self.read("debian/control")
        )
        assert maintainer is not None
        self.assertIn(maintainer[1], self.read("SECURITY.rst"))


class TryTests(DocumentsCase):
    """The configuration of ``make run``."""

    def test_addresses(self) -> None:
        """``make run`` and the README say where to push, and where to look."""
        config = load(str(TOP / "config.json"))
        (push,) = config.places.values()
        assert config.admin is not None
        token = EXAMPLE_TOKENS[0]
        for where in (
            f"http://127.0.0.1:{push.arguments['port']}/{token}/",
            f"http://127.0.0.1:{config.admin.arguments['port']}",
            "filebucket status --config config.json",
        ):
            for name in ("Makefile", "README.rst"):
                self.assertIn(where, self.read(name), name)

    def test_buckets(self) -> None:
        buckets = load(str(TOP / "config.json")).buckets
        opened = [token_digest(each.encode()) for each in EXAMPLE_TOKENS]
        self.assertEqual(opened, [each.tokens[0].sha256 for each in buckets])
        for bucket in buckets:
            self.assertIn(f"``{bucket.name}``", self.read("README.rst"))
        self.assertIn(f"``buckets/{buckets[0].name}/``", self.read("README.rst"))


class DependencyTests(DocumentsCase):
    """The dependencies, wherever they are listed."""

    DEBIAN: ClassVar = {"attrs": "attr", "cattrs": "cattr", "pyopenssl": "openssl"}
    """The packages with another name in Debian, after ``python3-``."""

    def setUp(self) -> None:
        super().setUp()
        project = tomllib.loads(self.read("pyproject.toml"))["project"]
        optional = project["optional-dependencies"]
        listed = [*project["dependencies"], *optional["s3"], *optional["postgresql"]]
        self.lowest = {
            re.sub(r"\[.*\]", "", name): version
            for name, version in (each.split(">=") for each in listed)
        }
        self.assertIn("twisted", self.lowest)

    def test_debian(self) -> None:
        """Debian's package needs or suggests the same to build and to run."""
        packages = re.findall(
            r"(?m)^ python3-([a-z0-9.-]+) \(>= (.+?)\)", self.read("debian/control")
        )
        needed = {self.DEBIAN.get(name, name): v for name, v in self.lowest.items()}
        self.assertEqual(sorted(2 * list(needed.items())), sorted(packages))

    def test_oldest(self) -> None:
        """The tests also run with the lowest versions."""
        pins = dict(re.findall(r"(?m)^(.+)==(.+)$", self.read(".ci/debian-13.txt")))
        for name, version in self.lowest.items():
            self.assertEqual(version, pins[name][: len(version)], name)

    def test_installing(self) -> None:
        """docs/how-to/installing.rst lists the purpose of each."""
        text = self.read("docs/how-to/installing.rst")
        table = text.partition("Dependencies\n====")[2].lower()
        for name in self.lowest:
            self.assertIn(name.replace("-", "_"), table)


class LinkTests(DocumentsCase):
    """Links in the documents."""

    def test_broken(self) -> None:
        """A link to a missing file or heading is found; other sites are not checked."""
        top = Path(self.mktemp())
        (top / "docs").mkdir(parents=True)
        (top / "README.rst").write_text(
            "One\n===\n\n`a <docs/a.rst>`_ `b <docs/b.rst>`_ `c\n<docs/a.rst#of-a>`__\n"
            "`d <docs/a.rst#one>`_ `e <#one>`_ `f <https://a.example/>`_ `g <x_>`_\n"
            "`E\n<docs/a.rst>`_ `a <#one>`__ `One <#one>`_\n\n"
            ".. _x: gone.rst\n"
        )
        (top / "docs" / "a.rst").write_text("Of a\n----\n\n`up <../README.rst>`_\n")
        self.assertEqual(
            [
                "README.rst: e: not the only one of this name",
                "README.rst: one: not the only one of this name",
                "README.rst: docs/b.rst",
                "README.rst: docs/a.rst#one",
                "README.rst: gone.rst",
            ],
            broken(top),
        )

    def test_others(self) -> None:
        """Addresses of other sites are complete, and have no password."""
        found = self.mentions(r"<(https?://[^>]*)>`_")
        self.assertLess(5, len(found))
        for each in found:
            address = urlsplit(" ".join(each.split()))
            self.assertEqual("https", address.scheme, each)
            self.assertRegex(address.netloc, r"^[a-z0-9.-]+\.[a-z]+$", each)
            self.assertRegex(each, r"^[!-~]+$")

    def test_source(self) -> None:
        names = {str(each.relative_to(TOP)) for each in documents(TOP)}
        expected = {"README.rst", "docs/explanation/security.rst", "hooks/README.rst"}
        self.assertEqual(set(), expected - names)
        self.assertEqual([], broken(TOP))

    def test_package(self) -> None:
        """In the files that Debian's package installs, through each of its paths."""
        top = self.install() / "usr/share/doc/file-bucket"
        for source in documents(TOP):
            if source.suffix == ".rst":
                self.assertTrue((top / source.relative_to(TOP)).exists(), source)
        self.assertEqual([], broken(top))
        for alias in (each for each in top.iterdir() if each.is_symlink()):
            self.assertEqual([], broken(alias))

    def test_paths(self) -> None:
        """Paths of the package that texts name are installed."""
        top = self.install()
        found = self.mentions(
            r"/usr/share/(?:doc|man)/file-bucket[\w-]*(?:/[\w.-]*\w)*"
        )
        self.assertIn("/usr/share/doc/file-bucket/examples/hooks", found)
        self.assertEqual(
            [], [each for each in found if not (top / each.lstrip("/")).exists()]
        )

    def test_manual(self) -> None:
        """Man pages of file-bucket that texts name are installed."""
        there = {each.name for each in self.install().glob("usr/share/man/man*/*")}
        found = self.mentions(r"\b(file-?bucket[\w.-]*) ?\(([1-9])\)")
        self.assertEqual(there, {f"{name}.{section}" for name, section in found})

    def mentions(self, pattern: str) -> set[Any]:
        """Matches in all documents and shipped files, without roff's backslashes."""
        others = (TOP / each for each in ("contrib", "debian", "hooks"))
        texts = [
            path.read_text(encoding="utf-8").replace("\\", "")
            for path in (*documents(TOP), *(f for o in others for f in o.rglob("*")))
            if path.is_file()
        ]
        return {found for text in texts for found in re.findall(pattern, text)}

    def install(self) -> Path:
        """Install the lists in ``debian/`` as debhelper does; return the root."""
        root = Path(self.mktemp())
        (line,) = self.listed("file-bucket-doc", "install")
        built, to = line.split()
        site = root / to / Path(built).name
        site.mkdir(parents=True)
        (site / "index.html").touch()
        for package in ("file-bucket", "file-bucket-client"):
            doc = root / "usr/share/doc" / package
            for pattern in self.listed(package, "docs"):
                self.place(pattern, doc)
            for pattern in self.listed(package, "examples"):
                self.place(pattern, doc / "examples")
            for name in self.listed(package, "manpages"):
                self.place(name, root / "usr/share/man" / f"man{name[-1]}")
            for line in self.listed(package, "install"):
                *patterns, to = line.split()
                for pattern in patterns:
                    self.place(pattern, root / to)
            for line in self.listed(package, "links"):
                source, link = line.split()
                target = os.path.relpath(source, Path(link).parent)
                (root / link).symlink_to(target)
        return root

    def listed(self, package: str, kind: str) -> list[str]:
        """The lines of a list; none if the package has no such list."""
        path = TOP / "debian" / f"{package}.{kind}"
        return path.read_text().splitlines() if path.exists() else []

    def place(self, pattern: str, folder: Path) -> None:
        """Copy files, or folders with their content."""
        found = list(TOP.glob(pattern))
        self.assertNotEqual([], found, pattern)
        for source in found:
            folder.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, folder / source.name)
            else:
                shutil.copy(source, folder)


class WordTests(DocumentsCase):
    """Turns of phrase that ``.ci/words.toml`` lists."""

    def test_list(self) -> None:
        """Each is found in its example, and nothing is in what to write."""
        listed = words.turns(TOP)
        self.assertLess(15, len(listed))
        for turn in listed:
            self.assertEqual(1, len(list(turn.find(turn.instead))), turn.instead)
            found = [list(each.find(turn.write)) for each in listed]
            self.assertEqual([[]] * len(listed), found, turn.write)

    def test_across_lines(self) -> None:
        """Of comments and of strings, but not across paragraphs."""
        turn = words.Turn("red fox", "", "", "")
        for text, lines in (
            ("red fox", [1]),
            ("a red\n  fox", [1]),
            ("# red\n    # fox", [1]),
            ('x = (\n    "red"\n    f" fox"\n)', [2]),
            ("red\n\nfox", []),
            ('"red"\n    fox = 1', []),
        ):
            self.assertEqual(lines, [line for line, _ in turn.find(text)], text)

    def test_places(self) -> None:
        """In documents and code, with the line and a suggestion; not in copies."""
        top = Path(self.mktemp())
        last = words.turns(TOP)[-1]
        copies = ("hooks/a.svg", "debian/copyright", "docs/_build/a.html")
        for name in (".ci/x", "docs/a.rst", *copies):
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(f"A\n{last.instead}\n")
        shutil.copy(TOP / words.LIST, top / words.LIST)
        found = words.misworded(top)
        self.assertEqual(2, len(found), found)
        self.assertEqual([".ci/x:2", "docs/a.rst:2"], [e.split(": ")[0] for e in found])
        self.assertIn(f"write {last.write!r}.", found[0])

    def test_source(self) -> None:
        """In a checkout."""
        self.assertEqual([], words.misworded(TOP))


class UnitTests(DocumentsCase):
    """The units of the Debian package."""

    def test_capabilities(self) -> None:
        """Only these units have any. That of the daemon's user loads no module of
        Python from the user's home, which is the storage folder.
        """
        capable = {}
        for path in sorted((TOP / "debian").glob("*.service")):
            unit = path.read_text(encoding="utf-8")
            (found,) = re.findall(r"(?m)^CapabilityBoundingSet=(.*)", unit)
            if found:
                capable[path.name] = found.split()
                if "User=" in unit:
                    self.assertIn("\nEnvironment=PYTHONNOUSERSITE=1\n", unit)
        others = ["CAP_FOWNER", "CAP_LEASE", "CAP_DAC_READ_SEARCH"]
        self.assertEqual(
            {
                "file-bucket-prune.service": ["CAP_LINUX_IMMUTABLE"],
                "file-bucket-seal.service": ["CAP_LINUX_IMMUTABLE", *others],
                "file-bucket-sweep.service": ["CAP_SETUID", "CAP_SETGID"],
            },
            capable,
        )


class ArchitectureTests(DocumentsCase):
    """docs/explanation/architecture.rst lists every package and module."""

    def setUp(self) -> None:
        super().setUp()
        rule, _ = self.read("docs/explanation/architecture.rst").split(
            "Data flow of a push"
        )
        self.floors, table = rule.split("An import goes down")
        rows = re.split(r"(?m)^``(?=[a-z0-9/]+``  )", table)[1:]
        self.rows = {row.split("``")[0]: row.split("``  ", 1)[1] for row in rows}

    def test_floors(self) -> None:
        """The layers are those that import-linter checks."""
        configured = tomllib.loads(self.read("pyproject.toml"))
        layers = configured["tool"]["importlinter"]["contracts"][0]["layers"]
        drawn = re.findall(r"(?m)^ +\d +([a-z|]+(?: \| [a-z]+)*)", self.floors)
        self.assertEqual(layers, drawn)

    def test_rooms(self) -> None:
        """Each module of each package; of the command, only the shared ones."""
        package = TOP / "filebucket"
        folders = {
            str(each.parent.relative_to(package))
            for each in package.glob("[!t]*/**/__init__.py")
        }
        self.assertEqual(folders, set(self.rows))
        for folder, row in self.rows.items():
            there = {each.stem for each in (package / folder).glob("[a-z]*.py")}
            named = set(re.findall(r"``([a-z_]+)``", row))
            if folder == "cli":
                there &= named
            self.assertEqual(there, named, folder)
