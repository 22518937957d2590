"""What signals do. They are real ones, sent by this process to itself; whatever they
meant before is put back after each test.
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
    """Keeps what it is asked to call, until the test has its turn come."""

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
        """What a turn of the reactor would do."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class FakeReload(Service):
    """Counts.

    :ivar asked: how often it was
    """

    asked = 0

    def reload(self) -> None:
        self.asked += 1


class SignalsTests(SynchronousTestCase):
    """From the signal to what comes of it."""

    def setUp(self) -> None:
        # They would kill this process otherwise, if a test went wrong.
        self.received: list[int] = []
        self.meanwhile(self.receive, SIGNAL, signal.SIGTERM)
        self.meanwhile(signal.SIG_DFL, HANGUP, *ENDS)
        self.reactor = FakeReactor()
        self.reload = FakeReload()
        self.reload.startService()
        self.service = Signals(self.reactor, cast(Reload, self.reload))

    def meanwhile(self, disposition: Any, *numbers: int) -> None:
        """What these signals do until the end of the test."""
        for each in numbers:
            before = signal.signal(each, disposition)
            self.addCleanup(signal.signal, each, before or signal.SIG_DFL)

    def start(self) -> None:
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """What a signal does that the service does not heed."""
        self.received.append(number)

    def test_reactor(self) -> None:
        """The reactor here is one, as far as it goes."""
        verifyObject(IReactorFromThreads, self.reactor)

    def test_start_and_stop(self) -> None:
        """They are heeded from start to stop, and no longer; and so again."""
        numbers = (SIGNAL, HANGUP, *ENDS)
        before = [signal.getsignal(each) for each in numbers]
        for _ in range(2):
            self.service.startService()
            for each, old in zip(numbers, before, strict=True):
                self.assertNotEqual(old, signal.getsignal(each))
            self.service.stopService()
            self.assertEqual(before, [signal.getsignal(each) for each in numbers])

    def test_only_wakes_the_reactor(self) -> None:
        """The signal itself does nothing but have the reactor called."""
        self.start()
        os.kill(os.getpid(), signal.SIGUSR2)
        self.assertEqual([], self.received)
        self.assertEqual(1, len(self.reactor.calls))
        self.assertEqual(0, self.reload.asked)

    def test_reloads(self) -> None:
        """In its turn the reactor reloads."""
        self.start()
        for count, number in enumerate((SIGNAL, signal.SIGHUP), 1):
            os.kill(os.getpid(), number)
            self.reactor.turn()
            self.assertEqual(count, self.reload.asked)
        self.assertEqual([], self.received)

    def test_ends(self) -> None:
        """What would end the process does what SIGTERM does, and the log says so."""
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
        """What nohup, or whoever else started us, has ignored is ignored."""
        self.meanwhile(signal.SIG_IGN, HANGUP)
        self.start()
        os.kill(os.getpid(), HANGUP)
        self.assertEqual([], self.reactor.calls)

    def test_taken(self) -> None:
        """What twistd has taken for itself it keeps; but not what asks us to reload."""
        self.meanwhile(self.receive, signal.SIGUSR1)
        self.meanwhile(signal.SIG_IGN, SIGNAL)
        self.start()
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual([signal.SIGUSR1], self.received)
        os.kill(os.getpid(), SIGNAL)
        self.assertEqual(1, len(self.reactor.calls))

    def test_at_the_end(self) -> None:
        """When no reload can be made any more, none is, and nothing is killed."""
        self.start()
        self.reload.stopService()
        os.kill(os.getpid(), HANGUP)
        self.reactor.turn()
        self.assertEqual(0, self.reload.asked)

    def test_after_the_stop(self) -> None:
        """After the stop they are no longer ours."""
        self.service.startService()
        self.service.stopService()
        os.kill(os.getpid(), SIGNAL)
        self.assertEqual([SIGNAL], self.received)
        self.assertEqual([], self.reactor.calls)
