"""Log lines about pushes, and warnings about a risky configuration.

Lines about pushes have the namespace ``filebucket.tap``, because installed fail2ban
filters match it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.logger import Logger

from filebucket.base.errors import Refusal
from filebucket.base.text import first_line
from filebucket.config.config import Config
from filebucket.daemon.logs import READY
from filebucket.model.client import Client
from filebucket.model.push import Outcome, Step
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.token import TOKEN_LENGTH

log = Logger(namespace="filebucket.tap")

LONGEST = 200
"""Columns of the first line of a client's report."""


class Warnings(Service):
    """Warns at the start, and whenever the buckets change."""

    def __init__(self, config: Config, registry: Registry) -> None:
        """
        :param registry: the current buckets
        """
        self._config = config
        self._registry = registry
        registry.on_change(self._warn)

    def startService(self) -> None:
        super().startService()
        self._warn()

    def _warn(self) -> None:
        warn(self._config, self._registry.index)


def warn(config: Config, index: BucketIndex) -> None:
    """Log the warnings about a configuration.

    :param index: its buckets, which may be many: the reactor waits
    """
    for label in config.exposed_examples(index):
        log.critical(
            "ANYBODY CAN PUSH to bucket {label}: its token is an example from the "
            "documentation, and other machines can connect to {where}. Create buckets "
            "with tokens of their own: filebucket bucket add NAME",
            event="example-token",
            label=label,
            where=", ".join(config.open_to_others()),
        )
    for place in config.believes_anybody():
        log.warn(
            "{place}: any client can forge its address in a PROXY header: set "
            "trusted_proxies",
            event="believes-anybody",
            place=place,
        )
    if not index.all:
        log.warn("no buckets are configured: every push gets 403", event="no-buckets")


def log_outcome(
    outcome: Outcome, hide_tokens: Callable[[str], str] = lambda name: name
) -> None:
    """Log the line about a push, or about a part of one."""
    if outcome.step is Step.LOOKED and outcome.reason is None:
        return
    name = hide_tokens(outcome.name) if outcome.name else None
    if outcome.failed is not None and outcome.reason is None:
        start = _start(outcome.failed.strip(), hide_tokens)
        _log_failure(outcome, name, first_line(start, LONGEST))
        return
    log.info(
        READY,
        log_text=_line(outcome, name),
        event=_event(outcome),
        bucket=outcome.bucket,
        name=name,
        size=outcome.size,
        sha256=outcome.sha256,
        client=outcome.client,
        seconds=round(outcome.seconds, 3),
        status=outcome.status,
        request=outcome.request_id,
        reason=outcome.reason,
        cause=outcome.cause,
    )


def _start(text: str, hide_tokens: Callable[[str], str]) -> str:
    """The beginning of a text, with tokens masked. To look for them in all of it would
    take milliseconds.
    """
    if len(text) <= 2 * LONGEST:
        return hide_tokens(text)
    # What is left of a token at the end is not recognized.
    return hide_tokens(text[: 2 * LONGEST])[:-TOKEN_LENGTH]


def _log_failure(outcome: Outcome, name: str | None, text: str) -> None:
    """Log that a client reported that a backup failed.

    :param text: the first line of its report
    """
    log.warn(
        READY,
        log_text=f"failed bucket={outcome.bucket} name={repr(name) if name else '-'}"
        f" client={outcome.client} request={outcome.request_id} text={text!r}",
        event="failed",
        bucket=outcome.bucket,
        name=name,
        client=outcome.client,
        request=outcome.request_id,
        text=text,
    )


def _event(outcome: Outcome) -> str:
    if outcome.reason:
        return "refused"
    if outcome.step is Step.CREATED:
        return "upload"
    if outcome.step is Step.GIVEN_UP:
        return "upload-deleted"
    if outcome.step is not None:
        return "part"
    if outcome.healed:
        return "healed"
    return "repeated" if outcome.repeated else "push"


def _line(outcome: Outcome, name: str | None) -> str:
    # Formatted here, not by a format with ten fields: Twisted's formatter, written in
    # Python, takes 0.06 ms for that, a fifth of the cost of a small push. repr escapes
    # characters that could confuse a terminal or a log reader.
    shown = repr(name) if name else "-"
    reason = f" reason={outcome.reason!r}" if outcome.reason else ""
    cause = f" cause={outcome.cause!r}" if outcome.cause else ""
    return (
        f"{_event(outcome)} bucket={outcome.bucket}"
        f" name={shown} size={outcome.size} sha256={outcome.sha256 or '-'}"
        f" client={outcome.client} seconds={outcome.seconds:.3f}"
        f" status={outcome.status} request={outcome.request_id}{reason}{cause}"
    )


def before_a_request(client: Client, refusal: Refusal) -> Outcome:
    """The outcome of input that was refused before it was a request."""
    return Outcome(
        request_id="-",
        bucket="-",
        client=client.text,
        status=refusal.status,
        reason=refusal.reason,
    )
