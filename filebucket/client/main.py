"""The ``filebucket-push`` command: its arguments, its messages and its exit status."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

from filebucket import __version__
from filebucket.client import access
from filebucket.client.begun import Mark
from filebucket.client.command import Messages, Pipeline, age
from filebucket.client.connection import Connection
from filebucket.client.errors import (
    CommandFailedError,
    DeniedError,
    GaveUpError,
    NotResumableError,
    PushError,
    UsageError,
)
from filebucket.client.progress import Bar, Progress, size_text
from filebucket.client.push import Push, Receipt
from filebucket.client.report import report
from filebucket.client.retry import Patience
from filebucket.client.source import (
    LEAST_PART,
    MIB,
    MOST_PART,
    FileSource,
    PipeSource,
    Source,
)

_DESCRIPTION = """\
Push files, or the output of a command, to a file-bucket server. A push continues after
a lost connection or a restart of the server. Exit status 0 means that the server has
stored everything durably, and that the SHA-256 matches."""

_EPILOG = """\
examples:
  filebucket-push --url https://backup.example.org:1443 db.gz
  filebucket-push --name 'shop-{date}.dump' --exec -- pg_dump -Fc shop
  tar -C /etc -cz . | filebucket-push --name 'etc-{date}.tar.gz' -

exit status:
  0   everything is stored
  1   the server refused a file, or TLS is misconfigured; another try would fail, too
  2   the command line, the token file or a local file is wrong
  3   the command failed; nothing is stored
  75  gave up for now; a later try may succeed

The token is read from the file that --token-file or FILEBUCKET_TOKEN_FILE names, else
from $CREDENTIALS_DIRECTORY/file-bucket (systemd) or ~/.file-bucket. The file has the
line 'Authorization: Bearer TOKEN'."""


class Ended(BaseException):
    """A signal ends the process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "filebucket-push",
        usage="filebucket-push [OPTION]... FILE...\n"
        "       filebucket-push [OPTION]... --name NAME -\n"
        "       filebucket-push [OPTION]... --name NAME --exec -- COMMAND...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="file to push; - is standard input")
    add(
        "--name",
        help="name on the server instead of the file's own; {date}, {time} and {host}"
        " are replaced",
    )
    add(
        "--exec",
        action="store_true",
        help="run COMMAND when the server is ready for the file, and push its output;"
        " nothing is stored unless COMMAND exits with 0",
    )
    add(
        "--no-report",
        action="store_true",
        help="do not report to the server that COMMAND failed",
    )
    where = parser.add_argument_group("server")
    add = where.add_argument
    add(
        "--url",
        help="address of the server, without the token (default: $FILEBUCKET_URL)",
    )
    add("--token-file", metavar="FILE", help="file with the token")
    add("--unix-socket", metavar="PATH", help="connect to this UNIX socket")
    add(
        "--cacert",
        metavar="FILE",
        help="trust these certificates instead of the system's",
    )
    add("--cert", metavar="FILE", help="certificate of this client")
    add("--key", metavar="FILE", help="its private key, if --cert does not have it")
    how = parser.add_argument_group("push")
    add = how.add_argument
    add(
        "--retry-for",
        metavar="TIME",
        type=_seconds,
        default="2h",
        help="give up after TIME without progress, such as 90s, 30m, 2h or 0"
        " (default: 2h)",
    )
    add(
        "--encrypt-to",
        metavar="RECIPIENT",
        action="append",
        default=[],
        help="encrypt with age for this recipient, and append .age to the name; may be"
        " repeated",
    )
    add(
        "--part-size",
        metavar="MIB",
        type=_mib,
        default=MOST_PART // MIB,
        help="largest part of a pipe; two are kept in memory (default: 64)",
    )
    add(
        "--spool",
        metavar="DIR",
        help="if the server has no resumable uploads, collect a pipe in DIR first",
    )
    out = parser.add_argument_group("output")
    add = out.add_argument
    add(
        "--receipt",
        metavar="FILE",
        help="write the receipts to FILE, for sha256sum -c",
    )
    add("-q", "--quiet", action="store_true", help="print errors only")
    add("--json", action="store_true", help="print one JSON object for each file")
    add("--version", action="version", version=f"filebucket-push {__version__}")
    return parser


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    with suppress(ValueError):
        found = float(number) * unit
        if 0 <= found < float("inf"):
            return found
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a time such as 90s, 30m, 2h or 0"
    )


def _mib(text: str) -> int:
    with suppress(ValueError):
        found = int(text)
        if 1 <= found <= 1024:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")


