"""Writes lines behind those who have them to say, who never wait.

Whoever reads the log may stop: a pager, a log driver, a terminal after Ctrl-S. Then a
write waits for as long as they like, so it is done in a thread. What does not fit
meanwhile is lost, and counted; the count is told as soon as somebody reads again.

The descriptor stays as it is: it may be shared with other processes, which may not
expect that it does not block.
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
"""Characters that wait to be written: some 20,000 lines."""

GATHER = 0.01
"""Seconds in which lines gather: a thread that wakes for each costs a push more."""

AT_ONCE = 16 * 1024
"""Bytes of one write; whether they are read is seen between two."""

STALL = 1.0
"""Seconds, at the end, after which nobody reads any more."""
LAST = 5.0
"""Seconds in which what waits at the end is written, if it is read."""


class LinesBehind:
    """Writes lines in a thread, in their order."""

    def __init__(
        self,
        out: TextIO,
        tell_lost: Callable[[int], object],
        most: int,
        stall: float,
    ) -> None:
        """
        :param out: where they go; nobody else writes there
        :param tell_lost: told how many were lost, when there is room for a line again;
            it may call :meth:`write`
        :param most: characters that may wait
        :param stall: seconds, at the end, after which nobody reads any more
        """
        self._out = out
        self._tell_lost = tell_lost
        self._most = most
        self._stall = stall
        self._changed = threading.Condition()
        # Each line, and how many are lost with it: more than one, if it tells of them.
        self._waiting: deque[tuple[str, int]] = deque()
        self._size = 0
        self._lost = 0
        self._telling = 0
        self._written = 0
        self._idle = True
        self._thread: threading.Thread | None = None
        self._end: float | None = None

    def write(self, line: str) -> None:
        """Write a line, soon. To be called in any thread.

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
            # The line that is told of what is lost is written with the one after it.
            telling = bool(self._telling)
        if self._end is not None and not telling:
            self.finish()

    def finish(self) -> None:
        """Wait until everything is written, or nobody reads; and so after each line
        that comes from here on.
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
        """The thread, if the system lets us have one."""
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
                    # After those that there was no room for, nothing may ever come.
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
                # Until here they took their room.
                self._size -= len(text)
                if not written:
                    self._lost += sum(count for _, count in lines)

    def _put(self, fd: int, text: memoryview) -> bool:
        """Write it. Could it be?"""
        while text:
            try:
                count = os.write(fd, text[:AT_ONCE])
            except BlockingIOError:
                # Another process that shares it has changed it.
                writable = select.poll()
                writable.register(fd, select.POLLOUT)
                writable.poll()
                continue
            except OSError:
                # Its reader is gone, or its disk is full: the next line may fit again.
                return False
            text = text[count:]
            with self._changed:
                self._written += count
                self._changed.notify_all()
        return True
