"""How everything is, as a page of HTML.

Twisted's templates put every text in as text: no name of a client's can become an
element, an attribute or a script. What would not be seen, or would turn the text
around it, is shown as an escape, and every name is kept apart from the direction of
what is beside it. Nothing is said by colour alone: a state is a word, and a shape.

The frame is ``page.xml``; its rows are made here, of few elements, since there are
thousands of them. There is no style and no script but the two files that the page
names, and nothing of another host.

Nothing here waits or asks the time. It takes a while, so that it is to be called in a
thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from html import escape
from importlib.resources import files
from typing import Any

from twisted.python.failure import Failure
from twisted.web.template import (
    Element,
    Flattenable,
    Tag,
    XMLString,
    flattenString,
    renderer,
    tags,
)

from filebucket.base.text import (
    about_text,
    ago,
    change_in_words,
    counted,
    local,
    printable,
    size_text,
    span,
)
from filebucket.catalogue.overview import (
    BucketOverview,
    Overview,
    SeriesOverview,
    verdict,
)
from filebucket.model.records import Refused
from filebucket.model.state import State

MOST_ROWS = 2000
"""Series that one page shows. Of what is more, it says how much there is."""

SCARCE = 0.05
"""Where less than this share of the space is free, it is marked."""
SOON = 14 * 24 * 3600.0
"""Where the space is used up within so many seconds, it is marked."""

_WORDS = {
    State.FRESH: "In order",
    State.LATE: "Late",
    State.SHRUNK: "Shrunk",
    State.GROWN: "Grown",
    State.NEVER: "Nothing yet",
}

_MEANINGS = (
    ("fresh", _WORDS[State.FRESH], "the last push came in time, and has a usual size"),
    ("late", _WORDS[State.LATE], "a push should have come, and has not"),
    ("shrunk", _WORDS[State.SHRUNK], "the last push is much smaller than those before"),
    ("grown", _WORDS[State.GROWN], "the last push is much larger than those before"),
    ("never", _WORDS[State.NEVER], "no push ever came, and none is overdue"),
    ("damaged", "Damaged", "a file is not what was received: its disk has changed it"),
    ("missing", "Missing", "a file has gone, and filebucket prune did not delete it"),
)

SEVERITIES = ("ok", "look", "bad")
"""What style and icon of the page go by."""

_SHAPES = (
    ("#1a7f45", "M8 16.5l5.5 5.5L24 10.5"),
    ("#b26a00", "M16 8v10M16 22.5v1"),
    ("#c02626", "M10 10l12 12M22 10L10 22"),
)


def icon(severity: int) -> bytes:
    """What a browser's tab shows, as SVG."""
    colour, shape = _SHAPES[severity]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
        f'<rect width="32" height="32" rx="8" fill="{colour}"/>'
        f'<path d="{shape}" fill="none" stroke="#fff" stroke-width="4"'
        ' stroke-linecap="round" stroke-linejoin="round"/></svg>'
    ).encode()


