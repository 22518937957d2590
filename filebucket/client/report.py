"""Reports to the server that the command failed whose output was to be stored.

The server tells its operator at once. The report is worth a few seconds, not more: the
push has failed already, and its user is told in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from os import fsencode
from urllib.parse import quote_from_bytes

from filebucket.client.connection import Answer, Connection
from filebucket.client.errors import PushError
from filebucket.client.source import Bytes

TIMEOUT = 5.0
"""Seconds for each try."""

TRIES = 2
PAUSE = 1.0
"""Seconds between two tries."""

MOST = 4096
"""Bytes of a report."""

OLD = frozenset({400, 404, 405, 415, 501})
"""Statuses of a server that takes no reports: an older one, or another program."""


def report(
    connection: Connection,
    name: str,
    text: str,
    sleep: Callable[[float], object] = time.sleep,
) -> str | None:
    """Report that there is nothing to push.

    :param name: of the file that was to be stored
    :param text: what happened; the first line sums it up
    :returns: why the report was not accepted; None if it was, or if the server takes
        no reports
    """
    path = quote_from_bytes(fsencode(name), safe="")
    body = text.encode("utf-8", "replace")[:MOST]
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    reason = ""
    for number in range(TRIES):
        if number:
            sleep(PAUSE)
        # The connection may be in the middle of a request.
        connection.close()
        try:
            answer = connection.request(
                "POST", path, headers, Bytes(memoryview(body)), patience=TIMEOUT
            )
        except PushError as error:
            return str(error)
        except OSError as error:
            reason = error.strerror or str(error)
            continue
        if answer.status < 300 or answer.status in OLD:
            return None
        reason = f"{answer.line} ({answer.status})"
        if not _may_pass(answer):
            break
    return reason


def _may_pass(answer: Answer) -> bool:
    """Whether the next try may succeed."""
    return answer.status in {408, 425, 429, 500, 502, 503, 504}
