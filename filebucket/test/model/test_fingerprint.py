"""Tests of :mod:`filebucket.model.fingerprint`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from ipaddress import ip_network
from typing import Any

import attrs
from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Bucket, FreeSpace, Held, Keep, Pause
from filebucket.model.client import Networks
from filebucket.model.fingerprint import bucket_fingerprint, fingerprint
from filebucket.model.schedule import Cron, Interval, Schedule
from filebucket.model.token import Token
from filebucket.test.kit.server import PATIENCE

PLAIN = Bucket((Token(b"a" * 32),), "web01", "web01")

SETTINGS: dict[str, Any] = {
    "max_file_size": 1,
    "min_file_size": 1,
    "quota": 1,
    "allow_from": Networks((ip_network("192.0.2.0/24"),)),
    "overwrite": True,
    "series": ("db-*",),
    "expect": Schedule(Cron("30 2 * * *")),
    "shrink_alert": 0.4,
    "grow_alert": 2.0,
    "keep": Keep(last=3),
    "hold": 60.0,
    "drill": 60.0,
    "comment": "the shop",
    "paused": Pause(1.0, "moves"),
    "retired": True,
    "held": (Held("db.gz", 1.0, "case 7"),),
}
"""Each setting, with a value that is not its default."""


class BucketTests(SynchronousTestCase):
    """:func:`bucket_fingerprint`."""

    def variants(self) -> Iterator[Bucket]:
        """Buckets that differ in one setting."""
        yield PLAIN
        for name, value in SETTINGS.items():
            yield evolve(PLAIN, **{name: value})
        yield evolve(PLAIN, expect=Interval(60.0, "60s"))
        yield evolve(PLAIN, expect=Interval(61.0, "60s"))
        yield evolve(PLAIN, tokens=(Token(b"b" * 32),))
        yield evolve(PLAIN, tokens=(Token(b"a" * 32, 1.0),))
        yield evolve(PLAIN, tokens=(Token(b"a" * 32), Token(b"b" * 32)))

    def test_each_setting(self) -> None:
        """Each one counts."""
        names = {each.name for each in attrs.fields(Bucket)}
        self.assertEqual(names - {"tokens", "directory", "name"}, set(SETTINGS))
        found = [bucket_fingerprint(each) for each in self.variants()]
        self.assertEqual(len(found), len(set(found)))
        self.assertEqual({12}, set(map(len, found)))

    def test_equal(self) -> None:
        """The spelling of a setting does not count."""
        one, other = (
            evolve(PLAIN, expect=Interval(3600.0, text), shrink_alert=0.5)
            for text in ("60m", "1h")
        )
        self.assertEqual(bucket_fingerprint(one), bucket_fingerprint(other))

    def test_another_process(self) -> None:
        """Hashes of strings are not the same there."""
        code = (
            "from filebucket.model.fingerprint import bucket_fingerprint\n"
            "from filebucket.test.model.test_fingerprint import BucketTests\n"
            "for each in BucketTests().variants(): print(bucket_fingerprint(each))\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout.split()
        self.assertEqual(list(map(bucket_fingerprint, self.variants())), said)


class ValueTests(SynchronousTestCase):
    """:func:`fingerprint`."""

    def test_order(self) -> None:
        """The order of a mapping does not count, that of a list does."""
        one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
        self.assertEqual(fingerprint(one), fingerprint(other))
        self.assertNotEqual(fingerprint(["a", "b"]), fingerprint(["b", "a"]))
        self.assertEqual(fingerprint(["a", "b"]), fingerprint(("a", "b")))

    def test_types(self) -> None:
        values: list[object] = [None, False, 0.0, "0", b"0", FreeSpace(), Keep(), []]
        values += [FreeSpace(share=Fraction(1, 3)), FreeSpace(1)]
        self.assertEqual(len(values), len(set(map(fingerprint, values))))
