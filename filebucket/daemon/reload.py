"""Reload the list of buckets without interrupting pushes.

The whole file is read and checked in a thread, because it may be long, and then the
list is replaced atomically. A broken file changes nothing. Changes of other keys are
logged and need a restart. ``filebucket reload`` reads the result from the home
(:mod:`filebucket.daemon.control`).
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from filebucket.base.errors import ConfigError
from filebucket.base.threads import beside_pushes
from filebucket.config.config import Buckets, Config
from filebucket.config.load import parse, read_text
from filebucket.daemon.applied import Applied, fingerprints, identity
from filebucket.daemon.control import Answer
from filebucket.daemon.notify import Supervisor
from filebucket.model.bucket import Bucket
from filebucket.model.registry import BucketIndex, Registry

SIGNAL = signal.SIGUSR2
"""The signal for a reload (:mod:`filebucket.daemon.signals`)."""


@frozen
class Loaded:
    """A configuration, and how its buckets differ from the current ones.

    :param buckets: the buckets of the configuration
    :param added: number of new tokens
    :param removed: number of removed tokens
    :param changed: number of changed buckets
    :param fingerprints: those of its buckets
    :param text: the identity of the file's text
    """

    config: Config
    buckets: BucketIndex
    added: int
    removed: int
    changed: int
    fingerprints: Mapping[str, str]
    text: str = ""


def load_buckets(path: str, before: BucketIndex) -> Loaded:
    """Read the file and compare it with the current buckets. To be called in a thread.

    :param before: the current buckets
    :raises ConfigError: the file cannot be used
    """
    # Before the settings below are changed, since this may wait for a disk.
    text = read_text(path)
    read = identity(text)
    try:
        with beside_pushes():
            return evolve(differences(parse(text, path), before), text=read)
    except ConfigError as error:
        raise ConfigError(error.source, error.mistakes, read) from None


def differences(config: Config, before: BucketIndex) -> Loaded:
    """How the buckets of ``config`` differ from ``before``."""
    given = deque(config.buckets)
    # Now nothing else has the given ones, if the caller does not keep ``config``.
    config = evolve(config, buckets=Buckets(()))
    index = BucketIndex(_kept(given, before))
    config = evolve(config, buckets=Buckets(index.all))
    return Loaded(
        config,
        index,
        index.new_to(before),
        before.new_to(index),
        index.changed_since(before),
        fingerprints(config.buckets),
    )


def _kept(given: deque[Bucket], before: BucketIndex) -> Iterator[Bucket]:
    """The given buckets, or the current ones that are equal.

    So only what has changed is new: the interpreter looks for garbage in few objects,
    and drops few when the list is replaced, which the reactor does.
    """
    while given:
        # The one that is not needed is dropped here. To drop 100,000 at once takes as
        # long, but lets no other thread run meanwhile.
        yield before.instead_of(given.popleft())


class Reload(Service):
    """Reloads on request, while it is started.

    :ivar text: the identity of the text that the current buckets were read from
    :ivar waiting: keys of that text whose change needs a restart
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        text: str,
        registry: Registry,
        load: Callable[[BucketIndex], Deferred[Loaded]],
        tell: Callable[[Answer, Applied | None], Deferred[None]],
        supervisor: Supervisor,
    ) -> None:
        """
        :param config: the configuration at the start
        :param text: the identity of its text
        :param registry: the current buckets, which are replaced
        :param load: :func:`load_buckets` in a thread, given the current buckets; fails
            with :class:`ConfigError`
        :param tell: passes the result, and what is applied if that has changed, to
            ``filebucket reload``; fails with OSError if that is impossible
        :param supervisor: told when a reload begins and when it ends
        """
        self.text = text
        self.waiting: tuple[str, ...] = ()
        self._keys = config.keys
        self._registry = registry
        self._load = load
        self._tell = tell
        self._supervisor = supervisor
        self._one_at_a_time = DeferredLock()

    def applied(self) -> Applied:
        """The applied configuration. To be called in a thread: it takes 1 s for 100,000
        buckets.
        """
        # In this order: buckets that are newer than the text are compared, too.
        text, buckets = self.text, self._registry.all
        with beside_pushes():
            return Applied(text, self._keys, fingerprints(buckets))

    def reload(self) -> Deferred[None]:
        """Read the file and apply its buckets; the result is logged."""
        done: Deferred[None] = self._one_at_a_time.run(
            lambda: Deferred.fromCoroutine(self._reload_and_tell())
        )
        return done.addErrback(
            lambda failure: self._log.failure(
                "a bug in file-bucket", failure, event="bug"
            )
        )

    async def _reload_and_tell(self) -> None:
        self._supervisor.reloading()
        answer = Answer(reason="a bug in file-bucket; see its log")
        applied = None
        try:
            answer, applied = await self._reload()
        finally:
            # In any case: until then systemd blocks other jobs of the unit.
            self._supervisor.reloaded(_status(answer))
            try:
                await self._tell(answer, applied)
            except OSError as error:
                self._log.error(
                    "reload: cannot report the result: {error}",
                    event="reload-untold",
                    error=error.strerror,
                )

    async def _reload(self) -> tuple[Answer, Applied | None]:
        """Reload, and return the result."""
        try:
            loaded = await self._load(self._registry.index)
        except ConfigError as error:
            self._log.error(
                "reload failed, nothing changed: {error}",
                event="reload-failed",
                error=str(error),
            )
            return Answer(error.text, str(error), len(self._registry.all)), None
        config = loaded.config
        waiting = self._keys.changed(config.keys)
        # Before the listeners of the registry, one of which may fail.
        self.text, self.waiting = loaded.text, tuple(waiting)
        self._registry.replace(loaded.buckets)
        answer = Answer(
            loaded.text,
            buckets=len(config.buckets),
            added=loaded.added,
            removed=loaded.removed,
            changed=loaded.changed,
            waiting=self.waiting,
        )
        self._log.info(
            "{log_text}",
            log_text=f"reloaded: {answer.changes}",
            event="reload",
            count=answer.buckets,
            added=answer.added,
            removed=answer.removed,
            changed=answer.changed,
        )
        if waiting:
            self._log.warn(
                "reload: a restart is needed to apply: {keys}",
                event="reload-waits",
                keys=", ".join(waiting),
            )
        return answer, Applied(loaded.text, self._keys, loaded.fingerprints)


def _status(answer: Answer) -> str:
    """The result in a few words, for systemd."""
    if answer.reason:
        return "reload failed, nothing changed; see the log"
    return f"reloaded: {answer.changes}"
