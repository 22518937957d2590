"""The error of a command that cannot print. It is one line, or nothing if the reader of
a pipe has closed it, as ``| head -1`` does.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from contextlib import suppress

import click
import click.utils


class CannotPrintError(click.ClickException):
    """The output could not be written."""

    def __init__(self, error: OSError, exit_code: int = 1) -> None:
        """
        :param error: the error of the write
        """
        super().__init__(f"cannot print: {error.strerror}")
        self.exit_code = exit_code  # type: ignore[misc] # it is one in some versions
        self._is_quiet = isinstance(error, BrokenPipeError)
        _discard()

    def show(self, file: object = None) -> None:
        if not self._is_quiet:
            with suppress(OSError):
                super().show()


def unexpected(error: OSError, exit_code: int = 1) -> click.ClickException:
    """The error of a command for an OSError that may come from printing.

    :param error: with its traceback
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, BrokenPipeError) or (
        error.filename is None and last.filename == click.utils.__file__
    ):
        return CannotPrintError(error, exit_code)
    # A report of an error without a file should tell where it was.
    line = f" ({os.path.basename(last.filename)}:{last.lineno})"
    named = f"{error.filename}: {error.strerror}"
    text = f"{error.strerror}{line}" if error.filename is None else named
    found = click.ClickException(text)
    found.exit_code = exit_code  # type: ignore[misc] # it is one in some versions
    return found


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
