"""The request that the code at hand works for.

Every log line of a push carries the push's id. Code that is not handed the id, such as
the store, finds it here.
"""

from __future__ import annotations

from contextvars import ContextVar

_request: ContextVar[str] = ContextVar("request", default="-")


def begin_request(request_id: str) -> None:
    """What is done from here on, in this coroutine, is done for that request."""
    _request.set(request_id)


def current_request() -> str:
    """The id of the request for which this is done; ``-`` where there is none."""
    return _request.get()
