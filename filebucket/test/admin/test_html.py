"""The page as HTML, with normal and with hostile names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from attrs import define, evolve, field
from twisted.trial.unittest import SynchronousTestCase

from filebucket.admin import html
from filebucket.admin.view import MOST_ROWS, WORDS
from filebucket.catalogue.overview import BucketOverview
from filebucket.config.address import FirstSteps
from filebucket.model.bucket import Pause
from filebucket.model.node import NodeReport
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem
from filebucket.model.push import Receiving
from filebucket.model.records import Refused
from filebucket.model.state import State
from filebucket.test.kit.overviews import (
    DAY,
    GIB,
    HOUR,
    LATE,
    NOW,
    bucket,
    never,
    node,
    overview,
    series,
    unfinished,
)

BERLIN = ZoneInfo("Europe/Berlin")

HOSTILE = (
    "<script>window.canary = 1</script>",
    '"><img src=x onerror="window.canary = 1">',
    "' onmouseover='window.canary = 1",
    "</title></bdi></table></main><style>*{display:none}</style>",
    "--><!-- ]]>",
    "&lt;b&gt;&amp;#",
    "{{canary}} ${canary}",
    "{% include 'base.html' %}{# #}",
    "  spaces   at all sides  ",
    "שלום-#.tar",
    "x" * 255,
    "e" + "\u0301" * 100,
)
"""Names that are shown unchanged."""

DECEPTIVE = {
    "gz.\u202etxt.exe\u2066": "gz.\\u202etxt.exe\\u2066",
    "db\u200b\u200d\ufeff\u00ad.gz": "db\\u200b\\u200d\\ufeff\\xad.gz",
    "\x1b[2J\x7f\r\n": "\\x1b[2J\\x7f\\x0d\\x0a",
    "no\u00a0break\u2003": "no\\xa0break\\u2003",
}
"""Names that look like others, and how they must be shown."""

VOID = {"meta", "link", "input"}


@define
class Node:
    """An element of a page."""

    name: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(factory=list)

    @property
    def text(self) -> str:
        return "".join(each if isinstance(each, str) else each.text for each in self)

    def __iter__(self) -> Iterator[Node | str]:
        return iter(self.children)

    def all(self, name: str = "", **attributes: str) -> list[Node]:
        """The elements with this name and these attributes."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        found = []
        for each in self.children:
            if isinstance(each, Node):
                if (
                    name in {"", each.name}
                    and wanted.items() <= each.attributes.items()
                ):
                    found.append(each)
                found += each.all(name, **attributes)
        return found

    def one(self, name: str = "", **attributes: str) -> Node:
        (found,) = self.all(name, **attributes)
        return found


