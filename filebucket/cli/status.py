"""``filebucket status``: the state of every backup.

It only reads the catalogue and the records of unfinished uploads, with or without a
daemon. The output contains no token and no path, and clients choose the names: tokens
in them are masked, and characters that a terminal or a monitoring system interprets are
escaped.

It is a plugin for Nagios and Icinga, and has their exit statuses: an unknown state is
3, and so is a wrong command line.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from typing import Any

import click
from attrs import evolve

from filebucket.base.errors import ConfigError, shown
from filebucket.base.text import (
    CUT,
    about_text,
    age_text,
    change_text,
    counted,
    cut,
    first_and_last_line,
    first_line,
    plural,
    printable,
    printable_lines,
    recent_text,
    rfc3339,
    sentence,
    size_text,
)
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.nodes import Nodes
from filebucket.catalogue.overview import (
    BucketOverview,
    Overview,
    SeriesOverview,
    UploadOverview,
    make_overview,
)
from filebucket.catalogue.summary import server_problems, summarize, troubles
from filebucket.catalogue.view import View
from filebucket.cli.known import known_to, load_with_problems
from filebucket.cli.listing import pause_text
from filebucket.cli.log import refusal_json
from filebucket.cli.options import (
    UnknownBucketError,
    bucket_labels,
    chosen_buckets,
    open_catalogue,
    print_json,
    with_config,
    with_json,
)
from filebucket.cli.output import unexpected
from filebucket.cli.table import (
    GAP,
    Column,
    escape_unprintable,
    paragraph,
    table,
    terminal_width,
)
from filebucket.config.load import load
from filebucket.model.node import Node, differing, leader_of, node_state
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem
from filebucket.model.schedule import local_zone
from filebucket.model.state import WORST_FIRST, State

NAGIOS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
"""Nagios' names of the exit statuses 0 to 3."""
UNKNOWN = 3

MOST_PROBLEMS = 5
"""Maximum number of buckets that --line names."""
LONGEST_TEXT = 400
"""Maximum bytes of a text that names several buckets: NRPE truncates the whole line at
1024."""
LONGEST_PROBLEM = 200
"""Maximum bytes of the problem of one bucket there, and of all those of the server if
buckets have problems, too."""
MOST_NAMED = 3
"""Maximum number of buckets that the summary names for each state."""
MOST_UPLOADS = 50
"""Maximum number of unfinished uploads in the table."""
LONGEST_NAME = 30
LONGEST_LINE = 120
"""Columns of a line of a client's report that a backup failed."""
LONGEST_REASON = 400

_COLORS = (None, "yellow", "red")
"""Colors of a line, by severity."""


class _UnknownError(click.ClickException):
    """The state of the backups is unknown."""

    exit_code = UNKNOWN


class _MisuseError(click.UsageError):
    """A wrong command line. Not click's exit status 2, which is CRITICAL here."""

    exit_code = UNKNOWN


