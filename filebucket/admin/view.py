"""The content of the page, as plain values for its templates: ages and sizes in words,
the order of the buckets, and the limits. All other words are in the templates.

Invisible characters and marks of direction in names are escaped here; HTML is escaped
in the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo

from attrs import evolve, frozen

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
    UploadOverview,
)
from filebucket.catalogue.summary import summarize
from filebucket.model.push import Receiving
from filebucket.model.records import Refused
from filebucket.model.state import State

MOST_ROWS = 2000
"""Maximum number of series on a page; the page shows the number of the others."""

MOST_UPLOADS = 100
"""Maximum number of uploads under way on a page."""

SCARCE = 0.05
"""Free space below this share is marked."""
SOON = 14 * 24 * 3600.0
"""A forecast of a full disk within this time, in seconds, is marked."""

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
class SeriesRow:
    """A series.

    :param kind: state, for the style
    :param states: kinds of states and losses, with their words
    :param name: name; empty if the bucket is awaiting its first push
    """

    kind: str
    states: Sequence[tuple[str, str]]
    name: str
    last: Moment
    due: Moment
    size: str
    change: str
    sizes: Sparkline | None
    files: str
    total: str


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
    :param shown: number of series before the fold
    :param folded: number of series behind it, which are in order; 0 is no fold
    :param height: number of table rows
    :param more: number of series that are not shown
    """

    kind: str
    label: str
    schedule: str
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

    :param used: bar, with the forecast in words
    """

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
class PageView:
    """The page.

    :param icon: one of :data:`SEVERITIES`
    :param kind: the same as ``icon``, or ``none`` if there are no buckets
    :param clock: time of day; None if it is out of range
    :param zone: abbreviation of the time zone
    :param zone_text: time zone with its offset
    :param troubled: buckets that need attention, the worst first
    :param calm: buckets that are in order
    :param hidden: number of buckets that are not shown
    :param uploads: files that are being received, the longest first; then unfinished
        uploads, the first to expire first
    :param more_uploads: number of those that are not shown
    """

    icon: str
    kind: str
    headline: str
    more: str
    clock: Moment | None
    zone: str
    zone_text: str
    figures: Figures
    space: SpaceFigure | None
    troubled: Sequence[BucketRows]
    calm: Sequence[BucketRows]
    hidden: int
    refusals: Sequence[RefusalRow]
    uploads: Sequence[UploadRow]
    more_uploads: int


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
    found = summarize(overview)
    now = local(overview.at, zone)
    troubled, calm = _as_many_as_fit(overview.buckets)
    icon = SEVERITIES[found.severity]
    return PageView(
        icon=icon,
        kind=icon if overview.buckets else "none",
        headline=found.headline,
        more=found.more,
        clock=_clock(overview.at, zone, "%H:%M:%S"),
        zone=f"{now:%Z}" if now else "",
        zone_text=_zone(overview.at, zone),
        figures=_figures(overview, zone),
        space=_space(overview),
        troubled=[_bucket(each, overview.at, zone) for each in troubled],
        calm=[_bucket(each, overview.at, zone) for each in calm],
        hidden=len(overview.buckets) - len(troubled) - len(calm),
        refusals=[_refusal(each, zone) for each in overview.refusals],
        uploads=[
            _push(each, zone)
            if isinstance(each, Receiving)
            else _upload(each, overview.at, zone)
            for each in uploads[:MOST_UPLOADS]
        ],
        more_uploads=max(len(uploads) - MOST_UPLOADS, 0),
    )


def _push(push: Receiving, zone: tzinfo) -> UploadRow:
    since = _moment(push.since, zone, ago(push.seconds), "began ")
    rate = push.size / max(push.seconds, 1)
    return UploadRow(
        bucket=push.bucket,
        name=printable(push.name),
        got=_received(push.size, push.length),
        rate=f"{size_text(round(rate))}/s",
        since=evolve(since, exact=f"{since.exact}, from {printable(push.client)}"),
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
) -> tuple[Sequence[BucketOverview], Sequence[BucketOverview]]:
    """The buckets that need attention, worst first, and those that are in order."""
    troubled: list[BucketOverview] = []
    calm: list[BucketOverview] = []
    room = MOST_ROWS
    # The sort is stable: equals stay in the order of the configuration.
    for each in sorted(buckets, key=lambda each: -each.severity):
        room -= max(len(each.series), 1)
        if room >= 0:
            (troubled if each.severity else calm).append(each)
    return troubled, calm


def _zone(at: float, zone: tzinfo) -> str:
    now = local(at, zone)
    if now is None:
        return ""
    name, offset = now.tzname(), f"{now:%z}"
    if name == "UTC":
        return name
    hours = f"UTC{offset[:3]}:{offset[3:5]}"
    return f"{name}, {hours}" if name else hours


def _moment(at: float, zone: tzinfo, text: str, lead: str = "") -> Moment:
    """A time in words, with the exact time as its tooltip."""
    then = local(at, zone)
    if then is None:
        return Moment(text)
    iso = then.isoformat("T", "seconds")
    # strftime for the whole text took a tenth of the time of a page of thousands of
    # rows.
    exact = f"{lead}{then:%a} {iso[:10]} {iso[11:19]} {then.tzname()}"
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
    text, scarce = _forecast(overview)
    kind = "scarce" if scarce or used > 1 - SCARCE else ""
    return SpaceFigure(
        size_text(space.free), size_text(space.total), _bar(used, text, kind)
    )


def _forecast(overview: Overview) -> tuple[str, bool]:
    """The forecast in words, and whether to mark it."""
    if overview.full_at is None:
        return "no downward trend so far", False
    left = overview.full_at - overview.at
    about = about_text(left)
    if about is None:
        return "lasts more than 10 years at this rate", False
    return f"full in about {about} at this rate", left < SOON


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
        quota = _bar(share, text, "full" if share > 1 - SCARCE else "")
    # The worst series are the first.
    bad = sum(bucket.severity_of(each) > 0 for each in bucket.series)
    shown = max(bad, FOLD)
    folded = len(bucket.series) - shown + bucket.more
    # A fold takes as much space as one series.
    folds = shown + 1 < len(bucket.series)
    return BucketRows(
        kind=SEVERITIES[bucket.severity],
        label=bucket.label,
        schedule=schedule,
        quota=quota,
        rows=[_row(each, now, zone) for each in bucket.series],
        shown=shown,
        folded=folded if folds else 0,
        height=max(len(bucket.series), 1) + folds + bool(bucket.more),
        more=bucket.more,
    )


def _row(series: SeriesOverview, now: float, zone: tzinfo) -> SeriesRow:
    last, due = Moment("never"), Moment("no schedule")
    if series.last_at is not None:
        lead = f"{printable(series.last_name or '')}, "
        last = _moment(series.last_at, zone, ago(now - series.last_at), lead)
    if series.state is State.LATE:
        late = span(max(now - series.due, 0))
        due = _moment(series.due, zone, f"{late} overdue", "was due ")
    elif series.expected:
        due = _moment(series.due, zone, f"in {span(series.due - now)}")
    return SeriesRow(
        kind=series.state.value,
        states=[
            (kind, f"{count:,} {kind}" if count else WORDS[kind])
            for kind, count in series.conditions
        ],
        name=printable(series.name),
        last=last,
        due=due,
        size="" if series.last_size is None else size_text(series.last_size),
        change=change_in_words(series.last_size, series.usual),
        sizes=sparkline(series.sizes, series.usual),
        files=f"{series.files:,}",
        total=size_text(series.bytes),
    )


def sparkline(
    found: Sequence[tuple[float, int]], usual: int | None
) -> Sparkline | None:
    """Sizes as bars from 0, the last one on the right; the usual size as a line."""
    if not found:
        return None
    sizes = [size for _, size in found]
    top = max(*sizes, usual or 0, 1)
    left = 122 - 4 * len(sizes)
    *before, last = [
        f"M{left + 4 * index} 24v-{max(22 * size / top, 0.5):.1f}"
        for index, size in enumerate(sizes)
    ]
    text = f"Sizes of the last {counted(len(sizes), 'push', 'pushes')}"
    text += f": {size_text(min(sizes))} to {size_text(max(sizes))}"
    line = ""
    if usual:
        text += f", usually {size_text(usual)}"
        line = f"M0 {24 - 22 * usual / top:.1f}h120"
    text += f", the last one {size_text(sizes[-1])}"
    return Sparkline(text, line, "".join(before), last)


def _refusal(refused: Refused, zone: tzinfo) -> RefusalRow:
    return RefusalRow(
        time=_clock(refused.at, zone, "%Y-%m-%d %H:%M:%S") or Moment("-"),
        status=refused.status,
        bucket=refused.bucket,
        name=None if refused.name is None else printable(refused.name),
        reason=printable(refused.reason),
        client=printable(refused.client),
    )
