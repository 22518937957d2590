"""The reload, with a loader that is stood in for."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import ConfigError
from filebucket.config import load, values
from filebucket.config.config import Buckets, Config
from filebucket.daemon import reload
from filebucket.daemon.control import Answer, identity
from filebucket.daemon.reload import Loaded, Reload, differences, load_buckets
from filebucket.model.bucket import Bucket
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.token import Token
from filebucket.test.kit.fakes import FakeSupervisor


def bucket(name: str) -> Bucket:
    """A bucket of that name, whose token nobody knows."""
    return Bucket((Token(name.encode("ascii") * 32),), directory=name, name=name)


A, B, C, D = map(bucket, "abcd")
BEFORE = Config(home=values.Path("/srv/drop"), buckets=Buckets((A, B)))
"""What is in force at first."""

BROKEN = ConfigError("config.json", ["$.port: must be a whole number"])


def with_buckets(*buckets: Bucket) -> Config:
    """:data:`BEFORE` but for its buckets."""
    return evolve(BEFORE, buckets=Buckets(buckets))


class FakeLoader:
    """Loads when the test says so.

    :ivar waiting: the loads that are under way
    """

    def __init__(self) -> None:
        self.waiting: list[Deferred[Config]] = []

    def load(self, before: BucketIndex) -> Deferred[Loaded]:
        """In place of reading the file in a thread."""
        waiting: Deferred[Config] = Deferred()
        self.waiting.append(waiting)
        loaded: Deferred[Loaded] = Deferred()
        waiting.addCallback(differences, before).chainDeferred(loaded)
        return loaded

    def gives(self, config: Config) -> None:
        """The file was fit."""
        self.waiting.pop(0).callback(config)

    def fails(self, error: Exception) -> None:
        """It was not."""
        self.waiting.pop(0).errback(Failure(error))


class ReloadCase(SynchronousTestCase):
    """A service with what it needs."""

    def setUp(self) -> None:
        self.loader = FakeLoader()
        self.supervisor = FakeSupervisor()
        self.swapped: list[tuple[Bucket, ...]] = []
        self.told: list[Answer] = []
        self.registry = Registry(BEFORE.buckets)
        self.registry.on_change(lambda: self.swapped.append(self.registry.all))
        self.service = self.make(self.loader.load)
        self.events = self.enterContext(capturedLogs())
        self.seen = 0

    def make(self, load: Callable[[BucketIndex], Deferred[Loaded]]) -> Reload:
        """A service that loads by ``load``."""
        return Reload(BEFORE, self.registry, load, self.tell, self.supervisor)

    def tell(self, answer: Answer) -> Deferred[None]:
        """Keep what is told."""
        self.told.append(answer)
        return succeed(None)

    def logged(self) -> list[tuple[LogLevel, str]]:
        """What the service has logged since this was last asked."""
        start, self.seen = self.seen, len(self.events)
        return [
            (event["log_level"], formatEvent(event))
            for event in self.events[start:]
            if event["log_namespace"].startswith("filebucket.")
        ]

    def reload(self, config: Config) -> None:
        """A reload of a fit file, from end to end."""
        done = self.service.reload()
        self.loader.gives(config)
        self.successResultOf(done)


class ReloadTests(ReloadCase):
    """:meth:`Reload.reload`."""

    def test_supervisor(self) -> None:
        """It is told of the beginning, and always of the end."""
        done = self.service.reload()
        self.assertEqual(["reloading"], self.supervisor.told)
        self.loader.gives(with_buckets(B, C))
        self.successResultOf(done)
        for error in (BROKEN, RuntimeError("a bug")):
            done = self.service.reload()
            self.loader.fails(error)
            self.successResultOf(done)
        self.flushLoggedErrors(RuntimeError)
        failed = "ready: reload failed, nothing changed"
        self.assertEqual(
            [
                "reloading",
                "ready: reloaded: 2 buckets (1 token added, 1 removed)",
                "reloading",
                f"{failed}; see the log",
                "reloading",
                f"{failed}; see the log",
            ],
            self.supervisor.told,
        )

    def test_swap(self) -> None:
        """The whole list is swapped at once, and only when it is there."""
        done = self.service.reload()
        self.assertNoResult(done)
        self.assertEqual([], self.swapped)
        self.loader.gives(with_buckets(B, C, D))
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual([(B, C, D)], self.swapped)
        self.assertEqual(
            [(LogLevel.info, "reloaded: 3 buckets (2 tokens added, 1 removed)")],
            self.logged(),
        )

    def test_at_once(self) -> None:
        """A load that is done before it is waited for is as good."""
        self.service = self.make(
            lambda before: succeed(differences(with_buckets(C), before))
        )
        self.successResultOf(self.service.reload())
        self.assertEqual([(C,)], self.swapped)

    def test_same_again(self) -> None:
        """A file that did not change is put in force all the same."""
        self.reload(BEFORE)
        self.assertEqual([(A, B)], self.swapped)
        self.assertEqual(
            [(LogLevel.info, "reloaded: 2 buckets (0 tokens added, 0 removed)")],
            self.logged(),
        )

    def test_none_left(self) -> None:
        """An empty list is a list."""
        self.reload(with_buckets())
        self.assertEqual([()], self.swapped)
        self.assertEqual(
            [(LogLevel.info, "reloaded: 0 buckets (0 tokens added, 2 removed)")],
            self.logged(),
        )

    def test_counts_from_the_last(self) -> None:
        """What is added and removed is counted from the last reload."""
        self.reload(with_buckets(A, B, C))
        self.reload(with_buckets(C))
        self.assertEqual(
            [
                (LogLevel.info, "reloaded: 3 buckets (1 token added, 0 removed)"),
                (LogLevel.info, "reloaded: 1 bucket (0 tokens added, 2 removed)"),
            ],
            self.logged(),
        )

    def test_other_name(self) -> None:
        """A bucket with another name is swapped; its token is not new."""
        renamed = evolve(A, name="web01")
        self.reload(with_buckets(renamed, B))
        self.assertEqual([(renamed, B)], self.swapped)
        self.assertEqual(
            [(LogLevel.info, "reloaded: 2 buckets (0 tokens added, 0 removed)")],
            self.logged(),
        )

    def test_broken_file(self) -> None:
        """A broken file changes nothing and says so."""
        done = self.service.reload()
        self.loader.fails(BROKEN)
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual([], self.swapped)
        self.assertEqual(
            [
                (
                    LogLevel.error,
                    "reload failed, nothing changed: config.json: $.port: must be a"
                    " whole number",
                )
            ],
            self.logged(),
        )
        self.assertEqual([], self.flushLoggedErrors())

    def test_after_a_broken_file(self) -> None:
        """The next reload counts from what is still in force."""
        self.successResultOf(self.make(lambda before: fail(BROKEN)).reload())
        self.service.reload()
        self.loader.fails(BROKEN)
        self.logged()
        self.reload(with_buckets(A))
        self.assertEqual([(A,)], self.swapped)
        self.assertEqual(
            [(LogLevel.info, "reloaded: 1 bucket (0 tokens added, 1 removed)")],
            self.logged(),
        )

    def test_waiting_for_a_restart(self) -> None:
        """What else changed is named; the buckets are in force already."""
        self.reload(
            evolve(with_buckets(C), port=values.Port(80), hooks=values.Path("/hooks"))
        )
        self.assertEqual([(C,)], self.swapped)
        self.assertEqual(
            [
                (LogLevel.info, "reloaded: 1 bucket (1 token added, 2 removed)"),
                (LogLevel.warn, "reload: a restart is needed to apply: port, hooks"),
            ],
            self.logged(),
        )

    def test_still_waiting(self) -> None:
        """It is named at each reload until it is in force, or taken back."""
        changed = evolve(BEFORE, port=values.Port(80))
        waits = LogLevel.warn, "reload: a restart is needed to apply: port"
        for config, expected in ((changed, [waits]), (changed, [waits]), (BEFORE, [])):
            self.reload(config)
            self.assertEqual(expected, self.logged()[1:])

    def test_one_at_a_time(self) -> None:
        """A reload that comes during another waits, and reads the file anew."""
        first, second = self.service.reload(), self.service.reload()
        self.assertEqual(1, len(self.loader.waiting))
        self.loader.gives(with_buckets(C))
        self.successResultOf(first)
        self.assertNoResult(second)
        self.assertEqual(1, len(self.loader.waiting))
        self.assertEqual([(C,)], self.swapped)
        self.loader.gives(with_buckets(D))
        self.successResultOf(second)
        self.assertEqual([(C,), (D,)], self.swapped)
        self.assertEqual(
            [
                (LogLevel.info, "reloaded: 1 bucket (1 token added, 2 removed)"),
                (LogLevel.info, "reloaded: 1 bucket (1 token added, 1 removed)"),
            ],
            self.logged(),
        )

    def test_next_in_line_after_a_broken_file(self) -> None:
        """One that waits has its turn also after one that failed."""
        first, second = self.service.reload(), self.service.reload()
        self.loader.fails(BROKEN)
        self.successResultOf(first)
        self.loader.gives(with_buckets(D))
        self.successResultOf(second)
        self.assertEqual([(D,)], self.swapped)


class TellTests(ReloadCase):
    """What came of a reload is told, when it is over."""

    def test_in_force(self) -> None:
        """With what changed, and what waits."""
        self.reload(evolve(with_buckets(A, C, D), port=values.Port(80)))
        expected = Answer(buckets=3, added=2, removed=1, waiting=("port",))
        self.assertEqual([expected], self.told)

    def test_after_the_swap(self) -> None:
        """When it is told, it is so."""
        self.service.reload()
        self.assertEqual([], self.told)
        swapped: list[int] = []

        def tell(answer: Answer) -> Deferred[None]:
            swapped.append(len(self.swapped))
            return succeed(None)

        self.service._tell = tell
        self.loader.gives(with_buckets(C))
        self.assertEqual([1], swapped)

    def test_unfit(self) -> None:
        """With the reason, and which text it was."""
        self.service.reload()
        self.loader.fails(ConfigError("f", ["$.port: must be a whole number"], "ab12"))
        expected = Answer("ab12", "f: $.port: must be a whole number", buckets=2)
        self.assertEqual([expected], self.told)

    def test_bug(self) -> None:
        """So that nobody waits in vain."""
        self.service.reload()
        self.loader.fails(ZeroDivisionError())
        (answer,) = self.told
        self.assertIn("a bug", answer.reason or "")
        self.flushLoggedErrors(ZeroDivisionError)

    def test_cannot_be_told(self) -> None:
        """The buckets are in force all the same, and the log says it."""
        self.service._tell = lambda answer: fail(OSError(28, "No space left"))
        self.reload(with_buckets(C))
        self.assertEqual([(C,)], self.swapped)
        expected = (LogLevel.error, "reload: cannot report the result: No space left")
        self.assertEqual(expected, self.logged()[-1])
        self.assertEqual([], self.flushLoggedErrors())

    def test_in_their_order(self) -> None:
        """The next reload waits until the last one was told."""
        told: Deferred[None] = Deferred()
        self.service._tell = lambda answer: told
        self.reload_under_way()
        self.assertEqual([], self.loader.waiting)
        told.callback(None)
        self.assertEqual(1, len(self.loader.waiting))

    def reload_under_way(self) -> None:
        """One that has only to be told, and one that waits."""
        self.service.reload()
        self.service.reload()
        self.loader.gives(with_buckets(C))


class BugTests(ReloadCase):
    """A bug is a traceback in the log, and not the end of reloading."""

    def assert_logged(self, kind: type[Exception]) -> None:
        """One traceback is in the log, of such an exception."""
        self.assertEqual(
            [(LogLevel.critical, "a bug in file-bucket")], self.logged()[:1]
        )
        self.assertEqual(1, len(self.flushLoggedErrors(kind)))

    def test_in_the_loader(self) -> None:
        """What is no mistake of the operator's is a bug."""
        first, second = self.service.reload(), self.service.reload()
        self.loader.fails(ZeroDivisionError())
        self.assertIsNone(self.successResultOf(first))
        self.assertEqual([], self.swapped)
        self.assert_logged(ZeroDivisionError)
        self.loader.gives(with_buckets(C))
        self.successResultOf(second)
        self.assertEqual([(C,)], self.swapped)

    def test_before_the_loader_waits(self) -> None:
        """So it is where the loader does not even begin."""

        def load(before: BucketIndex) -> Deferred[Loaded]:
            raise ZeroDivisionError

        service = self.make(load)
        for _ in range(2):
            self.assertIsNone(self.successResultOf(service.reload()))
            self.assertEqual([], self.swapped)
            self.assert_logged(ZeroDivisionError)

    def test_in_a_listener(self) -> None:
        """The buckets are in force, whoever fails to take note of it."""
        failing = [True, False]

        def listen() -> None:
            if failing.pop(0):
                raise ZeroDivisionError

        self.registry.on_change(listen)
        for buckets in ((C,), (C, D)):
            done = self.service.reload()
            self.loader.gives(with_buckets(*buckets))
            self.assertIsNone(self.successResultOf(done))
        self.assertEqual([(C,), (C, D)], self.swapped)
        self.assertEqual(
            [
                (LogLevel.critical, "a bug in file-bucket"),
                (LogLevel.info, "reloaded: 2 buckets (1 token added, 0 removed)"),
            ],
            self.logged(),
        )
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


