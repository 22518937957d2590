"""The reference of the configuration agrees with the code, key by key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import attrs
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.config import load
from filebucket.config.config import Config
from filebucket.model.objects import S3
from filebucket.test.kit.blocks import blocks, path_of
from filebucket.test.kit.examples import objects, shortened
from filebucket.test.kit.tree import TREE

BUCKET = {"name": "web01", "token_sha256": 64 * "0"}
STORE = {
    "endpoints": ["https://s3.example.org"],
    "names_bucket": "names",
    "data_bucket": "data",
}


class Key(NamedTuple):
    """A section about a key.

    :ivar group: the heading above it
    :ivar default: its text in the page
    """

    group: str
    heading: str
    default: str

    @property
    def name(self) -> str:
        return self.heading.removesuffix(" of a bucket")


class ConfigurationTests(SynchronousTestCase):
    """Each section about a key has its type, its default and an example."""

    def setUp(self) -> None:
        if not (TREE / "Makefile").exists():
            raise SkipTest("installed without its source")
        text = Path(TREE / path_of("configuration.rst")).read_text(encoding="utf-8")
        groups = re.split(r"(?m)^(\S.*)\n={3,}$", text)[1:]
        self.keys = [
            Key(group, heading, found[1])
            for group, section in zip(groups[::2], groups[1::2], strict=True)
            for heading, text in self.sections(section)
            if (found := re.match(r"\n\n:Type: .+\n:Default: (.+)\n\n", text))
        ]

    def sections(self, text: str) -> list[tuple[str, str]]:
        parts = re.split(r"(?m)^(\S.*)\n-{3,}$", text)[1:]
        return list(zip(parts[::2], parts[1::2], strict=True))

    def of(self, *groups: str) -> dict[str, Key]:
        """The keys in these groups."""
        return {each.name: each for each in self.keys if each.group in groups}

    def server(self) -> dict[str, Key]:
        groups = {each.group for each in self.keys} - {"Bucket keys", "Object store"}
        return self.of(*groups)

    def config(self, **keys: object) -> Config:
        given = {"home": "/h", "buckets": [], **keys}
        return load.parse(json.dumps(given), "/c/c.json")

    def compare(self, kind: type, keys: dict[str, Key], make: Any) -> None:
        """Each key of a class is there, and its default is the class's.

        :param make: a function of keys that gives an object with their values
        """
        self.assertEqual({each.name for each in attrs.fields(kind)}, set(keys))
        for name, key in keys.items():
            given = re.match(r"``(.+?)``(?:;|$)", key.default)
            if given:
                with_default = make(**{name: json.loads(given[1])})
                self.assertEqual(with_default, make(), name)
            else:
                default = attrs.fields_dict(kind)[name].default
                absent = (None, attrs.NOTHING, (), "", load.Patterns(()))
                known = {"listen", "node", "trusted_proxies", "defaults"}
                self.assertTrue(default in absent or name in known, name)
                self.assertRegex(key.default, "^(none|the )", name)

    def test_server(self) -> None:
        self.compare(Config, self.server(), self.config)

    def test_bucket(self) -> None:
        def make(**keys: object) -> Config:
            return self.config(buckets=[{**BUCKET, **keys}])

        self.compare(load._BucketObject, self.of("Bucket keys"), make)

    def test_object_store(self) -> None:
        def make(**keys: object) -> Config:
            return self.config(store={"s3": {**STORE, **keys}})

        self.compare(S3, self.of("Object store"), make)

    def test_required(self) -> None:
        """The keys without which a configuration is refused."""
        required = {
            each.name
            for each in self.keys
            if re.search("; required(;|$)", each.default)
        }
        expected = {
            each.name
            for kind in (Config, S3)
            for each in attrs.fields(kind)
            if each.default is attrs.NOTHING
        }
        self.assertEqual(expected, required)

    def test_examples(self) -> None:
        """Each section shows its key. That the examples are valid is a test of all
        documents.
        """
        for key in (*self.server().values(), *self.of("Bucket keys").values()):
            found = [
                objects(shortened(each.text))
                for each in blocks("configuration.rst")
                if each.heading == key.heading
            ]
            if key.name not in {"store", "catalogue"}:
                self.assertNotEqual([], found, key.name)
            for each in found:
                self.assertIn(key.name, each)
