"""The content of the page, as plain values for its templates: ages and sizes in words,
the order of the buckets, and the limits. All other words are in the templates.

Invisible characters and marks of direction in names are escaped here; HTML is escaped
in the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo

from attrs import frozen

from filebucket.base.text import (
    about_text,
    ago,
    change_in_words,
    counted,
    local,
    moment_text,
    printable,
    printable_lines,
    sentence,
    size_text,
    span,
)
from filebucket.catalogue.overview import (
    SIZES,
    BucketOverview,
    Overview,
    SeriesOverview,
    UploadOverview,
)
from filebucket.catalogue.summary import Summary, summarize_briefly
from filebucket.model.node import Node, differing, leader_of, node_state
from filebucket.model.problem import WARNING, Kind, Problem
from filebucket.model.push import Receiving
from filebucket.model.records import Copy, Refused
from filebucket.model.state import State

MOST_ROWS = 2000
"""Maximum number of series on a page; the page shows the number of the others."""

MOST_UPLOADS = 100
"""Maximum number of uploads under way on a page."""

MOST_LINES = 100
"""Maximum number of lines of a report on a page."""

FOLD = 5
"""Number of series of a bucket that are shown at first, if the others are in order."""

SEVERITIES = ("ok", "look", "bad")
"""Names of severities in styles and icons."""

WORDS: Mapping[str, str] = {
    State.FRESH.value: "In order",
    State.LATE.value: "Late",
    State.FAILED.value: "Failed",
    State.EMPTY.value: "Empty",
    State.UNFINISHED.value: "Unfinished",
    State.SHRUNK.value: "Shrunk",
    State.GROWN.value: "Grown",
    State.NEVER.value: "Nothing yet",
    "damaged": "Damaged",
    "missing": "Missing",
}
"""The page's words for states and losses."""


@frozen
class Moment:
    """A time in words.

    :param iso: time in ISO 8601; empty if there is none, or if it is out of range
    :param exact: exact time with its event, for the tooltip
    """

    text: str
    iso: str = ""
    exact: str = ""


@frozen
class Sparkline:
    """The sizes of pushes as bars: a description, and three SVG paths."""

    text: str
    usual: str
    before: str
    last: str


@frozen
class Mark:
    """A problem in a sentence.

    :param kind: one of :data:`SEVERITIES`
    """

    kind: str
    text: str


@frozen
class Report:
    """A client's report that a backup failed.

    :param id: unique on the page
    :param first: its first line
    :param rest: the other lines; may be empty
    """

    id: str
    time: Moment
    first: str
    rest: str


@frozen
class SeriesRow:
    """A series.

    :param kind: state or loss, for the style
    :param states: kinds of states and losses, with their words
    :param name: name, or what it is about if it has none
    :param is_name: whether ``name`` is the name of a series
    :param report: if a backup failed since the last push
    """

    kind: str
    states: Sequence[tuple[str, str]]
    name: str
    is_name: bool
    last: Moment
    due: Moment
    size: str
    change: str
    sizes: Sparkline | None
    files: str
    total: str
    report: Report | None


@frozen
class Bar:
    """A bar that is filled to ``percent``, and the text next to it.

    :param kind: style of the mark; may be empty
    """

    text: str
    percent: str
    kind: str


@frozen
class BucketRows:
    """A bucket and its series.

    :param kind: one of :data:`SEVERITIES`
    :param comment: as configured; may be empty
    :param pause: when its pause ends and why, if there is one
    :param restored: when a restore test last passed, if one did
    :param problems: of the bucket as a whole, that are not obvious from its rows
    :param copies: until when it is copied, and to which server
    :param shown: number of series before the fold
    :param folded: number of series behind it, which are in order; 0 is no fold
    :param height: number of table rows
    :param more: number of series that are not shown
    """

    kind: str
    label: str
    comment: str
    schedule: str
    pause: tuple[Moment, str] | None
    restored: Moment | None
    retired: bool
    problems: Sequence[Mark]
    copies: Sequence[tuple[Moment, str]]
    quota: Bar | None
    rows: Sequence[SeriesRow]
    shown: int
    folded: int
    height: int
    more: int


