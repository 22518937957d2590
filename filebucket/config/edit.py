"""Changes to the configuration file that a command makes.

The file is the operator's: what is not changed stays as it is, byte for byte, so a
change is made in the text, at the place where the value stands. The new text must load
before it takes the old one's place, which it does at once and for good: it is written
aside in the same folder, brought to the disk, and renamed. Its mode, owner and
attributes stay. Of two commands at once the second waits, and changes what the first
one made: whoever changes the file holds a lock on it, which only those can take who
may read it.

A token is made here, and only its SHA-256 is written.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from filebucket.base.errors import ConfigError
from filebucket.base.fs import replacing, sync_path
from filebucket.base.text import moment_text
from filebucket.config.config import Config
from filebucket.config.load import parse
from filebucket.model.bucket import Bucket
from filebucket.model.token import Token, token_digest

WIDTH = 120
"""Columns within which a bucket is written in one line: a name and a SHA-256 are."""


class NotChangedError(Exception):
    """The file was left as it was; why, in a line."""


@frozen
class Change:
    """What was changed.

    :param config: what the file says now
    :param bucket: the bucket that was added or changed, or that is gone
    :param token: its new token, which stands nowhere else; empty where there is none
    """

    config: Config
    bucket: Bucket
    token: str = ""


def new_token() -> str:
    """A token that nobody can guess: 192 bits."""
    return secrets.token_urlsafe(24)


def add_bucket(path: str, name: str, settings: Mapping[str, Any]) -> Change:
    """Add a bucket with a new token.

    :param path: the configuration
    :param settings: what stands beside its name, as the file has it
    :raises ConfigError: the file cannot be used as it is
    :raises NotChangedError: the reason
    """
    token = new_token()

    def add(text: str, config: Config) -> str:
        if any(each.name == name for each in config.buckets):
            raise NotChangedError(f"there is a bucket {name} already")
        bucket = {"name": name, "token_sha256": _sha256(token), **settings}
        return _append(text, bucket)

    config = _edit(path, add)
    return Change(config, _named(config, name), token)


def rotate_token(path: str, name: str, keep_until: float, now: float) -> Change:
    """Give a bucket a new token. It is good as long as the longest of those before.

    :param path: the configuration
    :param keep_until: seconds since the epoch until when the old tokens are good;
        not after ``now``: they are taken out at once
    :param now: seconds since the epoch
    :raises ConfigError: the file cannot be used as it is
    :raises NotChangedError: the reason
    """
    token = new_token()

    def rotate(text: str, config: Config) -> str:
        index = _find(config, name)
        bucket = config.buckets[index]
        if bucket.name is None:
            raise NotChangedError(
                f"bucket {name} has no name, and its folder is called by its token"
            )
        good = [each for each in bucket.tokens if _end(each) > now]
        last = max(map(_end, good), default=math.inf)
        tokens = [_token_object(token_digest(token.encode("ascii")), last)]
        if keep_until > now:
            tokens += [
                _token_object(each.sha256, min(_end(each), keep_until)) for each in good
            ]
        return _with_tokens(text, index, tokens)

    config = _edit(path, rotate)
    return Change(config, _named(config, name), token)


def remove_bucket(path: str, name: str) -> Change:
    """Take a bucket out of the file. What it holds stays.

    :raises ConfigError: the file cannot be used as it is
    :raises NotChangedError: the reason
    """
    removed: list[Bucket] = []

    def remove(text: str, config: Config) -> str:
        index = _find(config, name)
        removed.append(config.buckets[index])
        return _without(text, _buckets(text), index)

    return Change(_edit(path, remove), removed[0])


def _sha256(token: str) -> str:
    return token_digest(token.encode("ascii")).hex()


def _end(token: Token) -> float:
    return math.inf if token.expires is None else token.expires


def _token_object(sha256: bytes, end: float) -> dict[str, str]:
    written = {"token_sha256": sha256.hex()}
    return written if end == math.inf else {**written, "expires": moment_text(end)}


def _named(config: Config, name: str) -> Bucket:
    return config.buckets[_find(config, name)]


def _find(config: Config, name: str) -> int:
    found = [i for i, each in enumerate(config.buckets) if each.label == name]
    if not found:
        raise NotChangedError(f"there is no bucket {name}")
    if len(found) > 1:
        raise NotChangedError(f"there are {len(found)} buckets {name}")
    return found[0]


# The text.


@frozen
class _Member:
    """A member of an object or of an array, and where it stands in the text.

    :param start: where its key begins, or its value where it has none
    :param value: where its value begins
    """

    key: str
    start: int
    value: int
    end: int


@frozen
class _Container:
    """An object or an array.

    :param start: where its bracket is
    :param end: what is behind the other one
    """

    start: int
    members: list[_Member]
    end: int


_SPACE = re.compile(r"[ \t\r\n]*")
_JSON = json.JSONDecoder()


def _container(text: str, start: int) -> _Container:
    """What stands at ``start`` of ``text``, which is JSON."""
    members: list[_Member] = []
    at = _skip(text, start + 1)
    while text[at] not in "]}":
        key, begin = "", at
        if text[start] == "{":
            key, at = _JSON.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        _, end = _JSON.raw_decode(text, at)
        members.append(_Member(key, begin, at, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return _Container(start, members, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _top(text: str) -> _Container:
    return _container(text, _skip(text, 0))


def _buckets(text: str) -> _Container:
    (start,) = (each.value for each in _top(text).members if each.key == "buckets")
    return _container(text, start)


def _indent(text: str, at: int) -> str | None:
    """What stands before ``at`` in its line, where that is space only."""
    before = text[text.rfind("\n", 0, at) + 1 : at]
    return before if "\n" in text[:at] and not before.strip() else None


def _append(text: str, bucket: Mapping[str, Any]) -> str:
    found = _buckets(text)
    if found.members:
        last = found.members[-1]
        indent = _indent(text, last.start)
        if indent is None:
            added = f", {json.dumps(bucket, ensure_ascii=False)}"
        else:
            added = f",\n{indent}{_written(bucket, indent, _unit(text))}"
        return text[: last.end] + added + text[last.end :]
    unit = _unit(text)
    if not unit:
        added = json.dumps(bucket, ensure_ascii=False)
    else:
        outer = next(
            _indent(text, each.start) or ""
            for each in _top(text).members
            if each.key == "buckets"
        )
        inner = outer + unit
        added = f"\n{inner}{_written(bucket, inner, unit)}\n{outer}"
    return text[: found.start + 1] + added + text[found.end - 1 :]


def _unit(text: str) -> str:
    """What the file indents by; empty where it is in one line."""
    return _indent(text, _top(text).members[0].start) or ""


def _written(value: Mapping[str, Any], indent: str, unit: str) -> str:
    """An object behind ``indent``: in one line where that is short enough."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) < WIDTH:
        return line
    inner = indent + unit
    members = (
        f"{inner}{json.dumps(key)}: {_written_value(each, inner, unit, len(key) + 4)}"
        for key, each in value.items()
    )
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def _written_value(value: Any, indent: str, unit: str, taken: int) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, list) or len(indent) + taken + len(line) < WIDTH:
        return line
    inner = indent + unit
    members = (f"{inner}{json.dumps(each, ensure_ascii=False)}" for each in value)
    return "[\n" + ",\n".join(members) + f"\n{indent}]"


