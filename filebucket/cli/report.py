"""``filebucket report``: a summary of the last days, for an e-mail.

It only reads, with or without a daemon, as :mod:`filebucket.cli.status`. The output has
no token and no path, and no more than some 150 lines, whatever the number of buckets.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from typing import Any

import click

from filebucket.base.text import (
    about_text,
    age_text,
    ago,
    cut,
    local,
    printable,
    rfc3339,
    size_text,
)
from filebucket.catalogue.journal import KEPT_REFUSALS
from filebucket.catalogue.report import (
    DAY,
    BucketReport,
    Report,
    filling,
    make_report,
    silent,
    total,
)
from filebucket.catalogue.summary import summarize, summarize_briefly
from filebucket.catalogue.view import View
from filebucket.cli.known import known_to, load_with_problems
from filebucket.cli.options import open_catalogue, print_json, with_config, with_json
from filebucket.cli.status import problem_text
from filebucket.cli.table import Column, escape_unprintable, table
from filebucket.model.node import leader_of
from filebucket.model.records import Activity
from filebucket.model.schedule import local_zone

ELSEWHERE = 75
"""The exit status if another daemon leads."""

WIDTH = 72
"""Columns of the text: those of an e-mail."""
MOST_BUCKETS = 30
MOST_LINES = 20
"""Buckets in the table, and in each list."""


@click.command(short_help="Summarize the last days, for an e-mail.")
@click.option(
    "--days",
    type=click.IntRange(1, 366),
    default=7,
    show_default=True,
    metavar="N",
    help="Report on the last N days.",
)
@click.option(
    "--leader",
    is_flag=True,
    help="Report nothing, and exit with 75, if another daemon leads.",
)
@with_config
@with_json
def report(days: int, leader: bool, path: str, as_json: bool) -> None:
    """Summarize the last days: what each bucket received and how it grew, when the disk
    and the quotas will be full, which buckets received nothing, and all problems that
    exist now.

    The text has 72 columns, for an e-mail. Exits with 0 even if there are problems.

    As root, reads the catalogue with the rights of the home's owner.
    """
    escape_unprintable()
    now = time.time()
    config, problems = load_with_problems(path, now, daemon=True)
    with open_catalogue(config, View) as catalogue:
        found = make_report(
            catalogue, known_to(config, now, problems), now - days * DAY
        )
    leads = leader_of(found.overview.nodes, now)
    if leader and leads is not None and leads.name != config.node:
        click.echo(f"the daemon {printable(leads.name)} leads", err=True)
        raise SystemExit(ELSEWHERE)
    if as_json:
        print_json(**report_json(found))
    else:
        for line in report_text(found, local_zone()):
            click.echo(line)


def report_text(found: Report, zone: tzinfo) -> Iterator[str]:
    """The lines of the report.

    :param zone: time zone of the times shown
    """
    began, ended = (_date(each, zone) for each in (found.since, found.at))
    host = printable(os.uname().nodename)
    yield f"file-bucket on {host}: {began} to {ended}"
    yield ""
    summary = summarize_briefly(found.overview)
    yield from textwrap.wrap(f"{summary.headline}. {summary.more}", WIDTH)
    for title, lines in (
        ("Problems now", _problems(found)),
        ("Buckets", _table(found)),
        ("Space", _space(found, zone)),
        ("No push in this period", _silent(found)),
    ):
        shown = list(lines)
        if shown:
            yield ""
            yield title
            yield "-" * len(title)
            yield from shown


def _date(at: float, zone: tzinfo) -> str:
    then = local(at, zone)
    return "-" if then is None else f"{then:%Y-%m-%d}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")


def _listed(lines: Sequence[str]) -> Iterator[str]:
    """The first of these lines, and the number of the others."""
    for each in lines[:MOST_LINES]:
        yield from _wrapped(each)
    more = len(lines) - MOST_LINES
    if more > 0:
        yield f"({more:,} more)"


def _problems(found: Report) -> Iterator[str]:
    server = [f"server: {printable(each.text)}" for each in found.overview.problems]
    bad = [each.now for each in found.buckets if each.now.severity]
    yield from _listed([*server, *(problem_text(each, found.at) for each in bad)])


_BUCKETS = (
    Column("BUCKET", name=True),
    Column("PUSHES", right=True),
    Column("RECEIVED", right=True),
    Column("GROWTH", right=True),
    Column("PRUNED", right=True),
    Column("REFUSED", right=True),
    Column("LAST", right=True),
)


def _table(found: Report) -> Iterator[str]:
    """A line for each bucket, with its comment below, and the total."""
    shown, rest = found.buckets[:MOST_BUCKETS], found.buckets[MOST_BUCKETS:]
    if not shown:
        return
    rows = [_row(each.now.label, each.activity, _age(each, found.at)) for each in shown]
    if rest:
        rows.append(_row(f"({len(rest):,} more)", total(rest), "-"))
    rows.append(_row("total", total(found.buckets), "-"))
    head, *lines = table(_BUCKETS, rows, WIDTH)
    yield head
    comments = [each.now.comment for each in shown]
    for line, comment in zip(lines, [*comments, *[""] * 2], strict=False):
        yield line
        if comment:
            yield cut(f"  {printable(comment)}", WIDTH)
    if found.strangers:
        yield f"Refused without a valid token: {_refused(found.strangers)}"


def _row(name: str, activity: Activity, last: str) -> list[str]:
    growth = activity.bytes
    sign = "+" if growth > 0 else "-"
    return [
        name,
        f"{activity.pushes:,}",
        size_text(activity.received) if activity.pushes else "-",
        f"{sign}{size_text(abs(growth))}" if growth else "-",
        f"{activity.pruned:,}" if activity.pruned else "-",
        _refused(activity.refused),
        last,
    ]


def _refused(count: int) -> str:
    """The catalogue keeps only the latest refusals."""
    return f"{count:,}{'+' if count >= KEPT_REFUSALS else ''}" if count else "-"


def _age(bucket: BucketReport, now: float) -> str:
    last = bucket.now.last_at
    return "-" if last is None else age_text(now - last)


def _space(found: Report, zone: tzinfo) -> Iterator[str]:
    """What fills when, at the present rate."""
    space = found.overview.space
    if space is not None:
        free = f"{size_text(space.free)} of {size_text(space.total)} free"
        yield from _wrapped(f"disk: {free}{_full(found.overview.full_at, found, zone)}")
    lines = []
    for each in filling(found):
        used = each.now.quota_taken / (each.now.quota or 1)
        when = _full(each.full_at, found, zone)
        if when:
            share = f"{used:.0%} of {size_text(each.now.quota or 0)} used"
            lines.append(f"{printable(each.now.label)}: {share}{when}")
    yield from _listed(lines)


def _full(at: float | None, found: Report, zone: tzinfo) -> str:
    if at is None:
        return ""
    if at <= found.at:
        return ", full"
    about = about_text(at - found.at)
    return f", full in about {about} ({_date(at, zone)})" if about else ""


def _silent(found: Report) -> Iterator[str]:
    lines = []
    for each in silent(found):
        last = each.now.last_at
        text = "no push yet" if last is None else f"last push {ago(found.at - last)}"
        if each.now.paused is not None:
            text += f" (paused: {printable(each.now.paused.reason)})"
        elif each.now.expect is None:
            text += " (no schedule)"
        lines.append(f"{printable(each.now.label)}: {text}")
    yield from _listed(lines)


# JSON.


def report_json(found: Report) -> dict[str, Any]:
    """The report as JSON: times in RFC 3339, sizes in bytes."""
    summary = summarize(found.overview)
    space = found.overview.space
    return {
        "since": rfc3339(found.since),
        "at": rfc3339(found.at),
        "severity": summary.severity,
        "headline": summary.headline,
        "problems": [each.text for each in found.overview.problems],
        "buckets": [_bucket_json(each) for each in found.buckets],
        "total": _activity_json(total(found.buckets)),
        "refused_without_token": found.strangers,
        "free": space and space.free,
        "capacity": space and space.total,
        "full_at": rfc3339(found.overview.full_at),
    }


def _bucket_json(bucket: BucketReport) -> dict[str, Any]:
    now = bucket.now
    return {
        "bucket": now.label,
        "comment": now.comment,
        "severity": now.severity,
        "state": now.state.value,
        "problems": [each.text for each in now.problems],
        "last_at": rfc3339(now.last_at),
        "files_now": now.files,
        "bytes_now": now.bytes,
        "quota": now.quota,
        "full_at": rfc3339(bucket.full_at),
        "silent": bucket.silent,
        **_activity_json(bucket.activity),
    }


def _activity_json(activity: Activity) -> dict[str, int]:
    return {
        "pushes": activity.pushes,
        "received": activity.received,
        "growth_files": activity.files,
        "growth": activity.bytes,
        "pruned": activity.pruned,
        "pruned_bytes": activity.pruned_bytes,
        "refused": activity.refused,
    }
