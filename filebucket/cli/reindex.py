"""``filebucket reindex``: reconcile the catalogue with the files on disk."""

from __future__ import annotations

import time
from contextlib import ExitStack

import click

from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.jobs import job
from filebucket.cli.options import open_catalogue, with_config, with_json
from filebucket.cli.progress import Findings, progress_bar
from filebucket.config.load import load
from filebucket.store.choose import archive_of
from filebucket.upkeep import reindex as reindexing
from filebucket.upkeep.survey import count_names


@click.command()
@click.option(
    "--accept",
    is_flag=True,
    help="Accept the current state: forget missing files, trust changed ones.",
)
@with_config
@with_json
def reindex(path: str, as_json: bool, accept: bool) -> None:
    """Reconcile the catalogue with the files on disk.

    The daemon does this at startup. Files that are not in the catalogue are read and
    added; files that are gone from the disk are marked as missing. No file is changed.
    Exits with 1 if a file is damaged, missing or unreadable.

    Use --accept only if you deleted or changed files on purpose: it hides real losses
    and damage, because missing and damaged files are no longer reported after it.
    """
    config = load(path)
    with ExitStack() as stack:
        catalogue = stack.enter_context(open_catalogue(config, Inventory, create=True))
        stack.enter_context(job(config.catalogue_place, "reindex"))
        archive = archive_of(config.home, config.store)
        count = count_names(archive, config.buckets)
        bar = stack.enter_context(progress_bar(count))
        findings = Findings(as_json, bar)
        found = reindexing.reindex(
            catalogue,
            archive,
            config.buckets,
            time.time,
            report=findings.print,
            progress=lambda found: bar.to(found.files),
            accept=accept,
        )
    findings.end(found)
    if found.damaged or found.missing or found.unreadable:
        raise SystemExit(1)
