"""Changes that commands make to the configuration file.

The unchanged parts of the text stay byte for byte (:mod:`filebucket.config.jsontext`).
The new text must load. Then it is written to a file in the same folder, synced, and
renamed over the old file, with the same mode, owner and attributes. A lock on the file
serializes commands; only users that may read the file can take it.

Tokens are made here, and only their SHA-256 is written.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO

from attrs import frozen

from filebucket.base.errors import ConfigError, OperatorError, shown, suggestion
from filebucket.base.fs import directory, replacing, sync_directory
from filebucket.base.text import moment_text
from filebucket.config import jsontext
from filebucket.config.config import Config
from filebucket.config.load import OPENS, parse, unreadable
from filebucket.model.bucket import Bucket
from filebucket.model.token import Token, token_digest


class NotChangedError(OperatorError):
    """The file was not changed; the text is the reason, in one line."""


@frozen
class Change:
    """A change to the file.

    :param config: the new configuration
    :param bucket: the bucket that was added, changed or removed
    :param token: its new token, which is stored nowhere else; empty if there is none
    :param old_tokens: its tokens before the change
    """

    config: Config
    bucket: Bucket
    token: str = ""
    old_tokens: tuple[Token, ...] = ()


def new_token() -> str:
    """A random token of 192 bits."""
    return secrets.token_urlsafe(24)


def add_buckets(
    path: str, names: Sequence[str], settings: Mapping[str, Any]
) -> list[Change]:
    """Add buckets, each with a new token. All are added, or none.

    :param path: the configuration
    :param names: at least one
    :param settings: the other keys and values of each, as in the file
    :raises ConfigError: the file is wrong before the change
    :raises NotChangedError: the file was not changed
    """
    tokens = {name: new_token() for name in names}

    def add(text: str, config: Config) -> str:
        known = {each.name for each in config.buckets}
        for name in names:
            if name in known:
                raise NotChangedError(f"a bucket {name!r} already exists")
        buckets = (
            {"name": name, "token_sha256": _sha256(token), **settings}
            for name, token in tokens.items()
        )
        return jsontext.append(text, "buckets", *buckets)

    config = _edit(path, add)
    # They are the last ones.
    added = config.buckets[-len(tokens) :]
    return [
        Change(config, bucket, token)
        for bucket, token in zip(added, tokens.values(), strict=True)
    ]


def set_buckets(
    path: str,
    names: Sequence[str],
    settings: Mapping[str, Any],
    unset: Collection[str] = (),
    check: Callable[[Bucket], None] = lambda _: None,
) -> list[Change]:
    """Change settings of buckets. All are changed, or none.

    :param path: the configuration
    :param names: labels of the buckets
    :param settings: keys and new values, as in the file
    :param unset: keys to remove
    :param check: raises :class:`NotChangedError` if a bucket must not be changed
    :raises ConfigError: the file is wrong before the change
    :raises NotChangedError: the file was not changed
    """

    def change(text: str, config: Config) -> str:
        for name in names:
            index = _find(config, name)
            check(config.buckets[index])
            text = jsontext.make_object(text, "buckets", index, "token")
            text = jsontext.set_members(text, "buckets", index, settings, unset)
        return text

    config = _edit(path, change)
    return [Change(config, _named(config, name)) for name in names]


def set_holds(
    path: str, name: str, change: Callable[[Bucket, dict[str, Any]], None], now: float
) -> Change:
    """Change which files of a bucket are held. Holds that are over are dropped.

    :param path: the configuration
    :param name: label of the bucket
    :param change: changes the holds, which are as in the file; raises
        :class:`NotChangedError` if they must not be changed
    :param now: seconds since the epoch
    :raises ConfigError: the file is wrong before the change
    :raises NotChangedError: the file was not changed
    """

    def edit(text: str, config: Config) -> str:
        index = _find(config, name)
        bucket = config.buckets[index]
        given = json.loads(text)["buckets"][index]
        old = given.get("held") if isinstance(given, dict) else None
        held = {
            each: hold
            for each, hold in (old or {}).items()
            if bucket.held_now(each, now)
        }
        change(bucket, held)
        text = jsontext.make_object(text, "buckets", index, "token")
        if held:
            return jsontext.set_members(text, "buckets", index, {"held": held})
        return jsontext.set_members(text, "buckets", index, {}, ["held"])

    config = _edit(path, edit)
    return Change(config, _named(config, name))


def rotate_token(path: str, name: str, keep_until: float, now: float) -> Change:
    """Give a bucket a new token. It expires when the last of the old ones would; if all
    of them have expired, it never does.

    :param path: the configuration
    :param keep_until: when the old tokens expire, in seconds since the epoch; if that
        is not after ``now``, they are removed at once
    :param now: seconds since the epoch
    :raises ConfigError: the file is wrong before the change
    :raises NotChangedError: the file was not changed
    """
    token = new_token()
    old: list[Token] = []

    def rotate(text: str, config: Config) -> str:
        index = _find(config, name)
        bucket = config.buckets[index]
        old.extend(bucket.tokens)
        if bucket.name is None:
            raise NotChangedError(
                f"bucket {name!r} has no name: its folder is named after its token"
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
    return Change(config, _named(config, name), token, tuple(old))


def remove_bucket(
    path: str, name: str, check: Callable[[Bucket], None] = lambda _: None
) -> Change:
    """Remove a bucket from the file. Its stored files stay.

    :param check: raises :class:`NotChangedError` if the bucket must not be removed
    :raises ConfigError: the file is wrong before the change
    :raises NotChangedError: the file was not changed
    """
    removed: list[Bucket] = []

    def remove(text: str, config: Config) -> str:
        index = _find(config, name)
        check(config.buckets[index])
        removed.append(config.buckets[index])
        return jsontext.remove(text, "buckets", index)

    return Change(_edit(path, remove), removed[0])


def _sha256(token: str) -> str:
    return token_digest(token.encode("ascii")).hex()


def _end(token: Token) -> float:
    return math.inf if token.expires is None else token.expires


_NEVER = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""Later times have no date in Python's calendar."""


