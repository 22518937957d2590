"""``filebucket get``: copy a stored file, and compare its checksum.

The file is chosen and opened with the rights of the home's owner, and written with
those of the caller.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Self

import cattrs
import click
from attrs import frozen

from filebucket.base.errors import OperatorError
from filebucket.base.owner import AS_OWNER, opened_as_owner_of, refused_hint
from filebucket.base.text import ago, printable, rfc3339, size_text, time_text
from filebucket.catalogue.files import Files
from filebucket.catalogue.interfaces import IFiles
from filebucket.cli.listing import file_json
from filebucket.cli.options import (
    bucket_labels,
    chosen_buckets,
    end_of,
    open_catalogue,
    print_json,
    with_config,
    with_json,
)
from filebucket.cli.output import CannotPrintError
from filebucket.cli.progress import progress_bar
from filebucket.config.config import Config
from filebucket.config.load import load
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.model.names import PRIVATE
from filebucket.model.records import Drill, File
from filebucket.model.schedule import local_zone
from filebucket.store.archive import DirectoryArchive, StoredFile
from filebucket.store.choose import archive_of
from filebucket.store.interfaces import (
    Content,
    IArchive,
    IStoredFile,
    NoFileError,
    NotAFileError,
    UnsteadyError,
)
from filebucket.store.s3.stream import StreamedFile, streamed
from filebucket.store.target import Target, target
from filebucket.upkeep.drill import Command, StartError, running
from filebucket.upkeep.restore import JUST_NOW, Choice, checked, choose, difference


@click.command(short_help="Copy a stored file, and compare its checksum.")
@click.argument("bucket", shell_complete=bucket_labels)
@click.argument("wanted", metavar="[SERIES|NAME]", required=False)
@click.option(
    "--at",
    metavar="TIME",
    help="Get the newest file as of TIME: a date (its end), a timestamp, or a time span"
    " such as 7d.",
)
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    default=".",
    help="Write to FILE, into a folder, or with - to standard output. By default, write"
    " into the current folder, under the file's own name.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option(
    "--damaged",
    is_flag=True,
    help="Get the file NAME even if it is damaged. If it is, the exit status is 1.",
)
@click.option(
    "--exec",
    "line",
    metavar="COMMAND",
    help="Test a restore: give the file to a shell command, as its standard input, and"
    " store nothing. The result is recorded and shown by 'filebucket status'.",
)
@with_config
@with_json
def get(
    path: str,
    bucket: str,
    wanted: str | None,
    at: str | None,
    output: str,
    overwrite: bool,
    damaged: bool,
    line: str | None,
    as_json: bool,
) -> None:
    """Copy the newest good file of BUCKET or of SERIES, or the file NAME, and compare
    its checksum with the one of the push.

    A good file is not damaged, empty or shrunk. Nothing is written unless the file is
    whole and the checksum is right; with -o -, the exit status shows that. Exits with 1
    if anything failed.

    A restore test passes if the checksum is right and COMMAND exits with 0. COMMAND
    runs with your rights: if you are root, with root's.
    """
    if damaged and wanted is None:
        raise click.UsageError("--damaged needs the NAME of a file")
    if line is not None and (output != "." or overwrite or damaged):
        raise click.UsageError("--exec excludes --output, --overwrite and --damaged")
    if line is not None and not line.strip():
        raise click.UsageError("--exec needs a COMMAND")
    if as_json and output == "-":
        raise click.UsageError("--json excludes --output -")
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal; redirect it")
    until = float("inf") if at is None else _end_of(at)
    config = load(path)
    (chosen,) = chosen_buckets(config, [bucket])
    hide = mask(config.buckets)
    choosing = partial(
        choose,
        bucket=chosen,
        hide=hide,
        wanted=wanted,
        until=until,
        even_damaged=damaged,
    )
    with ExitStack() as stack:
        stack.enter_context(_ending_orderly())
        choice, found = _opened(config, chosen, choosing, hide, stack)
        for warning in choice.warnings:
            click.echo(f"Warning: {warning}", err=True)
        file = choice.file
        name = printable(hide(file.received.name))
        if line is not None:
            _drill(config, chosen, file, found, line, hide, as_json)
            return
        stored = _or_fail(found, name)
        if output == "-":
            content = _copied(stored, name, _print_bytes)
            wrong = difference(file, content, time.time())
            if wrong:
                raise OperatorError(f"{name}: {wrong}; do not use the output")
            click.echo(f"{name}: {_about(file)}", err=True)
            return
        writing = stack.enter_context(
            target(output, file.received.name, overwrite, hide)
        )
        content = _copied(stored, name, writing.write)
        wrong = difference(file, content, time.time())
        if wrong and not damaged:
            raise OperatorError(f"{name}: {wrong}; nothing was written")
        writing.publish()
        if wrong:
            raise OperatorError(f"{name}: {wrong}; it was written all the same")
        _print(file, writing, chosen, hide, as_json)


def _end_of(at: str) -> float:
    try:
        return end_of(at, time.time(), local_zone())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--at'") from None


@frozen
class _Unreadable:
    """Why a chosen file cannot be read.

    :param reason: as a clause
    :param hint: what to do, to append; may be empty
    """

    reason: str
    hint: str = ""

    @classmethod
    def of(cls, error: Exception, refused: str = AS_OWNER) -> Self:
        """From an exception that is one of :data:`_UNREADABLE`.

        :param refused: what helps if the file may not be read
        """
        if isinstance(error, NotAFileError):
            return cls("not a regular file")
        if isinstance(error, NoFileError):
            return cls("the file is gone", "; 'filebucket verify' finds missing files")
        hint = f"; {refused}" if isinstance(error, PermissionError) else ""
        return cls(getattr(error, "strerror", None) or "disk error", hint)


_UNREADABLE = (NotAFileError, NoFileError, OSError)


def _opened(
    config: Config,
    bucket: Bucket,
    choosing: Callable[[IFiles], Choice],
    hide: Callable[[str], str],
    stack: ExitStack,
) -> tuple[Choice, IStoredFile | _Unreadable]:
    """Choose and open a file.

    :param stack: closes it
    """
    refused = refused_hint(config.home)

    def work() -> tuple[str, int | None]:
        with open_catalogue(config, Files) as files:
            choice = choosing(files)
        archive = archive_of(config.home, config.store)
        fd, error = None, None
        name = choice.file.received.name
        try:
            with _steady(printable(hide(name))):
                fd = _descriptor(archive, bucket.directory, name)
        except _UNREADABLE as caught:
            error = _Unreadable.of(caught, refused)
        return json.dumps(cattrs.unstructure((choice, error))), fd

    text, fd = opened_as_owner_of(config.home, PRIVATE, work)
    choice, error = json.loads(text)
    # Checked again: the other process may have been led astray by what it read.
    choice = checked(cattrs.structure(choice, Choice))
    if fd is None:
        return choice, cattrs.structure(error, _Unreadable)
    stack.callback(os.close, fd)
    if config.store is None:
        return choice, StoredFile.of(fd)
    try:
        with _steady(printable(hide(choice.file.received.name))):
            return choice, StreamedFile.of(fd)
    except _UNREADABLE as caught:
        return choice, _Unreadable.of(caught)


def _descriptor(archive: IArchive, directory: str, name: str) -> int:
    """A descriptor from which another process can read a file."""

    @contextmanager
    def opened() -> Iterator[IStoredFile]:
        with archive.open(directory) as folder, folder.open(name) as stored:
            yield stored

    if not isinstance(archive, DirectoryArchive):
        return streamed(opened)
    with opened() as stored:
        assert isinstance(stored, StoredFile)
        return os.dup(stored.fd)


def _or_fail(found: IStoredFile | _Unreadable, name: str) -> IStoredFile:
    """The file, if it can be read.

    :param name: for messages
    """
    if isinstance(found, _Unreadable):
        raise OperatorError(f"{name}: {found.reason}{found.hint}")
    return found


def _copied(
    stored: IStoredFile, name: str, write: Callable[[memoryview], object]
) -> Content:
    """Read a file to its end, and pass it on.

    :param name: for messages
    """
    done = 0

    def pass_on(piece: memoryview) -> None:
        nonlocal done
        write(piece)
        done += len(piece)
        bar.to(done)

    try:
        with progress_bar(stored.stat.size) as bar, _steady(name):
            return stored.copy(pass_on)
    except OSError as error:
        found = _Unreadable.of(error)
        raise OperatorError(f"{name}: {found.reason}{found.hint}") from None


@contextmanager
def _steady(name: str) -> Iterator[None]:
    """Report that a stored file was replaced.

    :param name: for messages
    """
    try:
        yield
    except UnsteadyError:
        raise OperatorError(
            f"{name}: the file changed while it was being read; try again"
        ) from None


def _drill(
    config: Config,
    bucket: Bucket,
    file: File,
    found: IStoredFile | _Unreadable,
    line: str,
    hide: Callable[[str], str],
    as_json: bool,
) -> None:
    """Give a file to a command, record the result and print it."""
    received = file.received
    name = printable(hide(received.name))
    if isinstance(found, _Unreadable):
        error: str | None = found.reason
    else:
        environment = {
            "FILEBUCKET_BUCKET": bucket.label,
            "FILEBUCKET_SERIES": hide(received.series),
            "FILEBUCKET_NAME": received.name,
            "FILEBUCKET_SIZE": str(received.size),
            "FILEBUCKET_SHA256": received.sha256,
        }
        # JSON is then alone on standard output.
        try:
            with running(line, environment, quiet=as_json) as command:
                error = _tested(file, found, name, command)
        except StartError as caught:
            raise OperatorError(f"the command cannot be started: {caught}") from None
    drill = Drill(file, time.time(), error)
    unrecorded = _unrecorded(config, drill)
    if as_json:
        print_json(
            **file_json(file, bucket.label, hide),
            drilled_at=rfc3339(drill.at),
            passed=error is None,
            error=error,
            recorded=unrecorded is None,
        )
    if error is not None:
        also = "" if unrecorded is None else f"; it was not recorded: {unrecorded}"
        raise OperatorError(f"{name}: the restore test failed: {error}{also}")
    if unrecorded is not None:
        raise OperatorError(
            f"{name}: the restore test passed, but it was not recorded: {unrecorded}"
        )
    if not as_json:
        click.echo(f"{name}: {_about(file)}, restore test passed", err=True)


def _tested(file: File, stored: IStoredFile, name: str, command: Command) -> str | None:
    """Give a file to a command.

    :param name: for messages
    :returns: why the restore test failed; None if it passed
    """
    try:
        with _steady(name):
            content = stored.copy(command.write)
    except OSError as error:
        return _Unreadable.of(error).reason
    wrong = difference(file, content, time.time())
    if wrong == JUST_NOW:
        raise OperatorError(f"{name}: {wrong}")
    return wrong or command.finish()


def _unrecorded(config: Config, drill: Drill) -> str | None:
    """Record a restore test.

    :returns: why it cannot be recorded; None if it is
    """

    def work() -> tuple[str, None]:
        with open_catalogue(config, Files) as files:
            if not files.drilled(drill):
                raise OperatorError("the catalogue no longer has the file")
        return "", None

    try:
        opened_as_owner_of(config.home, PRIVATE, work)
    except OperatorError as error:
        return str(error)
    return None


def _print_bytes(piece: memoryview) -> None:
    stream = sys.stdout.buffer
    try:
        # With PYTHONUNBUFFERED, a write may take only a part.
        while piece:
            count = stream.write(piece)
            if count is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            piece = piece[count:]
        stream.flush()
    except OSError as error:
        raise CannotPrintError(error) from None


def _print(
    file: File,
    writing: Target,
    bucket: Bucket,
    hide: Callable[[str], str],
    as_json: bool,
) -> None:
    received = file.received
    if as_json:
        print_json(
            **file_json(file, bucket.label, hide),
            output=writing.shown,
        )
        return
    name = printable(hide(received.name))
    of = "" if os.path.basename(writing.shown) == name else f"{name}, "
    click.echo(f"{writing.shown}: {of}{_about(file)}")


def _about(file: File) -> str:
    received = file.received
    at = time_text(received.received_at, local_zone())
    age = ago(time.time() - received.received_at)
    return f"{size_text(received.size)}, received {at} ({age}), checksum verified"


@contextmanager
def _ending_orderly() -> Iterator[None]:
    """Let SIGTERM and the end of the terminal act as Ctrl-C: nothing is left behind."""
    before = {
        each: signal.signal(each, _interrupt)
        for each in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(each) is signal.SIG_DFL
    }
    # A parent that ignores the end of its children passes that on.
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
