"""What a command does that cannot print: it says so in a line, or nothing at all if its
reader has seen enough, as after ``| head -1``.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click


class CannotPrintError(click.ClickException):
    """Nobody can be told what came of it."""

    def __init__(self, error: OSError, exit_code: int = 1) -> None:
        """
        :param error: what a write, or anything else that nobody expected, failed with
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


def _discard() -> None:
    """Let Python write, at its end, what it still has to where there is room."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(null, stream.fileno())
                os.close(null)
        except (ValueError, AttributeError):
            pass  # closed, or none at all
