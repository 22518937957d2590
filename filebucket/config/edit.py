"""Changes to the configuration file that a command makes.

The file is the operator's: what is not changed stays as it is, byte for byte
(:mod:`filebucket.config.jsontext`). The new text must load
before it takes the old one's place, which it does at once and for good: it is written
aside in the same folder, brought to the disk, and renamed. Its mode, owner and
attributes stay. Of two commands at once the second waits, and changes what the first
one made: whoever changes the file holds a lock on it, which only those can take who
may read it.

A token is made here, and only its SHA-256 is written.
"""

from __future__ import annotations

import fcntl
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from filebucket.base.errors import ConfigError, OperatorError
from filebucket.base.fs import replacing, sync_path
from filebucket.base.text import moment_text
from filebucket.config import jsontext
from filebucket.config.config import Config
from filebucket.config.load import OPENS, parse
from filebucket.model.bucket import Bucket
from filebucket.model.token import Token, token_digest


class NotChangedError(OperatorError):
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
        return jsontext.append(text, "buckets", bucket)

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
        written: Mapping[str, Any] = (
            tokens[0] if len(tokens) == 1 else {"tokens": tokens}
        )
        return jsontext.replace_members(text, "buckets", index, OPENS, written)

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
        return jsontext.remove(text, "buckets", index)

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
