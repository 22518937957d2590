"""Tests of :mod:`filebucket.cli.known`."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import CatalogueError
from filebucket.cli.known import known_to, load_with_problems
from filebucket.daemon import control
from filebucket.daemon.applied import Applied
from filebucket.model.problem import Kind
from filebucket.store.archive import UPLOADS
from filebucket.test.kit.control import status_file


class KnownTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.home = self.folder / "home"
        (self.home / UPLOADS).mkdir(parents=True)
        self.file = self.folder / "config.json"
        bucket = {"name": "web01", "token_sha256": "ab" * 32}
        self.file.write_text(json.dumps({"home": "home", "buckets": [bucket]}))
        self.now = time.time()

    def test_problems(self) -> None:
        """The configuration, and that no daemon runs, if one has to."""
        config, problems = load_with_problems(str(self.file), self.now, daemon=True)
        self.assertEqual(["web01"], [each.label for each in config.buckets])
        self.assertEqual([Kind.DAEMON], [each.kind for each in problems])
        _, problems = load_with_problems(str(self.file), self.now, daemon=False)
        self.assertEqual([], list(problems))

    def test_known(self) -> None:
        config, problems = load_with_problems(str(self.file), self.now, daemon=True)
        known = known_to(config, self.now, problems)
        self.assertEqual(config.buckets, known.buckets)
        self.assertEqual(problems, known.problems)
        self.assertEqual([], known.uploads)
        assert known.disk is not None
        self.assertGreater(known.disk.total, 0)

    def test_min_free_space(self) -> None:
        """A changed value applies after a restart; without a daemon, at once."""
        old, _ = load_with_problems(str(self.file), self.now, daemon=False)
        written = json.loads(self.file.read_text())
        self.file.write_text(json.dumps({**written, "min_free_space": "100 %"}))
        new, _ = load_with_problems(str(self.file), self.now, daemon=False)
        for applied, waits in ((None, False), (new, False), (old, True)):
            if applied is not None:
                self.patch(control, "daemon_of", lambda home: os.getpid())
                keys = Applied("", applied.keys, {})
                daemon = status_file(new.home, str(self.file), keys)
                daemon.startService()
            disk = known_to(new, self.now, []).disk
            if applied is not None:
                daemon.stopService()
            assert disk is not None
            self.assertEqual(waits, disk.after_restart)

    def test_no_home(self) -> None:
        """Before the first start of a daemon, or if its disk is not mounted."""
        config, _ = load_with_problems(str(self.file), self.now, daemon=False)
        shutil.rmtree(self.home)
        known = known_to(config, self.now, [])
        self.assertIsNone(known.disk)
        self.assertEqual([], known.uploads)

    def test_unreadable_uploads(self) -> None:
        config, _ = load_with_problems(str(self.file), self.now, daemon=False)
        (self.home / UPLOADS).rmdir()
        (self.home / UPLOADS).write_text("")
        error = self.assertRaises(CatalogueError, known_to, config, self.now, [])
        text = "cannot read the unfinished uploads: Not a directory"
        self.assertEqual(text, str(error))
