"""Log lines that are written in a thread."""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TextIO

from twisted.trial.unittest import SynchronousTestCase

from filebucket.daemon.behind import LinesBehind
from filebucket.test.kit.server import PATIENCE, comes

MOST = 100_000


class LinesBehindTests(SynchronousTestCase):
    """Against a pipe, which holds 4 KiB."""

    def setUp(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self.out: TextIO = open(writer, "w", encoding="ascii")  # noqa: SIM115
        self.addCleanup(self.end)
        self.told: list[int] = []
        self.lines = self.make(PATIENCE)

    def make(self, stall: float) -> LinesBehind:
        return LinesBehind(self.out, self.tell, MOST, stall)

    def end(self) -> None:
        """Wait for the thread to end, since the pipe's descriptor may be reused."""
        self.close()
        self.assertTrue(comes(lambda: self.lines._idle))
        self.out.close()

    def close(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def tell(self, count: int) -> None:
        self.told.append(count)
        self.lines.write(f"lost {count}\n")

    def write(self, count: int) -> list[str]:
        lines = [f"{number:>99}" for number in range(count)]
        for each in lines:
            self.lines.write(f"{each}\n")
        return lines

    def read_to_end(self) -> list[str]:
        """All lines up to the last one."""
        read = bytearray()
        while not read.endswith(b"last\n"):
            read += os.read(self.reader, 65536)
        return read.decode("ascii").splitlines()

    def test_in_order(self) -> None:
        lines = self.write(100)
        thread = threading.Thread(target=self.lines.write, args=("\u00fcber\nlast\n",))
        thread.start()
        self.assertEqual([*lines, "\\xfcber", "last"], self.read_to_end())
        thread.join()
        self.assertEqual([], self.told)

    def test_lost(self) -> None:
        """Logging does not wait for the reader. Lost lines are counted in the right
        place, and the other lines are complete.
        """
        lines = self.write(2000)
        read = bytearray()
        while not self.told:
            read += os.read(self.reader, 4000)
        self.lines.write("last\n")
        while not read.endswith(b"last\n"):
            read += os.read(self.reader, 4000)
        (lost,) = self.told
        self.assertGreater(lost, 900)
        self.assertEqual(
            [*lines[:-lost], f"lost {lost}", "last"], read.decode("ascii").splitlines()
        )

    def test_finish(self) -> None:
        lines = self.write(200)
        read: list[str] = []
        thread = threading.Thread(target=lambda: read.extend(self.read_to_end()))
        thread.start()
        self.lines.finish()
        self.lines.write("last\n")
        thread.join()
        self.assertEqual([*lines, "last"], read)

    def test_finish_unread(self) -> None:
        self.lines = self.make(0.1)
        self.write(200)
        self.lines.finish()
        self.lines.write("last\n")
        self.lines.finish()
        self.assertLess(os.fstat(self.reader).st_size, 4097)

    def test_reader_gone(self) -> None:
        """Lines that cannot be written are lost together with the reports of lost
        lines, and all are counted when there is a reader again.
        """
        self.close()
        self.write(3)
        self.lines.finish()
        self.assertEqual([], self.told)
        self.lines.write("lost, too\n")
        self.assertEqual([3], self.told)
        self.reader, writer = os.pipe()
        os.dup2(writer, self.out.fileno())
        os.close(writer)
        self.lines.write("last\n")
        self.assertEqual(["lost 4", "last"], self.read_to_end())

    def test_not_blocking(self) -> None:
        """Another process may make the pipe non-blocking; lines stay complete."""
        os.set_blocking(self.out.fileno(), False)
        lines = self.write(500)
        self.lines.write("last\n")
        self.assertEqual([*lines, "last"], self.read_to_end())
