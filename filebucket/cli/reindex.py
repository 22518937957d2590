"""``filebucket reindex``: bring the catalogue and the disk together."""

from __future__ import annotations

import time

import click

from filebucket.catalogue.inventory import Inventory
from filebucket.cli.options import open_catalogue, with_config, with_json
from filebucket.cli.progress import Findings, progress_bar
from filebucket.config.load import load
from filebucket.store.archive import DirectoryArchive
from filebucket.upkeep import reindex as reindexing
from filebucket.upkeep.survey import count_names


@click.command()
@click.option(
    "--accept",
    is_flag=True,
    help="What is missing shall be, and what is damaged is what it should be.",
)
@with_config
@with_json
def reindex(path: str, as_json: bool, accept: bool) -> None:
    """Bring the catalogue and the disk together.

    The daemon does so at its start. Files without a row are read and entered, rows
    without a file are marked as missing. No file is changed. Exits with 1 where
    something turns out to be damaged, missing or unreadable.
    """
    config = load(path)
    archive = DirectoryArchive(config.home)
    with (
        open_catalogue(config, Inventory, create=True) as catalogue,
        progress_bar(count_names(archive, config.buckets)) as bar,
    ):
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