def most_series(buckets: int) -> int:
    """Series of each bucket that a page of so many has room for."""
    return max(1, min(20, MOST_ROWS // max(buckets, 1)))


def page(overview: Overview, zone: tzinfo) -> bytes:
    """The page.

    :param zone: what times of day are shown in
    """
    root = _Page(overview, zone)
    parts = _flatten(root).split(_MARK)
    for index, html in enumerate(root.rows.made):
        parts[index] += html
    return f"{_DOCTYPE}{''.join(parts)}".encode()


def unknown(reason: str) -> bytes:
    """The page that says that nothing can be said.

    :param reason: a line
    """
    return f"{_DOCTYPE}{_flatten(_Unknown(reason))}".encode()


_DOCTYPE = "<!DOCTYPE html>\n"


def _flatten(root: Flattenable) -> str:
    found: list[Any] = []
    # Nothing in it is waited for, so that it is there at once.
    flattenString(None, root).addBoth(found.append)
    (result,) = found
    if isinstance(result, Failure):
        result.raiseException()
    html: bytes = result
    return html.decode()


# Words.

_FIRST = tags.transparent(tags.code("filebucket bucket add NAME"), " makes the first.")


# Rows.

_MARK = "\0"
"""Where something is to be put into HTML that is made already. No text has one: of a
name, :func:`printable` leaves none."""


class _Html(str):
    """A text that is HTML already."""

    __slots__ = ()


class _Mould:
    """HTML with places for texts.

    Twisted takes a tree of elements apart each time anew, and of thousands of rows that
    are alike but for their texts that takes half a second. So one is flattened once,
    and cut where its texts go.
    """

    def __init__(self, *content: Flattenable) -> None:
        """
        :param content: with what :func:`_place` returns in the places of texts
        """
        self._parts = _flatten(content).split(_MARK)

    def fill(self, **texts: str) -> _Html:
        """Put these texts there, escaped unless they are HTML already."""
        parts = self._parts.copy()
        parts[1::2] = [
            text if isinstance(text, _Html) else escape(text)
            for text in map(texts.__getitem__, parts[1::2])
        ]
        return _Html("".join(parts))


def _place(name: str) -> str:
    return f"{_MARK}{name}{_MARK}"


def _element(name: str, *children: Flattenable, **attributes: str) -> Tag:
    # ``tags`` knows only what HTML had in 2012.
    found: Tag = Tag(name)(*children, **attributes)
    return found


_BARS = _Mould(
    _element(
        "svg",
        _element("title", _place("text")),
        _element("path", class_="usual", d=_place("usual")),
        _element("path", d=_place("before")),
        _element("path", class_="last", d=_place("last")),
        class_="bars",
        viewBox="0 0 120 24",
        role="img",
    )
)


def bars(found: Sequence[tuple[float, int]], usual: int | None) -> str:
    """Sizes as bars over a common 0, the last one on the right; what is usual, as a
    line.
    """
    if not found:
        return ""
    sizes = [size for _, size in found]
    top = max(*sizes, usual or 0, 1)
    left = 122 - 4 * len(sizes)
    *before, last = [
        f"M{left + 4 * index} 24v-{max(22 * size / top, 0.5):.1f}"
        for index, size in enumerate(sizes)
    ]
    text = f"The sizes of the last {counted(len(sizes), 'push', 'pushes')}"
    text += f": {size_text(min(sizes))} to {size_text(max(sizes))}"
    line = ""
    if usual:
        text += f", usually {size_text(usual)}"
        line = f"M0 {24 - 22 * usual / top:.1f}h120"
    text += f", the last one {size_text(sizes[-1])}"
    return _BARS.fill(text=text, usual=line, before="".join(before), last=last)


def _filled(share: float) -> Tag:
    """A bar that is filled so far. It says nothing that is not said beside it."""
    width = f"{100 * min(max(share, 0), 1):.1f}"
    return _element(
        "svg",
        _element("rect", width=width, height="1"),
        class_="filled",
        viewBox="0 0 100 1",
        preserveAspectRatio="none",
        **{"aria-hidden": "true"},
    )


_STATE = _Mould(tags.span(_place("word"), class_=("state ", _place("kind"))))


_MOMENT = _Mould(
    tags.time(_place("words"), datetime=_place("iso"), title=_place("exact"))
)


class _Times:
    """Moments beside now, in a zone."""

    def __init__(self, now: float, zone: tzinfo) -> None:
        self.now = now
        self.zone = zone

    def moment(self, at: float, words: str, lead: str = "") -> _Html:
        """These words, with the exact time behind them."""
        then = local(at, self.zone)
        if then is None:
            return _Html(escape(words))
        exact = f"{lead}{then:%a %Y-%m-%d %H:%M:%S %Z}"
        iso = then.isoformat("T", "seconds")
        return _MOMENT.fill(words=words, iso=iso, exact=exact)

    def clock(self, at: float) -> Flattenable:
        """The date and time of day."""
        then = local(at, self.zone)
        if then is None:
            return "-"
        iso = then.isoformat("T", "seconds")
        return tags.time(f"{then:%Y-%m-%d %H:%M:%S}", datetime=iso)


_NAME = _Mould(tags.bdi(_place("name")))

_CELLS = _Mould(
    tags.td(_place("state"), class_="is"),
    tags.th(_place("series"), class_="series", scope="row"),
    *(
        tags.td(_place(name), class_=name)
        for name in ("when", "due", "size", "change", "trend", "files", "total")
    ),
)


class _Rows:
    """The rows of buckets."""

    def __init__(self, times: _Times) -> None:
        self._times = times
        self.made: list[_Html] = []

    def put(self, html: _Html) -> str:
        """Put this where what is returned is, in the order of the page."""
        self.made.append(html)
        return _MARK

    def bucket(self, bucket: BucketOverview) -> Tag:
        """All rows of a bucket, which belong together."""
        rows = [self._series(each) for each in bucket.series]
        if not rows:
            nothing = _STATE.fill(kind="never", word=_WORDS[State.NEVER])
            rows = [tags.tr(tags.td(self.put(nothing), class_="is", colspan="9"))]
        rows[0].children.insert(0, self._head(bucket, len(rows) + bool(bucket.more)))
        if bucket.more:
            more = f"and {counted(bucket.more, 'series', 'series')} more, none worse"
            rows.append(tags.tr(tags.td(more, colspan="9"), class_="more"))
        return tags.tbody(*rows, class_=SEVERITIES[bucket.severity])

    def _head(self, bucket: BucketOverview, rows: int) -> Tag:
        head = tags.th(
            tags.bdi(bucket.label), class_="bucket", scope="rowgroup", rowspan=str(rows)
        )
        if bucket.expect:
            # Nobody need explain cron to those who wrote it.
            every = "expects: " if " " in bucket.expect else "expects every "
            head(tags.small(f"{every}{bucket.expect}"))
        if bucket.quota:
            share = bucket.bytes / bucket.quota
            head(
                tags.small(
                    f"{size_text(bucket.bytes)} of {size_text(bucket.quota)}",
                    f" ({share:.0%})",
                    class_="full" if share > 1 - SCARCE else "",
                ),
                _filled(share),
            )
        return head

    def _series(self, series: SeriesOverview) -> Tag:
        now = self._times.now
        states = [
            (kind, f"{count:,} {kind}" if count else _WORDS[State(kind)])
            for kind, count in series.conditions
        ]
        last: str = "never"
        if series.last_at is not None:
            lead = f"{printable(series.last_name or '')}, "
            last = self._times.moment(series.last_at, ago(now - series.last_at), lead)
        due: str = "any time"
        if series.state is State.LATE:
            late = span(max(now - series.due, 0))
            due = self._times.moment(series.due, f"late for {late}", "was due ")
        elif series.expected:
            due = self._times.moment(series.due, f"in {span(series.due - now)}")
        name: str = "the first push"
        if series.name:
            name = _NAME.fill(name=printable(series.name))
        cells = _CELLS.fill(
            state=_Html(
                "".join(_STATE.fill(kind=kind, word=word) for kind, word in states)
            ),
            series=name,
            when=last,
            due=due,
            size="" if series.last_size is None else size_text(series.last_size),
            change=change_in_words(series.last_size, series.usual),
            trend=bars(series.sizes, series.usual),
            files=f"{series.files:,}",
            total=size_text(series.bytes),
        )
        return tags.tr(self.put(cells), class_=series.state.value)

    def refusal(self, refused: Refused) -> Tag:
        """A row of those."""
        return tags.tr(
            tags.td(self._times.clock(refused.at), class_="when"),
            tags.td(str(refused.status), class_="status"),
            tags.td(tags.bdi(refused.bucket), class_="bucket"),
            tags.td(
                "" if refused.name is None else tags.bdi(printable(refused.name)),
                class_="series",
            ),
            tags.td(printable(refused.reason), class_="reason"),
            tags.td(printable(refused.client), class_="client"),
        )


# The page.


class _Frame(Element):
    """What every page has around it."""

    loader = XMLString(
        files("filebucket.admin")
        .joinpath("static", "page.xml")
        .read_text(encoding="utf-8")
    )
    severity = 2

    @renderer
    def icon(self, request: object, tag: Tag) -> str:
        return f"{SEVERITIES[self.severity]}.svg"


class _Unknown(_Frame):
    """The page without anything to show."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    @renderer
    def title(self, request: object, tag: Tag) -> str:
        return "Nothing is known now - file-bucket"

    @renderer
    def main(self, request: object, tag: Tag) -> Tag:
        return tag(
            tags.div(
                tags.h1("How the backups are cannot be said now"),
                tags.p(printable(self._reason)),
                tags.p("Pushes go on: they do not need what this page is made of."),
                class_="verdict bad",
                id="overall",
            )
        )

    @renderer
    def looked(self, request: object, tag: Tag) -> str:
        return ""

    @renderer
    def zone(self, request: object, tag: Tag) -> str:
        return ""


class _Page(_Frame):
    """The page that shows everything."""

    def __init__(self, overview: Overview, zone: tzinfo) -> None:
        super().__init__()
        self._overview = overview
        self._times = _Times(overview.at, zone)
        self.rows = _Rows(self._times)
        self._verdict = verdict(overview)
        self.severity = self._verdict.severity
        self._troubled: list[BucketOverview] = []
        self._calm: list[BucketOverview] = []
        room = MOST_ROWS
        # The first of equals is the first in the configuration.
        for bucket in sorted(overview.buckets, key=lambda each: -each.severity):
            room -= max(len(bucket.series), 1)
            if room >= 0:
                (self._troubled if bucket.severity else self._calm).append(bucket)

    @renderer
    def title(self, request: object, tag: Tag) -> str:
        return f"{self._verdict.headline} - file-bucket"

    @property
    def _kind(self) -> str:
        return SEVERITIES[self.severity] if self._overview.buckets else "none"

    @renderer
    def looked(self, request: object, tag: Tag) -> Flattenable:
        now = local(self._overview.at, self._times.zone)
        if now is None:
            return ""
        exact = now.isoformat("T", "seconds")
        return ["As of ", tags.time(f"{now:%H:%M:%S}", datetime=exact), f" {now:%Z}"]

    @renderer
    def zone(self, request: object, tag: Tag) -> str:
        now = local(self._overview.at, self._times.zone)
        if now is None:
            return ""
        name = now.tzname()
        offset = f"{now:%z}"
        hours = f"UTC{offset[:3]}:{offset[3:5]}"
        known = hours if name == "UTC" or not name else f"{name}, {hours}"
        return f"Times of day are those of the server: {known}."

    @renderer
    def main(self, request: object, tag: Tag) -> Tag:
        more = self._verdict.more if self._overview.buckets else _FIRST.clone()
        return tag(
            tags.div(
                tags.h1(self._verdict.headline),
                tags.p(more) if more else "",
                class_=f"verdict {self._kind}",
                id="overall",
            ),
            self._figures(),
            self._finding() if self._overview.buckets else "",
            tags.div(*self._lists(), id="backups", tabindex="-1"),
            self._refusals(),
            tags.details(
                tags.summary(tags.h2("What the states mean")),
                tags.dl(
                    *(
                        tags.div(tags.dt(self._state(kind, word)), tags.dd(meaning))
                        for kind, word, meaning in _MEANINGS
                    )
                ),
                id="meanings",
            ),
        )

    def _state(self, kind: str, word: str) -> str:
        return self.rows.put(_STATE.fill(kind=kind, word=word))

    def _finding(self) -> Tag:
        """Ways to one of hundreds."""
        places = (
            ("troubled", len(self._troubled), "needs attention", "need attention"),
            ("calm", len(self._calm), "in order", "in order"),
            ("refusals", len(self._overview.refusals), "refusal", "refusals"),
        )
        links = [
            tags.a(counted(count, one, many), href=f"#{place}")
            for place, count, one, many in places
            if count
        ]
        return tags.div(
            _FILTER.clone(),
            _element("nav", *links, id="places", **{"aria-label": "On this page"}),
            id="finding",
        )

    def _figures(self) -> Tag:
        overview = self._overview
        buckets = overview.buckets
        series = sum(len(each.series) + each.more for each in buckets)
        files = sum(each.files for each in buckets)
        figures = [
            _figure(
                "Buckets",
                f"{len(buckets):,}",
                counted(series, "series", "series"),
            ),
            _figure(
                "Kept",
                size_text(sum(each.bytes for each in buckets)),
                counted(files, "file"),
            ),
            self._last_push(),
            self._space(),
        ]
        return tags.dl(*figures, id="figures")

    def _last_push(self) -> Tag:
        found = [each for each in self._overview.buckets if each.last_at is not None]
        latest = max(found, key=lambda each: each.last_at or 0.0, default=None)
        if latest is None or latest.last_at is None:
            return _figure("Last push", "never", "")
        words = ago(self._overview.at - latest.last_at)
        return _figure(
            "Last push",
            self.rows.put(self._times.moment(latest.last_at, words)),
            tags.bdi(latest.label),
        )

    def _space(self) -> Tag:
        space = self._overview.space
        if space is None:
            return _figure("Free space", "not known yet", "")
        used = 1 - space.free / max(space.total, 1)
        text, kind = self._forecast()
        if used > 1 - SCARCE:
            kind = "scarce"
        return _figure(
            "Free space",
            [size_text(space.free), tags.span(f" of {size_text(space.total)}")],
            [_filled(used), text],
            kind,
        )

    def _forecast(self) -> tuple[str, str]:
        """When the space is used up, and how to mark that."""
        full_at = self._overview.full_at
        if full_at is None:
            return "it does not shrink, as far as known", ""
        left = full_at - self._overview.at
        about = about_text(left)
        if about is None:
            return "lasts for more than 10 years at this rate", ""
        return f"full in about {about} at this rate", "scarce" if left < SOON else ""

    def _lists(self) -> Iterator[Tag]:
        """The buckets, the worst first, as many as there is room for."""
        if self._troubled:
            yield _list("troubled", "Needs attention", self._troubled, self.rows)
        if self._calm:
            yield _list("calm", "In order", self._calm, self.rows)
        shown = len(self._troubled) + len(self._calm)
        hidden = len(self._overview.buckets) - shown
        if hidden:
            buckets = counted(hidden, "bucket")
            yield tags.p(f"{buckets} more, none worse: filebucket status shows them.")

    def _refusals(self) -> Tag:
        refusals = self._overview.refusals
        content: Tag = tags.p("No push was refused yet.")
        if refusals:
            content = tags.table(
                tags.thead(
                    tags.tr(
                        *(
                            tags.th(word, class_=name, scope="col")
                            for name, word in _OF_A_REFUSAL
                        )
                    )
                ),
                tags.tbody(*map(self.rows.refusal, refusals)),
            )
        return tags.details(
            tags.summary(tags.h2("Last refusals")),
            content,
            id="refusals",
            open="open",
        )


# Only for those who have scripts.
_FILTER = tags.div(
    tags.label("Filter", for_="filter"),
    tags.input(
        id="filter",
        type="search",
        autocomplete="off",
        spellcheck="false",
        placeholder="bucket, series or state",
    ),
    tags.output(id="found", for_="filter"),
    id="filtering",
    hidden="hidden",
)


def _figure(name: str, value: Flattenable, more: Flattenable, kind: str = "") -> Tag:
    return tags.div(
        tags.dt(name), tags.dd(value, class_="value"), tags.dd(more, class_=kind)
    )


_OF_A_REFUSAL = (
    ("when", "When"),
    ("status", "Status"),
    ("bucket", "Bucket"),
    ("series", "Name"),
    ("reason", "Reason"),
    ("client", "Client"),
)

_COLUMNS = (
    ("bucket", "Bucket"),
    ("is", "State"),
    ("series", "Series"),
    ("when", "Last push"),
    ("due", "Next due"),
    ("size", "Size"),
    ("change", "Change"),
    ("trend", "Sizes"),
    ("files", "Files"),
    ("total", "Kept"),
)


def _list(kind: str, title: str, buckets: Sequence[BucketOverview], rows: _Rows) -> Tag:
    head = tags.tr(
        *(tags.th(word, class_=name, scope="col") for name, word in _COLUMNS)
    )
    return tags.details(
        tags.summary(tags.h2(title), " ", tags.span(counted(len(buckets), "bucket"))),
        tags.table(tags.thead(head), *(rows.bucket(each) for each in buckets)),
        id=kind,
        open="open",
    )
