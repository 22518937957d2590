"""``filebucket report``."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC
from typing import Any

from filebucket.base.text import columns_of
from filebucket.catalogue.journal import KEPT_REFUSALS
from filebucket.catalogue.view import View
from filebucket.cli import report
from filebucket.cli.report import MOST_BUCKETS, MOST_LINES, WIDTH
from filebucket.model.node import Node
from filebucket.model.records import Space
from filebucket.test.kit.commands import DAY, LABEL, NOW, TOKEN, CatalogueCase
from filebucket.test.kit.overviews import node

MIB = 1 << 20


class ReportCase(CatalogueCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(report, "local_zone", lambda: UTC)

    def sections(self, *arguments: str) -> dict[str, list[str]]:
        """The lines of each section; the headline has no name."""
        lines = self.prints(0, "report", *arguments)
        self.assertLessEqual(max(map(columns_of, lines)), WIDTH)
        found: dict[str, list[str]] = {"": lines[:1]}
        for part in "\n".join(lines[1:]).strip().split("\n\n"):
            title, *rest = part.splitlines()
            if rest and rest[0] == "-" * len(title):
                found[title] = rest[1:]
            else:
                found[""] += part.splitlines()
        return found

    def many(self, count: int, **more: Any) -> None:
        """Configure many buckets, and push to each."""
        hashes = (f"{index:064x}" for index in range(1, count + 1))
        buckets = [
            {"name": f"b{index:04}", "token_sha256": each, "expect": "26h", **more}
            for index, each in enumerate(hashes)
        ]
        self.write(*buckets)
        for index in range(count):
            self.push(f"b{index:04}", "a", MIB + index, NOW - 3 * DAY)
        self.watch()


class TextTests(ReportCase):
    def test_leader(self) -> None:
        """Of several machines, that of the daemon that leads reports."""
        self.many(1)
        host = socket.gethostname()
        nodes: list[Node] = [node("other", leads=True), node(host)]
        self.patch(View, "nodes", lambda view, now: nodes)
        found = self.invoke("report", "--leader")
        output = "the daemon other leads\n"
        self.assertEqual((75, output), (found.exit_code, found.output))
        self.assertEqual(0, self.invoke("report").exit_code)
        for nodes in ([node(host, leads=True), node("other")], [node("other")], []):
            self.assertEqual(0, self.invoke("report", "--leader").exit_code, nodes)

    def test_whole(self) -> None:
        """A bucket that is late, one that is full soon, and one without pushes."""
        host = os.uname().nodename
        self.write(
            {
                "name": "web01",
                "token_sha256": "01" * 32,
                "expect": "26h",
                "comment": "the shop",
            },
            {"name": "db", "token_sha256": "02" * 32, "quota": "40MiB"},
            TOKEN,
        )
        for days in (9, 8, 3, 2):
            self.push("web01", f"w{days}", MIB, NOW - days * DAY)
        self.push("db", "d2", 2 * MIB, NOW - 8 * DAY)
        self.push("db", "d1", 20 * MIB, NOW - DAY)
        self.push(LABEL, "old", 5, NOW - 30 * DAY)
        file = self.journal.find("web01", "w9")
        assert file is not None
        self.inventory.ended(file.id, "pruned", NOW - DAY)
        self.refuse("web01", "x", 1)
        self.refuse("", None, 1)
        for day in (3, 2, 1, 0):
            space = Space(NOW - day * DAY, (100 + 10 * day) * MIB, 1 << 30)
            self.journal.note_space(space)
        self.watch()
        found = self.sections()
        self.assertEqual(
            [
                f"file-bucket on {host}: 2026-11-17 to 2026-11-24",
                "1 backup is late. The server has 1 problem.",
            ],
            found[""],
        )
        self.assertEqual(
            [
                "server: the disk is full in about 10 days at this rate",
                "web01: w# late, last push 2d ago",
            ],
            found["Problems now"],
        )
        self.assertEqual(
            [
                "BUCKET   PUSHES  RECEIVED    GROWTH  PRUNED  REFUSED  LAST",
                "web01         2   2.0 MiB  +1.0 MiB       1        1    2d",
                "  the shop",
                "db            1    20 MiB   +20 MiB       -        -   24h",
                f"{LABEL}       0         -         -       -        -   30d",
                "total         3    22 MiB   +21 MiB       1        1     -",
                "Refused without a valid token: 1",
            ],
            found["Buckets"],
        )
        disk, *quotas = found["Space"]
        # The free space is that of this machine.
        self.assertRegex(
            disk,
            r"^disk: \S+ .iB of \S+ .iB free, full in about 10 days \(2026-12-04\)$",
        )
        self.assertEqual(
            ["db: 55% of 40 MiB used, full in about 6 days (2026-11-30)"], quotas
        )
        self.assertEqual(
            [f"{LABEL}: last push 4 weeks ago (no schedule)"],
            found["No push in this period"],
        )

    def test_nothing(self) -> None:
        """An empty configuration has a report, too."""
        self.write()
        found = self.sections()
        self.assertEqual("There are no buckets yet.", found[""][1])
        self.assertEqual({""}, set(found))

    def test_days(self) -> None:
        self.push("web01", "a", MIB, NOW - 20 * DAY)
        self.assertIn("2026-10-25 to 2026-11-24", self.sections("--days", "30")[""][0])
        row = self.sections("--days", "30")["Buckets"][1].split()
        self.assertEqual(["web01", "1"], row[:2])
        self.assertEqual("0", self.sections("--days", "7")["Buckets"][1].split()[1])
        for wrong in ("0", "-1", "x", "367"):
            self.assertEqual(2, self.invoke("report", "--days", wrong).exit_code)

    def test_bounded(self) -> None:
        """Of 1,000 buckets, the worst and largest are shown, and the rest summed."""
        self.many(1000, quota="2MiB")
        for _ in range(KEPT_REFUSALS):
            self.refuse("b0999", "x", 1)
        lines = self.prints(0, "report")
        self.assertLess(len(lines), 150)
        found = self.sections()
        rows = [each.split() for each in found["Buckets"][1:]]
        self.assertEqual(["b0999", "b0998"], [each[0] for each in rows[:2]])
        self.assertIn(f" {KEPT_REFUSALS}+ ", found["Buckets"][1])
        self.assertEqual(MOST_BUCKETS + 2, len(rows))
        self.assertEqual(["(970", "more)", "970"], rows[-2][:3])
        self.assertEqual(["total", "1,000"], rows[-1][:2])
        for title in ("Problems now", "Space"):
            self.assertEqual(f"({1000 - MOST_LINES} more)", found[title][-1])

    def test_silent(self) -> None:
        """Why nothing was expected, if that is known."""
        pause = {"until": "2026-12-24", "reason": "moving"}
        self.write(
            {"name": "a", "token_sha256": "01" * 32, "expect": "26h"},
            {"name": "b", "token_sha256": "02" * 32, "expect": "26h", "paused": pause},
            {"name": "c", "token_sha256": "03" * 32, "expect": "26h", "retired": True},
        )
        self.push("b", "x", 1, NOW - 20 * DAY)
        self.watch()
        self.assertEqual(
            ["a: no push yet", "b: last push 2 weeks ago (paused: moving)"],
            self.sections()["No push in this period"],
        )

    def test_hostile(self) -> None:
        """Clients choose names: tokens are masked, and control characters escaped."""
        self.push("web01", f"{TOKEN}\x1b[2J\u202e|", 1, NOW - 3 * DAY)
        self.watch()
        (problem,) = self.sections()["Problems now"]
        self.assertNotIn(TOKEN, problem)
        self.assertTrue(problem.isprintable())

    def test_no_catalogue(self) -> None:
        self.close()
        (self.home / ".filebucket" / "catalogue.sqlite3").unlink()
        result = self.invoke("report")
        self.assertEqual(1, result.exit_code)
        self.assertIn("not created yet", result.output)


class JsonTests(ReportCase):
    def test_json(self) -> None:
        """All buckets, whatever their number."""
        self.many(40)
        self.refuse("b0039", "x", 1)
        found = json.loads("\n".join(self.prints(0, "report", "--json")))
        self.assertEqual(2, found["severity"])
        self.assertEqual("40 backups are late", found["headline"])
        self.assertEqual(40, len(found["buckets"]))
        first = found["buckets"][0]
        self.assertEqual(
            ("b0039", 1, MIB + 39, 1, MIB + 39, 1, False, None),
            tuple(
                first[key]
                for key in (
                    *("bucket", "pushes", "received", "growth_files", "growth"),
                    *("refused", "silent", "full_at"),
                )
            ),
        )
        self.assertEqual(40, found["total"]["pushes"])
        self.assertEqual("2026-11-17T09:00:00.000Z", found["since"])
