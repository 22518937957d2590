"""Tests of :mod:`filebucket.base.capability`, with a kernel in memory. That with the
real one is in ``whole``."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.capability import LINUX_IMMUTABLE, keeping


@define
class Kernel:
    """The C library.

    :ivar permitted: the capabilities of this thread
    :ivar calls: the calls, in order
    :ivar refuses: a call that fails
    """

    permitted: int = 2**32 - 1
    calls: list[tuple[object, ...]] = field(factory=list)
    refuses: str = ""

    def prctl(self, *args: int) -> int:
        return self._called("prctl", *args[:2])

    def capget(self, head: bytes, data: Any) -> int:
        data.raw = struct.pack("6I", self.permitted, self.permitted, 0, 0, 0, 0)
        return self._called("capget", *struct.unpack("Ii", head))

    def capset(self, head: bytes, data: bytes) -> int:
        return self._called("capset", *struct.unpack("6I", data))

    def _called(self, name: str, *args: object) -> int:
        self.calls.append((name, *args))
        return -(name == self.refuses)


class KeepingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.kernel = Kernel()
        self.patch(ctypes, "CDLL", lambda name, use_errno: self.kernel)

    def keep(self) -> None:
        with keeping(LINUX_IMMUTABLE):
            self.kernel.calls.append(("setresuid",))

    def test_keeps_one(self) -> None:
        """Capabilities survive the change of the user; then all but one are dropped."""
        self.keep()
        self.assertEqual(
            [
                ("capget", 0x20080522, 0),
                ("prctl", 8, 1),
                ("setresuid",),
                ("prctl", 8, 0),
                ("capset", 1 << 9, 1 << 9, 0, 0, 0, 0),
            ],
            self.kernel.calls,
        )

    def test_not_permitted(self) -> None:
        """As in a container: then none is kept."""
        self.kernel.permitted &= ~(1 << 9)
        self.keep()
        self.assertEqual(("capset", 0, 0, 0, 0, 0, 0), self.kernel.calls[-1])

    def test_refused(self) -> None:
        """The caller must not go on with more rights."""
        self.kernel.refuses = "capset"
        self.assertRaises(OSError, self.keep)
