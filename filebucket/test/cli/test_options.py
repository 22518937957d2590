"""Shared arguments and options."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from click.shell_completion import BashComplete
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.inventory import Inventory
from filebucket.cli import main, options
from filebucket.cli.options import (
    DURATION,
    NAME,
    RATE,
    SIZE,
    UnknownBucketError,
    chosen_buckets,
    earliest,
    end_of,
    open_catalogue,
)
from filebucket.config.load import load
from filebucket.test.kit.commands import LABEL, TOKEN, CliCase


class EarliestTests(SynchronousTestCase):
    def test_times(self) -> None:
        """A duration before now, or a time, which is local without a time zone."""
        now = datetime(2026, 11, 28, 12, tzinfo=UTC)
        for text, expected in (
            ("90s", datetime(2026, 11, 28, 11, 58, 30, tzinfo=UTC)),
            ("7d", datetime(2026, 11, 21, 12, tzinfo=UTC)),
            ("2026-11-27", datetime(2026, 11, 26, 23, tzinfo=UTC)),
            ("2026-07-01", datetime(2026, 6, 30, 22, tzinfo=UTC)),
            ("2026-11-27 08:59:01", datetime(2026, 11, 27, 7, 59, 1, tzinfo=UTC)),
            ("2026-11-27T08:59", datetime(2026, 11, 27, 7, 59, tzinfo=UTC)),
            ("2026-11-27T08:59:00.5Z", datetime(2026, 11, 27, 8, 59, 0, 500_000, UTC)),
            ("2026-11-27 08:59-03:00", datetime(2026, 11, 27, 11, 59, tzinfo=UTC)),
        ):
            found = earliest(text, now.timestamp(), ZoneInfo("Europe/Berlin"))
            self.assertEqual(expected.timestamp(), found, text)

    def test_refuses(self) -> None:
        for text in ("", "7", "7 years", "yesterday", "20261127", "2026-13-01", "1"):
            error = self.assertRaises(ValueError, earliest, text, 0.0, UTC)
            self.assertIn('such as "90m" or "7d"', str(error))


class EndTests(SynchronousTestCase):
    """:func:`end_of`."""

    def test_each(self) -> None:
        """A day, also one with 25 hours; a second; and a duration ago."""
        berlin = ZoneInfo("Europe/Berlin")
        now = datetime(2026, 11, 24, 9, tzinfo=berlin).timestamp()
        for text, end in (
            ("2026-10-25", datetime(2026, 10, 26, tzinfo=berlin).timestamp()),
            ("2026-11-23 18:00", now - 15 * 3600 + 1),
            ("2026-11-23T17:00:00Z", now - 15 * 3600 + 1),
            ("2d", now - 48 * 3600 + 1),
        ):
            self.assertEqual(end, end_of(text, now, berlin), text)
        self.assertRaises(ValueError, end_of, "noon", now, berlin)


class CompletionTests(CliCase):
    def complete(self, *words: str) -> list[str]:
        """Completions of the last word."""
        completer = BashComplete(main.main, {}, "filebucket", "_FILEBUCKET_COMPLETE")
        *arguments, incomplete = words
        items = completer.get_completions(list(arguments), incomplete)
        return [each.value for each in items]

    def test_commands(self) -> None:
        expected = [
            *("alert", "bucket", "check", "copy", "files", "get", "hold", "log"),
            *(
                "migrate",
                "pause",
                "prune",
                "reindex",
                "reload",
                "report",
                "resume",
                "retire",
            ),
            *("seal", "serve", "status", "sweep", "token-hash", "verify"),
        ]
        self.assertEqual(expected, self.complete(""))

    def test_names(self) -> None:
        """The labels of the given file, without tokens."""
        self.write(
            TOKEN, *({"name": name, "token": name * 16} for name in ("db", "dc"))
        )
        given = ("--config", str(self.file))
        self.assertEqual(["db", "dc"], self.complete("bucket", "rotate", *given, "d"))
        found = self.complete("bucket", "remove", *given, "")
        self.assertEqual([LABEL, "db", "dc"], found)

    def test_broken(self) -> None:
        """An unreadable configuration completes nothing."""
        self.assertEqual([], self.complete("bucket", "rotate", ""))


class ValueTests(SynchronousTestCase):
    def test_converted(self) -> None:
        """Values for the file stay unchanged; others become numbers."""
        for kind, text, value in (
            (NAME, "web01", "web01"),
            (SIZE, "1 GiB", "1 GiB"),
            (SIZE, "1000", 1000),
            (DURATION, "7d", 7 * 86400.0),
            (DURATION, 0.0, 0.0),
            (RATE, "50MiB/s", 50 << 20),
            (RATE, "1kB", 1000),
            (RATE, 5, 5),
        ):
            self.assertEqual(value, kind.convert(text, None, None))

    def test_refused(self) -> None:
        """The errors are those of the configuration."""
        given: list[tuple[click.ParamType[Any], str, str]] = [
            (NAME, "a/b", "a name may not contain"),
            (SIZE, "1 XB", "must be a size such as"),
            (DURATION, "7", "must be a time span such as"),
            (RATE, "0B", "must be more than 0"),
        ]
        for kind, text, reason in given:
            with self.assertRaises(click.BadParameter) as caught:
                kind.convert(text, None, None)
            self.assertIn(reason, caught.exception.message)


class ChoiceTests(CliCase):
    def test_chosen(self) -> None:
        """In the order of the configuration; all buckets without names."""
        self.write({"name": "a", "token": "a" * 32}, {"name": "b", "token": "b" * 32})
        config = load(str(self.file))
        for labels, chosen in (
            ((), ["a", "b"]),
            (("b",), ["b"]),
            (("b", "a"), ["a", "b"]),
        ):
            found = [each.label for each in chosen_buckets(config, labels)]
            self.assertEqual(chosen, found)
        with self.assertRaises(UnknownBucketError) as caught:
            chosen_buckets(config, ["c"])
        self.assertEqual("there is no bucket 'c'", str(caught.exception))

    def test_no_home(self) -> None:
        """A catalogue is created only in a home that a daemon has used."""
        config = load(str(self.file))
        with (
            self.assertRaises(CatalogueError) as caught,
            open_catalogue(config, Inventory, create=True),
        ):
            self.fail("there is no home")
        self.assertIn("no home, or no daemon has used it yet", str(caught.exception))
        (self.folder / "home" / ".filebucket").mkdir(parents=True)
        with open_catalogue(config, Inventory, create=True) as catalogue:
            self.assertIsInstance(catalogue, Inventory)

    def test_fails_later(self) -> None:
        """The error tells once what it is about, also if several are open."""
        config = load(str(self.file))
        (self.folder / "home" / ".filebucket").mkdir(parents=True)
        with (
            self.assertRaises(CatalogueError) as caught,
            open_catalogue(config, Inventory, create=True),
            open_catalogue(config, Inventory),
        ):
            raise CatalogueError("disk I/O error")
        self.assertEqual("the catalogue: disk I/O error", str(caught.exception))

    def test_may_not_read(self) -> None:
        """The error says who may, or, to root, that files belong to several users."""

        def refuse(home: str, create: bool) -> None:
            raise CatalogueError("Permission denied")

        self.patch(Inventory, "open", refuse)
        self.patch(options, "become_owner_of", lambda *given: None)
        remedy = "did another user run a daemon?"
        for user, hint in (
            (1000, "run this as root or as the daemon's user"),
            (0, f"not all of home belongs to its owner; {remedy}"),
        ):
            self.patch(os, "getuid", lambda user=user: user)
            with (
                self.assertRaises(CatalogueError) as caught,
                open_catalogue(load(str(self.file)), Inventory),
            ):
                self.fail("it is open")
            expected = f"the catalogue: Permission denied; {hint}"
            self.assertEqual(expected, str(caught.exception))
