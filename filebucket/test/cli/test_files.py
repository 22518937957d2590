"""``filebucket files``."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from filebucket.catalogue.inventory import Inventory
from filebucket.cli import files
from filebucket.test.kit.commands import DAY, TOKEN, UpkeepCase


class FilesTests(UpkeepCase):
    def lines(self, *arguments: str) -> list[list[str]]:
        """The cells of each line, without the times."""
        printed = self.run_("files", "web01", *arguments)
        self.assertNotIn(TOKEN, printed)
        found = [line.split() for line in printed.splitlines()]
        return [found[0], *(each[2:] for each in found[1:])]

    def test_listed(self) -> None:
        """Oldest first, with what is wrong with each."""
        self.push("db-2", age=DAY)
        self.push("db-1", b"x" * 2048, age=2 * DAY)
        self.push("empty", b"", age=3 * DAY)
        self.put("unknown")
        self.damage(self.push("etc", age=4 * DAY))
        self.found("verify", "--older-than", "84h")
        (head, etc, *rest) = self.lines()
        self.assertEqual(["TIME", "NAME", "SIZE", "VERIFIED", "NOTES"], head)
        self.assertEqual(["etc", "7", "B", "damaged"], [*etc[:3], etc[-1]])
        self.assertEqual(
            [
                ["empty", "0", "B", "-", "empty"],
                ["db-1", "2.0", "KiB", "-", "-"],
                ["db-2", "7", "B", "-", "-"],
            ],
            rest,
        )

    def test_series(self) -> None:
        for name in ("db-1", "etc"):
            self.push(name)
        for series, names in (("db-1", ["db-1"]), ("*", ["db-1", "etc"]), ("x", [])):
            _, *rows = self.lines(series) if names else [[]]
            self.assertEqual(names, [row[0] for row in rows])

    def test_narrow(self) -> None:
        """Names are whole: they are copied into other commands."""
        self.patch(files, "terminal_width", lambda: 80)
        name = "shop-2026-11-28.sql.gz.age"
        self.damage(self.push(name, age=DAY))
        self.push("etc")
        self.found("verify")
        head, *rows = self.lines()
        self.assertEqual(["TIME", "NAME", "SIZE", "NOTES"], head)
        self.assertEqual(["etc", name], [row[0] for row in rows])

    def test_none(self) -> None:
        """A wrong name does not look like an empty bucket."""
        self.push("db-1")
        label = self.nameless.label
        self.assertEqual(f"Bucket {label} has no files.\n", self.run_("files", label))
        self.assertEqual("", self.run_("files", label, "--json"))
        for arguments in ((), ("--json",)):
            self.assertEqual(
                "Error: bucket web01 has no files of the series x\\x1b; 'filebucket"
                " status' lists the series",
                self.refused("files", "web01", "x\x1b", *arguments),
            )

    def test_many(self) -> None:
        """More rows than are aligned together."""
        self.patch(files, "AT_ONCE", 2)
        for number in range(5):
            self.push(f"db-{number}", age=DAY * (9 - number))
        _, *rows = self.lines()
        self.assertEqual([f"db-{n}" for n in range(5)], [row[0] for row in rows])

    def test_json(self) -> None:
        """One object for each line."""
        self.push("db-1")
        self.push(f"x-{TOKEN}", b"")
        with closing(Inventory.open(str(self.home))) as inventory:
            inventory.prune([1], 5.0)
        found = [
            json.loads(line)
            for line in self.run_("files", "web01", "--json").splitlines()
        ]
        one, other = sorted(found, key=lambda each: str(each["name"]))
        self.assertEqual(["being pruned"], one["faults"])
        self.assertEqual(["empty"], other["faults"])
        self.assertNotIn(TOKEN, str(other))
        expected: dict[str, Any] = {"bucket": "web01", "name": "db-1", "size": 7}
        self.assertEqual(expected, {key: one[key] for key in expected})

    def test_hostile(self) -> None:
        """Names are escaped."""
        self.push("\u202e")
        self.assertNotIn("\u202e", self.run_("files", "web01"))

    def test_wrong(self) -> None:
        self.assertIn("the catalogue: not created yet", self.refused("files", "web01"))
        self.assertEqual(2, self.invoke("files", "nope").exit_code)
