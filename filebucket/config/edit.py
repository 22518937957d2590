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
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO

from attrs import frozen

from filebucket.base.errors import ConfigError, OperatorError
from filebucket.base.fs import directory, replacing, sync_directory
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
            raise NotChangedError(f"a bucket {name} already exists")
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
                f"bucket {name} has no name: its folder is named after its token"
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


_NEVER = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""Of what comes after it calendars have no date."""


def _token_object(sha256: bytes, end: float) -> dict[str, str]:
    written = {"token_sha256": sha256.hex()}
    return written if end >= _NEVER else {**written, "expires": moment_text(end)}


def _named(config: Config, name: str) -> Bucket:
    return config.buckets[_find(config, name)]


def _find(config: Config, name: str) -> int:
    found = [i for i, each in enumerate(config.buckets) if each.label == name]
    if not found:
        raise NotChangedError(f"there is no bucket {name}")
    if len(found) > 1:
        raise NotChangedError(f"{len(found)} buckets match {name}")
    return found[0]


def _edit(path: str, change: Callable[[str, Config], str]) -> Config:
    """Replace the file's text by what ``change`` makes of it.

    :returns: what the file says then
    """
    with _locked(path) as (file, folder_fd, name):
        try:
            text = file.read().decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(path, ["is not UTF-8"]) from None
        changed = change(text, parse(text, path))
        try:
            config = parse(changed, path)
        except ConfigError as error:
            raise NotChangedError("; ".join(error.mistakes)) from None
        try:
            _replace(file.fileno(), folder_fd, name, changed.encode("utf-8"))
        except OSError as error:
            raise NotChangedError(
                f"{path} cannot be replaced: {error.strerror}"
            ) from None
        try:
            sync_directory(folder_fd)
        except OSError as error:
            raise NotChangedError(
                f"{path} is changed, but a power failure may undo the change:"
                f" {error.strerror}"
            ) from None
        return config


@contextmanager
def _locked(path: str) -> Iterator[tuple[BinaryIO, int, str]]:
    """The file, its folder and its name there, which nobody else changes by a command
    of ours until the end.

    From here on it is known by them alone: the folder may be another user's, who could
    lead root anywhere by a path.
    """
    while True:
        folder, name = os.path.split(os.path.realpath(path))
        with ExitStack() as stack:
            try:
                folder_fd = stack.enter_context(directory(folder))
                file = stack.enter_context(_open(name, folder_fd))
            except OSError as error:
                raise ConfigError(path, [f"cannot be read: {error.strerror}"]) from None
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(path, ["is not a file"])
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it before may have put another file in its place.
            if _is_at(path, name, folder_fd, file.fileno()):
                yield file, folder_fd, name
                return


def _open(name: str, folder_fd: int) -> BinaryIO:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(name, flags, dir_fd=folder_fd), "rb")


def _is_at(path: str, name: str, folder_fd: int, fd: int) -> bool:
    """Whether the file is the one that both lead to."""
    try:
        found = os.stat(path), os.lstat(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return False
    return all(os.path.samestat(os.fstat(fd), each) for each in found)


def _replace(old_fd: int, folder_fd: int, name: str, content: bytes) -> None:
    """Put ``content`` in the place of a file, at once, as the same owner's."""
    old = os.fstat(old_fd)
    new = f".{name}.{secrets.token_hex(8)}"
    with replacing(name, new, durable=True, directory_fd=folder_fd) as file:
        file.write(content)
        file.flush()
        fd = file.fileno()
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, old.st_uid, old.st_gid)
        _copy_attributes(old_fd, fd)
        os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _copy_attributes(old_fd: int, new_fd: int) -> None:
    # shutil.copystat would go by names. Where a filesystem has none, or one may not be
    # set, the file is as good without.
    with suppress(OSError):
        for attribute in os.listxattr(old_fd):
            with suppress(OSError):
                os.setxattr(new_fd, attribute, os.getxattr(old_fd, attribute))
