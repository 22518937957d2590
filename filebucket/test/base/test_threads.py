"""Threads: calls go in, results come out in the reactor's thread."""

from __future__ import annotations

import errno
import gc
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from filebucket.base.threads import MANY_NEW, Threads, beside_pushes, short_turns
from filebucket.test.kit.server import PATIENCE, comes


@implementer(IReactorFromThreads)
class Reactor:
    """Makes calls from threads when the test turns it."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:  # noqa: A002
        self._asked.put(lambda: callable(*args, **kwargs))

    def turn(self) -> None:
        """Wait until it is woken, and run the calls once."""
        self._asked.get(timeout=PATIENCE)()

    @property
    def wakes(self) -> int:
        """Number of wake-ups since the last call."""
        return self._asked.qsize()


class ThreadsTests(SynchronousTestCase):
    """Over a reactor that the test turns."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.threads = self.make(2)

    def make(self, most: int) -> Threads:
        threads = Threads(self.reactor, most)
        threads.startService()
        self.addCleanup(threads.stopService)
        return threads

    def results(self, *waits: Deferred[Any]) -> list[Any]:
        """The results of these calls, after as many turns as needed."""
        while not all(wait.called for wait in waits):
            self.reactor.turn()
        return [self.successResultOf(wait) for wait in waits]

    def test_result(self) -> None:
        here = threading.get_ident()

        def call(*args: object) -> tuple[object, int]:
            return args, threading.get_ident()

        wait = self.threads.run(call, 1, "a")
        told = wait.addCallback(lambda result: (*result, threading.get_ident()))
        ((args, there, told_in),) = self.results(told)
        self.assertEqual((1, "a"), args)
        self.assertNotEqual(here, there)
        self.assertEqual(here, told_in)

    def test_failure(self) -> None:
        for error in (ValueError, KeyboardInterrupt):

            def fail(error: type[BaseException] = error) -> None:
                raise error

            wait = self.make(1).run(fail)
            self.reactor.turn()
            self.failureResultOf(wait, error)
        threads = self.make(1)
        failing, next_one = threads.run(fail), threads.run(len, "abc")
        self.assertEqual([3], self.results(next_one))
        self.failureResultOf(failing, KeyboardInterrupt)

    def test_at_once(self) -> None:
        began: SimpleQueue[int] = SimpleQueue()
        go_on = threading.Semaphore(0)

        def call(number: int) -> int:
            began.put(number)
            go_on.acquire(timeout=PATIENCE)
            return number

        waits = [self.threads.run(call, number) for number in range(3)]
        self.assertEqual({0, 1}, {began.get(timeout=PATIENCE) for _ in range(2)})
        self.assertTrue(began.empty())
        go_on.release()
        self.assertEqual(2, began.get(timeout=PATIENCE))
        go_on.release(2)
        self.assertEqual([0, 1, 2], self.results(*waits))

    def test_a_call_never_waits_for_a_busy_thread(self) -> None:
        hang = threading.Event()
        hanging = self.threads.run(hang.wait, PATIENCE)
        self.assertEqual([3], self.results(self.threads.run(len, "abc")))
        self.assertEqual([2], self.results(self.threads.run(len, "ab")))
        self.assertFalse(hanging.called)
        hang.set()
        self.assertEqual([True], self.results(hanging))

    def test_threads_are_used_again(self) -> None:
        used = {
            self.results(self.threads.run(threading.get_ident))[0] for _ in range(10)
        }
        self.assertEqual(1, len(used))

    def test_woken_once(self) -> None:
        threads = self.make(1)
        waits = [threads.run(len, "a" * number) for number in range(50)]
        last = threading.Event()
        threads.run(last.set)
        last.wait(PATIENCE)
        self.assertEqual(1, self.reactor.wakes)
        self.assertEqual(list(range(50)), self.results(*waits))

    def test_a_call_from_a_result(self) -> None:
        wait = self.threads.run(len, "a").addCallback(
            lambda _: self.threads.run(len, "ab")
        )
        self.reactor.turn()
        self.assertNoResult(wait)
        self.reactor.turn()
        self.assertEqual(2, self.successResultOf(wait))

    def test_nothing_is_lost(self) -> None:
        threads = self.make(8)
        waits = [threads.run(lambda n=number: n) for number in range(5000)]
        self.assertEqual(list(range(5000)), self.results(*waits))

    def test_one_is_woken(self) -> None:
        """A call wakes one idle thread only, the one that was idle last."""
        hang = threading.Event()
        hanging = self.threads.run(hang.wait, PATIENCE)
        (first,) = self.results(self.threads.run(threading.get_ident))
        idle = self.threads._idle
        self.assertTrue(comes(lambda: len(idle) == 1))
        hang.set()
        self.results(hanging)
        self.assertTrue(comes(lambda: len(idle) == 2))
        before = list(idle)
        for _ in range(3):
            (used,) = self.results(self.threads.run(threading.get_ident))
            self.assertNotEqual(first, used)
            self.assertTrue(comes(lambda: len(idle) == 2))
            self.assertEqual(before, idle)

    def test_stop(self) -> None:
        threads = Threads(self.reactor, 2)
        before = set(threading.enumerate())
        hang = threading.Event()
        hanging = threads.run(hang.wait, PATIENCE)
        asking = threads.run(threading.current_thread)
        waiting = threads.run(len, "abc")
        threads.stopService()
        threads.stopService()
        hang.set()
        _, thread, length = self.results(hanging, asking, waiting)
        self.assertEqual(3, length)
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertLessEqual(len(set(threading.enumerate()) - before), 1)

    def test_no_thread_to_be_had(self) -> None:
        """A system without free threads causes errors, and recovers."""

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patched = self.patch(threading.Thread, "start", start)
        for _ in range(3):
            failure = self.failureResultOf(self.threads.run(len, "a"), OSError)
            self.assertEqual(errno.EAGAIN, failure.value.errno)
        patched.restore()
        self.assertEqual([1], self.results(self.threads.run(len, "a")))

    def test_no_second_thread(self) -> None:
        hang = threading.Event()
        hanging = self.threads.run(hang.wait, PATIENCE)

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", start)
        waiting = self.threads.run(len, "a")
        self.assertNoResult(waiting)
        hang.set()
        self.assertEqual([True, 1], self.results(hanging, waiting))

    def test_stuck(self) -> None:
        clock = Clock()
        threads = Threads(self.reactor, 3, clock.seconds)
        threads.startService()
        self.addCleanup(threads.stopService)
        self.assertEqual(0, threads.stuck(0))
        hang = threading.Event()
        waits = []
        for number in range(3):
            began = threading.Event()
            waits.append(threads.run(lambda each=began: each.set() or hang.wait()))
            began.wait(PATIENCE)
            self.assertEqual(number + 1, threads.stuck(0))
            clock.advance(10)
        self.assertEqual(
            [3, 2, 1, 0], [threads.stuck(each) for each in (1, 11, 21, 31)]
        )
        hang.set()
        self.results(*waits)
        self.assertEqual(0, threads.stuck(0))

    def test_daemonic(self) -> None:
        (thread,) = self.results(self.threads.run(threading.current_thread))
        self.assertTrue(thread.daemon)


