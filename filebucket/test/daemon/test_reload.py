"""The reload, with a fake loader."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Callable

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import ConfigError
from filebucket.config import endpoint as endpoints
from filebucket.config import load, values
from filebucket.config.config import Buckets, Config, Listen
from filebucket.daemon import reload
from filebucket.daemon.applied import Applied, fingerprints, identity
from filebucket.daemon.control import Answer
from filebucket.daemon.reload import Loaded, Reload, differences, load_buckets
from filebucket.model.bucket import Bucket
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.token import Token
from filebucket.test.kit.fakes import FakeSupervisor


def bucket(name: str) -> Bucket:
    """A bucket of that name with a random token."""
    return Bucket((Token(name.encode("ascii") * 32),), directory=name, name=name)


A, B, C, D = map(bucket, "abcd")
BEFORE = Config(home=values.Path("/srv/drop"), buckets=Buckets((A, B)))
"""The buckets at the start."""

BROKEN = ConfigError("config.json", ["$.port: must be a whole number"])


def with_buckets(*buckets: Bucket) -> Config:
    """:data:`BEFORE` with other buckets."""
    return evolve(BEFORE, buckets=Buckets(buckets))


def with_port(config: Config, port: int) -> Config:
    """``config`` with another port, and the endpoint made from it."""
    listen = Listen((endpoints.tcp(config.host, port),))
    return evolve(config, port=values.Port(port), listen=listen)


class FakeLoader:
    """A loader that the test controls.

    :ivar waiting: the loads in progress
    """

    def __init__(self) -> None:
        self.waiting: list[Deferred[tuple[Config, str]]] = []

    def load(self, before: BucketIndex) -> Deferred[Loaded]:
        """Stands in for reading the file in a thread."""
        waiting: Deferred[tuple[Config, str]] = Deferred()
        self.waiting.append(waiting)
        loaded: Deferred[Loaded] = Deferred()
        waiting.addCallback(
            lambda found: evolve(differences(found[0], before), text=found[1])
        ).chainDeferred(loaded)
        return loaded

    def gives(self, config: Config, text: str = "") -> None:
        """The load succeeds.

        :param text: the identity of the text
        """
        self.waiting.pop(0).callback((config, text))

    def fails(self, error: Exception) -> None:
        """The load fails."""
        self.waiting.pop(0).errback(Failure(error))


class ReloadCase(SynchronousTestCase):
    """A service and its parts."""

    def setUp(self) -> None:
        self.loader = FakeLoader()
        self.supervisor = FakeSupervisor()
        self.swapped: list[tuple[Bucket, ...]] = []
        self.told: list[Answer] = []
        self.applied: list[Applied | None] = []
        self.registry = Registry(BEFORE.buckets)
        self.registry.on_change(lambda: self.swapped.append(self.registry.all))
        self.service = self.make(self.loader.load)
        self.events = self.enterContext(capturedLogs())
        self.seen = 0

    def make(self, load: Callable[[BucketIndex], Deferred[Loaded]]) -> Reload:
        """A service with this loader."""
        return Reload(BEFORE, "ab", self.registry, load, self.tell, self.supervisor)

    def tell(self, answer: Answer, applied: Applied | None) -> Deferred[None]:
        """Record an answer."""
        self.told.append(answer)
        self.applied.append(applied)
        return succeed(None)

    def logged(self) -> list[tuple[LogLevel, str]]:
        """The lines logged since the last call."""
        start, self.seen = self.seen, len(self.events)
        return [
            (event["log_level"], formatEvent(event))
            for event in self.events[start:]
            if event["log_namespace"].startswith("filebucket.")
        ]

    def reload(self, config: Config) -> None:
        """A complete reload of a valid file."""
        done = self.service.reload()
        self.loader.gives(config)
        self.successResultOf(done)


class ReloadTests(ReloadCase):
    """:meth:`Reload.reload`."""

    def test_supervisor(self) -> None:
        """The supervisor always learns when a reload begins and ends."""
        done = self.service.reload()
        self.assertEqual(["reloading"], self.supervisor.told)
        self.loader.gives(with_buckets(B, C))
        self.successResultOf(done)
        for error in (BROKEN, RuntimeError("a bug")):
            done = self.service.reload()
            self.loader.fails(error)
            self.successResultOf(done)
        self.flushLoggedErrors(RuntimeError)
        failed = "reloaded: reload failed, nothing changed"
        self.assertEqual(
            [
                "reloading",
                "reloaded: reloaded: 2 buckets (1 token added, 1 removed)",
                "reloading",
                f"{failed}; see the log",
                "reloading",
                f"{failed}; see the log",
            ],
            self.supervisor.told,
        )

    def test_swap(self) -> None:
        """The whole list is replaced at once, and only when it is loaded."""
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
        self.service = self.make(
            lambda before: succeed(differences(with_buckets(C), before))
        )
        self.successResultOf(self.service.reload())
        self.assertEqual([(C,)], self.swapped)

    def test_same_again(self) -> None:
        self.reload(BEFORE)
        self.assertEqual([(A, B)], self.swapped)
        self.assertEqual(
            [(LogLevel.info, "reloaded: 2 buckets (0 tokens added, 0 removed)")],
            self.logged(),
        )

    def test_none_left(self) -> None:
        self.reload(with_buckets())
        self.assertEqual([()], self.swapped)
        self.assertEqual(
            [(LogLevel.info, "reloaded: 0 buckets (0 tokens added, 2 removed)")],
            self.logged(),
        )

    def test_counts_from_the_last(self) -> None:
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
        """A renamed bucket is replaced; its token does not count as new."""
        renamed = evolve(A, name="web01")
        self.reload(with_buckets(renamed, B))
        self.assertEqual([(renamed, B)], self.swapped)
        self.assertEqual(
            [(LogLevel.info, "reloaded: 2 buckets (0 tokens added, 0 removed)")],
            self.logged(),
        )

    def test_changed(self) -> None:
        """Buckets with other settings or tokens are counted."""
        self.reload(with_buckets(evolve(A, quota=1), B, C))
        expected = "reloaded: 3 buckets (1 token added, 0 removed, 1 bucket changed)"
        self.assertEqual([(LogLevel.info, expected)], self.logged())

    def test_broken_file(self) -> None:
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
        changed = evolve(with_buckets(C), hooks=values.Path("/hooks"))
        self.reload(with_port(changed, 80))
        self.assertEqual([(C,)], self.swapped)
        self.assertEqual(
            [
                (LogLevel.info, "reloaded: 1 bucket (1 token added, 2 removed)"),
                (LogLevel.warn, "reload: a restart is needed to apply: port, hooks"),
            ],
            self.logged(),
        )

    def test_still_waiting(self) -> None:
        """The key is logged at each reload until it is applied or changed back."""
        changed = with_port(BEFORE, 80)
        waits = LogLevel.warn, "reload: a restart is needed to apply: port"
        for config, expected in ((changed, [waits]), (changed, [waits]), (BEFORE, [])):
            self.reload(config)
            self.assertEqual(expected, self.logged()[1:])

    def test_one_at_a_time(self) -> None:
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
        first, second = self.service.reload(), self.service.reload()
        self.loader.fails(BROKEN)
        self.successResultOf(first)
        self.loader.gives(with_buckets(D))
        self.successResultOf(second)
        self.assertEqual([(D,)], self.swapped)


class TellTests(ReloadCase):
    """The result is reported when the reload is over."""

    def test_in_force(self) -> None:
        self.reload(with_port(with_buckets(A, C, D), 80))
        expected = Answer("", buckets=3, added=2, removed=1, waiting=("port",))
        self.assertEqual([expected], self.told)

    def test_applied(self) -> None:
        """The buckets of the reload, and the keys of the start."""
        self.assertEqual("ab", self.service.text)
        before = Applied("ab", BEFORE.keys, fingerprints((A, B)))
        self.assertEqual(before, self.service.applied())
        done = self.service.reload()
        self.loader.fails(BROKEN)
        self.successResultOf(done)
        self.assertEqual(before, self.service.applied())
        done = self.service.reload()
        self.loader.gives(with_port(with_buckets(C), 80), "cd")
        self.successResultOf(done)
        after = Applied("cd", BEFORE.keys, fingerprints((C,)))
        self.assertEqual([None, after], self.applied)
        self.assertEqual(after, self.service.applied())
        self.assertEqual("cd", self.service.text)

    def test_after_the_swap(self) -> None:
        self.service.reload()
        self.assertEqual([], self.told)
        swapped: list[int] = []

        def tell(answer: Answer, applied: Applied | None) -> Deferred[None]:
            swapped.append(len(self.swapped))
            return succeed(None)

        self.service._tell = tell
        self.loader.gives(with_buckets(C))
        self.assertEqual([1], swapped)

    def test_unfit(self) -> None:
        self.service.reload()
        self.loader.fails(ConfigError("f", ["$.port: must be a whole number"], "ab12"))
        expected = Answer("ab12", "f: $.port: must be a whole number", buckets=2)
        self.assertEqual([expected], self.told)

    def test_bug(self) -> None:
        """So that no command waits in vain."""
        self.service.reload()
        self.loader.fails(ZeroDivisionError())
        (answer,) = self.told
        self.assertIn("a bug", answer.reason or "")
        self.flushLoggedErrors(ZeroDivisionError)

    def test_cannot_be_told(self) -> None:
        self.service._tell = lambda answer, applied: fail(OSError(28, "No space left"))
        self.reload(with_buckets(C))
        self.assertEqual([(C,)], self.swapped)
        expected = (LogLevel.error, "reload: cannot report the result: No space left")
        self.assertEqual(expected, self.logged()[-1])
        self.assertEqual([], self.flushLoggedErrors())

    def test_in_their_order(self) -> None:
        told: Deferred[None] = Deferred()
        self.service._tell = lambda answer, applied: told
        self.reload_under_way()
        self.assertEqual([], self.loader.waiting)
        told.callback(None)
        self.assertEqual(1, len(self.loader.waiting))

    def reload_under_way(self) -> None:
        """Two reloads: one that only has to report its result, and one that waits."""
        self.service.reload()
        self.service.reload()
        self.loader.gives(with_buckets(C))


class BugTests(ReloadCase):
    """A bug is logged with its traceback, and later reloads still work."""

    def assert_logged(self, kind: type[Exception]) -> None:
        """One traceback of such an exception is in the log."""
        self.assertEqual(
            [(LogLevel.critical, "a bug in file-bucket")], self.logged()[:1]
        )
        self.assertEqual(1, len(self.flushLoggedErrors(kind)))

    def test_in_the_loader(self) -> None:
        first, second = self.service.reload(), self.service.reload()
        self.loader.fails(ZeroDivisionError())
        self.assertIsNone(self.successResultOf(first))
        self.assertEqual([], self.swapped)
        self.assert_logged(ZeroDivisionError)
        self.loader.gives(with_buckets(C))
        self.successResultOf(second)
        self.assertEqual([(C,)], self.swapped)

    def test_before_the_loader_waits(self) -> None:
        def load(before: BucketIndex) -> Deferred[Loaded]:
            raise ZeroDivisionError

        service = self.make(load)
        for _ in range(2):
            self.assertIsNone(self.successResultOf(service.reload()))
            self.assertEqual([], self.swapped)
            self.assert_logged(ZeroDivisionError)

    def test_in_a_listener(self) -> None:
        """The buckets are applied even if a listener of the registry fails."""
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
    """:func:`load_buckets`, which runs in a thread."""

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
        self.write("a", "b")
        before = load_buckets(self.path, BucketIndex()).buckets
        self.write("b", "c", "d")
        loaded = load_buckets(self.path, before)
        self.assertEqual((2, 1), (loaded.added, loaded.removed))
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(identity(file.read()), loaded.text)
        self.assertEqual(3, len(loaded.config.buckets))

    def test_keeps_what_is_equal(self) -> None:
        """A bucket that has not changed stays the same object."""
        self.write("a", "b")
        before = load_buckets(self.path, BucketIndex())
        self.write("b", "c", "a")
        loaded = load_buckets(self.path, before.buckets)
        self.assertEqual(0, loaded.changed)
        a, b = before.config.buckets
        found_b, _, found_a = loaded.config.buckets
        self.assertIs(a, found_a)
        self.assertIs(b, found_b)
        self.assertIs(loaded.config.buckets, loaded.buckets.all)

    def test_drops_the_others_in_turn(self) -> None:
        """While it reads the next, so that the reactor does not do it at once."""
        self.write("a", "b", "c")
        before = load_buckets(self.path, BucketIndex())
        config = load.load(self.path)
        read = [weakref.ref(each) for each in config.buckets]
        alive: list[int] = []

        class Index(BucketIndex):
            def instead_of(self, bucket: Bucket) -> Bucket:
                alive.append(sum(each() is not None for each in read))
                return super().instead_of(bucket)

        given = [config]
        del config
        differences(given.pop(), Index(before.buckets.all))
        self.assertEqual([3, 2, 1], alive)

    def test_unfit(self) -> None:
        self.write("too long")
        error = self.assertRaises(ConfigError, load_buckets, self.path, BucketIndex())
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(identity(file.read()), error.text)

    def test_everything_is_put_back(self) -> None:
        """The interpreter's settings are restored, whatever happens."""
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
