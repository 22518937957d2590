"""Chooses the file that an operator wants back, and judges what was read of it.

Without a name, only a good file is chosen: one that is not damaged, empty or shrunk,
and that no prune is deleting. A file that the operator names may be suspicious, but not
damaged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from attrs import frozen

from filebucket.base.errors import OperatorError
from filebucket.base.text import counted, printable
from filebucket.catalogue.interfaces import IFiles
from filebucket.model import names
from filebucket.model.bucket import Bucket
from filebucket.model.empty import holds_nothing
from filebucket.model.records import File, Received
from filebucket.model.state import State
from filebucket.store.interfaces import Content

RECENT = 60.0
"""Seconds after a change of a file in which the row of its push may be missing."""


JUST_NOW = "it was replaced or changed just now; try again in a minute"
"""A difference that is no damage."""


_SHA256 = re.compile("[0-9a-f]{64}")


class NoGoodFileError(OperatorError):
    """There is no such file, or none that is good."""


@frozen
class Choice:
    """A file to restore.

    :param warnings: what the operator should know before, each as a sentence
    """

    file: File
    warnings: tuple[str, ...] = ()


def faults(file: File) -> list[str]:
    """Why a file is not good, each as one or two words; empty if it is good."""
    received = file.received
    found = []
    if file.damaged:
        found.append("damaged")
    if holds_nothing(received.name, received.size, received.sha256):
        found.append("empty")
    if file.judgement is State.SHRUNK:
        found.append("shrunk")
    if file.fate_at is not None:
        found.append("being pruned")
    return found


def choose(
    files: IFiles,
    bucket: Bucket,
    hide: Callable[[str], str],
    wanted: str | None = None,
    until: float = math.inf,
    even_damaged: bool = False,
) -> Choice:
    """The file with this name, or the newest good file.

    :param hide: masks tokens in names
    :param wanted: name of a file, name of a series, or a shell pattern of such names;
        None is all series
    :param until: it was received before this time
    :param even_damaged: choose the file with this name even if it is damaged
    :raises NoGoodFileError: there is none
    :raises CatalogueError: the catalogue cannot be read
    """

    def shown(file: File) -> str:
        return printable(hide(file.received.name))

    def chosen(file: File, *warnings: str) -> Choice:
        if file.received.request is None:
            warnings += (
                f"the checksum of {shown(file)} is from the disk, not from its push:"
                " damage from before the catalogue knew the file cannot be detected",
            )
        return checked(Choice(file, warnings))

    what = (
        bucket.label if wanted is None else f"{bucket.label} {printable(hide(wanted))}"
    )
    if wanted is not None:
        named = files.named(bucket.key, wanted)
        if named is not None and named.received.received_at < until:
            found = faults(named)
            if named.damaged and not even_damaged:
                raise NoGoodFileError(
                    f"{shown(named)} is damaged; --damaged gets it all the same"
                )
            warnings = [f"{shown(named)} is {' and '.join(found)}"] if found else []
            return chosen(named, *warnings)
        if even_damaged:
            raise NoGoodFileError(f"{what}: there is no file with exactly this name")
    count, newest = 0, ""
    for file in files.newest_first(bucket.key, wanted, until):
        bad = " and ".join(faults(file))
        if not bad:
            return chosen(file, *_skipped(count, newest))
        if not count:
            newest = f"{shown(file)} is {bad}"
        count += 1
    if count:
        raise NoGoodFileError(f"{what}: there is no good file; {newest}")
    before = ""
    if until != math.inf:
        # On a second server, the times of the first one find other files, or none.
        before = " from that time: --at is when a file, or its copy, arrived on this"
        before += " server"
    kind = "file" if wanted is None else "file or series of that name"
    hint = "; 'filebucket files' lists the files" if before or wanted else ""
    raise NoGoodFileError(f"{what}: there is no {kind}{before}{hint}")


def _skipped(count: int, newest: str) -> tuple[str, ...]:
    """A sentence about newer files that are not good."""
    if not count:
        return ()
    return (f"skipped {counted(count, 'newer file')} that may be bad: {newest}",)


def checked(choice: Choice) -> Choice:
    """Refuse a row that no push can have, such as one with a name that leads out of a
    folder.
    """
    try:
        check(choice.file.received)
    except ValueError as error:
        raise NoGoodFileError(f"the catalogue has an invalid entry: {error}") from None
    return choice


def check(received: Received) -> None:
    """Check what is passed on to a command or another server: another program may have
    written the catalogue.

    :raises ValueError: no push can have it
    """
    names.check(received.name)
    if "\0" in received.series:
        raise ValueError("a series may not contain NUL")
    if not _SHA256.fullmatch(received.sha256):
        raise ValueError("a checksum must be 64 hexadecimal digits")


def difference(file: File, content: Content, now: float) -> str:
    """How the content differs from what was received, in a few words; empty if it is
    the same.

    :param now: seconds since the epoch
    """
    received = file.received
    if (content.size, content.sha256) == (received.size, received.sha256):
        return ""
    if now - content.stat.changed_at < RECENT:
        return JUST_NOW
    if content.size != received.size:
        return f"{content.size} bytes on disk, but {received.size} were received"
    return "its content differs from what was received"