class ShortTurnsTests(SynchronousTestCase):
    """:func:`short_turns`."""

    def test_two_threads(self) -> None:
        """The usual interval returns when the last one ends, in any order."""
        usual = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, usual)
        first, second = short_turns(), short_turns()
        first.__enter__()
        self.assertAlmostEqual(usual / 10, sys.getswitchinterval())
        second.__enter__()
        first.__exit__(None, None, None)
        self.assertAlmostEqual(usual / 10, sys.getswitchinterval())
        second.__exit__(None, None, None)
        self.assertAlmostEqual(usual, sys.getswitchinterval())


class BesidePushesTests(SynchronousTestCase):
    """:func:`beside_pushes`: what the interpreter looks for garbage in afterwards."""

    def setUp(self) -> None:
        gc.collect()
        self.addCleanup(gc.unfreeze)

    def frozen(self, new: int) -> int:
        """The objects that are left alone after a block that creates this many."""
        before = gc.get_freeze_count()
        with beside_pushes():
            kept: list[list[int]] = [[] for _ in range(new)]
        self.assertEqual(new, len(kept))
        return gc.get_freeze_count() - before

    def test_few(self) -> None:
        self.assertEqual(0, self.frozen(MANY_NEW // 2))

    def test_many(self) -> None:
        self.assertGreater(self.frozen(MANY_NEW + 1), MANY_NEW)
