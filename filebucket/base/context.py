"""The current request's id, for code that is not passed one, such as the store.

Every log line of a push carries this id.
"""

from __future__ import annotations

from contextvars import ContextVar

_request: ContextVar[str] = ContextVar("request", default="-")


def begin_request(request_id: str) -> None:
    """Set the request id for the rest of this coroutine."""
    _request.set(request_id)


def current_request() -> str:
    """The current request's id; ``-`` outside a request."""
    return _request.get()
