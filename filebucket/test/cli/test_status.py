"""``filebucket status``, in memory."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import textwrap
from collections import Counter
from contextlib import closing
from datetime import UTC
from typing import Any

import click
from attrs import asdict, evolve
from click.shell_completion import BashComplete
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.text import cut
from filebucket.catalogue.copies import Copies
from filebucket.catalogue.database import FILE
from filebucket.catalogue.files import Files
from filebucket.catalogue.overview import BucketOverview, Overview, SeriesOverview
from filebucket.cli import known, main
from filebucket.cli.status import MOST_UPLOADS, status_json, status_line, status_table
from filebucket.daemon.applied import Applied, fingerprints
from filebucket.model.bucket import Pause
from filebucket.model.filesystem import Filesystem
from filebucket.model.node import NodeReport
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem
from filebucket.model.records import Drill, Space
from filebucket.model.state import State
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.store.archive import UPLOADS
from filebucket.test.kit import overviews
from filebucket.test.kit.catalogue import opened
from filebucket.test.kit.commands import LABEL, NOW, TOKEN, CatalogueCase
from filebucket.test.kit.control import status_file
from filebucket.test.kit.overviews import bucket, node, unfinished

HOUR = 3600.0
DAY = 24 * HOUR
GIB = 1 << 30

HOSTILE = "\x1b]0;x\x07|'=1;\n\u202e\u65e5$(reboot)<b>"
"""More than a client can send."""


def series(name: str, state: State = State.FRESH, **given: Any) -> SeriesOverview:
    """A fresh series; its last push was six hours ago."""
    values: dict[str, Any] = {
        "due": NOW + 20 * HOUR,
        "last_at": NOW - 6 * HOUR,
        "last_name": "db-2026-11-24.sql.gz",
        "sizes": (),
    }
    return overviews.series(name, state, **{**values, **given})


def block(text: str) -> list[str]:
    """The lines of an indented text."""
    return textwrap.dedent(text).strip("\n").split("\n")


def overview(*buckets: BucketOverview, full_in: float | None = None) -> Overview:
    """An overview of these buckets, with 1 TiB free."""
    full_at = None if full_in is None else NOW + full_in
    return Overview(NOW, buckets, Space(NOW, 1 << 40, 4 << 40), full_at, ())


NEVER_CAME: dict[str, Any] = {
    "files": 0,
    "bytes": 0,
    "pushes": 0,
    "last_at": None,
    "last_size": None,
    "last_name": None,
    "usual": None,
}

FRESH = bucket("web01", series("db-#.gz"))
LATE = bucket(
    "web02",
    series(
        "db-#.gz", State.LATE, last_at=NOW - 3 * DAY, due=NOW - 2 * DAY, last_size=GIB
    ),
    series("etc-#.gz", last_size=400, usual=400, bytes=5600),
)
SHRUNK = bucket("db", series("shop-#.dump", State.SHRUNK, last_size=GIB // 5))
EMPTY = bucket("dump", series("db-#.gz", State.EMPTY, last_size=20))
GROWN = bucket("mail", series("vmail-#.tar", State.GROWN, last_size=40 * GIB))
UNFINISHED = bucket("big", series("all.tar", State.UNFINISHED))
WAITED_FOR = bucket("new", series("", State.NEVER, **NEVER_CAME))
UNUSED = bucket("unused", expect=None)
DAMAGED = bucket("rot", series("x-#", damaged=2))
GONE = bucket("gone", series("x-#", State.LATE, damaged=1, missing=1))
MANY = bucket("many", series("a"), series("b"), more=7, files=100, bytes=100 * GIB)


class TableTests(SynchronousTestCase):
    def lines(self, found: Overview, width: int | None) -> list[str]:
        """The lines without colors, checked to fit."""
        lines = click.unstyle("\n".join(status_table(found, UTC, width))).split("\n")
        if width is not None:
            self.assertLessEqual(max(map(len, lines)), width)
        return lines

    def test_every_state(self) -> None:
        """The worst first, and the summary."""
        found = overview(
            FRESH, LATE, SHRUNK, GROWN, WAITED_FOR, UNUSED, DAMAGED, MANY, GONE
        )
        expected = """
            BUCKET  SERIES       STATE                       LAST PUSH  AGE     SIZE  CHANGE  COUNT    TOTAL
            web02   db-#.gz      late                        Sat 09:00   3d  1.0 GiB     0 %     14   14 GiB
            web02   etc-#.gz     fresh                       03:00       6h    400 B     0 %     14  5.5 KiB
            gone    x-#          late, 1 damaged, 1 missing  03:00       6h  1.0 GiB     0 %     14   14 GiB
            rot     x-#          2 damaged                   03:00       6h  1.0 GiB     0 %     14   14 GiB
            db      shop-#.dump  shrunk                      03:00       6h  205 MiB   -80 %     14   14 GiB
            mail    vmail-#.tar  grown                       03:00       6h   40 GiB     x40     14   14 GiB
            new     -            never                       -            -        -       -      0        -
            unused  -            never                       -            -        -       -      0        -
            web01   db-#.gz      fresh                       03:00       6h  1.0 GiB     0 %     14   14 GiB
            many    a            fresh                       03:00       6h  1.0 GiB     0 %     14   14 GiB
            many    b            fresh                       03:00       6h  1.0 GiB     0 %     14   14 GiB
            many    (7 more)                                                                     72   72 GiB

            9 buckets: 2 late (web02, gone), 2 damaged (rot, gone), 1 missing (gone), 1 shrunk (db), 1 grown (mail), 1 awaiting first push (new); 184 GiB kept, 1.0 TiB free
        """  # noqa: E501
        self.assertEqual(block(expected), self.lines(found, None))

    def test_quiet(self) -> None:
        """Paused and retired buckets, the retired ones last; and comments of buckets
        with a problem.
        """
        pause = Pause(NOW + 11 * DAY + 15 * HOUR, "moves to another rack in Ulm")
        many = evolve(MANY, paused=pause, more=0)
        shrunk = evolve(SHRUNK, paused=pause, comment="call Anna")
        found = overview(
            bucket("old", series("x-#"), retired=True),
            bucket("none", retired=True),
            many,
            evolve(WAITED_FOR, paused=pause),
            shrunk,
            evolve(FRESH, comment="in Ulm"),
            bucket("rot", series("x-#", damaged=2), retired=True),
        )
        expected = """
            BUCKET  SERIES       STATE                          AGE     SIZE  CHANGE   TOTAL
            rot     x-#          2 damaged, retired              6h  1.0 GiB     0 %  14 GiB
            db      shop-#.dump  shrunk, paused until            6h  205 MiB   -80 %  14 GiB
                                 2026-12-05: moves to another
                                 rack in Ulm
            new     -            paused until 2026-12-05:         -        -       -       -
                                 moves to another rack in Ulm
            many    a            paused until 2026-12-05:        6h  1.0 GiB     0 %  14 GiB
                                 moves to another rack in Ulm
            many    b            paused                          6h  1.0 GiB     0 %  14 GiB
            web01   db-#.gz      fresh                           6h  1.0 GiB     0 %  14 GiB
            none    -            retired                          -        -       -       -
            old     x-#          retired                         6h  1.0 GiB     0 %  14 GiB

            db: call Anna

            7 buckets: 1 damaged (rot), 1 shrunk (db); 3 paused (many, new, db); 3 retired
            (old, none, rot); 156 GiB kept, 1.0 TiB free
        """  # noqa: E501
        self.assertEqual(block(expected), self.lines(found, 80))

    def test_80_columns(self) -> None:
        """The time of the last push is left out if names need the space."""
        expected = """
            BUCKET  SERIES    STATE  LAST PUSH  AGE     SIZE  CHANGE  COUNT    TOTAL
            web02   db-#.gz   late   Sat 09:00   3d  1.0 GiB     0 %     14   14 GiB
            web02   etc-#.gz  fresh  03:00       6h    400 B     0 %     14  5.5 KiB

            1 bucket: 1 late (web02); 14 GiB kept, 1.0 TiB free
        """
        self.assertEqual(block(expected), self.lines(overview(LATE), 80))
        long = bucket("mail.example.org", series("incremental-#-#-#.tar.zst"))
        expected = """
            BUCKET            SERIES                   STATE  AGE     SIZE  CHANGE   TOTAL
            mail.example.org  incremental…#-#.tar.zst  fresh   6h  1.0 GiB     0 %  14 GiB

            1 bucket, no problems found; 14 GiB kept, 1.0 TiB free
        """  # noqa: E501
        self.assertEqual(block(expected), self.lines(overview(long), 78))

    def test_long_state(self) -> None:
        """A long state takes nothing from names: optional columns are left out, then it
        wraps.
        """
        worst = series(
            "customers-#-#-#.sql.zst", state=State.LATE, damaged=12, missing=3
        )
        expected = """
            BUCKET                  SERIES                  STATE                        AGE
            mail.frankfurt.example  customers-#…-#.sql.zst  late, 12 damaged, 3 missing   6h

            1 bucket: 1 late (mail.frankfurt.example), 1 damaged (mail.frankfurt.example), 1
            missing (mail.frankfurt.example); 14 GiB kept, 1.0 TiB free
        """  # noqa: E501
        found = overview(bucket("mail.frankfurt.example", worst))
        self.assertEqual(block(expected), self.lines(found, 80))
        expected = """
            BUCKET                SERIES                STATE                  AGE
            mail.frank…t.example  customers-…#.sql.zst  late, 12 damaged, 3     6h
                                                        missing
        """
        self.assertEqual(block(expected), self.lines(found, 70)[:3])

    def test_summary(self) -> None:
        many = [bucket(f"web{number}", *LATE.series) for number in range(12)]
        disk = Problem(Kind.FULL, CRITICAL, "no push can be stored: no free inodes")
        due = Problem(Kind.RELOAD, WARNING, "a reload is due")
        for found, expected in (
            (overview(), "no buckets; 0 B kept, 1.0 TiB free"),
            (overview(FRESH), "1 bucket, no problems found; 14 GiB kept, 1.0 TiB free"),
            (
                overview(FRESH, UNUSED, full_in=122 * DAY),
                "2 buckets, no problems found; 14 GiB kept, 1.0 TiB free, full in about"
                " 4 months\n1 bucket has no schedule.",
            ),
            (
                evolve(overview(LATE), problems=(disk, due)),
                "1 bucket: 1 late (web02); the server has 2 problems; 14 GiB kept, 1.0"
                " TiB free",
            ),
            (
                evolve(overview(), has_objects=True),
                "no buckets; 0 B kept, 1.0 TiB free in home",
            ),
            (
                overview(*many),
                "12 buckets: 12 late (web0, web1, web2, 9 more); 168 GiB kept, 1.0 TiB"
                " free",
            ),
        ):
            _, _, last = "\n".join(self.lines(found, None)).rpartition("\n\n")
            self.assertEqual(expected, last or self.lines(found, None)[0])
            wrapped = self.lines(found, 60)
            self.assertTrue(" ".join(wrapped).endswith(expected.replace("\n", " ")))

    def test_failed(self) -> None:
        """The first and the last line of each report, below the table."""
        text = "pg_dump exited with 1\n\nconnecting\n\x1b[2Jno route\n"
        given: Any = {"failed_at": NOW - 2 * HOUR}
        dump = series("db-#.gz", State.FAILED, failed_text=text, **given)
        late = series("etc-#", State.LATE, failed_text="", **given)
        whole = series("", State.FAILED, failed_text="x" * 200, **given)
        found = overview(bucket("web01", dump, late, whole))
        after = self.lines(found, None)[4:-1]
        self.assertEqual(
            [
                "",
                "web01: db-#.gz failed 2h ago: pg_dump exited with 1; \\x1b[2Jno route",
                "web01: etc-# failed 2h ago: no reason given",
                f"web01: failed 2h ago: {cut('x' * 200, 120)}",
                "",
            ],
            after,
        )
        line = status_line(overview(bucket("web01", dump)))
        self.assertIn(": web01: db-#.gz failed: pg_dump exited with 1 | buckets=", line)
        line = status_line(overview(bucket("web01", evolve(dump, failed_text=" a|b"))))
        self.assertIn(": web01: db-#.gz failed: a\\x7cb | buckets=", line)

    def test_only_problems(self) -> None:
        """Series, buckets and the server, without what is in order."""
        full = Problem(Kind.FULL, WARNING, "91 % of the quota of 1.0 TiB is used")
        disk = Problem(Kind.FULL, CRITICAL, "no push can be stored: it is full")
        found = evolve(
            overview(FRESH, UNUSED, LATE, MANY, WAITED_FOR),
            uploads=(unfinished(),),
        )
        expected = """
            BUCKET  SERIES   STATE  LAST PUSH  AGE     SIZE  CHANGE  COUNT   TOTAL
            web02   db-#.gz  late   Sat 09:00   3d  1.0 GiB     0 %     14  14 GiB
            new     -        never  -            -        -       -      0       -
        """
        self.assertEqual(block(expected), self.problems(found))
        found = overview(
            evolve(FRESH, problems=(full,)), evolve(LATE, problems=(full,))
        )
        expected = """
            BUCKET  SERIES   STATE  LAST PUSH  AGE     SIZE  CHANGE  COUNT   TOTAL
            web02   db-#.gz  late   Sat 09:00   3d  1.0 GiB     0 %     14  14 GiB

            No push can be stored: it is full.
            web02: 91 % of the quota of 1.0 TiB is used.
            web01: 91 % of the quota of 1.0 TiB is used.
        """
        found = evolve(found, problems=(disk,))
        self.assertEqual(block(expected), self.problems(found))
        expected = """
            web01: 91 % of the quota of 1.0 TiB is used.
        """
        found = overview(evolve(FRESH, problems=(full,)))
        self.assertEqual(block(expected), self.problems(found))

    def problems(self, found: Overview) -> list[str]:
        lines = status_table(found, UTC, 80, only_problems=True)
        return click.unstyle("\n".join(lines)).split("\n")

    def test_no_problems(self) -> None:
        found = evolve(overview(FRESH, UNUSED), uploads=(unfinished(),))
        self.assertEqual(["no problems found"], self.problems(found))
        self.assertEqual(["no problems found"], self.problems(overview()))

    def test_more_problems(self) -> None:
        """Series with problems that are not shown are counted, others are not."""
        states = Counter({State.LATE: 7, State.SHRUNK: 2, State.FRESH: 50})
        late = evolve(LATE, more=57, states=states)
        expected = """
            BUCKET  SERIES    STATE  LAST PUSH  AGE     SIZE  CHANGE  COUNT   TOTAL
            web02   db-#.gz   late   Sat 09:00   3d  1.0 GiB     0 %     14  14 GiB
            web02   (8 more)
        """
        self.assertEqual(block(expected), self.problems(overview(late)))

    def test_uploads(self) -> None:
        """Unfinished uploads follow, and fit a terminal."""
        found = evolve(
            overview(FRESH),
            uploads=(
                unfinished(),
                unfinished("a-very-long-name-of-a-backup-2026-11-24.tar.zst"),
                unfinished("x", length=None, offset=0, rate=None, last_at=NOW - 7),
            ),
        )
        expected = """
            BUCKET  SERIES   STATE  LAST PUSH  AGE     SIZE  CHANGE  COUNT   TOTAL
            web01   db-#.gz  fresh  03:00       6h  1.0 GiB     0 %     14  14 GiB

            BUCKET  UNFINISHED UPLOAD      RECEIVED      OF       RATE  BEGAN  IDLE  EXPIRES
            web01   all.tar                  12 GiB  48 GiB  3.0 MiB/s  06:00   60m      23h
            web01   a-very-lon…24.tar.zst    12 GiB  48 GiB  3.0 MiB/s  06:00   60m      23h
            web01   x                           0 B       -          -  06:00    7s      23h

            1 bucket, no problems found; 3 unfinished uploads; 14 GiB kept, 1.0 TiB free
        """  # noqa: E501
        self.assertEqual(block(expected), self.lines(found, 80))
        many = evolve(
            found, uploads=tuple(unfinished() for _ in range(MOST_UPLOADS + 7))
        )
        *_, last, _, _ = self.lines(many, None)
        self.assertEqual("(7 more)", last.strip())
        self.assertIn(" uploads=3;;;0 free=", status_line(found))

    def test_no_space_known(self) -> None:
        found = Overview(NOW, (FRESH,), None, None, ())
        *_, last = self.lines(found, None)
        self.assertEqual("1 bucket, no problems found; 14 GiB kept", last)

    def test_colors(self) -> None:
        """Only bad states have a color."""
        found = overview(FRESH, SHRUNK, GROWN, WAITED_FOR, UNUSED, DAMAGED, LATE)
        lines = list(status_table(found, UTC, None))
        colors = [
            (click.unstyle(line).split()[0], re.findall(r"\x1b\[(\d+)m", line))
            for line in lines[1:-2]
        ]
        self.assertEqual(
            [
                ("web02", ["31", "0"]),
                ("web02", ["0"]),
                ("rot", ["31", "0"]),
                ("db", ["33", "0"]),
                ("mail", ["33", "0"]),
                ("new", ["33", "0"]),
                ("unused", ["0"]),
                ("web01", ["0"]),
            ],
            colors,
        )

    def test_hostile_names(self) -> None:
        """Control characters are escaped."""
        found = overview(
            bucket(HOSTILE, series(HOSTILE, State.LATE)),
            bucket("x", series("\u202e")),
        )
        for width in (None, 120, 80):
            lines = self.lines(found, width)
            self.assertTrue(all(line.isprintable() for line in lines))
        first = self.lines(found, None)[1]
        escaped = "\\x1b]0;x\\x07|'=1;\\x0a\\u202e\u65e5$(reboot)<b>"
        self.assertTrue(first.startswith(f"{escaped}  {escaped}  late  "), first)


class LineTests(SynchronousTestCase):
    def test_states(self) -> None:
        """The state comes first, then the numbers."""
        rest = " files=14;;;0 bytes=15032385536B;;;0 uploads=0;;;0"
        rest += " free=1099511627776B;;;0;"
        for found, expected, figures in (
            ([FRESH], "OK - 1 bucket fresh", (0, 0, 0, 0, 0, 0, 0, 0)),
            (
                [FRESH, UNUSED],
                "OK - 1 bucket fresh, 1 without a push",
                (0, 0, 0, 0, 0, 0, 0, 0),
            ),
            (
                [
                    evolve(FRESH, retired=True),
                    evolve(WAITED_FOR, paused=Pause(NOW + DAY, "x")),
                    evolve(UNUSED, paused=Pause(NOW + DAY, "x"), retired=True),
                ],
                "OK - 0 buckets fresh, 1 paused, 2 retired",
                (0, 0, 0, 0, 0, 0, 0, 0),
            ),
            (
                [SHRUNK],
                "WARNING - 1 of 1 buckets: db: shop-#.dump shrunk, -80 %",
                (0, 0, 0, 0, 0, 1, 0, 0),
            ),
            (
                [GROWN],
                "WARNING - 1 of 1 buckets: mail: vmail-#.tar grown, x40",
                (0, 0, 0, 0, 0, 0, 1, 0),
            ),
            (
                [FRESH, WAITED_FOR],
                "WARNING - 1 of 2 buckets: new: never, no push yet",
                (0, 0, 0, 0, 0, 0, 0, 1),
            ),
            (
                [EMPTY],
                "CRITICAL - 1 of 1 buckets: dump: db-#.gz empty",
                (0, 0, 0, 1, 0, 0, 0, 0),
            ),
            (
                [UNFINISHED],
                "WARNING - 1 of 1 buckets: big: all.tar unfinished, last push 6h ago",
                (0, 0, 0, 0, 1, 0, 0, 0),
            ),
            (
                [DAMAGED],
                "CRITICAL - 1 of 1 buckets: rot: x-# 2 damaged",
                (0, 1, 0, 0, 0, 0, 0, 0),
            ),
        ):
            line = status_line(overview(*found))
            data = " ".join(
                f"{word}={figures[place] if place is not None else 0};{bounds};0"
                for word, bounds, place in (
                    ("late", ";0", 0),
                    ("failed", ";0", None),
                    ("damaged", ";0", 1),
                    ("missing", ";0", 2),
                    ("empty", ";0", 3),
                    ("full", "0;", None),
                    ("token", "0;", None),
                    ("copy", "0;", None),
                    ("drill", ";0", None),
                    ("unfinished", "0;", 4),
                    ("shrunk", "0;", 5),
                    ("grown", "0;", 6),
                    ("never", "0;", 7),
                    ("daemon", "0;", None),
                    ("catalogue", "0;", None),
                    ("store", "0;", None),
                    ("certificate", "0;", None),
                    ("hook", "0;", None),
                    ("reload", "0;", None),
                    ("node", "0;", None),
                )
            )
            self.assertEqual(
                f"FILEBUCKET {expected} | buckets={len(found)};;;0 {data}{rest}"
                "4398046511104",
                line,
            )

    def test_nodes(self) -> None:
        """The daemons that share the catalogue, as far as they run."""
        nodes = node("a"), node("b", HOUR), node("c")
        self.assertIn(" nodes=2;;;0 ", status_line(evolve(overview(), nodes=nodes)))
        self.assertNotIn("nodes", status_line(overview()))

    def test_problems(self) -> None:
        """Those of the server come first, unless only a bucket is critical. A bucket's
        is shown if it is its worst.
        """
        due = Problem(Kind.RELOAD, WARNING, "a reload is due")
        down = Problem(Kind.DAEMON, CRITICAL, "the daemon | does not run")
        full = Problem(Kind.FULL, CRITICAL, "the last push was refused: no", "a")
        nearly = Problem(Kind.FULL, WARNING, "92 % of the quota is used", "a")
        for expected, buckets, problems in (
            ("CRITICAL - the daemon \\x7c does not run", (FRESH,), (down,)),
            (
                "WARNING - a reload is due; 1 of 1 buckets: db: shop-#.dump shrunk,"
                " -80 %",
                (SHRUNK,),
                (due,),
            ),
            (
                "CRITICAL - 1 of 1 buckets: web02: db-#.gz late, last push 3d ago;"
                " a reload is due",
                (LATE,),
                (due,),
            ),
            (
                "CRITICAL - 1 of 1 buckets: db: the last push was refused: no",
                (evolve(SHRUNK, problems=(full,)),),
                (),
            ),
            (
                "WARNING - 1 of 1 buckets: db: shop-#.dump shrunk, -80 %",
                (evolve(SHRUNK, problems=(nearly,)),),
                (),
            ),
            (
                "WARNING - 1 of 1 buckets: web01: 92 % of the quota is used",
                (evolve(FRESH, problems=(nearly,)),),
                (),
            ),
        ):
            found = evolve(overview(*buckets), problems=problems)
            text, data = status_line(found).split(" | ")
            self.assertEqual(f"FILEBUCKET {expected}", text)
            for word, kind in (("full", Kind.FULL), ("daemon", Kind.DAEMON)):
                count = sum(each.kind is kind for each in problems) + sum(
                    each.kind is kind for one in buckets for each in one.problems
                )
                self.assertIn(f" {word}={count};0;;0 ", data)

    def test_worst_first(self) -> None:
        """At most five buckets are named."""
        found = overview(FRESH, SHRUNK, LATE, GONE)
        text, _ = status_line(found).split(" | ")
        self.assertEqual(
            "FILEBUCKET CRITICAL - 3 of 4 buckets: web02: db-#.gz late, last push"
            " 3d ago; gone: x-# late, 1 damaged, 1 missing, last push 6h ago; db:"
            " shop-#.dump shrunk, -80 %",
            text,
        )
        both = bucket("two", *SHRUNK.series, *LATE.series)
        text, _ = status_line(overview(both)).split(" | ")
        expected = "two: db-#.gz late, last push 3d ago (and 1 more)"
        self.assertTrue(text.endswith(expected), text)
        text, _ = status_line(overview(*[SHRUNK] * 100)).split(" | ")
        self.assertTrue(text.endswith("; and 95 more"), text)

    def test_only_new(self) -> None:
        """New buckets do not hide a bucket with a problem."""
        token = Problem(Kind.TOKEN, WARNING, "its last token expires soon", "old")
        old = evolve(bucket("old", series("x-#")), problems=(token,))
        new = [bucket(f"new{number}") for number in range(6)]
        text, _ = status_line(overview(*new, old)).split(" | ")
        expected = "FILEBUCKET WARNING - 7 of 7 buckets: old: its last token expires"
        self.assertTrue(text.startswith(expected), text)

    def test_no_series_yet(self) -> None:
        text, _ = status_line(overview(bucket("new"))).split(" | ")
        expected = "FILEBUCKET WARNING - 1 of 1 buckets: new is awaiting its first push"
        self.assertEqual(expected, text)

    def test_form(self) -> None:
        """The format of the plugin guidelines: one line, one bar, valid data."""
        data = status_line(overview(LATE)).split(" | ")[1]
        for each in data.split(" "):
            self.assertRegex(each, r"^[a-z]+=\d+B?(;\d*){3}(;\d+)?$")

    def test_hostile_names(self) -> None:
        """No bar, no control character, and short enough for NRPE."""
        for name in (
            HOSTILE,
            "|" * 255,
            "\U0001d400" * 63,
            "a" + "\u0301" * 127,
            "\u65e5" * 85,
            "x" * 255,
        ):
            late = [bucket(name, series(name, State.LATE)) for _ in range(50)]
            self.assert_short(overview(*late))

    def assert_short(self, found: Overview) -> str:
        """The text of the line, which NRPE does not truncate."""
        line = status_line(found)
        self.assertTrue(line.isprintable(), line)
        self.assertEqual(1, line.count("|"))
        self.assertLess(len(line.encode("utf-8")), 1024)
        return line.partition(" | ")[0]

    def test_hostile_report(self) -> None:
        """A client's report of characters without width leaves room for others."""
        for report in ("\u0301" * 2048, "|" * 4096, "\u65e5" * 1365):
            failed = evolve(
                series("x", State.FAILED), failed_at=NOW, failed_text=report
            )
            text = self.assert_short(
                overview(
                    bucket("a", failed),
                    bucket("web02", evolve(failed, failed_text="disk error")),
                    *[bucket("b", failed)] * 5,
                )
            )
            self.assertIn("web02: x failed: disk error", text)

    def test_long_problems(self) -> None:
        """Problems of the server leave room for those of buckets."""
        problems = [Problem(kind, CRITICAL, "x" * 400) for kind in Kind]
        found = evolve(
            overview(*[bucket("y" * 255, series("z", State.LATE))] * 100_000),
            problems=tuple(problems),
        )
        text = self.assert_short(found)
        self.assertIn("100000 of 100000 buckets: yyy", text)
        self.assert_short(evolve(found, buckets=()))


