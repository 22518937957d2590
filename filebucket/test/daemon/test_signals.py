"""Signal handling, with real signals of this process to itself. Their previous handlers
are restored after each test.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from filebucket.daemon.reload import SIGNAL, Reload
from filebucket.daemon.signals import ENDS, HANGUP, Signals


@implementer(IReactorFromThreads)
class FakeReactor:
    """Keeps calls until the test runs them."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callFromThread(
        self,
        callable: Callable[..., Any],  # noqa: A002 - the interface's word
        *args: object,
        **kwargs: object,
    ) -> None:
        self.calls.append(lambda: callable(*args, **kwargs))

    def turn(self) -> None:
        """Run the calls, as in a turn of the reactor."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class FakeReload(Service):
    """Counts reloads.

    :ivar asked: their number
    """

    asked = 0

    def reload(self) -> None:
        self.asked += 1


class SignalsTests(SynchronousTestCase):
    """From the signal to its effect."""

    def setUp(self) -> None:
        # Otherwise they would kill this process if a test failed.
        self.received: list[int] = []
        self.meanwhile(self.receive, SIGNAL, signal.SIGTERM)
        self.meanwhile(signal.SIG_DFL, HANGUP, *ENDS)
        self.reactor = FakeReactor()
        self.reload = FakeReload()
        self.reload.startService()
        self.service = Signals(self.reactor, cast(Reload, self.reload))

    def meanwhile(self, disposition: Any, *numbers: int) -> None:
        """Set other handlers until the end of the test."""
        for each in numbers:
            before = signal.signal(each, disposition)
            self.addCleanup(signal.signal, each, before or signal.SIG_DFL)

    def start(self) -> None:
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal that the service does not handle."""
        self.received.append(number)

    def test_reactor(self) -> None:
        verifyObject(IReactorFromThreads, self.reactor)

    def test_start_and_stop(self) -> None:
        numbers = (SIGNAL, HANGUP, *ENDS)
        before = [signal.getsignal(each) for each in numbers]
        for _ in range(2):
            self.service.startService()
            for each, old in zip(numbers, before, strict=True):
                self.assertNotEqual(old, signal.getsignal(each))
            self.service.stopService()
            self.assertEqual(before, [signal.getsignal(each) for each in numbers])

    def test_only_wakes_the_reactor(self) -> None:
        self.start()
        os.kill(os.getpid(), signal.SIGUSR2)
        self.assertEqual([], self.received)
        self.assertEqual(1, len(self.reactor.calls))
        self.assertEqual(0, self.reload.asked)

    def test_reloads(self) -> None:
        self.start()
        for count, number in enumerate((SIGNAL, signal.SIGHUP), 1):
            os.kill(os.getpid(), number)
            self.reactor.turn()
            self.assertEqual(count, self.reload.asked)
        self.assertEqual([], self.received)

    def test_ends(self) -> None:
        self.start()
        for number in (signal.SIGUSR1, signal.SIGQUIT, signal.SIGRTMIN + 3):
            with capturedLogs() as events:
                os.kill(os.getpid(), number)
                self.assertEqual([], self.received)
                self.reactor.turn()
            self.assertEqual([signal.SIGTERM], self.received)
            self.received.clear()
            (event,) = events
            self.assertEqual("signal", event["event"])
            self.assertIn(event["name"], formatEvent(event))
        self.assertEqual(0, self.reload.asked)

    def test_ignored(self) -> None:
        """A signal that was ignored at the start, as under nohup, stays ignored."""
        self.meanwhile(signal.SIG_IGN, HANGUP)
        self.start()
        os.kill(os.getpid(), HANGUP)
        self.assertEqual([], self.reactor.calls)

    def test_taken(self) -> None:
        """twistd's handlers stay, except for the reload signal."""
        self.meanwhile(self.receive, signal.SIGUSR1)
        self.meanwhile(signal.SIG_IGN, SIGNAL)
        self.start()
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual([signal.SIGUSR1], self.received)
        os.kill(os.getpid(), SIGNAL)
        self.assertEqual(1, len(self.reactor.calls))

    def test_at_the_end(self) -> None:
        self.start()
        self.reload.stopService()
        os.kill(os.getpid(), HANGUP)
        self.reactor.turn()
        self.assertEqual(0, self.reload.asked)

    def test_after_the_stop(self) -> None:
        self.service.startService()
        self.service.stopService()
        os.kill(os.getpid(), SIGNAL)
        self.assertEqual([SIGNAL], self.received)
        self.assertEqual([], self.reactor.calls)