class ReadTests(SynchronousTestCase):
    """:func:`load_buckets`, which is run in a thread."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        self.addCleanup(gc.enable)

    def write(self, *buckets: str) -> None:
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(
                {"home": "/srv", "buckets": [each * 32 for each in buckets]}, file
            )

    def test_compares(self) -> None:
        """What was added and what is gone is counted by the tokens."""
        self.write("a", "b")
        before = load_buckets(self.path, BucketIndex()).buckets
        self.write("b", "c", "d")
        loaded = load_buckets(self.path, before)
        self.assertEqual((2, 1), (loaded.added, loaded.removed))
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(identity(file.read()), loaded.text)
        self.assertEqual(3, len(loaded.config.buckets))

    def test_unfit(self) -> None:
        """Which text it was is known also where it has mistakes."""
        self.write("too long")
        error = self.assertRaises(ConfigError, load_buckets, self.path, BucketIndex())
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(identity(file.read()), error.text)

    def test_everything_is_put_back(self) -> None:
        """Pushes are favoured while it reads, and then no more, come what may."""
        interval = sys.getswitchinterval()
        seen = []

        def parse(text: str, path: str) -> Config:
            seen.append((sys.getswitchinterval() < interval, gc.isenabled()))
            return real(text, path)

        real = load.parse
        self.patch(reload, "parse", parse)
        self.write("a")
        load_buckets(self.path, BucketIndex())
        self.write("too long")
        self.assertRaises(ConfigError, load_buckets, self.path, BucketIndex())
        self.assertEqual([(True, False)] * 2, seen)
        self.assertAlmostEqual(interval, sys.getswitchinterval())
        self.assertTrue(gc.isenabled())
