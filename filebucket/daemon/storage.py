"""Build the store that the configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from filebucket.base.errors import ConfigError, OperatorError
from filebucket.base.lines import Lines
from filebucket.config.config import Config
from filebucket.daemon.process import share_heap
from filebucket.model.objects import S3
from filebucket.store.disk import DirectoryStore
from filebucket.store.home import Home
from filebucket.store.interfaces import IDaemonStore, IParts
from filebucket.store.parts import DirectoryParts
from filebucket.store.room import Room


@frozen
class Storage:
    """Where files go."""

    store: IDaemonStore
    parts: IParts


def storage(
    reactor: Any,
    config: Config,
    path: str,
    lines: Lines,
    room: Room,
    environ: Mapping[str, str],
    wall: Callable[[], float],
) -> Storage:
    """Build the store.

    :param path: of the configuration
    :param lines: threads for calls that may wait for a disk, a line for each bucket
    :param environ: may have the credentials of an object store
    :param wall: returns seconds since the epoch
    :raises ConfigError: the object store's credentials or certificates cannot be used,
        or a library is missing
    """
    home = Home(config.home, lines)
    if config.store is None:
        store = DirectoryStore(home, room)
        return Storage(store, DirectoryParts(store))
    try:
        return _object_storage(reactor, config.store, path, home, room, environ, wall)
    except OperatorError as error:
        raise ConfigError(path, [f"$.store: {error}"]) from None


def _object_storage(
    reactor: Any,
    s3: S3,
    path: str,
    home: Home,
    room: Room,
    environ: Mapping[str, str],
    wall: Callable[[], float],
) -> Storage:
    # Only here, since they take time and memory that no other daemon needs.
    from filebucket.store.s3 import probe  # noqa: PLC0415
    from filebucket.store.s3.calls import Calls  # noqa: PLC0415
    from filebucket.store.s3.client import Objects  # noqa: PLC0415
    from filebucket.store.s3.credentials import Current  # noqa: PLC0415
    from filebucket.store.s3.parts import S3Parts  # noqa: PLC0415
    from filebucket.store.s3.records import Keys  # noqa: PLC0415
    from filebucket.store.s3.store import S3Store  # noqa: PLC0415

    share_heap()
    credentials = Current(s3.credentials, reactor.seconds, environ)
    calls = Calls(reactor, s3, credentials)
    keys = Keys(s3.prefix)

    def check() -> str:
        try:
            how = probe.check(s3, credentials(), keys).how
        except OperatorError as error:
            raise ConfigError(path, [f"$.store.s3: {error}"]) from None
        return f"{how}, S3 buckets {s3.names_bucket} and {s3.data_bucket}"

    store = S3Store(
        home,
        room,
        Objects(calls, s3.names_bucket),
        Objects(calls, s3.data_bucket),
        keys,
        s3.data_bucket,
        s3.part_size,
        reactor,
        wall,
        check,
    )
    return Storage(store, S3Parts(store))