def _token_object(sha256: bytes, end: float) -> dict[str, str]:
    written = {"token_sha256": sha256.hex()}
    return written if end >= _NEVER else {**written, "expires": moment_text(end)}


def _named(config: Config, name: str) -> Bucket:
    return config.buckets[_find(config, name)]


def _find(config: Config, name: str) -> int:
    found = [i for i, each in enumerate(config.buckets) if each.label == name]
    if not found:
        hint = suggestion(name, [each.label for each in config.buckets])
        raise NotChangedError(f"there is no bucket {shown(name)}{hint}")
    if len(found) > 1:
        raise NotChangedError(f"{len(found)} buckets match {name!r}")
    return found[0]


def _edit(path: str, change: Callable[[str, Config], str]) -> Config:
    """Replace the file's text with the result of ``change``.

    :returns: the new configuration
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
    """Lock the file against other commands; give the file, its folder and its name.

    Later steps use the descriptors and the name, never the path: if the folder belongs
    to another user, that user could make a path lead root anywhere.
    """
    while True:
        folder, name = os.path.split(os.path.realpath(path))
        with ExitStack() as stack:
            try:
                folder_fd = stack.enter_context(directory(folder))
                file = stack.enter_context(_open(name, folder_fd))
            except OSError as error:
                raise unreadable(path, error) from None
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(path, ["is not a file"])
            fcntl.flock(file, fcntl.LOCK_EX)
            # The command that held the lock may have replaced the file.
            if _is_at(path, name, folder_fd, file.fileno()):
                yield file, folder_fd, name
                return


def _open(name: str, folder_fd: int) -> BinaryIO:
    def opener(name: str, flags: int) -> int:
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(name, flags, dir_fd=folder_fd)

    # Unlike a descriptor passed to it, open closes a folder again.
    return open(name, "rb", opener=opener)


def _is_at(path: str, name: str, folder_fd: int, fd: int) -> bool:
    """Whether the path, and the name in the folder, both lead to this file."""
    try:
        found = os.stat(path), os.lstat(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return False
    return all(os.path.samestat(os.fstat(fd), each) for each in found)


def _replace(old_fd: int, folder_fd: int, name: str, content: bytes) -> None:
    """Replace a file atomically, and keep its owner and mode."""
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
    # shutil.copystat would use paths. Attributes are optional: a filesystem may not
    # have them, or may refuse to set one.
    with suppress(OSError):
        for attribute in os.listxattr(old_fd):
            with suppress(OSError):
                os.setxattr(new_fd, attribute, os.getxattr(old_fd, attribute))
