"""The documents agree with the code and with each other."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket import __version__

TOP = Path(__file__).parents[2]


class DocumentsCase(SynchronousTestCase):
    """Has the source."""

    def setUp(self) -> None:
        if not (TOP / "CHANGELOG.rst").exists():
            raise SkipTest("installed without its source")

    def read(self, name: str) -> str:
        return (TOP / name).read_text(encoding="utf-8")


class ReleaseTests(DocumentsCase):
    """What a release changes in several files is the same in all of them."""

    def test_changelog(self) -> None:
        """The newest section is Unreleased, the next one is of this version."""
        sections = re.findall(r"(?m)^(.+)\n={3,}$", self.read("CHANGELOG.rst"))
        self.assertEqual(["Changelog", "Unreleased"], sections[:2])
        self.assertRegex(
            sections[2], rf"^{re.escape(__version__)} - \d{{4}}-\d\d-\d\d$"
        )

    def test_groups(self) -> None:
        """Each group is one that Keep a Changelog has."""
        groups = re.findall(r"(?m)^(.+)\n-{3,}$", self.read("CHANGELOG.rst"))
        known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
        self.assertEqual(set(), set(groups) - known)
        self.assertIn("Added", groups)

    def test_debian(self) -> None:
        """Debian's changelog begins with the same version, released on the same day."""
        first = re.search(
            r"(?sm)^file-bucket \((.+?)\).*?^ -- .+?>  (.+?)$",
            self.read("debian/changelog"),
        )
        assert first is not None
        self.assertEqual(__version__, first[1])
        day = parsedate_to_datetime(first[2]).date()
        self.assertIn(f"\n{first[1]} - {day}\n", self.read("CHANGELOG.rst"))

    def test_address(self) -> None:
        """Reports of vulnerabilities go to the maintainer of the package."""
        maintainer = re.search(
            r"(?m)^Maintainer: .*<(.+)>$", self.read("debian/control")
        )
        assert maintainer is not None
        self.assertIn(maintainer[1], self.read("SECURITY.rst"))