@frozen
class Figures:
    """The totals."""

    buckets: str
    series: int
    size: str
    files: int
    last: Moment
    last_bucket: str


@frozen
class SpaceFigure:
    """The filesystem.

    :param title: says which one it is
    :param used: bar, with the forecast in words
    """

    title: str
    free: str
    total: str
    used: Bar


@frozen
class RefusalRow:
    """A request that was refused.

    :param name: name of the file; None if there was none
    """

    time: Moment
    status: int
    bucket: str
    name: str | None
    reason: str
    client: str


@frozen
class UploadRow:
    """A file that is being received, or an unfinished resumable upload.

    :param got: the received part as a bar; without ``percent`` if the whole is unknown
    :param rate: empty if not known yet
    :param last: empty if it is not resumable
    """

    bucket: str
    name: str
    got: Bar
    rate: str
    since: Moment
    last: Moment
    expires: Moment


@frozen
class NodeRow:
    """A daemon that shares the catalogue.

    :param kind: one of :data:`SEVERITIES`
    :param state: a word of :func:`~filebucket.model.node.node_state`
    :param differs: names of settings that differ from those of the one that leads
    """

    kind: str
    name: str
    state: str
    version: str
    seen: Moment
    differs: str


@frozen
class PageView:
    """The page.

    :param icon: one of :data:`SEVERITIES`
    :param kind: the same as ``icon``, or ``none`` if there are no buckets nor problems
    :param problems: of the server, if the headline does not name the only one
    :param clock: time of day; None if it is out of range
    :param zone: abbreviation of the time zone
    :param zone_text: time zone with its offset
    :param troubled: buckets that need attention, the worst first
    :param calm: buckets that are in order
    :param retired: retired buckets that are in order
    :param hidden: number of buckets that are not shown
    :param new: labels of buckets that never had a push
    :param uploads: files that are being received, the longest first; then unfinished
        uploads, the first to expire first
    :param more_uploads: number of those that are not shown
    :param nodes: the daemons that share the catalogue
    """

    icon: str
    kind: str
    headline: str
    more: str
    problems: Sequence[Mark]
    clock: Moment | None
    zone: str
    zone_text: str
    figures: Figures
    space: SpaceFigure | None
    troubled: Sequence[BucketRows]
    calm: Sequence[BucketRows]
    retired: Sequence[BucketRows]
    hidden: int
    new: Sequence[str]
    refusals: Sequence[RefusalRow]
    uploads: Sequence[UploadRow]
    more_uploads: int
    nodes: Sequence[NodeRow]


