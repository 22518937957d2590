"""Tests of :mod:`filebucket.daemon.applied`."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.config.load import parse
from filebucket.daemon.applied import (
    Applied,
    Difference,
    compare,
    fingerprints,
    identity,
)
from filebucket.model.token import token_digest

TOKEN = "d41d8cd98f00b204e9800998ecf8427e"


def named(*names: str, **settings: Any) -> list[dict[str, Any]]:
    """Buckets with these names, each with a token of its own."""
    return [
        {"name": each, "token_sha256": token_digest(each.encode()).hex(), **settings}
        for each in names
    ]


class CompareTests(SynchronousTestCase):
    """:func:`compare`."""

    def compare(
        self, before: list[Any], after: list[Any], **keys: object
    ) -> Difference:
        """How the second configuration differs from the first."""
        texts = [
            json.dumps({"home": "home", "buckets": buckets, **more})
            for buckets, more in ((before, {}), (after, keys))
        ]
        one, other = (parse(text, "/etc/config.json") for text in texts)
        applied = Applied(identity(texts[0]), one.keys, fingerprints(one.buckets))
        self.assertNotIn(TOKEN, repr(applied))
        return compare(applied, other, identity(texts[1]))

    def test_same(self) -> None:
        found = self.compare(named("a"), named("a"))
        self.assertEqual(Difference(), found)
        self.assertEqual("", found.text)
        # Another spelling, and another order.
        found = self.compare(named("a", "b", hold="24h"), named("b", "a", hold="1d"))
        self.assertEqual(Difference(), found)
        self.assertFalse(found.reload)

    def test_buckets(self) -> None:
        before = [*named("a", "b", "c"), TOKEN]
        after = [*named("a", "d"), *named("b", quota="1GB"), "x" * 32]
        one, other = (
            f"#{token_digest(each.encode()).hex()[:6]}" for each in (TOKEN, "x" * 32)
        )
        found = self.compare(before, after)
        self.assertEqual(Difference(("d", other), ("b",), ("c", one)), found)
        self.assertTrue(found.reload)
        self.assertEqual(
            f"a reload is due (2 new buckets are refused with 403: d and {other}; 1"
            f" bucket has changed: b; 2 removed buckets still accept pushes: c and"
            f" {one})",
            found.text,
        )

    def test_token(self) -> None:
        """A rotated token is a change."""
        after = [{**named("a")[0], "token_sha256": "ab" * 32}]
        self.assertEqual(("a",), self.compare(named("a"), after).changed)

    def test_keys(self) -> None:
        found = self.compare(named("a"), named("a"), port=80, hooks="/x")
        self.assertEqual(Difference(waiting=("port", "hooks")), found)
        self.assertFalse(found.reload)
        self.assertEqual("a restart is due to apply port and hooks", found.text)

    def test_both(self) -> None:
        found = self.compare(named("a"), [], port=80)
        self.assertEqual(
            "a reload is due (1 removed bucket still accepts pushes: a); a restart is"
            " due to apply port",
            found.text,
        )

    def test_keys_of_the_same_text(self) -> None:
        """After a reload, the keys of the start are still applied."""
        text = json.dumps({"home": "home", "buckets": [], "port": 80})
        start = parse(json.dumps({"home": "home", "buckets": []}), "/etc/config.json")
        config = parse(text, "/etc/config.json")
        found = compare(Applied(identity(text), start.keys, {}), config, identity(text))
        self.assertEqual(Difference(waiting=("port",)), found)

    def test_bounded(self) -> None:
        """Only some buckets are named, none of them at length, and all printable."""
        names = tuple(f"{number}" * 100 for number in range(10))
        text = Difference(names, names, names).text
        self.assertLess(len(text), 500)
        self.assertIn("10 new buckets are refused with 403: 000", text)
        self.assertIn(" and 7 more; 10 buckets", text)
        self.assertIn("\\x1b", Difference(removed=("\x1b[2J",)).text)


class IdentityTests(SynchronousTestCase):
    def test_identity(self) -> None:
        self.assertEqual(
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            identity(""),
        )
