"""What the buckets use, and the folders that belong to no bucket.

The numbers are from the catalogue, since counting the files could take minutes. They
are unknown if there is no catalogue, or if it cannot be read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping

from attrs import frozen

from filebucket.base.text import counted, printable, size_text
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.view import View
from filebucket.cli.options import open_catalogue
from filebucket.config.config import Config
from filebucket.model.bucket import label_of
from filebucket.model.names import PRIVATE
from filebucket.model.records import Tally
from filebucket.model.token import TOKEN_CHARACTERS, TOKEN_LENGTH, token_digest


@frozen
class Usage:
    """The content of the home.

    :param buckets: totals of each bucket by its key; None if they are unknown
    :param others: labels of folders that belong to no bucket, with their keys
    """

    buckets: Mapping[str, Tally] | None
    others: Mapping[str, str]

    def of(self, key: str) -> Tally | None:
        """The totals of a bucket, or of another folder; None if they are unknown."""
        if self.buckets is None:
            return None
        return self.buckets.get(key, Tally(key))


def files_text(found: Tally) -> str:
    """``14 files, 1.2 GiB``."""
    return f"{counted(found.files, 'file')}, {size_text(found.bytes)}"


def read_usage(config: Config) -> Usage:
    """Read the catalogue and the names of the home's folders. From here on, the process
    has the rights of the home's owner.
    """
    tallies: dict[str, Tally] | None = None
    try:
        with open_catalogue(config, View) as catalogue:
            tallies = {each.bucket: each for each in catalogue.tallies(time.time())}
    except CatalogueError:
        pass
    configured = {each.directory for each in config.buckets}
    others = {
        label_of(key): key for key in _keys(config.home, configured, tallies or ())
    }
    return Usage(tallies, others)


def _keys(
    home: str, configured: Collection[str], known: Collection[str]
) -> Iterator[str]:
    """Keys of buckets that other folders of the home would have.

    :param known: keys in the catalogue
    """
    try:
        with os.scandir(home) as entries:
            names = sorted(
                each.name for each in entries if each.is_dir(follow_symlinks=False)
            )
    except OSError:
        return
    for name in names:
        if name in configured or name.startswith(PRIVATE):
            continue
        key = name
        if (
            name not in known
            and len(name) == TOKEN_LENGTH
            and TOKEN_CHARACTERS.issuperset(name)
        ):
            # It may be the token of a bucket without a name.
            key = f"#{token_digest(name.encode('ascii')).hex()}"
        if key in known or not (name.startswith(".") or name == "lost+found"):
            yield key


def other_folders(usage: Usage, home: str) -> Iterator[str]:
    """Lines about the folders that belong to no bucket."""
    if not usage.others:
        return
    yield f"Folders that belong to no bucket, in {home}:"
    yield ""
    for label, key in usage.others.items():
        found = usage.of(key)
        yield f"    {printable(label)}{f' ({files_text(found)})' if found else ''}"
