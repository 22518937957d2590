"""Ways to misbehave with resumable uploads.

Most of them go on with the idle uploads of the bucket ``loud``. None finishes its
uploads.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from proofs.pushes import send
from proofs.resumed import answer_of
from proofs.town import (
    FULL,
    LOUD,
    PATIENCE,
    ZEROS,
    Misbehavior,
    Town,
    head,
    new,
    sized,
)

MOST = 256 << 20
"""Bytes of an upload after which its client gives it up and begins another one: all of
them together must fit on the disk."""

TINY_PARTS = 1000
"""Parts of a byte that a client sends to an upload."""

CROWD = 250
"""Requests of a client that want one upload at the same time."""

STOPPED = 60
"""Parts of a client that stop at the same time."""

_PARTIAL = "Content-Type: application/partial-upload"
_INCOMPLETE = "Upload-Complete: ?0"
_WRONG = f"Content-Digest: sha-256=:{'A' * 43}=:, sha-512=:{'A' * 86}==:"


def _created(port: int, token: str = LOUD) -> str | None:
    """The target of a new upload; None if it was refused."""
    request = head(new("u"), sized(0), _INCOMPLETE, token=token)
    answer = answer_of(send(port, request, PATIENCE))
    if answer is None or answer.status != 201:
        return None
    return "/uploads/" + answer.headers["location"].rpartition("/")[2]


def _part(offset: int, length: int, *headers: str) -> Sequence[str]:
    at = f"Upload-Offset: {offset}"
    return _PARTIAL, at, _INCOMPLETE, sized(length), *headers


def _append(town: Town, target: str, offset: int, data: bytes, *headers: str) -> bool:
    request = head(target, *_part(offset, len(data), *headers), method="PATCH")
    answer = answer_of(town.send(request, data))
    return answer is not None and answer.status == 204


def _offset(town: Town, target: str) -> int:
    """Bytes of an upload; -1 if it is not told."""
    received = town.send(head(target, method="HEAD"))
    answer = answer_of(received, head_only=True)
    return -1 if answer is None else answer.number("upload-offset")


def _greedy(town: Town, _: int) -> None:
    """An upload that grows and grows."""
    target, offset = _created(town.port), 0
    if target is None:
        return
    while offset < MOST and _append(town, target, offset, ZEROS):
        offset += len(ZEROS)
        if town.stopped():
            break
    town.send(head(target, method="DELETE"))


def _tiny(town: Town, _: int) -> None:
    target, offset = _created(town.port), 0
    if target is None:
        return
    while offset < TINY_PARTS and _append(town, target, offset, b"x"):
        offset += 1
        if town.stopped():
            break
    town.send(head(target, method="DELETE"))


def _refused(town: Town, _: int) -> None:
    """A bucket that has all the uploads it may have."""
    _created(town.port, FULL)


def _comes_and_goes(town: Town, _: int) -> None:
    target = _created(town.port)
    if target is not None:
        town.send(head(target, method="DELETE"))


def _takes_over(town: Town, _: int) -> None:
    """All clients want the same upload, and none sends what it announced."""
    target = town.uploads[0]
    offset = _offset(town, target)
    with suppress(OSError), town.connect() as it:
        it.sendall(head(target, *_part(offset, 10**6), method="PATCH") + bytes(1000))
        town.stopped(0.04)


def _takes_over_at_once(town: Town, number: int) -> None:
    """Hundreds of requests come while a part is written."""
    target = town.uploads[-1 - number]
    offset, data = _offset(town, target), bytes(1 << 20)
    begins = head(target, *_part(offset, len(data)), method="PATCH")
    town.crowd((begins + data, *[head(target, method="HEAD")] * CROWD), 0.5)


def _unknown(town: Town, _: int) -> None:
    """A thousand at once."""
    asked = "".join(
        f"HEAD /{LOUD}/uploads/{secrets.token_hex(16)} HTTP/1.1\r\nHost: h\r\n\r\n"
        for _ in range(1000)
    )
    town.send(asked.encode(), head(f"/uploads/{'0' * 32}", method="HEAD"))


def _stops(town: Town, number: int) -> None:
    """Parts that begin, and go on for half a minute without a byte."""
    own = town.uploads[1 + number * STOPPED :][:STOPPED]
    with ExitStack() as all_of_them:
        for target in own:
            offset = _offset(town, target)
            with suppress(OSError):
                it = all_of_them.enter_context(town.connect())
                begins = head(target, *_part(offset, 10**6), method="PATCH")
                it.sendall(begins + bytes(30_000))
            if town.stopped():
                return
        town.stopped(30)


def _wrong_digest(town: Town, _: int) -> None:
    """8 MB to write and to hash, and then to take back."""
    target = _created(town.port)
    if target is None:
        return
    for _ in range(10):
        _append(town, target, 0, ZEROS, _WRONG)
        if town.stopped():
            break
    town.send(head(target, method="DELETE"))


UNFINISHED = (
    Misbehavior("greedy uploads", _greedy, 16),
    Misbehavior("parts of a byte", _tiny, 8),
    Misbehavior("too many uploads", _refused, 8),
    Misbehavior("create and give up", _comes_and_goes, 8),
    Misbehavior("take over", _takes_over, 8),
    Misbehavior("take over at once", _takes_over_at_once, 2),
    Misbehavior("unknown uploads", _unknown, 8),
    Misbehavior("parts that stop", _stops, 4),
    Misbehavior("parts to hash", _wrong_digest, 4),
)


def create_idle(port: int, count: int, token: str) -> list[str]:
    """Create uploads that get no byte, and return their targets.

    :raises RuntimeError: one is refused
    """
    targets: list[str] = []
    for _ in range(count):
        target = _created(port, token)
        if target is None:
            raise RuntimeError(f"no upload after {len(targets)} others")
        targets.append(target)
    return targets
