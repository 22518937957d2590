"""What the daemon has applied of its configuration, and how the file differs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from filebucket.base.text import counted, cut, joined, printable
from filebucket.config.config import Config, Keys
from filebucket.model.bucket import Bucket
from filebucket.model.fingerprint import bucket_fingerprint, fingerprint

MOST_NAMED = 3
"""Maximum number of buckets that a text names of each sort."""
LONGEST_NAME = 30

_ID_LENGTH = 17
_NAMELESS = re.compile("#[0-9a-f]{16}")
_LABEL_LENGTH = 7


def identity(text: str) -> str:
    """An identifier of a configuration's text: its SHA-256 in hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@frozen
class Applied:
    """What the daemon has applied. It contains no token.

    :param text: the identity of the text that it read the buckets from
    :param keys: the keys at its start
    :param buckets: the fingerprint of each bucket
    """

    text: str
    keys: Keys
    buckets: Mapping[str, str]


def fingerprints(buckets: Iterable[Bucket]) -> dict[str, str]:
    """The fingerprint of each bucket, by its name, or by the beginning of its token's
    SHA-256 if it has none.
    """
    return {
        each.name or each.key[:_ID_LENGTH]: bucket_fingerprint(each) for each in buckets
    }


@frozen
class Difference:
    """What of a configuration the daemon has not applied.

    :param added: labels of the buckets that the daemon does not have
    :param changed: labels of those with other settings
    :param removed: labels of those that only the daemon has
    :param waiting: keys whose change needs a restart
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    @property
    def reload(self) -> bool:
        """Whether a reload is due."""
        return bool(self.added or self.changed or self.removed)

    @property
    def text(self) -> str:
        """The reload or restart that is due, and its effect; empty if none is due. It
        is printable, and names only some buckets.
        """
        parts = []
        if self.reload:
            parts.append(f"a reload is due ({'; '.join(self._buckets())})")
        if self.waiting:
            parts.append(f"a restart is due to apply {joined(self.waiting)}")
        return "; ".join(parts)

    def _buckets(self) -> Iterable[str]:
        if self.added:
            these = counted(len(self.added), "new bucket is", "new buckets are")
            yield f"{these} refused with 403: {_named(self.added)}"
        if self.changed:
            these = counted(len(self.changed), "bucket has", "buckets have")
            yield f"{these} changed: {_named(self.changed)}"
        if self.removed:
            these = counted(len(self.removed), "removed bucket", "removed buckets")
            accept = "accepts" if len(self.removed) == 1 else "accept"
            yield f"{these} still {accept} pushes: {_named(self.removed)}"


def compare(applied: Applied, config: Config, text: str) -> Difference:
    """What of a configuration the daemon has not applied.

    :param text: the identity of the text that ``config`` was read from
    """
    waiting = tuple(applied.keys.changed(config.keys))
    if text == applied.text:
        return Difference(waiting=waiting)
    new = fingerprints(config.buckets)
    old = applied.buckets
    return Difference(
        _labels(each for each in new if each not in old),
        _labels(each for each, value in new.items() if old.get(each, value) != value),
        _labels(each for each in old if each not in new),
        waiting,
    )


def _labels(buckets: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        each[:_LABEL_LENGTH] if _NAMELESS.fullmatch(each) else each for each in buckets
    )


def _named(labels: tuple[str, ...]) -> str:
    named = [cut(printable(each), LONGEST_NAME) for each in labels[:MOST_NAMED]]
    more = len(labels) - len(named)
    return joined([*named, *([f"{more:,} more"] if more else [])])


_SHARED = (
    *("max_file_size", "min_file_size", "unfinished", "max_unfinished", "page"),
    "alert_again",
)
"""Keys that decide what a client or an operator sees, whichever daemon answers."""


def shared_settings(config: Config, buckets: Iterable[Bucket]) -> dict[str, str]:
    """Fingerprints of the settings that must be the same on all daemons that share a
    catalogue. It takes 1 s for 100,000 buckets.

    :param buckets: the applied buckets
    """
    found = {key: fingerprint(getattr(config, key)) for key in _SHARED}
    # Their order does not matter.
    found["buckets"] = fingerprint(sorted(fingerprints(buckets).items()))
    store = config.store
    if store is None:
        # Two daemons cannot store files in one home.
        found["store"] = fingerprint((config.node, config.home))
    else:
        # Each daemon may have its own gateway and credentials.
        place = store.names_bucket, store.data_bucket, store.prefix
        found["store"] = fingerprint(place)
    return found
