"""Whose rights a command uses that root runs.

To root everything is allowed, and what it makes is its own: what a command finds or
changes in the home it does with the rights of the home's owner, who is the daemon's
user, and whom a link that lies there can lead no further than the daemon itself. A home
that is root's, with a group that may write in it, is told by its private folder: the
daemon made that.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = 65534
"""A user and a group that own nothing."""


@contextmanager
def as_owner_of(home: str, private: str) -> Iterator[None]:
    """As root, with the rights of whoever has ``home``, or, if that is root, its folder
    ``private``; else, and if there is neither, with one's own.
    """
    owner = _other_owner(home, private)
    if owner is None:
        yield
        return
    with as_user(*owner):
        yield


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """As root, with the rights of a user."""
    group, groups = os.getegid(), os.getgroups()
    os.setgroups(_groups(uid, gid))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def become_owner_of(home: str, private: str) -> None:
    """As root, give its rights up for those of whoever has ``home``, or, if that is
    root, its folder ``private``, for good. If there is no such folder, and others may
    make one, for nobody's; else do nothing.
    """
    owner = _other_owner(home, private, for_good=True)
    if owner is not None:
        uid, gid = owner
        os.setgroups(_groups(uid, gid))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def _other_owner(
    home: str, private: str, for_good: bool = False
) -> tuple[int, int] | None:
    """Who has them, if that is not root, and we are."""
    if os.geteuid() != 0:
        return None
    try:
        owner = os.stat(home)
    except OSError:
        return None
    if owner.st_uid == 0:
        others_may = owner.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        try:
            owner = os.lstat(os.path.join(home, private))
        except OSError:
            return (NOBODY, NOBODY) if for_good and others_may else None
    return (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else None


def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
