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
import shlex
import signal
import socket
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import NoReturn, TypeVar, cast

from filebucket.base.capability import keeping
from filebucket.base.errors import OperatorError

F = TypeVar("F", bound=int | None)

AS_OWNER = "run this as root or as the daemon's user"
"""What helps a user who may not read the home, or may not signal its daemon."""

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
    group, groups, home = os.getegid(), os.getgroups(), os.environ.get("HOME")
    os.setgroups(_groups(uid, gid))
    os.setegid(gid)
    os.seteuid(uid)
    _set_home(home_of(uid))
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
        _set_home(home)


def _set_home(home: str | None) -> None:
    """Set HOME. The library of PostgreSQL looks for certificates there, and does not
    connect, or not with TLS, if it may not.
    """
    os.environ.pop("HOME", None)
    if home is not None:
        os.environ["HOME"] = home


def home_of(uid: int) -> str | None:
    """The home folder of a user; None if the user is unknown."""
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None


def become_owner_of(home: str, private: str, keep: int | None = None) -> None:
    """If root, permanently become the owner of ``home`` or, if that is root, of its
    folder ``private``. If there is no such folder, and others may create one, become
    :data:`NOBODY`; otherwise change nothing.

    :param keep: a capability to keep, as :func:`~filebucket.base.capability.keeping`
    """
    owner = _other_owner(home, private, for_good=True)
    if owner is not None:
        uid, gid = owner
        os.setgroups(_groups(uid, gid))
        os.setresgid(gid, gid, gid)
        with nullcontext() if keep is None else keeping(keep):
            os.setresuid(uid, uid, uid)
        _set_home(home_of(uid))


def owner_prefix(home: str, private: str) -> str:
    """What root has to put before a command so that it runs as the owner of ``home``
    or, if that is root, of its folder ``private``; otherwise empty.
    """
    owner = _other_owner(home, private)
    if owner is None:
        return ""
    uid, gid = owner
    name = user_name(uid)
    if name.isdigit():
        # runuser knows only the users of this machine.
        return f"setpriv --reuid {uid} --regid {gid} --clear-groups "
    return f"runuser -u {name} -- "


def user_name(uid: int) -> str:
    """The name of a user; the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def giving(home: str, to: int, other: int = 0) -> str:
    """The command for root that gives what belongs to another user in ``home`` to user
    ``to``.
    """
    name = user_name(to)
    # With a colon, the group is that of the user.
    group = "" if name.isdigit() else ":"
    return f"chown -hR --from={user_name(other)} {name}{group} {shlex.quote(home)}"


def refused_hint(home: str) -> str:
    """What helps if a file of the home may not be read. Root reads with the rights of
    the home's owner: then the file belongs to another user, as after root has started a
    daemon. Root calls this before :func:`become_owner_of`.
    """
    if os.getuid() != 0:
        return AS_OWNER
    with suppress(OSError):
        owner = os.stat(home).st_uid
        if owner:
            return f"{_MIXED}; run: {giving(home, owner)}"
    return f"{_MIXED}; did another user run a daemon?"


_MIXED = "not all of home belongs to its owner"


def opened_as_owner_of(
    home: str, private: str, work: Callable[[], tuple[str, F]]
) -> tuple[str, F]:
    """Let ``work`` open a file with the rights of the home's owner, or do something
    else with them, and go on with those of the caller, who may write where the owner
    may not.

    If root, a child process runs it, which can drop its rights for good: whatever it
    reads cannot get root's rights from it.

    :param work: calls :func:`become_owner_of` before it reads anything; returns a text
        and a descriptor, or None
    :returns: the same
    :raises OperatorError: from ``work``, or the child failed
    """
    owner = _other_owner(home, private, for_good=True)
    if owner is None:
        return work()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = os.fork()
        if not child:
            _answer(theirs, work)
        theirs.close()
        try:
            said, fds, _, _ = socket.recv_fds(ours, MOST_TEXT, 1)
        finally:
            # If it has not answered, this process is interrupted.
            _end(child, *owner)
    text = said[1:].decode()
    for fd in fds:
        os.set_inheritable(fd, False)
    if said[:1] == (_OPENED if fds else _DONE):
        return text, cast("F", fds[0] if fds else None)
    for fd in fds:
        os.close(fd)
    raise OperatorError(text or "the process that reads the home failed")


def _end(child: int, uid: int, gid: int) -> None:
    """Kill a child that becomes this user, and wait for it."""
    try:
        os.kill(child, signal.SIGKILL)
    except PermissionError:
        # Root without CAP_KILL, as in a sandbox.
        with as_user(uid, gid):
            os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


MOST_TEXT = 64 * 1024
"""Bytes of a text from the child."""

_OPENED, _DONE, _FAILED = b"+", b".", b"-"


def _answer(
    channel: socket.socket, work: Callable[[], tuple[str, int | None]]
) -> NoReturn:
    """The whole life of the child."""
    status = 1
    try:
        try:
            text, fd = work()
        except OperatorError as error:
            channel.send(_FAILED + str(error).encode()[: MOST_TEXT - 1])
        else:
            said, fds = (_DONE, []) if fd is None else (_OPENED, [fd])
            socket.send_fds(channel, [said + text.encode()], fds)
            status = 0
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _other_owner(
    home: str, private: str, for_good: bool = False
) -> tuple[int, int] | None:
    """The user and group to become; None if this process or the owner is root.

    :raises OperatorError: a sandbox keeps root from seeing whose ``home`` is
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = os.stat(home)
    except PermissionError as error:
        if not for_good:
            return None
        raise OperatorError(
            f"{home}: {error.strerror}; let root enter the folders above, or run this"
            " as the daemon's user"
        ) from None
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
