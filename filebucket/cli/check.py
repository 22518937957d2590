"""``filebucket check``: find mistakes and risks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from attrs import asdict, astuple

from filebucket.base.text import rfc3339
from filebucket.cli.options import print_json, with_config, with_json

if TYPE_CHECKING:
    from filebucket.daemon.check import Report


@click.command()
@click.option("--strict", is_flag=True, help="Exit with 1 for risks, too.")
@click.option(
    "--no-daemon",
    is_flag=True,
    help="Do not check that the daemon runs and has applied the configuration.",
)
@with_config
@with_json
def check(path: str, as_json: bool, strict: bool, no_daemon: bool) -> None:
    """Check the configuration, home, daemon, hooks and certificates.

    A running daemon is not disturbed. Exits with 1 if anything keeps the daemon from
    starting or from working as configured.

    As root, checks the home and the hooks with the rights of the home's owner.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing installs it

    from filebucket.daemon import check as checks  # noqa: PLC0415 - a slow import

    report = checks.check(path, reactor, os.environ, time.time(), not no_daemon)
    if as_json:
        findings = [
            {"level": each.level, "place": each.place, "text": each.text}
            for each in report.concerns
        ]
        print_json(
            config=os.path.abspath(path),
            wrong=report.wrong,
            risky=report.risky,
            findings=findings,
            tier=report.tier,
            hooks=report.hooks,
            process=report.process,
            due=asdict(report.difference),
            certificates=[
                {
                    "place": each.place,
                    "subject": each.name,
                    "expires": rfc3339(each.ends, "seconds"),
                }
                for each in report.certificates
            ],
        )
    else:
        for each in report.concerns:
            level = click.style(each.level, fg="red" if each.wrong else "yellow")
            click.echo(f"{level}  {each.place}: {each.text}")
        for line in _summary(path, report, not no_daemon):
            click.echo(line)
    if report.wrong or (strict and report.risky):
        raise SystemExit(1)


def _summary(path: str, report: Report, daemon: bool) -> Iterator[str]:
    if report.concerns:
        yield f"{path}: {report.wrong} wrong, {report.risky} risky"
    if report.config is None or report.wrong:
        return
    if not report.concerns:
        yield f"{path}: no problems found"
    yield f"buckets  {len(report.config.buckets)}"
    store, how = report.config.store, ""
    if not report.tier:
        how = " (will be created)"
    elif store is None:
        how = f" (atomic publish: {report.tier})"
    yield f"home     {report.config.home}{how}"
    if store is not None:
        yield f"store    S3 buckets {store.names_bucket} and {store.data_bucket}"
    yield f"hooks    {', '.join(report.hooks) or 'none'}"
    for place, name, ends in sorted({astuple(each) for each in report.certificates}):
        yield f"tls      {place}: {name}, valid until {rfc3339(ends, 'seconds')}"
    if daemon:
        yield f"daemon   {_running(report.process)}"


def _running(process: int | None) -> str:
    if process is None:
        return "not running"
    if process <= 0:
        return "running in another container or on another machine"
    return f"process {process}"
