"""Tests of the choice of a store."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.base.errors import ConfigError
from filebucket.base.lines import Lines
from filebucket.config.load import parse
from filebucket.daemon.storage import Storage, storage
from filebucket.model.bucket import FreeSpace
from filebucket.store.disk import DirectoryStore
from filebucket.store.interfaces import IDaemonStore, IParts
from filebucket.store.parts import DirectoryParts
from filebucket.store.room import Room
from filebucket.store.s3.store import S3Store
from filebucket.test.kit.fakes import AtOnce

ENVIRON = MappingProxyType(
    {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
)

CONFIG = """{"home": "home", "buckets": [
    {"name": "web01", "token": "0123456789abcdef0123456789ABCDEF"}], "store": %s}"""

S3 = """{"s3": {"endpoints": ["https://s3.example.com"], "names_bucket": "names-bucket",
    "data_bucket": "data-bucket", "prefix": "a/b/"%s}}"""


class StorageTests(SynchronousTestCase):
    """From the configuration to the store."""

    def storage(self, store: str, environ: Mapping[str, str] = ENVIRON) -> Storage:
        reactor = MemoryReactorClock()
        config = parse(CONFIG % store, "/etc/config.json")
        lines = Lines(AtOnce(reactor), 1, reactor)
        room = Room(FreeSpace())
        return storage(
            reactor, config, "config.json", lines, room, environ, lambda: 0.0
        )

    def assert_mistake(self, wanted: str, *args: Any) -> None:
        error = self.assertRaises(ConfigError, self.storage, *args)
        (mistake,) = error.mistakes
        self.assertIn(wanted, mistake)
        self.assertTrue(mistake.startswith("$.store: "))
        self.assertEqual("config.json", error.source)

    def test_home(self) -> None:
        found = self.storage("null")
        self.assertIsInstance(found.store, DirectoryStore)
        self.assertIsInstance(found.parts, DirectoryParts)
        verifyObject(IDaemonStore, found.store)
        verifyObject(IParts, found.parts)

    def test_object_store(self) -> None:
        found = self.storage(S3 % "")
        assert isinstance(found.store, S3Store)
        verifyObject(IDaemonStore, found.store)
        verifyObject(IParts, found.parts)
        key = found.store.keys.data("web01", "name", "0" * 32)
        url = f"s3://data-bucket/a/b/data/web01/name~{'0' * 32}"
        self.assertEqual(url, found.store.url(key))
        self.assertEqual(8 * 1024**2, found.store.part_size)

    def test_credentials(self) -> None:
        """Without them, the daemon cannot start."""
        self.assert_mistake("credentials", S3 % "", {})
        missing = str(Path(self.mktemp()).absolute())
        self.assert_mistake(missing, S3 % f', "credentials": "{missing}"')

    def test_authorities(self) -> None:
        missing = str(Path(self.mktemp()).absolute())
        self.assert_mistake(missing, S3 % f', "ca": "{missing}"')

    def test_no_library(self) -> None:
        """The message names the package."""
        real = builtins.__import__

        def without(name: str, *args: Any, **named: Any) -> Any:
            if name.split(".", maxsplit=1)[0] == "botocore":
                raise ImportError(name)
            return real(name, *args, **named)

        self.patch(builtins, "__import__", without)
        self.assert_mistake("python3-botocore", S3 % "")
        self.storage("null")
