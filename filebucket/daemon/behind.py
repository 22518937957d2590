"""Write log lines in a thread, so that logging never blocks.

The reader of the log may stop: a pager, a log driver, a terminal after Ctrl-S. A write
then blocks until it goes on. Lines that exceed the buffer meanwhile are dropped and
counted, and the count is logged as soon as the reader goes on.

The descriptor keeps its blocking mode: it may be shared with other processes that do
not expect it to be non-blocking.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

MOST_WAITING = 4 * 1024 * 1024
"""Characters that may wait to be written: some 20,000 lines."""

GATHER = 0.01
"""Seconds in which lines are collected: one wake-up of the thread for each line would
slow pushes down."""

AT_ONCE = 16 * 1024
"""Bytes of one write; progress is checked between two of them."""

STALL = 1.0
"""Seconds without progress, at the end, after which the remaining lines are given
up."""
LAST = 5.0
"""Seconds for the remaining lines at the end, in total."""


class LinesBehind:
    """Writes lines in order, in a thread."""

    def __init__(
        self,
        out: TextIO,
        tell_lost: Callable[[int], object],
        most: int,
        stall: float,
    ) -> None:
        """
        :param out: the output; only this object may write to it
        :param tell_lost: called with the number of lost lines when there is space for a
            line again; it may call :meth:`write`
        :param most: characters that may wait
        :param stall: seconds without progress, at the end, after which to give up
        """
        self._out = out
        self._tell_lost = tell_lost
        self._most = most
        self._stall = stall
        self._changed = threading.Condition()
        # Each line, and how many lines are lost with it: more than one if it reports
        # lost lines itself.
        self._waiting: deque[tuple[str, int]] = deque()
        self._size = 0
        self._lost = 0
        self._telling = 0
        self._written = 0
        self._idle = True
        self._thread: threading.Thread | None = None
        self._end: float | None = None

    def write(self, line: str) -> None:
        """Queue a line. Thread-safe.

        :param line: with its line feed
        """
        with self._changed:
            count = self._telling or 1
            if self._size + len(line) > self._most or not self._start():
                self._lost += count
                return
            self._tell()
            self._waiting.append((line, count))
            self._idle = False
            self._size += len(line)
            self._changed.notify_all()
            # The line that reports lost lines is written with the one after it.
            telling = bool(self._telling)
        if self._end is not None and not telling:
            self.finish()

    def finish(self) -> None:
        """Wait until everything is written, or the reader has stopped. Each later
        :meth:`write` then waits, too.
        """
        if threading.current_thread() is self._thread:
            return
        with self._changed:
            if self._end is None:
                self._end = time.monotonic() + LAST
            while not self._idle:
                written = self._written
                left = min(self._end - time.monotonic(), self._stall)
                if left <= 0:
                    return
                self._changed.wait_for(
                    lambda: self._idle or self._written != written,  # noqa: B023
                    left,
                )
                if not self._idle and self._written == written:
                    self._end = 0.0
                    return

    def _start(self) -> bool:
        """Start the thread. Returns whether it runs."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
            atexit.register(self.finish)
        return True

    def _tell(self) -> None:
        if self._lost and not self._telling:
            self._telling, self._lost = self._lost, 0
            self._tell_lost(self._telling)
            self._telling = 0

    def _work(self) -> None:
        fd = self._out.fileno()
        written = True
        while True:
            with self._changed:
                if written and not self._waiting:
                    # Report lost lines now: there may be no further line to report them
                    # with.
                    self._tell()
                while not self._waiting:
                    self._idle = True
                    self._changed.notify_all()
                    self._changed.wait()
            if self._end is None:
                time.sleep(GATHER)
            with self._changed:
                lines = list(self._waiting)
                self._waiting.clear()
            text = "".join(line for line, _ in lines)
            encoded = text.encode(self._out.encoding, "backslashreplace")
            written = self._put(fd, memoryview(encoded))
            with self._changed:
                # Until here these characters counted as waiting.
                self._size -= len(text)
                if not written:
                    self._lost += sum(count for _, count in lines)

    def _put(self, fd: int, text: memoryview) -> bool:
        """Write it. Returns whether that succeeded."""
        while text:
            try:
                count = os.write(fd, text[:AT_ONCE])
            except BlockingIOError:
                # Another process that shares the descriptor made it non-blocking.
                writable = select.poll()
                writable.register(fd, select.POLLOUT)
                writable.poll()
                continue
            except OSError:
                # Its reader is gone, or its disk is full: a later line may succeed.
                return False
            text = text[count:]
            with self._changed:
                self._written += count
                self._changed.notify_all()
        return True
