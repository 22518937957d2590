"""Passes a stored file on through a pipe, to a process with other rights.

A file of a disk can be opened by one process and read by another. One of an object
store cannot: a child reads it and writes it into a pipe, in frames, so that an error or
a death of the child differs from the end of the file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import NoReturn

from attrs import define
from zope.interface import implementer

from filebucket.store.interfaces import (
    Content,
    IsFolderError,
    IStoredFile,
    NoFileError,
    NotAFileError,
    Stat,
    UnsteadyError,
)

_HEAD = struct.Struct(">BI")
_STAT, _DATA, _END, _ERROR = range(4)
"""Kinds of frames. The first one is a stat or an error."""

_MOST_TEXT = 64 * 1024

_KINDS = (UnsteadyError, IsFolderError, NotAFileError, NoFileError)


def streamed(opened: Callable[[], AbstractContextManager[IStoredFile]]) -> int:
    """Let a child read a file.

    :param opened: opens the file; called by the child
    :returns: a descriptor for :class:`StreamedFile`
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        # Its own child goes on, and needs no parent that waits for it.
        if not os.fork():
            _stream(opened, reading, writing)
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    return reading


def _stream(
    opened: Callable[[], AbstractContextManager[IStoredFile]],
    reading: int,
    writing: int,
) -> NoReturn:
    """The whole life of the child."""
    try:
        os.close(reading)
        try:
            with opened() as file:
                stat = file.stat
                known = [stat.size, stat.written_at, stat.changed_at, stat.version]
                _write(writing, _STAT, json.dumps([*known, stat.sha256]).encode())
                file.copy(lambda piece: _write(writing, _DATA, piece))
                _write(writing, _END, b"")
        except BrokenPipeError:
            pass
        except (*_KINDS, OSError) as error:
            kind = next((each.__name__ for each in _KINDS if type(error) is each), "")
            told = [kind, getattr(error, "errno", None), getattr(error, "strerror", "")]
            with suppress(BrokenPipeError):
                _write(writing, _ERROR, json.dumps(told).encode())
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _write(fd: int, kind: int, data: bytes | memoryview) -> None:
    _write_all(fd, memoryview(_HEAD.pack(kind, len(data))))
    _write_all(fd, memoryview(data))


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


@implementer(IStoredFile)
@define
class StreamedFile:
    """A file that a child reads. It can be read once, from its start.

    :ivar fd: from :func:`streamed`; the caller closes it
    """

    fd: int
    stat: Stat

    @classmethod
    def of(cls, fd: int) -> StreamedFile:
        """Wait until the file is open.

        :raises NoFileError: there is no such file
        :raises UnsteadyError: the file was replaced in the meantime
        :raises OSError: it cannot be opened
        """
        kind, size = cls._frame(fd)
        text = bytes(_read(fd, size)) if size <= _MOST_TEXT else b""
        if kind == _ERROR:
            raise _error(text)
        try:
            if kind != _STAT:
                raise ValueError
            return cls(fd, Stat(*json.loads(text)))
        except (ValueError, TypeError):
            raise _failed() from None

    @staticmethod
    def _frame(fd: int) -> tuple[int, int]:
        kind, size = _HEAD.unpack(_read(fd, _HEAD.size))
        return kind, size

    def copy(self, write: Callable[[memoryview], object]) -> Content:
        digest = hashlib.sha256()
        done = 0
        while True:
            kind, size = self._frame(self.fd)
            if kind == _END:
                return Content(done, digest.hexdigest(), self.stat)
            if kind != _DATA:
                raise _error(_read(self.fd, min(size, _MOST_TEXT)))
            while size:
                piece = os.read(self.fd, min(size, 1024 * 1024))
                if not piece:
                    raise _failed()
                size -= len(piece)
                done += len(piece)
                digest.update(piece)
                write(memoryview(piece))

    def piece(self, offset: int, most: int) -> bytes:
        raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))


def _read(fd: int, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        piece = os.read(fd, size - len(found))
        if not piece:
            raise _failed()
        found += piece
    return bytes(found)


def _failed() -> OSError:
    return OSError(errno.EREMOTEIO, "the process that reads the object store failed")


def _error(text: bytes) -> Exception:
    """The error that the child told."""
    try:
        kind, number, reason = json.loads(text)
    except (ValueError, TypeError):
        return _failed()
    for each in _KINDS:
        if each.__name__ == kind:
            return each()
    if isinstance(number, int) and isinstance(reason, str):
        return OSError(number, reason)
    return _failed()
