"""Tests of :mod:`filebucket.daemon.drift`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base import threads
from filebucket.base.errors import ConfigError
from filebucket.config import load
from filebucket.daemon import drift
from filebucket.daemon.applied import Applied, fingerprints, identity
from filebucket.daemon.drift import PATIENCE, Drift
from filebucket.model.problem import WARNING, Kind, Problem


@define
class FakeReload:
    """What a daemon has applied.

    :ivar compared: number of comparisons
    """

    path: str
    text: str = ""
    waiting: tuple[str, ...] = ()
    last: Applied | None = None
    compared: int = 0

    def apply(self) -> None:
        """Apply the file, as at a start or a reload."""
        config = load.load(self.path)
        self.text = identity(Path(self.path).read_text())
        keys = config.keys if self.last is None else self.last.keys
        self.waiting = tuple(keys.changed(config.keys))
        self.last = Applied(self.text, keys, fingerprints(config.buckets))

    def applied(self) -> Applied:
        assert self.last is not None
        self.compared += 1
        # The real one computes, too.
        assert threads.COMPUTING.acquire(blocking=False), "it would wait for ever"
        threads.COMPUTING.release()
        return self.last


class DriftTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.reload = FakeReload(str(self.path))
        self.now = 5000.0
        self.read = 0
        self.versions = 0
        self.write("a")
        self.reload.apply()
        self.drift = Drift(str(self.path), self.reload)

        def read(path: str) -> str:
            self.read += 1
            return real(path)

        real = load.read_text
        self.patch(drift, "read_text", read)
        self.assertIsNone(self.look())

    def write(self, *buckets: str, text: str | None = None, **keys: object) -> None:
        """Write a configuration with these buckets."""
        given = [{"name": each, "token_sha256": f"{each}0" * 32} for each in buckets]
        content = json.dumps({"home": "/srv", "buckets": given, **keys})
        self.path.write_text(content if text is None else text)
        # The clock of the filesystem is coarse.
        self.versions += 1
        os.utime(self.path, ns=(self.versions, self.versions))

    def look(self, after: float = 60.0) -> str | None:
        """The text of the problem, if there is one.

        :param after: seconds since the last look
        """
        self.now += after
        found = self.drift.look(self.now)
        if found is None:
            return None
        self.assertEqual(Problem(Kind.RELOAD, WARNING, found.text), found)
        return found.text

    def test_same(self) -> None:
        """The file is read once, and not parsed."""
        for _ in range(20):
            self.assertIsNone(self.look())
        self.assertEqual(1, self.read)
        self.assertEqual(0, self.reload.compared)

    def test_for_ten_minutes(self) -> None:
        self.write("a", "b")
        self.assertIsNone(self.look())
        self.assertIsNone(self.look(PATIENCE - 1))
        text = "a reload is due (1 new bucket is refused with 403: b)"
        self.assertEqual(text, self.look(1))
        self.assertEqual(text, self.look())
        self.assertEqual(1, self.reload.compared)
        self.reload.apply()
        self.assertIsNone(self.look())
        # The next one has its own ten minutes.
        self.write("a")
        self.assertIsNone(self.look())
        self.assertIn("still accepts pushes: b", self.look(PATIENCE) or "")

    def test_while_it_changes(self) -> None:
        """The time counts from the first change on."""
        self.write("a", "b")
        self.assertIsNone(self.look())
        self.write("a", "c")
        self.assertIn("403: c", self.look(PATIENCE) or "")
        self.write("a", "d")
        self.assertIn("403: d", self.look() or "")

    def test_another_spelling(self) -> None:
        """The file has nothing new; it is compared once."""
        self.write("a", hook_timeout=300)
        for _ in range(20):
            self.assertIsNone(self.look())
        self.assertEqual(1, self.reload.compared)
        self.write("a", "b")
        self.assertIsNone(self.look())
        self.assertIn("403: b", self.look(PATIENCE) or "")

    def test_back(self) -> None:
        self.write("a", "b")
        self.look()
        self.assertIsNotNone(self.look(PATIENCE))
        self.write("a")
        self.assertIsNone(self.look())

    def test_restart(self) -> None:
        """After a reload, a key waits for a restart."""
        self.write("a", port=80)
        self.reload.apply()
        self.assertIsNone(self.look())
        text = "a restart is due to apply port"
        self.assertEqual(text, self.look(PATIENCE))
        self.assertEqual(0, self.reload.compared)
        self.write("a")
        self.reload.apply()
        self.assertIsNone(self.look())

    def test_broken(self) -> None:
        self.write("a", text="{")
        self.assertIsNone(self.look())
        text = self.look(PATIENCE) or ""
        start = "the changed configuration cannot be applied: is not valid JSON"
        self.assertEqual(start, text[: len(start)])
        self.write("a", port="x" * 1000, hots=1)
        text = self.look() or ""
        self.assertIn(" (and 1 more)", text)
        self.assertLess(len(text), 300)

    def test_gone(self) -> None:
        self.path.unlink()
        self.assertIsNone(self.look())
        text = self.look(PATIENCE) or ""
        self.assertIn("cannot be read: No such file or directory", text)
        self.assertEqual(text, self.look())

    def test_unreadable(self) -> None:
        """A daemon that could read the file only at its start, as root."""
        other = Drift(str(self.path), self.reload)
        allowed = False

        def read(path: str) -> str:
            if allowed:
                return real(path)
            raise ConfigError(path, ["cannot be read: Permission denied"])

        real = load.read_text
        self.patch(drift, "read_text", read)
        for _ in range(20):
            self.now += 60
            self.assertIsNone(other.look(self.now))
        self.write("a", "b")
        for _ in range(12):
            self.now += 60
            found = other.look(self.now)
        assert found is not None
        self.assertIn("cannot be read: Permission denied", found.text)
