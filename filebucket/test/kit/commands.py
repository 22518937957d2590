"""The ``filebucket`` command in memory, over a configuration, a catalogue, or files."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.cli import log, main, status
from filebucket.config import config
from filebucket.config.load import load, parse
from filebucket.daemon import control
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.model.records import File, Received, Refused
from filebucket.model.series import series_of
from filebucket.model.token import token_digest
from filebucket.test.kit.catalogue import new_home, opened
from filebucket.upkeep import pace

TOKEN = "d41d8cd98f00b204e9800998ecf8427e"
HASH = token_digest(TOKEN.encode()).hex()
LABEL = f"#{HASH[:6]}"

DAY = 24 * 3600.0
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC).timestamp()


class CliCase(SynchronousTestCase):
    """Has a configuration.

    :ivar idle: has an item for each command that runs at idle priority
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "config.json"
        self.patch(config, "DEFAULT_CONFIG", str(self.folder / "default.json"))
        self.idle: list[bool] = []
        self.patch(pace, "be_idle", lambda: self.idle.append(True))
        self.write()

    def write(self, *buckets: object, **keys: object) -> None:
        """Write a configuration with these buckets."""
        content = {
            "home": "home",
            "host": "192.0.2.7",
            "min_free_space": 0,
            "buckets": buckets,
            **keys,
        }
        self.file.write_text(json.dumps(content, indent=4))
        self.file.chmod(0o640)

    def invoke(self, *arguments: str, stdin: str | None = None) -> Result:
        """Run the command with the file."""
        given = [] if arguments[0] == "token-hash" else ["--config", str(self.file)]
        return CliRunner().invoke(main.main, [*arguments, *given], input=stdin)

    def run_(self, *arguments: str, stdin: str | None = None) -> str:
        """The output of a command that must succeed."""
        result = self.invoke(*arguments, stdin=stdin)
        self.assertEqual(0, result.exit_code, result.output)
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run_(*arguments, "--json"))

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """The one line that a failing command prints."""
        result = self.invoke(*arguments, stdin=stdin)
        self.assertEqual(1, result.exit_code, result.output)
        self.assertIsInstance(result.exception, SystemExit)
        (line,) = result.output.splitlines()
        return line

    def misused(self, *arguments: str) -> str:
        """The last line that a wrong call prints."""
        before = self.file.read_text()
        result = self.invoke(*arguments)
        self.assertEqual(2, result.exit_code, result.output)
        self.assertEqual(before, self.file.read_text())
        return result.output.splitlines()[-1]


class CatalogueCase(SynchronousTestCase):
    """Has a home with a catalogue.

    :ivar daemon: the pid of the daemon that uses it; None if none does
    """

    keys: Sequence[object] = (
        {"name": "web01", "token_sha256": "01" * 32, "expect": "26h"},
        {"name": "db", "token_sha256": "02" * 32},
        TOKEN,
    )

    def setUp(self) -> None:
        self.home = new_home(self)
        self.file = self.home / "config.json"
        self.write(*self.keys)
        self.now = NOW
        self.daemon: int | None = os.getpid()
        self.patch(control, "daemon_of", lambda home: self.daemon)
        self.patch(time, "time", lambda: self.now)
        for each in (status, log):
            self.patch(each, "local_zone", lambda: UTC)
        self.inventory = opened(self, Inventory, self.home)
        self.journal = opened(self, Journal, self.home)
        self.view = opened(self, View, self.home)

    def close(self) -> None:
        """Close the connection."""
        for each in (self.inventory, self.journal, self.view):
            each.close()

    def write(self, *buckets: object, min_free_space: object = 0) -> None:
        """Write a configuration with these buckets."""
        content = {
            "home": str(self.home),
            "min_free_space": min_free_space,
            "buckets": buckets,
        }
        self.file.write_text(json.dumps(content))
        self.config = parse(self.file.read_text(), str(self.file))
        self.buckets = {each.label: each for each in self.config.buckets}

    def of_key(self, key: str) -> Bucket | None:
        """The configured bucket with that key."""
        return next((each for each in self.config.buckets if each.key == key), None)

    def push(self, label: str, name: str, size: int, at: float, **given: Any) -> None:
        """Record a push, as the daemon does."""
        found = self.buckets[label]
        hide = mask(self.config.buckets)
        values = {
            "seconds": 1.25,
            "client": "192.0.2.7:5000",
            "request": "r1",
            **given,
        }
        received = Received(
            found.key,
            series_of(hide(name), found.series),
            name,
            size,
            "ab" * 32,
            at,
            **values,
        )
        self.journal.record([received], [], self.of_key)

    def refuse(self, key: str, name: str | None, size: int, **given: Any) -> None:
        """Record a refusal."""
        values = {
            "status": 405,
            "reason": "the file exists",
            "client": "192.0.2.7:5000",
            "request": "r2",
            **given,
        }
        refused = Refused(key, NOW - 60, name, size, **values)
        self.journal.record([], [refused], self.of_key)

    def watch(self) -> None:
        """Update the watched series, as the daemon does."""
        list(self.journal.watch(self.config.buckets, mask(self.config.buckets), NOW))

    def invoke(self, *arguments: str, columns: int | None = None) -> Result:
        """Run the command with the file."""
        return CliRunner().invoke(
            main.main,
            [*arguments, "--config", str(self.file)],
            env={"COLUMNS": None if columns is None else str(columns)},
        )

    def prints(
        self, status: int, *arguments: str, columns: int | None = None
    ) -> list[str]:
        """The lines that it prints before it exits with ``status``."""
        result = self.invoke(*arguments, columns=columns)
        self.assertEqual(status, result.exit_code, result.output)
        self.assertNotIn(TOKEN, result.output)
        return result.output.splitlines()


class UpkeepCase(CliCase):
    """Has a home with two buckets, one without a name."""

    def setUp(self) -> None:
        super().setUp()
        self.write({"name": "web01", "token": "f" * 32}, TOKEN)
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        self.named, self.nameless = load(str(self.file)).buckets
        self.patch(time, "sleep", lambda seconds: None)

    def put(
        self, name: str, content: bytes = b"content", folder: str = "web01"
    ) -> Path:
        """Store a file that is some days old."""
        path = self.home / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        at = time.time() - 3 * DAY
        os.utime(path, (at, at))
        return path

    def push(
        self, name: str, content: bytes = b"content", age: float = 3 * DAY
    ) -> Path:
        """Store a file and its row."""
        sha256 = hashlib.sha256(content).hexdigest()
        at = time.time() - age
        row = Received("web01", name, name, len(content), sha256, at, request="x")
        with closing(Journal.open(str(self.home))) as journal:
            journal.record([row], [], {"web01": self.named}.get)
        return self.put(name, content)

    def damage(self, path: Path) -> None:
        """Replace the content by another of the same size."""
        self.put(path.name, path.read_bytes()[::-1])

    def files(self) -> dict[str, File]:
        with closing(View.open(str(self.home))) as view:
            return {each.received.name: each for each in view.latest(100)}

    def found(self, *arguments: str) -> list[str]:
        """The output of a command that has found something."""
        result = self.invoke(*arguments)
        self.assertEqual(1, result.exit_code, result.output)
        self.assertNotIn(TOKEN, result.output)
        return result.output.splitlines()

    def misuse(self, *arguments: str) -> str:
        """The last line of the error."""
        result: Result = self.invoke(*arguments)
        self.assertEqual(2, result.exit_code, result.output)
        return result.output.splitlines()[-1]
