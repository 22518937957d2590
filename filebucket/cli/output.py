"""The error of a command that cannot print. It is one line, or nothing if the reader of
a pipe has closed it, as ``| head -1`` does.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from contextlib import suppress

import click


class CannotPrintError(click.ClickException):
    """The output could not be written."""

    def __init__(self, error: OSError, exit_code: int = 1) -> None:
        """
        :param error: the error of the write, or any other unexpected OSError
        """
        if error.filename is None:
            super().__init__(f"cannot print: {error.strerror}")
        else:
            super().__init__(f"{error.filename}: {error.strerror}")
        self.exit_code = exit_code  # type: ignore[misc] # it is one in some versions
        self._is_quiet = isinstance(error, BrokenPipeError)
        _discard()

    def show(self, file: object = None) -> None:
        if not self._is_quiet:
            with suppress(OSError):
                super().show()


def wait(seconds: float) -> None:
    """Wait, but only while the output can be read.

    :raises BrokenPipeError: the reader of the pipe has closed it, or the terminal is
        gone
    """
    poll = select.poll()
    # Without a descriptor there is no pipe.
    with suppress(OSError, ValueError, AttributeError):
        poll.register(sys.stdout.fileno(), 0)
    if poll.poll(seconds * 1000):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _discard() -> None:
    """Redirect unwritten output to /dev/null, so that Python can flush it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(null, stream.fileno())
                os.close(null)
        except (ValueError, AttributeError):
            pass  # closed or missing