class _Plugin(click.Command):
    """A command with the exit statuses of Nagios."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except OSError as error:
            raise unexpected(error, UNKNOWN) from None
        except click.UsageError as error:
            raise _MisuseError(error.format_message(), error.ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort):
            raise
        except OSError as error:
            raise unexpected(error, UNKNOWN) from None
        except Exception:
            # Python's own exit status, 1, means WARNING here.
            traceback.print_exc()
            if ctx.params["line"]:
                click.echo(f"FILEBUCKET {NAGIOS[UNKNOWN]} - a bug in file-bucket")
            raise SystemExit(UNKNOWN) from None


@click.command(cls=_Plugin, short_help="Show the state of every backup.")
@click.argument(
    "buckets", metavar="[BUCKET]...", nargs=-1, shell_complete=bucket_labels
)
@click.option("--line", is_flag=True, help="Print one line, for Nagios and Icinga.")
@click.option("--problems", is_flag=True, help="Show only what needs attention.")
@click.option(
    "--no-daemon",
    is_flag=True,
    help="Do not check that the daemon runs and has applied the configuration.",
)
@click.option(
    "--forget",
    metavar="DAEMON",
    help="Forget a daemon that shares the catalogue and will not run again.",
)
@with_config
@with_json
def status(
    path: str,
    buckets: Sequence[str],
    line: bool,
    problems: bool,
    no_daemon: bool,
    forget: str | None,
    as_json: bool,
) -> None:
    """Show the state of every backup, or of those in each BUCKET, worst first.

    Exits with 0 if there are no problems; 1 if a backup has shrunk or grown, a push
    never ended, a bucket is awaiting its first push, or there is a warning about a
    bucket or the server; 2 if a backup is late, has failed, or is empty, damaged or
    missing, a restore test has failed or is overdue, a file is not copied for two days,
    a bucket or the disk is full, or the daemon does not run; 3 if the state is unknown.

    As root, reads the catalogue with the rights of the home's owner.
    """
    if line and (as_json or problems):
        other = "--json" if as_json else "--problems"
        raise _MisuseError(
            f"--line and {other} exclude each other.", click.get_current_context()
        )
    escape_unprintable()
    now = time.time()
    try:
        if forget is not None:
            _forget(path, forget, now)
            return
        found = _overview(path, buckets, now, not no_daemon)
    except (ConfigError, CatalogueError, UnknownBucketError) as error:
        if line:
            reason = printable(" ".join(str(error).split()), "|")
            click.echo(f"FILEBUCKET {NAGIOS[UNKNOWN]} - {cut(reason, LONGEST_REASON)}")
            raise SystemExit(UNKNOWN) from None
        raise _UnknownError(printable_lines(str(error))) from None
    if as_json:
        print_json(**status_json(found.only_problems() if problems else found))
    elif line:
        click.echo(status_line(found))
    else:
        for each in status_table(found, local_zone(), terminal_width(), problems):
            click.echo(each)
    raise SystemExit(found.severity)


def _forget(path: str, name: str, now: float) -> None:
    """Forget a daemon."""
    with open_catalogue(load(path), Nodes) as catalogue:
        found = {each.name: each for each in catalogue.nodes(now)}
        if name not in found:
            raise _UnknownError(f"there is no daemon {shown(name)}")
        if found[name].is_alive(now):
            raise _UnknownError(f"daemon {name} is running: stop it first")
        catalogue.forget(name)
    click.echo(f"forgot {printable(name)}")


def _overview(path: str, labels: Sequence[str], now: float, daemon: bool) -> Overview:
    """The overview of these buckets, or of all.

    :param daemon: whether a daemon has to run
    """
    config, problems = load_with_problems(path, now, daemon)
    keys = {each.key for each in chosen_buckets(config, labels)} if labels else ()
    with open_catalogue(config, View) as catalogue:
        # All buckets, so that the tokens of all are masked.
        known = known_to(config, now, problems)
        found = make_overview(catalogue, known, sizes=0)
    if not keys:
        return found
    chosen = {each.label for each in config.buckets if each.key in keys}
    return evolve(
        found,
        buckets=tuple(each for each in found.buckets if each.label in chosen),
        refusals=tuple(each for each in found.refusals if each.bucket in chosen),
        uploads=tuple(each for each in found.uploads if each.bucket in chosen),
    )


# The table.

_STATUS = (
    Column("BUCKET", name=True),
    Column("SERIES", name=True),
    Column("STATE", text=28),
    Column("LAST PUSH", optional=1),
    Column("AGE", right=True),
    Column("SIZE", right=True, optional=5),
    Column("CHANGE", right=True, optional=4),
    Column("COUNT", right=True, optional=2),
    Column("TOTAL", right=True, optional=3),
)
_DRILLED = (*_STATUS, Column("RESTORED", right=True, optional=6))
"""If there was a restore test."""


_NODES = (
    Column("DAEMON", name=True),
    Column("STATE"),
    Column("SEEN", right=True),
    Column("RUNNING", right=True, optional=1),
    Column("VERSION", optional=2),
    Column("CONFIGURATION", text=28),
)


_UPLOADS = (
    Column("BUCKET", name=True),
    Column("UNFINISHED UPLOAD", name=True),
    Column("RECEIVED", right=True),
    Column("OF", right=True),
    Column("RATE", right=True, optional=2),
    Column("BEGAN", optional=1),
    Column("IDLE", right=True),
    Column("EXPIRES", right=True),
)


def status_table(
    found: Overview, zone: tzinfo, width: int | None, only_problems: bool = False
) -> Iterator[str]:
    """A line for each series, and a summary; with colors.

    :param zone: time zone of the times shown
    :param width: columns of the terminal; None is unlimited
    :param only_problems: whether to show nothing else
    """
    if only_problems and not found.severity:
        yield "no problems found"
        return
    if only_problems:
        found = found.only_problems()
    rows = list(_rows(found, zone, only_problems))
    drilled = any(
        each.drilled_at is not None
        for bucket in found.buckets
        for each in bucket.series
    )
    told = list(_problem_lines(found))
    if rows:
        yield from _series_table(_DRILLED if drilled else _STATUS, rows, width)
    if rows and told:
        yield ""
    yield from _colored(told, width)
    if only_problems:
        return
    if rows or told:
        yield ""
    if found.uploads:
        head, *lines = table(_UPLOADS, list(_upload_rows(found, zone)), width)
        yield click.style(head, bold=True)
        yield from lines
        yield ""
    if found.nodes:
        head, *lines = table(_NODES, list(_node_rows(found)), width)
        yield click.style(head, bold=True)
        yield from lines
        yield ""
    yield from paragraph(_summary(found, zone), width)
    if not found.severity and found.buckets:
        yield from paragraph(summarize(found).more, width)


_Row = tuple[list[str], int]
"""The cells of a row, and its severity, which sets its color."""


def _rows(found: Overview, zone: tzinfo, only_problems: bool) -> Iterator[_Row]:
    for bucket in _worst_first(found):
        quiet = _quiet(bucket)
        for series in bucket.series:
            cells = _series_row(bucket, series, quiet, found.at, zone)
            yield cells, bucket.severity_of(series)
            # The reason once is enough.
            quiet = quiet.partition(" ")[0]
        if not bucket.series and (bucket.series_severity or not only_problems):
            state = quiet or bucket.state.value
            cells = [printable(bucket.label), "-", state, *["-"] * 4, "0", "-", "-"]
            yield cells, bucket.severity
        if bucket.more:
            yield _rest_row(bucket, only_problems), 0


def _series_table(
    columns: Sequence[Column], rows: Sequence[_Row], width: int | None
) -> Iterator[str]:
    cells = [row[: len(columns)] for row, _ in rows]
    head, *lines = table(columns, cells, width)
    yield click.style(head, bold=True)
    for line, (_, severity) in zip(lines, rows, strict=True):
        yield click.style(line, fg=_COLORS[severity])


def _colored(texts: Iterable[tuple[str, int]], width: int | None) -> Iterator[str]:
    """Sentences in the colors of their severities."""
    for text, severity in texts:
        for each in paragraph(text, width, GAP):
            yield click.style(each, fg=_COLORS[severity])


def _problem_lines(found: Overview) -> Iterator[tuple[str, int]]:
    """The problems and the clients' reports that the table does not show, each with its
    severity; and the comments of buckets with a problem.
    """
    for problem in found.problems:
        yield f"{sentence(problem.text)}.", problem.severity
    for bucket in _worst_first(found):
        label = printable(bucket.label)
        for series in bucket.series:
            if series.failed_at is not None:
                ago = age_text(found.at - series.failed_at)
                name = f" {printable(series.name)}" if series.name else ""
                text = first_and_last_line(series.failed_text or "", LONGEST_LINE)
                text = f"{label}:{name} failed {ago} ago: {text or 'no reason given'}"
                yield text, bucket.severity_of(series)
        for problem in bucket.problems:
            if problem.kind not in _IN_THE_TABLE:
                yield f"{label}: {printable(problem.text)}.", problem.severity
        if bucket.severity and bucket.comment:
            yield f"{label}: {bucket.comment}", 0


_IN_THE_TABLE = {Kind.DAMAGED, Kind.MISSING}


def _quiet(bucket: BucketOverview) -> str:
    """That the bucket is retired or paused; may be empty."""
    if bucket.retired:
        return "retired"
    return "" if bucket.paused is None else pause_text(bucket.paused)


def _worst_first(found: Overview) -> list[BucketOverview]:
    """The retired ones last, if nothing is lost."""

    def badness(bucket: BucketOverview) -> tuple[int, bool, bool, int]:
        # 40 new buckets must not hide the one whose token expires tomorrow.
        only_new = (
            bucket.severity > 0 and bucket.state is State.NEVER and not bucket.problems
        )
        state = WORST_FIRST.index(bucket.state)
        return -bucket.severity, bucket.retired, only_new, state

    return sorted(found.buckets, key=badness)


def _series_row(
    bucket: BucketOverview,
    series: SeriesOverview,
    quiet: str,
    now: float,
    zone: tzinfo,
) -> list[str]:
    last, size = series.last_at, series.last_size
    return [
        printable(bucket.label),
        printable(series.name) or "-",
        _conditions(series, quiet),
        "-" if last is None else recent_text(last, now, zone),
        "-" if last is None else age_text(now - last),
        "-" if size is None else size_text(size),
        _change(series) or "-",
        str(series.files),
        size_text(series.bytes) if series.files else "-",
        _restored(series, now),
    ]


def _restored(series: SeriesOverview, now: float) -> str:
    """How long ago a restore test passed, unless a later one failed."""
    if series.drill_error is not None:
        return "failed"
    at = series.restored_at
    return "-" if at is None else age_text(now - at)


def _rest_row(bucket: BucketOverview, only_problems: bool) -> list[str]:
    more = f"({bucket.more} more)"
    if only_problems:
        return [printable(bucket.label), more, *[""] * 8]
    files = bucket.files - sum(each.files for each in bucket.series)
    size = bucket.bytes - sum(each.bytes for each in bucket.series)
    total = size_text(size) if files else "-"
    return [printable(bucket.label), more, *[""] * 5, str(files), total, ""]


def _upload_rows(found: Overview, zone: tzinfo) -> Iterator[list[str]]:
    for each in found.uploads[:MOST_UPLOADS]:
        yield [
            printable(each.bucket),
            printable(each.name),
            size_text(each.offset),
            "-" if each.length is None else size_text(each.length),
            "-" if each.rate is None else f"{size_text(round(each.rate))}/s",
            recent_text(each.since, found.at, zone),
            age_text(found.at - each.last_at),
            age_text(each.expires - found.at),
        ]
    more = len(found.uploads) - MOST_UPLOADS
    if more > 0:
        yield ["", f"({more} more)", *[""] * 6]


def _node_rows(found: Overview) -> Iterator[list[str]]:
    leader = leader_of(found.nodes, found.at)
    for each in found.nodes:
        alive = each.is_alive(found.at)
        differs = differing(each.report, leader.report) if alive and leader else []
        yield [
            printable(each.name),
            node_state(each, found.at),
            age_text(max(found.at - each.seen, 0)),
            age_text(max(found.at - each.started, 0)) if alive else "-",
            printable(each.report.version),
            f"differs: {printable(', '.join(differs))}" if differs else "-",
        ]


def _conditions(series: SeriesOverview, quiet: str = "") -> str:
    """The state and the losses of a series.

    :param quiet: replaces a state that is no problem
    """
    words = [f"{count} {word}" if count else word for word, count in series.conditions]
    if quiet and words[0] in _CALM:
        words[0] = quiet
    elif quiet:
        words.append(quiet)
    return ", ".join(words)


_CALM = {State.FRESH.value, State.NEVER.value}


def _change(series: SeriesOverview) -> str | None:
    if not series.usual or series.last_size is None:
        return None
    return change_text(series.last_size, series.usual)


def _summary(found: Overview, zone: tzinfo) -> str:
    count = len(found.buckets)
    buckets = f"{count or 'no'} {plural(count, 'bucket')}"
    wrong = [
        f"{len(each.labels)} {_WORDS.get((each.word, each.severity), each.word)}"
        f" ({_listed(each.labels)})"
        for each in troubles(found)
        if each.labels
    ]
    parts = [f"{buckets}: {', '.join(wrong)}" if wrong else buckets]
    if not wrong and count and not found.problems:
        parts = [f"{buckets}, no problems found"]
    if found.problems:
        parts.append(server_problems(found))
    quiet = {
        "paused": [each.label for each in found.buckets if _is_paused(each)],
        "retired": [each.label for each in found.buckets if each.retired],
    }
    parts += [
        f"{len(labels)} {word} ({_listed(labels)})"
        for word, labels in quiet.items()
        if labels
    ]
    parts += _copied(found, zone)
    if found.uploads:
        parts.append(counted(len(found.uploads), "unfinished upload"))
    space = [f"{size_text(sum(each.bytes for each in found.buckets))} kept"]
    if found.space is not None:
        where = " in home" if found.has_objects else ""
        free = f"{size_text(found.space.free)} free{where}"
        space.append(free + _end_of_space(found))
    return "; ".join([*parts, ", ".join(space)])


def _copied(found: Overview, zone: tzinfo) -> Iterator[str]:
    """How far the buckets are copied to each other server."""
    copies: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
    for bucket in found.buckets:
        for each in bucket.copies:
            copies[each.target][bucket.label] = each.until
    for target, times in copies.items():
        known = [each for each in times.values() if each is not None]
        text = f"copied to {printable(target)}"
        if len(known) < len(times):
            yield f"not yet {text}"
            continue
        left = [
            each.label
            for each in found.buckets
            if each.files and each.label not in times
        ]
        but = f", except {counted(len(left), 'bucket')} ({_listed(left)})"
        until = recent_text(min(known), found.at, zone)
        yield f"{text} until {until}{but if left else ''}"


def _is_paused(bucket: BucketOverview) -> bool:
    return bucket.paused is not None and not bucket.retired


_WORDS = {
    (State.NEVER.value, WARNING): "awaiting first push",
    (Kind.FULL.value, WARNING): "nearly full",
    (Kind.TOKEN.value, WARNING): "with a token that expires soon",
    (Kind.TOKEN.value, CRITICAL): "without a valid token",
    (Kind.COPY.value, WARNING): "whose copy failed",
    (Kind.COPY.value, CRITICAL): "not copied",
    (Kind.DRILL.value, CRITICAL): "with a failed or overdue restore test",
}


def _listed(labels: Sequence[str]) -> str:
    named = [cut(printable(each), LONGEST_NAME) for each in labels[:MOST_NAMED]]
    more = len(labels) - len(named)
    return ", ".join([*named, *([f"{more} more"] if more else [])])


def _end_of_space(found: Overview) -> str:
    about = None if found.full_at is None else about_text(found.full_at - found.at)
    return f", full in about {about}" if about else ""


# The line for Nagios and Icinga.


def status_line(found: Overview) -> str:
    """One line in the format of the Monitoring Plugins: text ``|`` performance data."""
    count = len(found.buckets)
    bad = [each for each in _worst_first(found) if each.severity]
    text = "; ".join(printable(each.text, "|") for each in found.problems)
    parts = [_clipped(text, LONGEST_PROBLEM if bad else LONGEST_TEXT)] if text else []
    if bad:
        parts.append(f"{len(bad)} of {count} buckets: {_problems(bad, found.at)}")
        # A pager shows only the beginning: it should explain the state.
        if bad[0].severity > max((each.severity for each in found.problems), default=0):
            parts.reverse()
    text = "; ".join(parts)
    if not parts:
        retired = sum(each.retired for each in found.buckets)
        paused = sum(map(_is_paused, found.buckets))
        fresh = sum(
            each.state is State.FRESH and not _quiet(each) for each in found.buckets
        )
        text = f"{fresh} {plural(fresh, 'bucket')} fresh"
        for number, what in (
            # A bucket without a schedule may be empty.
            (count - fresh - paused - retired, "without a push"),
            (paused, "paused"),
            (retired, "retired"),
        ):
            text += f", {number} {what}" if number else ""
    data = " ".join(_performance(found))
    return f"FILEBUCKET {NAGIOS[found.severity]} - {text} | {data}"


def _problems(bad: Sequence[BucketOverview], now: float) -> str:
    text = _clipped(problem_text(bad[0], now), LONGEST_PROBLEM)
    told = 1
    for each in bad[1:MOST_PROBLEMS]:
        longer = f"{text}; {_clipped(problem_text(each, now), LONGEST_PROBLEM)}"
        if len(longer.encode("utf-8")) > LONGEST_TEXT:
            break
        text = longer
        told += 1
    more = len(bad) - told
    return f"{text}; and {more} more" if more else text


def problem_text(bucket: BucketOverview, now: float) -> str:
    """A bucket with its worst series."""
    label = _short(bucket.label)
    bad = [each for each in bucket.series if bucket.severity_of(each)]
    worst = max(bad, key=bucket.severity_of, default=None)
    for problem in bucket.problems:
        if worst is None or problem.severity > bucket.severity_of(worst):
            return f"{label}: {printable(problem.text, '|')}"
    if worst is None:
        return f"{label} is awaiting its first push"
    name = _short(worst.name)
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return f"{label}:{f' {name}' if name else ''} {_condition(worst, now)}{more}"


def _condition(series: SeriesOverview, now: float) -> str:
    """The state of a series in words, with its age or change."""
    text = _conditions(series)
    change = _change(series)
    if series.state is State.FAILED:
        reason = first_line(series.failed_text or "", LONGEST_LINE, "|")
        return f"{text}: {reason}" if reason else text
    if series.last_at is None:
        return f"{text}, no push yet"
    if series.state in {State.LATE, State.UNFINISHED}:
        return f"{text}, last push {age_text(now - series.last_at)} ago"
    if series.state in {State.SHRUNK, State.GROWN} and change:
        return f"{text}, {change}"
    return text


def _clipped(text: str, most: int) -> str:
    """``text`` with at most that many bytes."""
    # A character of zero width still takes bytes.
    found = text.encode("utf-8")
    if len(found) <= most:
        return text
    return found[: most - len(CUT.encode("utf-8"))].decode("utf-8", "ignore") + CUT


def _short(name: str) -> str:
    return cut(printable(name, "|"), LONGEST_NAME)[:LONGEST_NAME]


def _performance(found: Overview) -> Iterator[str]:
    """``label=value;warn;crit;min;max``; a value over a threshold sets the status."""
    yield f"buckets={len(found.buckets)};;;0"
    counts: Counter[str] = Counter()
    # A word of both severities has the threshold of a warning.
    bounds = {}
    for each in troubles(found):
        counts[each.word] += len(each.labels)
        bounds[each.word] = ";0" if each.severity == CRITICAL else "0;"
    for kind in Kind:
        counts[kind.value] += sum(each.kind is kind for each in found.problems)
        bounds.setdefault(kind.value, "0;")
    for word, count in counts.items():
        yield f"{word}={count};{bounds[word]};0"
    yield f"files={sum(each.files for each in found.buckets)};;;0"
    yield f"bytes={sum(each.bytes for each in found.buckets)}B;;;0"
    yield f"uploads={len(found.uploads)};;;0"
    if found.nodes:
        running = sum(each.is_alive(found.at) for each in found.nodes)
        yield f"nodes={running};;;0"
    if found.space is not None:
        yield f"free={found.space.free}B;;;0;{found.space.total}"


# JSON.


def status_json(found: Overview) -> dict[str, Any]:
    """The status as JSON: times in RFC 3339, sizes in bytes, ages in seconds."""
    return {
        "at": rfc3339(found.at),
        "severity": found.severity,
        "buckets": [_bucket_json(each, found.at) for each in _worst_first(found)],
        "free": found.space and found.space.free,
        "capacity": found.space and found.space.total,
        "problems": [_problem_json(each) for each in found.problems],
        "free_at": found.space and rfc3339(found.space.at),
        "full_at": rfc3339(found.full_at),
        "refusals": [refusal_json(each) for each in found.refusals],
        "uploads": [_upload_json(each) for each in found.uploads],
        "nodes": [_node_json(each, found) for each in found.nodes],
    }


def _node_json(node: Node, found: Overview) -> dict[str, Any]:
    leader = leader_of(found.nodes, found.at)
    return {
        "node": node.name,
        "state": node_state(node, found.at),
        "leads": node is leader,
        "version": node.report.version,
        "started": rfc3339(node.started),
        "seen": rfc3339(node.seen),
        "differs": differing(node.report, leader.report) if leader else [],
        "problems": [_problem_json(each) for each in node.report.problems],
    }


def _problem_json(problem: Problem) -> dict[str, Any]:
    return {
        "kind": problem.kind.value,
        "severity": problem.severity,
        "text": problem.text,
        **({"node": problem.node} if problem.node else {}),
    }


def _upload_json(upload: UploadOverview) -> dict[str, Any]:
    return {
        "bucket": upload.bucket,
        "name": upload.name,
        "received": upload.offset,
        "size": upload.length,
        "rate": None if upload.rate is None else round(upload.rate),
        "since": rfc3339(upload.since),
        "last_at": rfc3339(upload.last_at),
        "expires": rfc3339(upload.expires),
    }


def _bucket_json(bucket: BucketOverview, now: float) -> dict[str, Any]:
    return {
        "bucket": bucket.label,
        "state": bucket.state.value,
        "severity": bucket.severity,
        "expect": bucket.expect,
        "comment": bucket.comment,
        "paused": bucket.paused
        and {
            "until": rfc3339(bucket.paused.until),
            "reason": bucket.paused.reason,
        },
        "retired": bucket.retired,
        "quota": bucket.quota,
        "restored_at": rfc3339(bucket.restored_at),
        "drill_due": rfc3339(bucket.drill_due),
        "last_at": rfc3339(bucket.last_at),
        "files": bucket.files,
        "bytes": bucket.bytes,
        "damaged": bucket.damaged,
        "missing": bucket.missing,
        "problems": [_problem_json(each) for each in bucket.problems],
        "copies": [
            {
                "target": each.target,
                "until": rfc3339(each.until),
                "at": rfc3339(each.at),
                "error": each.error,
                "waiting_since": rfc3339(each.waiting_since),
            }
            for each in bucket.copies
        ],
        "series": [
            {
                "series": each.name,
                "state": each.state.value,
                "severity": bucket.severity_of(each),
                "state_at": rfc3339(each.state_at),
                "due": rfc3339(each.due),
                "last_at": rfc3339(each.last_at),
                "last_name": each.last_name,
                "last_size": each.last_size,
                "age": None if each.last_at is None else round(now - each.last_at, 3),
                "usual_size": each.usual,
                "change": each.change,
                "pushes": each.pushes,
                "files": each.files,
                "bytes": each.bytes,
                "damaged": each.damaged,
                "missing": each.missing,
                "failed_at": rfc3339(each.failed_at),
                "failed_text": each.failed_text,
                "drilled_at": rfc3339(each.drilled_at),
                "drilled_name": each.drilled_name,
                "drill_error": each.drill_error,
                "restored_at": rfc3339(each.restored_at),
            }
            for each in bucket.series
        ],
        "more_series": bucket.more,
    }