def most_series(buckets: int) -> int:
    """The maximum number of series to show of each bucket.

    :param buckets: number of buckets on the page
    """
    return max(1, min(20, MOST_ROWS // max(buckets, 1)))


def view(
    overview: Overview, zone: tzinfo, receiving: Sequence[Receiving] = ()
) -> PageView:
    """The content of the page.

    :param zone: time zone of the times shown
    :param receiving: files that are being received, with labels of buckets, and with
        tokens masked
    """
    uploads: Sequence[Receiving | UploadOverview] = (*receiving, *overview.uploads)
    found, problems = _headline(overview)
    now = local(overview.at, zone)
    lists = _as_many_as_fit(overview.buckets)
    troubled, calm, retired = (
        [_bucket(each, overview.at, zone) for each in buckets] for buckets in lists
    )
    icon = SEVERITIES[found.severity]
    return PageView(
        icon=icon,
        kind=icon if overview.buckets or found.severity else "none",
        headline=found.headline,
        more=found.more,
        problems=problems,
        clock=_clock(overview.at, zone, "%H:%M:%S"),
        zone=f"{now:%Z}" if now else "",
        zone_text=_zone(overview.at, zone),
        figures=_figures(overview, zone),
        space=_space(overview),
        troubled=troubled,
        calm=calm,
        retired=retired,
        hidden=len(overview.buckets) - sum(map(len, lists)),
        new=[
            each.label
            for each in overview.buckets
            if each.last_at is None and not each.retired
        ],
        refusals=[_refusal(each, zone) for each in overview.refusals],
        uploads=[
            _push(each, zone)
            if isinstance(each, Receiving)
            else _upload(each, overview.at, zone)
            for each in uploads[:MOST_UPLOADS]
        ],
        more_uploads=max(len(uploads) - MOST_UPLOADS, 0),
        nodes=[_node(each, overview, zone) for each in overview.nodes],
    )


def _node(node: Node, overview: Overview, zone: tzinfo) -> NodeRow:
    now, leader = overview.at, leader_of(overview.nodes, overview.at)
    found = [each.severity for each in overview.problems if each.node == node.name]
    differs = differing(node.report, leader.report) if leader else []
    return NodeRow(
        kind=SEVERITIES[max(found, default=0)],
        name=printable(node.name),
        state=node_state(node, now),
        version=printable(node.report.version),
        seen=_moment(node.seen, zone, ago(now - node.seen), "last seen "),
        differs=printable(", ".join(differs)) if node.is_alive(now) else "",
    )


def _headline(overview: Overview) -> tuple[Summary, Sequence[Mark]]:
    """The summary, and the problems of the server to list below it."""
    found = summarize_briefly(overview)
    marks = [_mark(each) for each in overview.problems]
    return found, [] if [found.headline] == [each.text for each in marks] else marks


def _mark(problem: Problem) -> Mark:
    return Mark(SEVERITIES[problem.severity], sentence(printable(problem.text)))


def _push(push: Receiving, zone: tzinfo) -> UploadRow:
    age = ago(push.seconds)
    rate = push.size / max(push.seconds, 1)
    return UploadRow(
        bucket=push.bucket,
        name=printable(push.name),
        got=_received(push.size, push.length),
        rate=f"{size_text(round(rate))}/s",
        since=_moment(push.since, zone, age, "began ", push.client),
        last=Moment(""),
        expires=Moment("not resumable"),
    )


def _received(size: int, length: int | None) -> Bar:
    if length is None:
        return Bar(size_text(size), "", "")
    share = size / max(length, 1)
    return _bar(share, f"{size_text(size)} of {size_text(length)} ({share:.0%})", "")


def _upload(upload: UploadOverview, now: float, zone: tzinfo) -> UploadRow:
    left = max(upload.expires - now, 0)
    return UploadRow(
        bucket=upload.bucket,
        name=printable(upload.name),
        got=_received(upload.offset, upload.length),
        rate="" if upload.rate is None else f"{size_text(round(upload.rate))}/s",
        since=_moment(upload.since, zone, ago(now - upload.since), "began "),
        last=_moment(upload.last_at, zone, ago(now - upload.last_at), "last byte "),
        expires=_moment(upload.expires, zone, f"in {span(left)}", "expires "),
    )


def _as_many_as_fit(
    buckets: Sequence[BucketOverview],
) -> tuple[Sequence[BucketOverview], ...]:
    """The buckets that need attention, worst first; those that are in order; and those
    of them that are retired.
    """
    lists: tuple[list[BucketOverview], ...] = [], [], []
    room = MOST_ROWS
    # The sort is stable: equals stay in the order of the configuration.
    for each in sorted(buckets, key=lambda each: (-each.severity, each.retired)):
        room -= max(len(each.series), 1)
        if room >= 0:
            lists[0 if each.severity else 1 + each.retired].append(each)
    return lists


def _zone(at: float, zone: tzinfo) -> str:
    now = local(at, zone)
    if now is None:
        return ""
    name, offset = now.tzname(), f"{now:%z}"
    if name == "UTC":
        return name
    hours = f"UTC{offset[:3]}:{offset[3:5]}"
    return f"{name}, {hours}" if name else hours


_DAYS = "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"


def _moment(
    at: float, zone: tzinfo, text: str, lead: str = "", client: str | None = None
) -> Moment:
    """A time in words, with the exact time as its tooltip."""
    then = local(at, zone)
    if then is None:
        return Moment(text)
    iso = then.isoformat("T", "seconds")
    # strftime takes a tenth of the time of a page.
    day = _DAYS[then.weekday()]
    end = "" if client is None else f", from {printable(client)}"
    exact = f"{lead}{day} {iso[:10]} {iso[11:19]} {then.tzname()}{end}"
    return Moment(text, iso, exact)


def _clock(at: float, zone: tzinfo, form: str) -> Moment | None:
    """The time in a format of strftime; None if it is out of range."""
    then = local(at, zone)
    if then is None:
        return None
    return Moment(then.strftime(form), then.isoformat("T", "seconds"))


def _bar(share: float, text: str, kind: str) -> Bar:
    return Bar(text, f"{100 * min(max(share, 0), 1):.1f}", kind)


def _figures(overview: Overview, zone: tzinfo) -> Figures:
    buckets = overview.buckets
    last, last_bucket = Moment("never"), ""
    found = [(each.last_at, each.label) for each in buckets if each.last_at is not None]
    if found:
        last_at, last_bucket = max(found, key=lambda each: each[0])
        last = _moment(last_at, zone, ago(overview.at - last_at))
    return Figures(
        buckets=f"{len(buckets):,}",
        series=sum(len(each.series) + each.more for each in buckets),
        size=size_text(sum(each.bytes for each in buckets)),
        files=sum(each.files for each in buckets),
        last=last,
        last_bucket=last_bucket,
    )


def _space(overview: Overview) -> SpaceFigure | None:
    space = overview.space
    if space is None:
        return None
    used = 1 - space.free / max(space.total, 1)
    kind = _fullness(overview.problems)
    return SpaceFigure(
        "Free space in home" if overview.has_objects else "Free space",
        size_text(space.free),
        size_text(space.total),
        _bar(used, _forecast(overview), kind),
    )


def _fullness(problems: Sequence[Problem]) -> str:
    """The style of a bar that shows how full a bucket or the disk is."""
    full = [each.severity for each in problems if each.kind is Kind.FULL]
    return SEVERITIES[max(full)] if full else ""


def _forecast(overview: Overview) -> str:
    if overview.full_at is None:
        return "no downward trend so far"
    about = about_text(overview.full_at - overview.at)
    if about is None:
        return "lasts more than 10 years at this rate"
    return f"full in about {about} at this rate"


def _bucket(bucket: BucketOverview, now: float, zone: tzinfo) -> BucketRows:
    schedule, quota = "", None
    if bucket.expect:
        is_cron = " " in bucket.expect
        lead = "schedule: " if is_cron else "expected every "
        schedule = f"{lead}{bucket.expect}"
    if bucket.quota:
        taken = bucket.quota_taken
        share = taken / bucket.quota
        text = f"{size_text(taken)} of {size_text(bucket.quota)} ({share:.0%})"
        quota = _bar(share, text, _fullness(bucket.problems))
    pause = None
    if bucket.paused is not None:
        until = bucket.paused.until
        text = moment_text(until)
        pause = _moment(until, zone, text), printable(bucket.paused.reason)
    restored = None
    if bucket.restored_at is not None:
        at = bucket.restored_at
        restored = _moment(at, zone, ago(now - at), "restore test passed ")
    rows = [_row(each, now, zone) for each in bucket.series]
    # The worst series are the first.
    bad = sum(bucket.severity_of(each) > 0 for each in bucket.series)
    shown = max(bad, FOLD)
    folded = len(bucket.series) - shown + bucket.more
    # A fold takes as much space as one series.
    folds = shown + 1 < len(bucket.series)
    return BucketRows(
        kind=SEVERITIES[bucket.severity],
        label=bucket.label,
        comment=printable(bucket.comment),
        schedule=schedule,
        pause=pause,
        restored=restored,
        retired=bucket.retired,
        problems=[_mark(each) for each in bucket.problems if not _is_obvious(each)],
        copies=[_copy(each, now, zone) for each in bucket.copies],
        quota=quota,
        rows=rows,
        shown=shown,
        folded=folded if folds else 0,
        height=max(len(rows), 1)
        + sum(each.report is not None for each in rows)
        + folds
        + bool(bucket.more),
        more=bucket.more,
    )


def _copy(copy: Copy, now: float, zone: tzinfo) -> tuple[Moment, str]:
    until = Moment("not yet")
    if copy.until is not None:
        until = _moment(copy.until, zone, ago(now - copy.until), "all until ")
    return until, printable(copy.target)


def _is_obvious(problem: Problem) -> bool:
    """Whether the rows of a bucket or the bar of its quota show the problem."""
    lost = problem.kind in {Kind.DAMAGED, Kind.MISSING}
    return lost or (problem.kind is Kind.FULL and problem.severity == WARNING)


def _row(series: SeriesOverview, now: float, zone: tzinfo) -> SeriesRow:
    last, due = Moment("never"), Moment("no schedule")
    if series.last_at is not None:
        lead = f"{printable(series.last_name or '')}, "
        age = ago(now - series.last_at)
        last = _moment(series.last_at, zone, age, lead, series.last_client)
    if series.state is State.LATE:
        late = span(max(now - series.due, 0))
        due = _moment(series.due, zone, f"{late} overdue", "was due ")
    elif series.expected:
        due = _moment(series.due, zone, f"in {span(series.due - now)}")
    conditions = series.conditions
    return SeriesRow(
        kind=conditions[0][0],
        states=[
            (kind, f"{count:,} {kind}" if count else WORDS[kind])
            for kind, count in conditions
        ],
        name=printable(series.name) or _nameless(series),
        is_name=bool(series.name),
        last=last,
        due=due,
        size="" if series.last_size is None else size_text(series.last_size),
        change=change_in_words(series.last_size, series.usual),
        sizes=sparkline(series.sizes, series.usual),
        files=f"{series.files:,}",
        total=size_text(series.bytes),
        report=_report(series, now, zone),
    )


def _nameless(series: SeriesOverview) -> str:
    return "first push" if series.failed_at is None else "whole bucket"


def _report(series: SeriesOverview, now: float, zone: tzinfo) -> Report | None:
    if series.failed_at is None:
        return None
    text = (series.failed_text or "").strip().replace("\r\n", "\n").expandtabs()
    first, *rest = printable_lines(text).split("\n")
    if len(rest) > MOST_LINES:
        rest[MOST_LINES:] = [f"and {len(rest) - MOST_LINES} more lines"]
    return Report(
        id=f"report-{series.id}",
        time=_moment(series.failed_at, zone, ago(now - series.failed_at)),
        first=first,
        rest="\n".join(rest),
    )


# A page has 15,000 bars. They are at least 0.5 high.
_BARS = [f"M{place} 24v-%s" for place in range(122 - 4 * SIZES, 122, 4)]
_HEIGHTS = [str(max(tenths, 5) / 10) for tenths in range(221)]


def sparkline(sizes: Sequence[int], usual: int | None) -> Sparkline | None:
    """Sizes as bars from 0, the last one on the right; the usual size as a line.

    :param sizes: at most :data:`~filebucket.catalogue.overview.SIZES`
    """
    if not sizes:
        return None
    top = max(*sizes, usual or 0, 1)
    *before, last = [_HEIGHTS[220 * size // top] for size in sizes]
    text = f"Sizes of the last {counted(len(sizes), 'push', 'pushes')}"
    text += f": {size_text(min(sizes))} to {size_text(max(sizes))}"
    line = ""
    if usual:
        text += f", usually {size_text(usual)}"
        line = f"M0 {(240 - 220 * usual // top) / 10}h120"
    text += f", the last one {size_text(sizes[-1])}"
    bars = "".join(_BARS[-len(sizes) : -1]) % tuple(before)
    return Sparkline(text, line, bars, _BARS[-1] % last)


def _refusal(refused: Refused, zone: tzinfo) -> RefusalRow:
    return RefusalRow(
        time=_clock(refused.at, zone, "%Y-%m-%d %H:%M:%S") or Moment("-"),
        status=refused.status,
        bucket=refused.bucket,
        name=None if refused.name is None else printable(refused.name),
        reason=printable(refused.reason),
        client=printable(refused.client),
    )
