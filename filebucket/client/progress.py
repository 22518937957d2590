"""How far a push has come, on a terminal."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

REDRAW = 0.1
"""Seconds between two drawings."""

RATE_OVER = 10.0
"""Seconds over which the rate is measured."""

LONGEST_NAME = 30


class Progress:
    """Shows nothing. The base of what does."""

    def at(self, offset: int) -> None:
        """``offset`` bytes are sent."""

    def retry(self, reason: str, delay: float) -> None:
        """A try has failed, and the next one is in ``delay`` seconds."""

    def end(self) -> None:
        """The push has ended: clear the line."""


class Bar(Progress):
    """One line that is drawn again and again."""

    def __init__(
        self,
        out: TextIO,
        name: str,
        length: int | None,
        subject: str,
        monotonic: Callable[[], float] = time.monotonic,
        columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
    ) -> None:
        """
        :param name: of the file, printable
        :param length: its bytes; None if not known
        :param subject: how messages name the push
        """
        self._out = out
        self._name = name
        self._length = length
        self._subject = subject
        self._monotonic = monotonic
        self._columns = columns
        self._offset = 0
        self._retries = 0
        self._drawn = float("-inf")
        # Times and offsets of the last seconds.
        self._past: deque[tuple[float, int]] = deque()

    def at(self, offset: int) -> None:
        now = self._monotonic()
        if offset < self._offset:
            # Sent again.
            self._past.clear()
        self._offset = offset
        self._past.append((now, offset))
        while self._past[0][0] < now - RATE_OVER:
            self._past.popleft()
        if now - self._drawn >= REDRAW:
            self._drawn = now
            self._draw(self._line())

    def retry(self, reason: str, delay: float) -> None:
        self._retries += 1
        self._past.clear()
        self._draw("")
        what = f"filebucket-push: {self._subject}: {reason}"
        self._write(f"{what}; trying again in {delay:.0f} s\n")

    def end(self) -> None:
        self._draw("")

    def _draw(self, line: str) -> None:
        # The last column stays empty: some terminals would begin a new line.
        width = max(self._columns() - 1, 10)
        self._write(f"\r{line[:width]:{width}}\r")

    def _write(self, text: str) -> None:
        # The push goes on if the terminal is gone.
        with suppress(OSError):
            self._out.write(text)
            self._out.flush()

    def _line(self) -> str:
        name = self._name
        if len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 3]}..."
        words = [name]
        rate = self._rate()
        if self._length:
            share = self._offset / self._length
            words += [_bar(share), f"{int(100 * share):3} %"]
        words.append(size_text(self._offset))
        if rate:
            words.append(f"{size_text(int(rate))}/s")
            if self._length:
                words.append(f"ETA {_clock((self._length - self._offset) / rate)}")
        if self._retries:
            words.append(f"{self._retries} retr{'y' if self._retries == 1 else 'ies'}")
        return "  ".join(words)

    def _rate(self) -> float:
        (then, before), (now, offset) = self._past[0], self._past[-1]
        return (offset - before) / (now - then) if now > then else 0.0


def _bar(share: float) -> str:
    width = 20
    done = int(width * share)
    return f"[{'#' * done}{'-' * (width - done)}]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size_text(size: int) -> str:
    """Bytes in two or three digits: ``400 B``, ``1.2 GiB``."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1024
        units.pop(0)
    digits = 1 if value < 9.95 and units[0] != "B" else 0
    return f"{value:.{digits}f} {units[0]}"
