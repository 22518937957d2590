"""Short hashes of settings, to compare them between processes.

Equal settings have equal fingerprints, in each process and on each machine. A setting
that has its default counts as one that is not given, so that a new setting changes no
fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import attrs

from filebucket.model.bucket import Bucket


def fingerprint(value: object) -> str:
    """The fingerprint of a setting."""
    return _short(_plain(value))


def bucket_fingerprint(bucket: Bucket) -> str:
    """The fingerprint of all settings of a bucket, and of its tokens' SHA-256. A token
    cannot be computed from it.
    """
    tokens = [(each.sha256, each.expires) for each in bucket.tokens]
    given = _SETTINGS(bucket)
    if given == _DEFAULTS:
        return _short(tokens)
    settings = [
        (name, _plain(value))
        for name, value, default in zip(_NAMES, given, _DEFAULTS, strict=True)
        if value != default
    ]
    return _short([tokens, settings])


# The name and the tokens determine the directory.
_OPTIONAL = [each for each in attrs.fields(Bucket) if each.default is not attrs.NOTHING]
_NAMES = [each.name for each in _OPTIONAL if each.name != "name"]
_DEFAULTS = tuple(each.default for each in _OPTIONAL if each.name != "name")
_SETTINGS = attrgetter(*_NAMES)


def _short(plain: object) -> str:
    # 48 bits: only values of the same key are compared.
    return hashlib.blake2b(repr(plain).encode(), digest_size=6).hexdigest()


def _plain(value: Any) -> object:
    """The value as Python's own types, whose ``repr`` is the same in each process."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if names := _fields(kind):  # type: ignore[arg-type] # a type is hashable
        content = [(name, _plain(getattr(value, name))) for name in names]
        return (kind.__name__, content)
    if isinstance(value, Mapping):
        return sorted((key, _plain(each)) for key, each in value.items())
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return value


_PLAIN = frozenset({bool, bytes, float, int, str, type(None)})


@cache
def _fields(kind: type) -> tuple[str, ...]:
    """The attributes that count; none if it is not a class of attrs."""
    if not attrs.has(kind):
        return ()
    return tuple(each.name for each in attrs.fields(kind) if each.eq)