class StatusTests(CatalogueCase):
    def test_in_order(self) -> None:
        """Exits with 0, in all formats."""
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        self.watch()
        lines = self.prints(0, "status")
        self.assertEqual("web01", lines[3].split()[0])
        self.assertEqual(
            [
                "3 buckets, no problems found; 1.0 KiB kept",
                "2 buckets have no schedule.",
            ],
            lines[-2:],
        )
        (line,) = self.prints(0, "status", "--line")
        self.assertTrue(line.startswith("FILEBUCKET OK - 1 bucket fresh, 2"), line)
        found = json.loads("".join(self.prints(0, "status", "--json")))
        self.assertEqual(0, found["severity"])

    def test_worth_a_look(self) -> None:
        """Exits with 1 for an unusual size, or a bucket awaiting its first push."""
        self.watch()
        (line,) = self.prints(1, "status", "--line")
        self.assertIn(" WARNING - 1 of 3 buckets: web01: never, no push yet", line)
        for day in range(5):
            self.push("web01", f"db-{day}.gz", 1000, NOW - (5 - day) * HOUR)
        self.prints(0, "status")
        self.push("web01", "db-6.gz", 100, NOW)
        self.assertIn("-90 %", self.prints(1, "status")[1])

    def test_missing(self) -> None:
        """Exits with 2, even if no daemon ran when the series became late."""
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        self.watch()
        self.now = NOW + 25 * HOUR
        self.assertIn("late", self.prints(2, "status")[1])
        self.prints(0, "status", "db")
        self.now = NOW
        self.prints(0, "status")
        (file,) = self.view.latest(1)
        self.inventory.verified([(file.id, True, NOW)])
        self.assertIn("1 damaged", self.prints(2, "status")[1])
        self.inventory.verified([(file.id, False, NOW)])
        self.inventory.ended(file.id, "missing", NOW)
        self.assertIn("1 missing", self.prints(2, "status")[1])

    def test_cannot_be_said(self) -> None:
        """Exits with 3, and prints the reason."""
        place = str(self.file)
        self.write("x" * 32)
        for text, expected in (
            (
                self.file.read_text(),
                "the catalogue: not created yet; start the daemon or run"
                " filebucket reindex to create it",
            ),
            ("{}", f"{place}: 2 mistakes: $.home: missing $.buckets: missing"),
            (None, f"{place}: cannot be read: No such file or directory"),
        ):
            self.close()
            (self.home / FILE).unlink(missing_ok=True)
            if text is None:
                self.file.unlink()
            else:
                self.file.write_text(text)
            (line,) = self.prints(3, "status", "--line")
            self.assertEqual(f"FILEBUCKET UNKNOWN - {expected}", line)
            words = " ".join(self.prints(3, "status")).split()
            self.assertEqual(f"Error: {expected}", " ".join(words))

    def test_damaged_catalogue(self) -> None:
        self.close()
        path = self.home / FILE
        for name in self.home.glob(f"{FILE}-*"):
            name.unlink()
        path.write_bytes(b"not a database, not a database" * 1000)
        (line,) = self.prints(3, "status", "--line")
        expected = "FILEBUCKET UNKNOWN - the catalogue: file is not a database"
        self.assertEqual(expected, line)

    def test_bug(self) -> None:
        """A bug exits with 3 and a traceback."""
        self.push("web01", "a", 1, NOW)
        with closing(sqlite3.connect(self.home / FILE)) as connection:
            connection.execute("UPDATE series SET state = 'frosh'")
            connection.commit()
        result = self.invoke("status", "--line")
        self.assertEqual(3, result.exit_code)
        said = "FILEBUCKET UNKNOWN - a bug in file-bucket"
        self.assertIn(said, result.output.splitlines())
        self.assertIn("'frosh' is not a valid State", result.output)

    def test_hostile_catalogue(self) -> None:
        """Control characters in SQLite's errors are escaped."""
        with closing(sqlite3.connect(self.home / FILE)) as connection:
            connection.execute("PRAGMA writable_schema = 1")
            connection.execute(
                "UPDATE sqlite_master SET name = char(27) || '[2J', sql = 'x'"
                " WHERE name = 'push_came'"
            )
            connection.commit()
        (line,) = self.prints(3, "status")
        self.assertIn("\\x1b[2J", line)
        self.assertTrue(line.isprintable())

    def test_hostile_hook(self) -> None:
        """The daemon's user writes the catalogue, and root may read it."""
        self.watch()
        with closing(sqlite3.connect(self.home / FILE)) as connection:
            row = "\x1b]0;x\x07", "", NOW, NOW, "\x1b[2J"
            connection.execute(
                "INSERT INTO hook_failure VALUES (?, ?, '', ?, ?, ?)", row
            )
            connection.commit()
        lines = self.prints(1, "status")
        self.assertEqual([], [each for each in lines if not each.isprintable()])

    def test_long_reason(self) -> None:
        """A reason is cut to the length of a plugin's line, without a bar."""
        self.file.write_text(json.dumps({f"a|{n}": 1 for n in range(100)}))
        (line,) = self.prints(3, "status", "--line")
        self.assertNotIn("|", line)
        self.assertLess(len(line), 500)

    def test_misused(self) -> None:
        """Exits with 3, because 2 is CRITICAL."""
        for arguments, expected in (
            (["--nothing"], "No such option"),
            (["--line", "--json"], "--line and --json exclude"),
            (["--line", "--problems"], "--line and --problems exclude"),
            (["web1"], "there is no bucket 'web1'; did you mean 'web01'?"),
            (["web01", TOKEN], "there is no bucket (a token?)"),
        ):
            *_, last = self.prints(3, "status", *arguments)
            self.assertIn(expected, last)
        (line,) = self.prints(3, "status", "--line", "web1")
        self.assertTrue(line.startswith("FILEBUCKET UNKNOWN - there is no"), line)
        self.write()
        *_, last = self.prints(3, "status", "web01")
        self.assertEqual("Error: there is no bucket 'web01'", last)

    def test_chosen(self) -> None:
        self.push("db", "a", 1, NOW)
        self.push("web01", "b", 2, NOW)
        self.push(LABEL, "c", 3, NOW)
        lines = self.prints(0, "status", "db", LABEL, "db")
        self.assertEqual(["db", LABEL], [each.split()[0] for each in lines[1:3]])
        summary = "2 buckets, no problems found; 4 B kept"
        schedule = (
            "No bucket has an expect schedule, so late backups cannot be detected."
        )
        self.assertEqual([summary, schedule], lines[-2:])

    def test_problems(self) -> None:
        """Nothing else is shown; the exit status is the same."""
        self.push("db", "a", 1, NOW)
        self.push("web01", "b-1", 2, NOW - 30 * HOUR)
        self.push("web01", "c-1", 2, NOW)
        self.refuse(self.buckets["db"].key, "a", 1)
        self.watch()
        lines = self.prints(2, "status", "--problems")
        self.assertEqual(["web01", "b-#", "late"], lines[1].split()[:3])
        self.assertEqual(2, len(lines))
        found = json.loads("".join(self.prints(2, "status", "--problems", "--json")))
        (bucket,) = found["buckets"]
        (late,) = bucket["series"]
        self.assertEqual(("web01", "b-#"), (bucket["bucket"], late["series"]))
        self.assertEqual((2, 0), (found["severity"], bucket["more_series"]))
        self.assertEqual(([], []), (found["refusals"], found["uploads"]))
        lines = self.prints(0, "status", "--problems", "db")
        self.assertEqual(["no problems found"], lines)
        found = json.loads(
            "".join(self.prints(0, "status", "--problems", "--json", "db"))
        )
        self.assertEqual((0, []), (found["severity"], found["buckets"]))

    def test_too_full(self) -> None:
        """Exits with 2, whatever the backups are."""
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        self.watch()
        self.write(*self.keys, min_free_space="100 %")
        text = "no push can be stored: free space is below min_free_space"
        lines = self.prints(2, "status")
        self.assertEqual([f"{text.capitalize()}.", ""], lines[-3:-1])
        last = "3 buckets; the server has 1 problem; 1.0 KiB kept"
        self.assertEqual(last, lines[-1])
        (line,) = self.prints(2, "status", "--line")
        self.assertTrue(line.startswith(f"FILEBUCKET CRITICAL - {text} | "), line)
        self.now = NOW + 25 * HOUR
        (line,) = self.prints(2, "status", "--line", "web01")
        self.assertIn(f"{text}; 1 of 1 buckets: web01: ", line)
        found = json.loads("".join(self.prints(2, "status", "--json")))
        problem = {"kind": "full", "severity": 2, "text": text}
        self.assertEqual((2, [problem]), (found["severity"], found["problems"]))

    def test_copies_of_some(self) -> None:
        """A bucket with files that was never copied there is named."""
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        copies = opened(self, Copies, self.home)
        copies.copied("https://far", "web01", NOW, NOW, None)
        self.watch()
        self.assertIn(
            "copied to https://far until 09:00; ", " ".join(self.prints(0, "status"))
        )
        self.push("db", "db-1.gz", 1000, NOW - HOUR)
        self.assertIn(
            "copied to https://far until 09:00, except 1 bucket (db); ",
            " ".join(self.prints(0, "status")),
        )

    def test_copies(self) -> None:
        """How far all buckets are copied, and what is wrong with one."""
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        self.watch()
        copies = opened(self, Copies, self.home)
        for key, until in (("web01", NOW), ("db", NOW - HOUR)):
            copies.copied("https://far", key, until, NOW, None)
        copies.copied("https://other", "web01", NOW, NOW, None)
        copies.copied("https://other", "web01", None, NOW, "away")
        copies.copied("https://gone", "gone", NOW, NOW, None)
        lines = self.prints(1, "status")
        self.assertIn("web01: the copy to https://other failed: away.", lines)
        self.assertIn(
            "3 buckets: 1 whose copy failed (web01); copied to https://far until"
            " 08:00; not yet copied to https://other; 1.0 KiB kept",
            lines[-1],
        )
        (line,) = self.prints(1, "status", "--line")
        self.assertIn("web01: the copy to https://other failed: away", line)
        self.assertIn(" copy=1;0;;0 ", line)
        found = json.loads("".join(self.prints(1, "status", "--json")))
        self.assertEqual(
            [
                {
                    "target": "https://far",
                    "until": "2026-11-24T09:00:00.000Z",
                    "at": "2026-11-24T09:00:00.000Z",
                    "error": None,
                    "waiting_since": None,
                },
                {
                    "target": "https://other",
                    "until": None,
                    "at": "2026-11-24T09:00:00.000Z",
                    "error": "away",
                    "waiting_since": "2026-11-24T08:00:00.000Z",
                },
            ],
            found["buckets"][0]["copies"],
        )

    def test_no_daemon(self) -> None:
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        self.watch()
        self.prints(0, "status")
        self.daemon = None
        text = "the daemon does not run: no push arrives"
        self.assertIn(f"{text[0].upper()}{text[1:]}.", self.prints(2, "status"))
        (line,) = self.prints(2, "status", "--line")
        self.assertTrue(line.startswith(f"FILEBUCKET CRITICAL - {text}"), line)
        found = json.loads("".join(self.prints(2, "status", "--json", "web01")))
        (problem,) = found["problems"]
        self.assertEqual(("daemon", 2), (problem["kind"], problem["severity"]))
        for arguments in ((), ("--line",), ("--json",)):
            self.prints(0, "status", "--no-daemon", *arguments)

    def test_reload_due(self) -> None:
        """Buckets that are not applied yet."""
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        self.watch()
        applied = Applied("", self.config.keys, fingerprints(self.config.buckets[1:]))
        daemon = status_file(str(self.home), str(self.file), applied)
        daemon.startService()
        self.addCleanup(daemon.stopService)
        text = "a reload is due (1 new bucket is refused with 403: web01)"
        (line,) = self.prints(1, "status", "--line")
        self.assertTrue(line.startswith(f"FILEBUCKET WARNING - {text}"), line)
        self.prints(0, "status", "--no-daemon")

    def test_tokens(self) -> None:
        """The summary tells what is the matter with them."""
        self.write(
            *(
                {"name": name, "token_sha256": digit * 64, "expires": day}
                for name, digit, day in (
                    ("gone", "1", "2026-11-01"),
                    ("soon", "2", "2026-12-01"),
                    ("fine", "3", "2027-12-01"),
                )
            )
        )
        self.assertEqual(
            "3 buckets: 1 without a valid token (gone), 1 with a token that expires"
            " soon (soon); 0 B kept",
            self.prints(2, "status")[-1],
        )

    def test_full_bucket(self) -> None:
        """The problems of a bucket stand below the table."""
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        self.watch()
        self.refuse("web01", "x", -1, status=507, reason="no \x1b space")
        text = "the last push was refused: no \\x1b space"
        lines = self.prints(2, "status")
        self.assertEqual([f"web01: {text}.", ""], lines[-3:-1])
        found = json.loads("".join(self.prints(2, "status", "--json", "web01")))
        (bucket,) = found["buckets"]
        self.assertEqual(("fresh", 2), (bucket["state"], bucket["severity"]))
        (problem,) = bucket["problems"]
        self.assertEqual(("full", 2), (problem["kind"], problem["severity"]))

    def drill(self, name: str, age: float, error: str | None = None) -> None:
        """Record a restore test of a file in the bucket ``db``."""
        with closing(Files.open(str(self.home))) as files:
            file = files.named("db", name)
            assert file is not None
            self.assertTrue(files.drilled(Drill(file, NOW - age, error)))

    def test_drills(self) -> None:
        """Of each series, by all ways of status."""
        for name in (f"{TOKEN}-1", "etc-1", "log-1"):
            self.push("db", name, 1000, NOW - 9 * DAY)
        self.drill(f"{TOKEN}-1", 6 * DAY)
        lines = self.prints(0, "status", "db")
        self.assertTrue(lines[0].endswith("  TOTAL  RESTORED"), lines[0])
        self.assertEqual(
            [["#f#fa-#", "6d"], ["etc-#", "-"], ["log-#", "-"]],
            [[each.split()[1], each.split()[-1]] for each in lines[1:4]],
        )
        self.drill("etc-1", 2 * HOUR, "the command exited with 1")
        *lines, summary = self.prints(2, "status", "db")
        self.assertRegex(lines[2], r"etc-#.* failed$")
        text = "the restore test of etc-# failed 2 h ago: the command exited with 1"
        self.assertIn(f"db: {text}.", lines)
        self.assertIn("1 with a failed or overdue restore test (db); ", summary)
        (line,) = self.prints(2, "status", "--line", "db")
        self.assertIn(f"CRITICAL - 1 of 1 buckets: db: {text} | ", line)
        self.assertIn(" drill=1;;0;0 ", line)
        found = json.loads("".join(self.prints(2, "status", "db", "--json")))
        (bucket,) = found["buckets"]
        self.assertEqual("2026-11-18T09:00:00.000Z", bucket["restored_at"])
        self.assertEqual(
            [{"kind": "drill", "severity": 2, "text": text}], bucket["problems"]
        )
        self.assertEqual(
            [f"{LABEL}-1", "etc-1", None],
            [each["drilled_name"] for each in bucket["series"]],
        )

    def test_overdue_drill(self) -> None:
        """In the table only if there was one."""
        self.write({"name": "db", "token_sha256": "02" * 32, "drill": "7d"})
        self.push("db", "etc-1", 1000, NOW - 9 * DAY)
        lines = self.prints(2, "status")
        self.assertFalse(lines[0].endswith("RESTORED"))
        text = "no restore test has passed yet; one is due every 7d"
        self.assertIn(f"db: {text}.", lines)
        self.drill("etc-1", 6 * DAY)
        self.prints(0, "status")

    def test_json(self) -> None:
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        self.watch()
        self.journal.note_space(Space(NOW - HOUR, 11, 20))
        disk = Filesystem(total=20, free=10, reserved=0, read_only=False)
        self.patch(known, "look_at_filesystem", lambda *_: disk)
        self.refuse(self.buckets["db"].key, f"x-{TOKEN}", -1)
        self.refuse("", None, -1, status=403)
        found = json.loads("".join(self.prints(0, "status", "web01", "db", "--json")))
        self.assertEqual(
            {
                "bucket": "web01",
                "state": "fresh",
                "severity": 0,
                "expect": "26h",
                "comment": "",
                "paused": None,
                "retired": False,
                "quota": None,
                "restored_at": None,
                "drill_due": None,
                "last_at": "2026-11-24T08:00:00.000Z",
                "files": 1,
                "bytes": 1000,
                "damaged": 0,
                "missing": 0,
                "problems": [],
                "copies": [],
                "series": [
                    {
                        "series": "db-#.gz",
                        "state": "fresh",
                        "severity": 0,
                        "state_at": "2026-11-24T08:00:00.000Z",
                        "due": "2026-11-25T10:00:00.000Z",
                        "last_at": "2026-11-24T08:00:00.000Z",
                        "last_name": "db-1.gz",
                        "last_size": 1000,
                        "age": 3600.0,
                        "usual_size": None,
                        "change": None,
                        "pushes": 1,
                        "files": 1,
                        "bytes": 1000,
                        "damaged": 0,
                        "missing": 0,
                        "failed_at": None,
                        "failed_text": None,
                        "drilled_at": None,
                        "drilled_name": None,
                        "drill_error": None,
                        "restored_at": None,
                    }
                ],
                "more_series": 0,
            },
            found["buckets"][1],
        )
        del found["buckets"]
        self.assertEqual(
            {
                "at": "2026-11-24T09:00:00.000Z",
                "severity": 0,
                "problems": [],
                "free": 10,
                "capacity": 20,
                "nodes": [],
                "free_at": "2026-11-24T09:00:00.000Z",
                "full_at": None,
                "refusals": [
                    {
                        "bucket": "db",
                        "at": "2026-11-24T08:59:00.000Z",
                        "name": f"x-{LABEL}",
                        "size": None,
                        "status": 405,
                        "reason": "the file exists",
                        "client": "192.0.2.7:5000",
                        "request": "r2",
                    }
                ],
                "uploads": [],
            },
            found,
        )

    def uploads(self, *buckets: str) -> list[Any]:
        """As JSON shows them."""
        result = self.invoke("status", "--json", *buckets)
        self.assertEqual(0, result.exit_code, result.output)
        found = json.loads(result.output)["uploads"]
        assert isinstance(found, list)
        return found

    def test_unfinished(self) -> None:
        """Uploads are read from their records; tokens in their names are hidden."""
        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        folder = self.home / UPLOADS
        folder.mkdir()
        for number, (label, name, age) in enumerate(
            [("db", f"x-{TOKEN}", 9.0), ("web01", "all.tar", 99.0), ("db", "y", 5.0)]
        ):
            upload = Unfinished(
                f"{number:032x}",
                self.buckets[label].key,
                *("ab" * 32, name, "r1", NOW - 100, NOW - age, "cd" * 32),
                seconds=10.0,
                offset=2000,
                finished=Finished(2000, "cd" * 32) if name == "y" else None,
            )
            path = folder / f"{upload.id}.json"
            path.write_text(json.dumps(asdict(upload)))
        (folder / ("f" * 32 + ".json")).write_text("{")
        found = self.uploads()
        second = found[1]
        self.assertEqual(["all.tar", f"x-{LABEL}"], [each["name"] for each in found])
        self.assertEqual(
            {
                "bucket": "db",
                "name": f"x-{LABEL}",
                "received": 2000,
                "size": None,
                "rate": 200,
                "since": "2026-11-24T08:58:20.000Z",
                "last_at": "2026-11-24T08:59:51.000Z",
                "expires": "2026-11-25T08:59:51.000Z",
            },
            second,
        )
        (first,) = self.uploads("web01")
        self.assertEqual("all.tar", first["name"])

    def test_nodes(self) -> None:
        """The daemons that share the catalogue: a table, and JSON."""
        full = Problem(Kind.FULL, WARNING, "b: the disk is nearly full", node="b")
        other = NodeReport("1.3", {"buckets": "ef", "store": "cd"}, (full,))
        nodes = (
            node("a"),
            node("b", 3.0, report=other),
            node("c", 7200.0),
            node("d", 9 * DAY, stopped=True),
        )
        found = evolve(overview(FRESH), nodes=nodes)
        lines = list(status_table(found, UTC, None))
        start = lines.index(next(each for each in lines if "DAEMON" in each))
        self.assertEqual(
            [
                "a       leads      5s      60m  1.2      -",
                "b       runs       3s      60m  1.3      differs: buckets",
                "c       gone       2h        -  1.2      -",
                "d       stopped    9d        -  1.2      -",
                "",
            ],
            lines[start + 1 : start + 6],
        )
        second = status_json(found)["nodes"][1]
        self.assertEqual(
            {
                "node": "b",
                "state": "runs",
                "leads": False,
                "version": "1.3",
                "started": "2026-11-24T08:00:00.000Z",
                "seen": "2026-11-24T08:59:57.000Z",
                "differs": ["buckets"],
                "problems": [
                    {
                        "kind": "full",
                        "severity": 1,
                        "text": "b: the disk is nearly full",
                        "node": "b",
                    }
                ],
            },
            second,
        )
        self.assertTrue(status_json(found)["nodes"][0]["leads"])
        self.assertEqual([], status_json(overview())["nodes"])

    def test_json_of_all_states(self) -> None:
        found = overview(LATE, SHRUNK, GROWN, WAITED_FOR, UNUSED, DAMAGED, MANY, GONE)
        json.dumps(status_json(found), allow_nan=False)

    def test_masked(self) -> None:
        """Also a token in the name of another bucket's file."""
        self.push("db", f"{TOKEN}.gz", 1, NOW)
        self.assertIn(f"{LABEL}.gz", "".join(self.prints(0, "status", "db", "--json")))

    def test_completion(self) -> None:
        complete = BashComplete(main.main, {}, "filebucket", "_X")
        for command in ("status", "log"):
            given = [command, "--config", str(self.file)]
            found = [each.value for each in complete.get_completions(given, "w")]
            self.assertEqual(["web01"], found)

    def test_nothing_is_made(self) -> None:
        """status creates no file."""
        self.close()
        for name in os.listdir(self.home / ".filebucket"):
            (self.home / ".filebucket" / name).unlink()
        for command in ("status", "log"):
            self.assertNotEqual(0, self.invoke(command).exit_code)
        self.assertEqual([], os.listdir(self.home / ".filebucket"))
