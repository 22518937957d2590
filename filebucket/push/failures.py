"""Receives reports that a backup failed.

The client knows at once, and the operator should not have to wait until the backup is
late. A report is small, nothing of it is stored as a file, and no client can read it.
Its checks are those of a push, as far as they apply.
"""

from __future__ import annotations

import math

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.model.bucket import Bucket
from filebucket.model.push import Outcome
from filebucket.push.interfaces import IIncoming
from filebucket.push.receive import Uploads, check_name

MOST_SIZE = 4096
"""Bytes of a report."""

AT_ONCE = 10
"""Reports that a bucket may send at once."""

INTERVAL = 1.0
"""Seconds between two reports of a bucket after that."""

MOST_IDLE = 1000
"""Buckets that are remembered before those without recent reports are forgotten."""


class Failures:
    """Receives reports, a limited number for each bucket."""

    def __init__(self, uploads: Uploads, clock: IReactorTime) -> None:
        """
        :param uploads: receives pushes
        """
        self._uploads = uploads
        self._clock = clock
        # When each bucket may send AT_ONCE reports again.
        self._calm_at: dict[str, float] = {}

    def receive(self, bucket: Bucket, incoming: IIncoming) -> Deferred[Outcome]:
        """Receive a report.

        :param incoming: its name may be None: then it is about the whole bucket
        :returns: fires with the outcome, which may be a refusal; never fails
        """
        return self._uploads.work(bucket, incoming, self._work)

    async def _work(
        self, bucket: Bucket, incoming: IIncoming, outcome: Outcome
    ) -> None:
        outcome.failed = ""
        promised = incoming.promised()
        name = incoming.name()
        if name is not None:
            check_name(name)
        outcome.name = name
        _check_size(incoming.length or 0)
        self._take_turn(bucket.key)
        report = b""
        file = await incoming.find_file()
        async for chunks in file.chunks:
            report += b"".join(chunks)
            outcome.size = len(report)
            _check_size(outcome.size)
        incoming.check_allowed()
        hashes = Hashes(promised)
        hashes.update([report])
        hashes.compare(promised, "report")
        outcome.status, outcome.failed = 202, report.decode("utf-8", "replace")

    def _take_turn(self, key: str) -> None:
        now = self._clock.seconds()
        if len(self._calm_at) > MOST_IDLE:
            self._calm_at = {
                each: calm_at
                for each, calm_at in self._calm_at.items()
                if calm_at > now
            }
        calm_at = max(self._calm_at.get(key, now), now) + INTERVAL
        early = calm_at - now - AT_ONCE * INTERVAL
        if early > 0:
            wait = str(math.ceil(early))
            raise Refusal(429, "too many failure reports", {"Retry-After": wait})
        self._calm_at[key] = calm_at


def _check_size(size: int) -> None:
    if size > MOST_SIZE:
        raise Refusal(413, f"the report is larger than {MOST_SIZE} bytes")
