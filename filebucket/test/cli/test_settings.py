"""The settings of a bucket as options."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.cli.settings import KEY, SETTINGS
from filebucket.config import load

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "command.rst"


class TableTests(SynchronousTestCase):
    def test_keys(self) -> None:
        """Every setting of the configuration, except those with own commands."""
        fields = {each.name for each in attrs.fields(load._BucketObject)}
        others = {*load.OPENS - {"expires"}, "name", "paused", "retired", "held"}
        self.assertEqual(fields - others, set(KEY.choices))

    def test_document(self) -> None:
        """The document lists exactly these options."""
        if not DOCUMENT.exists():
            raise SkipTest("installed without its source")
        text = DOCUMENT.read_text(encoding="utf-8")
        section = text.partition("Settings of a bucket\n=")[2]
        section = section.partition("Pause a bucket\n=")[0]
        options = re.findall(r"(?m)^``(--[a-z-]+)[^`]*``  ", section)
        self.assertEqual([each.option for each in SETTINGS], options)
