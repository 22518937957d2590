"""What commands know of the server besides its catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.overview import Known
from filebucket.config.config import Config
from filebucket.config.load import parse, read_text
from filebucket.daemon.applied import identity
from filebucket.daemon.problems import find_daemon, problems_of
from filebucket.model.filesystem import Filesystem
from filebucket.model.node import of_node
from filebucket.model.problem import Problem
from filebucket.model.unfinished import Unfinished
from filebucket.store.archive import DirectoryArchive
from filebucket.store.room import look_at_filesystem


def load_with_problems(
    path: str, now: float, daemon: bool
) -> tuple[Config, Sequence[Problem]]:
    """The configuration, and the problems that show without the catalogue.

    :param daemon: whether a daemon has to run
    """
    text = read_text(path)
    config = parse(text, path)
    # With the caller's rights: certificates may be readable by root only.
    found = problems_of(path, identity(text), config, now, daemon)
    return config, [of_node(each, config.node_name) for each in found]


def known_to(config: Config, now: float, problems: Sequence[Problem]) -> Known:
    """The known facts that are not in the catalogue.

    :raises CatalogueError: the unfinished uploads cannot be read
    """
    return Known(
        config.buckets,
        now,
        _uploads(config.home),
        config.unfinished,
        _filesystem(config),
        problems,
        config.node_name,
        config.store is not None,
    )


def _filesystem(config: Config) -> Filesystem | None:
    """The home's filesystem; None if it cannot be examined."""
    try:
        found = look_at_filesystem(config.home, config.min_free_space)
    except OSError:
        return None
    # The daemon's files are read only if they make a difference.
    needs_reserve = found.fault is not None and evolve(found, reserved=0).fault is None
    return evolve(found, after_restart=needs_reserve and _is_restart_due(config))


def _is_restart_due(config: Config) -> bool:
    """Whether the daemon runs with another ``min_free_space``."""
    try:
        applied = find_daemon(config.home).applied
    except OSError:
        return False
    changed = [] if applied is None else applied.keys.changed(config.keys)
    return "min_free_space" in changed


def _uploads(home: str) -> list[Unfinished]:
    """The resumable uploads that go on.

    :raises CatalogueError: that cannot be read
    """
    try:
        return DirectoryArchive(home).unfinished()
    except OSError as error:
        reason = error.strerror or "disk error"
        raise CatalogueError(f"cannot read the unfinished uploads: {reason}") from None
