"""Whose rights a command uses that root runs.

To root everything is allowed, and what it makes is its own: what a command finds or
changes in the home it does with the rights of the home's owner, who is the daemon's
user, and whom a link that lies there can lead no further than the daemon itself.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def as_owner_of(path: str) -> Iterator[None]:
    """As root, with the rights of whoever has ``path``; else, and where that is not
    there, with one's own.
    """
    owner = _other_owner(path)
    if owner is None:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups(_groups(owner.st_uid, owner.st_gid))
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def become_owner_of(path: str) -> None:
    """As root, give its rights up for those of whoever has ``path``, for good; else,
    and where that is not there, do nothing.
    """
    owner = _other_owner(path)
    if owner is not None:
        os.setgroups(_groups(owner.st_uid, owner.st_gid))
        os.setresgid(*[owner.st_gid] * 3)
        os.setresuid(*[owner.st_uid] * 3)


def _other_owner(path: str) -> os.stat_result | None:
    """Who has ``path``, if that is not root, and we are."""
    with suppress(OSError):
        owner = os.stat(path)
        if os.geteuid() == 0 and owner.st_uid != 0:
            return owner
    return None


def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