def _split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The options, and the command after ``--exec``; None if there is no such option.

    The command may follow ``--exec`` at once, or after ``--``.
    """
    if "--exec" not in argv:
        return list(argv), None
    at = argv.index("--exec")
    rest = list(argv[at + 1 :])
    if rest and rest[0].startswith("-") and "--" in rest:
        end = rest.index("--")
        return [*argv[: at + 1], *rest[:end]], rest[end + 1 :]
    return list(argv[: at + 1]), rest


class Main:
    """One run of the command."""

    def __init__(
        self, arguments: argparse.Namespace, command: list[str] | None
    ) -> None:
        self._arguments = arguments
        self._command = command
        self._home = os.path.expanduser("~")
        self._terminal = sys.stderr.isatty() and not (arguments.quiet or arguments.json)
        self._status = 0
        self._receipts: TextIO | None = None
        self._subject = ""  # of the messages about the current push

    def run(self) -> int:
        """Push everything. Returns the exit status."""
        inputs = self._inputs()
        server = self._server()
        if self._arguments.receipt:
            # At once: a receipt of an earlier run must not look like one of this run.
            self._receipts = _opened(self._arguments.receipt)
        connection = Connection(server, f"filebucket-push/{__version__}")
        stop: type[PushError] | None = None
        for path in inputs:
            name = self._name(path)
            self._subject = _subject(path, name)
            try:
                if stop is not None:
                    raise stop("not tried")
                self._push(server, connection, path, name)
            except PushError as error:
                self._failed(name, error)
                if isinstance(error, (DeniedError, GaveUpError)):
                    # The others would fail in the same way.
                    stop = type(error)
        connection.close()
        return self._status

    # The arguments.

    def _inputs(self) -> list[str | None]:
        """Paths of files; ``-`` is standard input, None the command."""
        arguments, command = self._arguments, self._command
        if command is not None:
            if not command:
                raise UsageError("--exec needs a command: --exec -- pg_dump shop")
            if arguments.files:
                raise UsageError("--exec takes no FILE")
            if not arguments.name:
                raise UsageError("--exec needs --name")
            return [None]
        files: list[str | None] = list(arguments.files)
        if not files:
            raise UsageError("give a FILE, - for standard input, or --exec -- COMMAND")
        if len(files) > 1 and ("-" in files or arguments.name):
            raise UsageError("standard input, or --name, allows only one FILE")
        if files == ["-"]:
            if not arguments.name:
                raise UsageError("standard input needs --name")
            if sys.stdin.isatty():
                raise UsageError("standard input is a terminal; pipe data into it")
        return files

    def _server(self) -> access.Server:
        arguments = self._arguments
        url = arguments.url or os.environ.get("FILEBUCKET_URL")
        if not url and arguments.unix_socket:
            url = "http://localhost"
        if not url:
            raise UsageError(
                "no server: use --url http://HOST:1234, or set FILEBUCKET_URL"
            )
        if arguments.unix_socket and not hasattr(socket, "AF_UNIX"):
            raise UsageError("--unix-socket: not supported on this system")
        path = access.token_file(arguments.token_file, os.environ, self._home)
        token = access.read_token(path)
        server = access.server(
            url,
            token,
            arguments.unix_socket,
            arguments.cacert,
            arguments.cert,
            arguments.key,
        )
        if self._terminal and server.exposes_token:
            _say("warning: without https, others in the network can read the token")
        if self._terminal and not access.is_private(path):
            _say(f"warning: other users can read the token: chmod 600 {path}")
        return server

    def _name(self, path: str | None) -> str:
        given = self._arguments.name
        if given:
            now = time.localtime()
            name = given.replace("{date}", time.strftime("%Y-%m-%d", now))
            name = name.replace("{time}", time.strftime("%H%M%S", now))
            name = name.replace("{host}", socket.gethostname().partition(".")[0])
        else:
            assert path is not None
            name = _own_name(path)
        return f"{name}.age" if self._arguments.encrypt_to else name

    # One push.

    def _push(
        self,
        server: access.Server,
        connection: Connection,
        path: str | None,
        name: str,
    ) -> None:
        encrypted = bool(self._arguments.encrypt_to)
        if path is None or path == "-" or encrypted:
            self._push_pipe(connection, path, name)
            return
        source = FileSource(path, name)
        found = os.fstat(source.file.fileno())
        mark = Mark(os.environ, self._home, server.text, path, name, found)
        try:
            # Computing the SHA-256 of a small file takes no time.
            hash_first = source.length <= MOST_PART or mark.is_there
            if source.length > LEAST_PART:
                mark.leave()
            self._run(connection, source, hash_first)
            mark.remove()
        except BaseException as error:
            if not _continues(source, error):
                mark.remove()
            raise
        finally:
            source.close()

    def _push_pipe(self, connection: Connection, path: str | None, name: str) -> None:
        messages = None
        # On a terminal, some commands show their progress, and the user sees the rest.
        if not (self._arguments.no_report or sys.stderr.isatty()):
            messages = Messages()
        try:
            with self._pipe(path, name, messages) as pipe:
                try:
                    self._run(connection, pipe)
                except NotResumableError as error:
                    self._spool(connection, pipe, error)
        except CommandFailedError as error:
            if not self._arguments.no_report:
                last = messages.last if messages is not None else ""
                reason = report(connection, name, f"{error.cause}\n{last}")
                if reason is not None:
                    _say(
                        f"{self._subject}: the failure could not be reported: {reason}"
                    )
            raise

    @contextmanager
    def _pipe(
        self, path: str | None, name: str, messages: Messages | None
    ) -> Iterator[PipeSource]:
        commands = [self._command] if self._command else []
        if self._arguments.encrypt_to:
            commands.append(age(self._arguments.encrypt_to))
        most = self._arguments.part_size * MIB
        with ExitStack() as stack:
            stdin, check = None, lambda: None
            if path == "-":
                stdin = _raw_stdin()
            elif path is not None:
                file = FileSource(path, name)
                stack.callback(file.close)
                stdin, check = file.file, file.check
            pipeline = Pipeline(commands, stdin, messages) if commands else None
            source = PipeSource(name, stdin, pipeline, check, most)
            stack.callback(source.close)
            yield source

    def _run(
        self, connection: Connection, source: Source, hash_first: bool = False
    ) -> None:
        progress = Progress()
        if self._terminal:
            name = _shown(source.name)
            progress = Bar(sys.stderr, name, source.length, self._subject)
        patience = Patience(self._arguments.retry_for, progress.retry)
        push = Push(connection, source, patience, progress)
        began = time.monotonic()
        try:
            receipt = push.run(hash_first)
        except BaseException as error:
            progress.end()
            # An upload ends with its token, too.
            if not (_continues(source, error) or isinstance(error, DeniedError)):
                push.give_up()
            raise
        progress.end()
        self._stored(receipt, time.monotonic() - began, patience.tries)

    def _spool(
        self, connection: Connection, pipe: PipeSource, error: NotResumableError
    ) -> None:
        folder = self._arguments.spool
        if folder is None:
            raise PushError(
                f"{error}, which a pipe needs: use --spool DIR to collect it in a file"
                " first"
            ) from None
        try:
            descriptor, path = tempfile.mkstemp(dir=folder, prefix=".filebucket-push-")
        except OSError as failed:
            raise UsageError(f"--spool {folder}: {failed.strerror}") from None
        with ExitStack() as stack:
            stack.callback(os.unlink, path)
            # Windows opens a file of tempfile only once.
            with open(descriptor, "wb") as file:
                pipe.spooled(file)
            source = FileSource(path, pipe.name)
            stack.callback(source.close)
            self._run(connection, source)

    # What is printed.

    def _stored(self, receipt: Receipt, seconds: float, retries: int) -> None:
        if self._arguments.json:
            self._print(
                name=receipt.name,
                stored=True,
                size=receipt.size,
                sha256=receipt.sha256,
                seconds=round(seconds, 3),
                retries=retries,
                request=receipt.request,
            )
        elif self._terminal:
            size, rate = size_text(receipt.size), receipt.size / max(seconds, 0.001)
            _say(
                f"{self._subject}: stored, {size} in {seconds:.1f} s"
                f" ({size_text(int(rate))}/s)"
            )
        if self._receipts is not None:
            try:
                self._receipts.write(receipt.line)
                self._receipts.flush()
            except OSError as error:
                self._status = self._status or UsageError.status
                _say(
                    f"{self._subject}: stored, but --receipt {self._arguments.receipt}:"
                    f" {error.strerror}"
                )

    def _failed(self, name: str, error: PushError) -> None:
        # The most lasting failure decides.
        self._status = min(self._status or error.status, error.status)
        if self._arguments.json:
            self._print(name=name, stored=False, error=str(error), status=error.status)
        _say(f"{self._subject}: {error}")

    def _print(self, **values: object) -> None:
        try:
            sys.stdout.write(f"{json.dumps(values)}\n")
            sys.stdout.flush()
        except OSError as error:
            # Python would try again at its exit.
            sys.stdout = io.StringIO()
            self._status = self._status or UsageError.status
            _say(f"standard output: {error.strerror}")


def _continues(source: Source, error: BaseException) -> bool:
    """Whether a later run can continue the push: it finds the upload of a file by its
    SHA-256.

    :param error: the reason that this run ends
    """
    if isinstance(error, PushError) and not isinstance(error, GaveUpError):
        return False
    return isinstance(source, FileSource) and source.digest(wait=False) is not None


def _raw_stdin() -> Any:
    return open(0, "rb", buffering=0, closefd=False)


def _opened(path: str) -> TextIO:
    try:
        return open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n")
    except OSError as error:
        raise UsageError(f"--receipt {path}: {error.strerror}") from None


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"filebucket-push: {text}\n")
        sys.stderr.flush()


def _own_name(path: str) -> str:
    return os.path.basename(os.path.abspath(path))


def _subject(path: str | None, name: str) -> str:
    """A push in messages: the local file, and its name on the server if that differs;
    or only that name if there is no file.
    """
    if path is None or path == "-":
        return _shown(name)
    renamed = "" if _own_name(path) == name else f" as {_shown(name)}"
    return f"{_shown(path)}{renamed}"


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(number)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, and exit."""
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    options, command = _split(sys.argv[1:] if argv is None else argv)
    try:
        status = Main(parser().parse_intermixed_args(options), command).run()
    except PushError as error:
        _say(str(error))
        status = error.status
    except Ended as ended:
        # As the signal would have ended it, so that a shell notices.
        if os.name == "posix":
            signal.signal(ended.number, signal.SIG_DFL)
            os.kill(os.getpid(), ended.number)
        status = 128 + ended.number
    raise SystemExit(status)
