"""Drop root's rights while a command works in the home.

A command that root runs reads and changes the home with the rights of the home's owner,
the daemon's user. Otherwise its files would belong to root, and a malicious link in the
home could lead it to files that the daemon itself may not touch. If the home belongs to
root and a group may write to it, the owner of its private folder, which the daemon
created, is used.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager

AS_OWNER = "run this as root or as the daemon's user"
"""The hint for a user who may not read the home."""

NOBODY = 65534
"""A user and a group that own nothing."""


@contextmanager
def as_owner_of(home: str, private: str) -> Iterator[None]:
    """If root, run the block with the rights of the owner of ``home`` or, if that is
    root, of its folder ``private``; otherwise, or if neither exists, change nothing.
    """
    owner = _other_owner(home, private)
    if owner is None:
        yield
        return
    with as_user(*owner):
        yield


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """As root, run the block with the rights of a user."""
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
    """If root, permanently become the owner of ``home`` or, if that is root, of its
    folder ``private``. If there is no such folder, and others may create one, become
    :data:`NOBODY`; otherwise change nothing.
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
    """The user and group to become; None if this process or the owner is root."""
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