def _without(text: str, container: _Container, index: int) -> str:
    """Without one of the container's members, and the comma that goes with it."""
    members = container.members
    if len(members) == 1:
        return text[: container.start + 1] + text[container.end - 1 :]
    if index:
        return text[: members[index - 1].end] + text[members[index].end :]
    return text[: members[0].start] + text[members[1].start :]


_OPENS = ("token", "token_sha256", "tokens", "expires")


def _with_tokens(text: str, index: int, tokens: list[dict[str, str]]) -> str:
    """With these tokens in place of those that the bucket has."""
    start = _buckets(text).members[index].start
    bucket = _container(text, start)
    places = [i for i, each in enumerate(bucket.members) if each.key in _OPENS]
    for place in reversed(places[1:]):
        text = _without(text, _container(text, start), place)
    first = _container(text, start).members[places[0]]
    indent = _indent(text, first.start)
    if len(tokens) == 1:
        (only,) = tokens
        separator = ", " if indent is None else f",\n{indent}"
        written = separator.join(
            f"{json.dumps(key)}: {json.dumps(each)}" for key, each in only.items()
        )
    elif indent is None:
        written = f'"tokens": {json.dumps(tokens)}'
    else:
        value = _written_value(tokens, indent, _unit(text), len("tokens") + 4)
        written = f'"tokens": {value}'
    text = text[: first.start] + written + text[first.end :]
    return _wrapped(text, _buckets(text).members[index])


def _wrapped(text: str, bucket: _Member) -> str:
    """With a bucket that has become too long for its one line in several."""
    indent = _indent(text, bucket.start)
    old = text[bucket.start : bucket.end]
    if indent is None or "\n" in old or len(indent) + len(old) < WIDTH:
        return text
    new = _written(json.loads(old), indent, _unit(text))
    return text[: bucket.start] + new + text[bucket.end :]


# The file.


def _edit(path: str, change: Callable[[str, Config], str]) -> Config:
    """Replace the file's text by what ``change`` makes of it.

    :returns: what the file says then
    """
    with _locked(path) as file:
        try:
            text = file.read().decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(path, ["is not UTF-8"]) from None
        changed = change(text, parse(text, path))
        try:
            config = parse(changed, path)
        except ConfigError as error:
            raise NotChangedError("; ".join(error.mistakes)) from None
        target = os.path.realpath(path)
        try:
            _replace(target, changed.encode("utf-8"))
        except OSError as error:
            raise NotChangedError(
                f"{path} cannot be replaced: {error.strerror}"
            ) from None
        try:
            sync_path(os.path.dirname(target))
        except OSError as error:
            raise NotChangedError(
                f"{path} is changed, but may not stay so: {error.strerror}"
            ) from None
        return config


@contextmanager
def _locked(path: str) -> Iterator[Any]:
    """The file, which nobody else changes by a command of ours until the end."""
    while True:
        try:
            file = open(path, "rb")  # noqa: SIM115 - it may have to be opened anew
        except OSError as error:
            raise ConfigError(path, [f"cannot be read: {error.strerror}"]) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it before may have put another file in its place.
            if _is_at(path, file.fileno()):
                yield file
                return


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _replace(path: str, content: bytes) -> None:
    """Put ``content`` in the place of a file, at once, as the same owner's."""
    old = os.stat(path)
    folder = os.path.dirname(path)
    new = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(8)}")
    with replacing(path, new, durable=True) as file:
        file.write(content)
        file.flush()
        fd = file.fileno()
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, old.st_uid, old.st_gid)
        shutil.copystat(path, new)
        os.utime(fd)