class Reader(HTMLParser):
    """Parses a page, and checks that all elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        if len(node.attributes) != len(attrs):
            raise ValueError(f"an attribute twice: {attrs}")
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop().name != tag:
            raise ValueError(f"{tag} is closed, and is not open")

    def handle_data(self, data: str) -> None:
        if data.isspace() and "\n" in data:
            return  # the template's, between elements; of a name it would be an escape
        self.open[-1].children.append(data)


def read(page: bytes) -> Node:
    """Parse the page."""
    reader = Reader()
    reader.feed(page.decode("utf-8"))
    reader.close()
    (root,) = reader.open
    return root


def show(*buckets: BucketOverview, **given: Any) -> Node:
    return read(html.page(overview(*buckets, **given), BERLIN))


class PageTests(SynchronousTestCase):
    def row(self, *buckets: BucketOverview) -> dict[str | None, str]:
        """The text of each column of the only row."""
        (body,) = show(*buckets).one(id="backups").all("tbody")
        row = body.one("tr")
        return {
            each.attributes["class"]: each.text
            for each in row
            if isinstance(each, Node)
        }

    def test_frame(self) -> None:
        page = show(bucket("web01", series()))
        self.assertEqual("en", page.one("html").attributes["lang"])
        title = page.one("head").one("title")
        self.assertEqual("Every backup arrived - file-bucket", title.text)
        self.assertEqual("ok.svg", page.one("link", rel="icon").attributes["href"])
        for landmark in ("header", "main", "nav", "footer", "h1"):
            page.one(landmark)
        self.assertEqual("As of 10:00:00 CET", page.one(id="looked").text)
        self.assertEqual(
            "All times are server time (CET, UTC+01:00).",
            page.one(id="zone").text,
        )

    def test_universal_time(self) -> None:
        page = read(html.page(overview(), UTC))
        self.assertEqual("All times are server time (UTC).", page.one(id="zone").text)

    def test_icons(self) -> None:
        for name, found in (
            ("ok.svg", series()),
            ("look.svg", series(state=State.SHRUNK)),
            ("bad.svg", series(**LATE)),
        ):
            page = show(bucket("a", found))
            self.assertEqual(name, page.one("link", rel="icon").attributes["href"])

    def test_no_buckets(self) -> None:
        page = show(space=None)
        self.assertEqual([], page.one(id="backups").children)
        self.assertEqual([], page.all("input"))
        self.assertIn("Free spacenot measured yet", page.one(id="figures").text)
        self.assertIn("No refused pushes.", page.one(id="refusals").text)

    def test_first_steps(self) -> None:
        """The next command, if there is no bucket, or one without a push."""
        steps = FirstSteps("bucket add <a>", "curl <b>", None)
        pushed, new = bucket("a", series()), bucket("b", never())
        gone = bucket("c", never(), retired=True)

        def shown(*buckets: BucketOverview, given: FirstSteps = steps) -> Node:
            return read(html.page(overview(*buckets), UTC, (), given))

        page = shown()
        self.assertIn("bucket add <a>", page.one(id="overall").text)
        self.assertEqual([], page.one(id="first").children)
        self.assertEqual([], shown(pushed, gone).one(id="first").children)
        details = shown(new).one(id="pushing")
        self.assertIn("open", details.attributes)
        self.assertEqual("curl <b>", details.one("pre").text)
        self.assertNotIn("CERT", details.text)
        details = shown(pushed, new).one(id="pushing")
        self.assertNotIn("open", details.attributes)
        self.assertIn("1 bucket has none yet", details.one("summary").text)
        steps = evolve(steps, certificate="/cert.pem")
        self.assertIn("/cert.pem", shown(new, given=steps).one(id="pushing").text)

    def test_row(self) -> None:
        self.assertEqual(
            {
                "bucket": "web01expected every 26h",
                "is": "In order",
                "series": "db-#.gz",
                "when": "3 h ago",
                "due": "in 23 h",
                "size": "1.0 GiB",
                "change": "as usual",
                "trend": "Sizes of the last 2 pushes: 1.0 GiB to 1.0 GiB,"
                " usually 1.0 GiB, the last one 1.0 GiB",
                "files": "14",
                "total": "14 GiB",
            },
            self.row(bucket("web01", series())),
        )

    def test_states(self) -> None:
        for word, due, found in (
            ("In order", "in 23 h", series()),
            ("Late", "2 days overdue", series(**LATE)),
            ("Failed", "in 23 h", series(state=State.FAILED)),
            ("Empty", "in 23 h", series(state=State.EMPTY)),
            ("Shrunk", "in 23 h", series(state=State.SHRUNK)),
            ("Grown", "in 23 h", series(state=State.GROWN)),
            ("Nothing yet", "in 23 h", never()),
            ("In order", "no schedule", series(due=float("inf"))),
        ):
            row = self.row(bucket("a", found))
            self.assertEqual((word, due), (row["is"], row["due"]))

    def test_every_state_is_explained(self) -> None:
        page = show(bucket("a"))
        explained = [each.text for each in page.one(id="meanings").all("dt")]
        for state in State:
            row = self.row(bucket("a", series(state=state)))
            self.assertIn(row["is"], explained)

    def test_lost(self) -> None:
        row = self.row(bucket("a", series(damaged=1234, missing=1)))
        self.assertEqual("1,234 damaged1 missing", row["is"])
        page = show(bucket("a", series(damaged=1)))
        self.assertEqual([], page.one(id="troubled").all("tr", class_="fresh"))
        row = self.row(bucket("a", series(damaged=1, **LATE)))
        self.assertEqual("Late1 damaged", row["is"])

    def test_waiting(self) -> None:
        row = self.row(bucket("a", never()))
        self.assertEqual("first push", row["series"])
        self.assertEqual("never", row["when"])
        self.assertEqual("", row["size"] + row["change"] + row["trend"])

    def test_nodes(self) -> None:
        """The daemons that share the catalogue, if any do."""
        nodes = node("a"), node("<b>", report=NodeReport("1.2", {"buckets": "ef"}))
        first, second = show(nodes=nodes).one(id="nodes").all("li")
        self.assertEqual("a leads file-bucket 1.2, just now", first.text)
        text = "<b> runs file-bucket 1.2, just now; other configuration: buckets"
        self.assertEqual(text, second.text)
        self.assertEqual([], show().one(id="nodes").children)

    def test_problems(self) -> None:
        """Problems of the server below the headline, of a bucket below its name."""
        problems = [
            Problem(Kind.CATALOGUE, CRITICAL, "<b> cannot be written"),
            Problem(Kind.RELOAD, WARNING, "a reload is due"),
        ]
        ends = Problem(Kind.TOKEN, WARNING, "its last token expires soon")
        page = show(bucket("a", series(), problems=(ends,)), problems=problems)
        self.assertEqual(
            [
                ("problem bad", "<b> cannot be written"),
                ("problem look", "A reload is due"),
            ],
            [
                (each.attributes["class"], each.text)
                for each in page.one(id="problems").all("li")
            ],
        )
        head = page.one(id="troubled").one("th", scope="rowgroup")
        self.assertEqual(
            "Its last token expires soon",
            head.one("small", class_="problem look").text,
        )
        self.assertEqual([], show(bucket("a")).one(id="problems").children)
        page = show(problems=problems)
        self.assertIn("The server has 2 problems", page.one("h1").text)
        self.assertIn("There are no buckets yet. Create", page.one(id="overall").text)
        self.assertEqual([], page.all("input"))

    def test_notes(self) -> None:
        """The comment of a bucket, and its pause."""
        pause = Pause(NOW + 7 * DAY, "<i> moves")
        for comment in HOSTILE:
            found = bucket("a", series(), comment=comment, paused=pause)
            head = show(found).one("th", scope="rowgroup")
            self.assertEqual(comment, head.one("small", class_="comment").text)
            self.assertEqual(
                "paused until 2026-12-01T09:00:00Z: <i> moves",
                head.one("small", class_="pause").text,
            )

    def test_restored(self) -> None:
        """When a restore test passed last, below the name of the bucket."""
        head = show(bucket("a", series())).one("th", scope="rowgroup")
        self.assertNotIn("restored", head.text)
        found = bucket("a", series(), restored_at=NOW - 6 * DAY)
        head = show(found).one("th", scope="rowgroup")
        self.assertIn("restored 6 days ago", head.text)
        self.assertEqual(
            "restore test passed Wed 2026-11-18 10:00:00 CET",
            head.one("time").attributes["title"],
        )

    def test_retired(self) -> None:
        page = show(bucket("a", series(), retired=True), bucket("b", series()))
        lists = page.one(id="backups").all("details")
        self.assertEqual(["calm", "retired"], [each.attributes["id"] for each in lists])
        self.assertNotIn("open", lists[1].attributes)
        head = lists[1].one("th", scope="rowgroup")
        self.assertEqual("a", head.one("bdi").text)
        self.assertIn("1 retired", page.one(id="places").text)

    def test_reports(self) -> None:
        """The first line of a client's report, and the others on request."""
        for text in HOSTILE:
            failed: Any = {"state": State.FAILED, "failed_at": NOW - 60}
            found = series(**failed, failed_text=f"exited 1\n{text}x")
            page = show(bucket("a", found, series("", **failed, failed_text=text)))
            first, second = page.one(id="troubled").all("tr", class_="report")
            details = first.one("details", id="report-1")
            self.assertEqual(
                "reported 1 min ago: exited 1", details.one("summary").text
            )
            self.assertEqual(f"{text}x", details.one("pre").text)
            self.assertEqual(f"reported 1 min ago: {text.strip()}", second.text)
            self.assertEqual([], second.all("details"))
        heads = page.one(id="troubled").all("th", class_="series", scope="row")
        self.assertEqual("whole bucket", heads[1].text)

    def test_without_series(self) -> None:
        row = self.row(bucket("a", expect=None))
        self.assertEqual({"bucket": "a", "is": "Nothing yet"}, row)

    def test_schedule_and_quota(self) -> None:
        row = self.row(bucket("a", series(), expect="0 2 * * * UTC", quota=28 * GIB))
        self.assertEqual(
            "aschedule: 0 2 * * * UTC14 GiB of 28 GiB (50%)", row["bucket"]
        )

    def test_exact_times(self) -> None:
        page = show(bucket("a", series(**LATE, last_client="[::1]:9")))
        body = page.one(id="backups").one("tbody")
        found = [each.attributes for each in body.all("time")]
        self.assertEqual(
            [
                {
                    "datetime": "2026-11-21T06:00:00+01:00",
                    "title": "db-24.gz, Sat 2026-11-21 06:00:00 CET, from [::1]:9",
                },
                {
                    "datetime": "2026-11-22T08:00:00+01:00",
                    "title": "was due Sun 2026-11-22 08:00:00 CET",
                },
            ],
            found,
        )

    def test_beyond_all_calendars(self) -> None:
        row = self.row(bucket("a", series(last_at=NOW - 3 * HOUR, due=1e15)))
        self.assertIn("years", row["due"])

    def test_worst_first(self) -> None:
        page = show(
            bucket("calm1", series()),
            bucket("odd", series(state=State.SHRUNK)),
            bucket("late1", series(**LATE)),
            bucket("calm2", series()),
            bucket("late2", series(**LATE)),
        )
        heads = page.one(id="backups").all("th", scope="rowgroup")
        self.assertEqual(
            ["late1", "late2", "odd", "calm1", "calm2"],
            [each.one("bdi").text for each in heads],
        )
        lists = [
            each.attributes["id"] for each in page.one(id="backups").all("details")
        ]
        self.assertEqual(["troubled", "calm"], lists)
        self.assertEqual(
            ["3 need attention", "2 in order"],
            [each.text for each in page.one("nav").all("a")],
        )

    def test_rows_of_a_bucket(self) -> None:
        page = show(bucket("a", series("x"), series("y"), more=7))
        body = page.one(id="backups").one("tbody")
        # That row belongs to the bucket, too.
        self.assertEqual("3", body.one("th", scope="rowgroup").attributes["rowspan"])
        *_, last = body.all("tr")
        self.assertEqual("and 7 more series, none in a worse state", last.text)

    def test_fold(self) -> None:
        """After five series in order, the others are folded."""
        fine = [series(f"s{number}") for number in range(7)]
        page = show(bucket("a", *fine, more=7), bucket("b", *fine[:5]))
        first, second = page.one(id="calm").all("tbody")
        fold = first.one("tr", class_="more fold")
        self.assertEqual("9 more series in order", fold.text)
        details = fold.one("details", id="fold-a")
        self.assertNotIn("open", details.attributes)
        rows = [each for each in first if isinstance(each, Node)]
        self.assertEqual(5, rows.index(fold))
        self.assertEqual(9, len(rows))
        self.assertEqual([], second.all("details"))

    def test_each_table_is_one(self) -> None:
        page = show(
            bucket("a", *(series(f"s{number}") for number in range(7)), more=7),
            bucket("b", expect=None),
        )
        for table in page.one(id="backups").all("table"):
            columns = len(table.one("thead").all("th", scope="col"))
            for body in table.all("tbody"):
                first, *others = body.all("tr")
                for row, before in ((first, 0), *((each, 1) for each in others)):
                    cells = [each for each in row if isinstance(each, Node)]
                    spans = (int(each.attributes.get("colspan") or 1) for each in cells)
                    self.assertEqual(columns, before + sum(spans))

    def test_figures(self) -> None:
        page = show(bucket("a", series("x"), series("y"), more=7), bucket("b", never()))
        found = [each.text for each in page.one(id="figures").all("div")]
        self.assertEqual(
            [
                "Buckets210 series",
                "Kept28 GiB28 files",
                "Last push3 h agoa",
                "Free space30 GiB of 100 GiBfull in about 4 months at this rate",
            ],
            found,
        )

    def test_forecasts(self) -> None:
        full = [
            Problem(Kind.FULL, severity, "the disk is full")
            for severity in (WARNING, CRITICAL)
        ]
        for expected, kind, full_at, problems in (
            ("no downward trend so far", "", None, ()),
            ("lasts more than 10 years at this rate", "", NOW + 4000 * DAY, ()),
            ("full in about 9 days at this rate", "look", NOW + 9 * DAY, full[:1]),
            ("no downward trend so far", "bad", None, full[1:]),
        ):
            page = show(bucket("a"), full_at=full_at, problems=problems)
            last = page.one(id="figures").all("dd")[-1]
            self.assertEqual(expected, last.text)
            marks = [each.attributes["class"] for each in last.all("span")]
            self.assertEqual([f"problem {kind}"] if kind else [], marks)

    def test_uploads(self) -> None:
        """Uploads under way, if there are any."""
        page = show(bucket("web01", series()))
        self.assertEqual([], page.one(id="unfinished").all())
        found = [unfinished(HOSTILE[0]), unfinished("x", length=None, rate=None)]
        page = show(bucket("web01", series()), uploads=(*found, *found * 50))
        first, second, *rest = page.one(id="uploads").one("tbody").all("tr")
        self.assertEqual(99, len(rest))
        self.assertIn("and 2 more uploads", rest[-1].text)
        self.assertEqual(
            [
                *("web01", HOSTILE[0], "12 GiB of 48 GiB (25%)", "3.0 MiB/s"),
                *("3 h ago", "1 h ago", "in 23 h"),
            ],
            [each.text for each in first if isinstance(each, Node)],
        )
        self.assertEqual("25.0", first.one("rect").attributes["width"])
        self.assertEqual([], second.all("rect"))
        self.assertIn("102 uploads under way", page.one(id="places").text)

    def test_receiving(self) -> None:
        """Pushes that are being received come first."""
        found = overview(bucket("web01", series()), uploads=(unfinished(),))
        pushes = [
            Receiving("web01", HOSTILE[0], "[::1]:9", 30, 120, NOW - 60, 60.0),
            Receiving("web01", "pipe", "local", 30, None, NOW - 60, 60.0),
        ]
        page = read(html.page(found, BERLIN, pushes))
        first, second, third = page.one(id="uploads").one("tbody").all("tr")
        self.assertEqual(
            [
                *("web01", HOSTILE[0], "30 B of 120 B (25%)", "0 B/s"),
                *("1 min ago", "", "not resumable"),
            ],
            [each.text for each in first if isinstance(each, Node)],
        )
        self.assertEqual(
            "began Tue 2026-11-24 09:59:00 CET, from [::1]:9",
            first.one("time").attributes["title"],
        )
        self.assertEqual("30 B", second.one("td", class_="got").text)
        self.assertEqual("in 23 h", third.one("td", class_="ends").text)
        self.assertIn("3 uploads under way", page.one(id="places").text)
        page = read(html.page(found, BERLIN, pushes * 60))
        self.assertIn("and 21 more uploads", page.one(id="uploads").text)

    def test_refusals(self) -> None:
        page = show(
            refusals=(
                Refused("web01", NOW, "db.gz", 3, 405, "it exists", "[::1]:1", "id"),
                Refused("-", NOW - HOUR, None, 0, 403, "no token", "local", "id"),
            )
        )
        body = page.one(id="refusals").one("tbody")
        self.assertEqual(
            [
                [
                    "2026-11-24 10:00:00",
                    "405",
                    "web01",
                    "db.gz",
                    "it exists",
                    "[::1]:1",
                ],
                ["2026-11-24 09:00:00", "403", "-", "", "no token", "local"],
            ],
            [[each.text for each in row.all("td")] for row in body.all("tr")],
        )

    def test_bars(self) -> None:
        sizes = [GIB, 0, GIB // 2]
        page = show(bucket("a", series(sizes=sizes, usual=None)))
        drawing = page.one("svg", class_="bars")
        self.assertEqual("img", drawing.attributes["role"])
        self.assertEqual(
            "Sizes of the last 3 pushes: 0 B to 1.0 GiB, the last one 512 MiB",
            drawing.one("title").text,
        )
        usual, before, last = (each.attributes["d"] for each in drawing.all("path"))
        self.assertEqual("", usual)
        self.assertEqual("M110 24v-22.0M114 24v-0.5", before)
        self.assertEqual("M118 24v-11.0", last)

    def test_many(self) -> None:
        page = show(*(bucket(f"host{i}", series(), series("b")) for i in range(500)))
        self.assertEqual(500, len(page.one(id="calm").all("tbody")))

    def test_too_many(self) -> None:
        buckets = [bucket(f"host{i}", series()) for i in range(MOST_ROWS + 3)]
        buckets[-1] = bucket("late", series(**LATE))
        page = show(*buckets)
        self.assertEqual(MOST_ROWS, len(page.one(id="backups").all("tbody")))
        head = page.one(id="troubled").one("th", scope="rowgroup")
        self.assertEqual("late", head.one("bdi").text)
        self.assertIn(
            "3 more buckets, none in a worse state", page.one(id="backups").text
        )

    def test_unknown(self) -> None:
        page = read(html.unknown("The disk <hangs>."))
        self.assertIn("The disk <hangs>.", page.one("main").text)
        self.assertEqual("bad.svg", page.one("link", rel="icon").attributes["href"])


class NamesTests(SynchronousTestCase):
    """Clients choose the names of files."""

    def show(self, name: str) -> Node:
        refused = Refused("web01", NOW, name, 1, 405, name, name, "id")
        return show(bucket("a", series(name, last_name=name)), refusals=(refused,))

    def shape(self, node: Node) -> object:
        """Everything but the texts."""
        return (
            node.name,
            sorted(node.attributes),
            [self.shape(each) for each in node if isinstance(each, Node)],
        )

    def check(self, name: str, expected: str) -> None:
        page = self.show(name)
        self.assertEqual(self.shape(self.show("plain")), self.shape(page))
        head = page.one("th", class_="series", scope="row")
        self.assertEqual(expected, head.one("bdi").text)
        refused = page.one(id="refusals").one("tbody")
        self.assertEqual(expected, refused.one("td", class_="series").one("bdi").text)
        self.assertEqual(expected, refused.one("td", class_="reason").text)
        (last, _) = page.one(id="backups").one("tbody").all("time")
        self.assertEqual(
            f"{expected}, Tue 2026-11-24 07:00:00 CET", last.attributes["title"]
        )

    def test_hostile(self) -> None:
        for name in HOSTILE:
            self.check(name, name)

    def test_deceptive(self) -> None:
        for name, expected in DECEPTIVE.items():
            self.check(name, expected)

    def test_marks(self) -> None:
        """Combining marks in a name cannot change other text."""
        self.check("\0words\0\0", "\\x00words\\x00\\x00")

    def test_nothing_inline(self) -> None:
        for name in ("plain", *HOSTILE):
            for each in self.show(name).all():
                self.assertNotEqual("style", each.name)
                self.assertNotIn("style", each.attributes)
                self.assertFalse(
                    [key for key in each.attributes if key.startswith("on")]
                )
                if each.name == "script":
                    self.assertEqual("page.js", each.attributes["src"])
                    self.assertEqual("", each.text)

    def test_nothing_foreign(self) -> None:
        for each in self.show("plain").all():
            for key in ("src", "href"):
                target = each.attributes.get(key) or ""
                self.assertNotRegex(target, "[/:]")
        for name in ("page.css", "page.js"):
            text = files("filebucket.admin").joinpath("static", name).read_text()
            self.assertNotRegex(text, r"url\(|@import|https?:")


class ColorsTests(SynchronousTestCase):
    """The contrast of the colors: WCAG 2.2, 1.4.3."""

    PAIRS = (
        ("text", "ground"),
        ("text", "surface"),
        ("text", "raised"),
        ("quiet", "ground"),
        ("quiet", "surface"),
        ("quiet", "raised"),
        ("link", "ground"),
        ("ok", "ok-ground"),
        ("ok", "surface"),
        ("ok", "raised"),
        ("look", "look-ground"),
        ("look", "surface"),
        ("look", "raised"),
        ("bad", "bad-ground"),
        ("bad", "surface"),
        ("bad", "raised"),
        ("surface", "bad"),
        ("wait", "wait-ground"),
    )

    def test_contrast(self) -> None:
        style = files("filebucket.admin").joinpath("static", "page.css").read_text()
        light, dark = re.findall(r":root \{([^}]*--text[^}]*)\}", style)
        for theme in (light, dark):
            colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", theme))
            for front, back in self.PAIRS:
                found = contrast(colors[front], colors[back])
                self.assertGreaterEqual(found, 4.5, (front, back, theme))


class ShapesTests(SynchronousTestCase):
    def test_shapes(self) -> None:
        """Each state has a shape of its own, for people who do not see its color."""
        style = files("filebucket.admin").joinpath("static", "page.css").read_text()
        style = re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
        rules = re.findall(r"([^{}]+)\{([^{}]*)\}", style)
        shapes = [
            body
            for kind in WORDS
            for selectors, body in rules
            if f".{kind}::before" in re.split(r",\s*|\s+|\.state(?=\.)", selectors)
        ]
        self.assertEqual(len(WORDS), len(shapes))
        self.assertEqual(len(WORDS), len(set(shapes)))


def contrast(one: str, other: str) -> float:
    """The contrast of two colors, from 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    )
    return sum(map(float.__mul__, (0.2126, 0.7152, 0.0722), linear))
