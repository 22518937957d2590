"""The sources of a push: a file, standard input, or the output of commands.

A file can be read again at any offset. A pipe cannot: a thread reads it in parts, and
each part stays in memory until the server has it. So a pipe of any length survives a
restart of the server, and takes at most the memory of two parts.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
import select
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable
from typing import IO, NamedTuple, Protocol

from filebucket.client.command import Pipeline
from filebucket.client.connection import Body
from filebucket.client.errors import GaveUpError, PushError, UsageError

MIB = 1024 * 1024

LEAST_PART = 4 * MIB
MOST_PART = 64 * MIB
"""Bytes of a part. Many proxies take at most 100 MB in a request."""

QUICK = 2.0
SLOW = 30.0
"""Seconds for a part of a pipe: the next one is larger after a quick one, and smaller
after a slow one."""

LONGEST_WAIT = 600.0
"""Seconds until a part of a slow pipe is sent as it is: the server would remove an
upload to which nothing is added for a day."""

_PIECE = MIB

STOP_TIMEOUT = 1.0
"""Seconds to wait for the thread that computes the SHA-256 of a file."""


class Source(Protocol):
    """The bytes of one push.

    :ivar name: its name on the server
    """

    name: str

    @property
    def length(self) -> int | None:
        """Its bytes; None if it is not known yet."""

    def start(self) -> None:
        """The server takes the file: start the command, if any. May be called again."""

    def part(self, offset: int, most: int) -> tuple[Body, bool]:
        """The bytes that follow ``offset``.

        :param most: number of bytes that the part may have
        :returns: the part, and whether it is the last one
        :raises PushError: it cannot be read, or the command failed
        """

    def took(self, seconds: float) -> None:
        """A part was sent, in that time."""

    def digest(self, wait: bool) -> str | None:
        """The SHA-256 of everything, in hex; None if it is not known yet.

        :param wait: whether to wait for it
        """

    def restart(self) -> None:
        """The server has lost what it had: read again from the beginning.

        :raises GaveUpError: that is not possible
        """

    def doubt(self) -> None:
        """The bytes that the server received do not have the SHA-256.

        :raises PushError: and will not have it
        """

    def close(self) -> None:
        """End all that still runs."""


class Bytes:
    """A part in memory."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.size = len(data)

    def send(self, sock: socket.socket, start: int, most: int) -> int:
        return sock.send(self._data[start : start + most])


class Range:
    """A part of a file."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        """
        :param size: bytes
        """
        self._file = file
        self._offset = offset
        self.size = size

    def send(self, sock: socket.socket, start: int, most: int) -> int:
        size = min(most, self.size - start)
        if isinstance(sock, ssl.SSLSocket):
            # Its sendfile would encrypt 8 KiB at a time.
            self._file.seek(self._offset + start)
            data = self._file.read(size)
            sock.sendall(data)
            sent = len(data)
        else:
            sent = sock.sendfile(self._file, self._offset + start, size)
        if sent < size:
            raise _changed()
        return sent


def _changed() -> PushError:
    return UsageError("changed while it was pushed; nothing is stored")


class FileSource:
    """A regular file."""

    def __init__(self, path: str, name: str) -> None:
        """
        :raises UsageError: it cannot be read, or is not a regular file
        """
        try:
            mode = os.stat(path).st_mode
            # Opening a FIFO would wait for its writer.
            if not stat.S_ISREG(mode):
                folder = "tar -C FOLDER -cz . | filebucket-push --name NAME -"
                hint = folder if stat.S_ISDIR(mode) else "--name NAME - <FILE"
                raise UsageError(f"not a regular file; try {hint}")
            self.file, self._hashed = (io.FileIO(path) for _ in range(2))
        except OSError as error:
            raise UsageError(error.strerror) from None
        if not os.path.sameopenfile(self.file.fileno(), self._hashed.fileno()):
            self.file.close()
            self._hashed.close()
            raise _changed()
        self.name = name
        self._before = self._state()
        self.length: int = self._before[0]
        self._hashing: threading.Thread | None = None
        self._sha256: str | None = None
        self._failed: OSError | None = None
        self._stopped = False

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self.file.fileno())
        return found.st_size, found.st_mtime_ns

    def start(self) -> None:
        if self._hashing is None:
            self._hashing = threading.Thread(target=self._hash, daemon=True)
            self._hashing.start()

    def part(self, offset: int, most: int) -> tuple[Body, bool]:
        self.check()
        if offset > self.length:
            raise GaveUpError("the server reports more bytes than the file has")
        size = min(most, self.length - offset)
        return Range(self.file, offset, size), offset + size == self.length

    def check(self) -> None:
        """Refuse a file that was changed.

        :raises PushError: it was
        """
        if self._state() != self._before:
            raise _changed()

    def took(self, seconds: float) -> None:
        pass

    def digest(self, wait: bool) -> str | None:
        self.start()
        if wait and self._hashing is not None:
            # In pieces, so that Ctrl-C is noticed on Windows.
            while self._hashing.is_alive():
                self._hashing.join(1)
        if self._failed is not None:
            raise UsageError(self._failed.strerror)
        return self._sha256

    def _hash(self) -> None:
        found = hashlib.sha256()
        piece = memoryview(bytearray(_PIECE))
        left = self.length
        try:
            while left and not self._stopped:
                size = self._hashed.readinto(piece[: min(left, _PIECE)])
                if not size:
                    return
                found.update(piece[:size])
                left -= size
        except OSError as error:
            self._failed = error
        else:
            if not left:
                self._sha256 = found.hexdigest()
        finally:
            self._hashed.close()

    def restart(self) -> None:
        pass

    def doubt(self) -> None:
        pass

    def close(self) -> None:
        self._stopped = True
        self.file.close()
        if self._hashing is None:
            self._hashed.close()
        else:
            # It stops after at most one piece, unless the disk hangs.
            self._hashing.join(STOP_TIMEOUT)


def _lost() -> GaveUpError:
    return GaveUpError(
        "the server does not have the upload any more, and a pipe cannot be read"
        " again; nothing is stored"
    )


class _Part(NamedTuple):
    """A part that was read from a pipe."""

    data: memoryview
    last: bool


class PipeSource:
    """A pipe: standard input, or the output of commands."""

    length = None

    def __init__(
        self,
        name: str,
        stdin: IO[bytes] | None = None,
        pipeline: Pipeline | None = None,
        check: Callable[[], object] = lambda: None,
        most_part: int = MOST_PART,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param stdin: is read if there is no pipeline
        :param check: called before the last part is handed out; may raise PushError
        :param most_part: bytes that a part may have
        """
        self.name = name
        self._stdin = stdin
        self._pipeline = pipeline
        self._check = check
        self._most_part = most_part
        self._monotonic = monotonic
        self._size = min(LEAST_PART, most_part)
        self._hash = hashlib.sha256()
        self._sha256: str | None = None
        # One part is sent while the next one is read.
        self._slots = threading.Semaphore(2)
        self._parts: queue.Queue[_Part | PushError] = queue.Queue()
        self._reading: threading.Thread | None = None
        self._part: _Part | None = None
        self._base = 0
        self._stopped = False

    def start(self) -> None:
        if self._reading is None:
            stream = self._pipeline.start() if self._pipeline else self._stdin
            assert stream is not None
            self._reading = threading.Thread(
                target=self._read, args=(stream,), daemon=True
            )
            self._reading.start()

    def _read(self, stream: IO[bytes]) -> None:
        last = False
        try:
            while not last and not self._stopped:
                self._slots.acquire()
                data = memoryview(bytearray(self._size))
                size = 0
                began = self._monotonic()
                while size < len(data) and self._monotonic() - began < LONGEST_WAIT:
                    count: int | None = stream.readinto(data[size:])  # type: ignore[attr-defined]
                    if count is None:
                        # Another process made it non-blocking.
                        select.select([stream], [], [])
                        continue
                    if not count:
                        last = True
                        break
                    self._hash.update(data[size : size + count])
                    size += count
                self._parts.put(_Part(data[:size], last))
                del data
        except (OSError, ValueError) as error:
            # ValueError: closed meanwhile.
            reason = getattr(error, "strerror", None) or error
            self._parts.put(PushError(f"cannot read the input: {reason}"))

    def part(self, offset: int, most: int) -> tuple[Body, bool]:
        while True:
            part = self._part = self._part or self._next()
            start = offset - self._base
            if not 0 <= start <= len(part.data):
                raise _lost()
            if start < len(part.data) or part.last:
                data = part.data[start : start + most]
                return Bytes(data), part.last and start + len(data) == len(part.data)
            # The server has all of it.
            self._base += len(part.data)
            self._part = None
            del part
            self._slots.release()

    def _next(self) -> _Part:
        while True:
            try:
                # With a timeout, so that Ctrl-C is noticed on Windows.
                found = self._parts.get(timeout=1)
            except queue.Empty:
                if self._pipeline is not None:
                    # A child of a command that failed may keep the pipe open.
                    self._pipeline.check()
                continue
            if isinstance(found, PushError):
                raise found
            if found.last:
                if self._pipeline is not None:
                    self._pipeline.wait()
                self._check()
                self._sha256 = self._hash.hexdigest()
            return found

    def took(self, seconds: float) -> None:
        if seconds < QUICK:
            self._size = min(self._size * 2, self._most_part)
        elif seconds > SLOW:
            self._size = max(self._size // 2, min(LEAST_PART, self._most_part))

    def digest(self, wait: bool) -> str | None:
        return self._sha256

    def restart(self) -> None:
        if self._base:
            raise _lost()

    def doubt(self) -> None:
        pass

    def spooled(self, file: IO[bytes]) -> None:
        """Write everything to a file, instead of handing out parts.

        :raises PushError: it cannot be written, or the command failed
        """
        self.start()
        last = False
        try:
            while not last:
                data, last = self._next()
                file.write(data)
                del data
                self._slots.release()
            file.flush()
        except OSError as error:
            raise PushError(f"--spool: {error.strerror}; nothing is stored") from None

    def close(self) -> None:
        self._stopped = True
        if self._pipeline is not None:
            self._pipeline.end()
