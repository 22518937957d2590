"""What the configuration says.

:mod:`filebucket.config.load` makes it of the file.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NewType

import attrs
from attrs import field, frozen

from filebucket.config import endpoint as endpoints
from filebucket.config.endpoint import Endpoint
from filebucket.config.values import (
    ByteCount,
    Count,
    Host,
    LogFormat,
    Path,
    Port,
    Seconds,
)
from filebucket.model.bucket import Bucket, FreeSpace
from filebucket.model.client import NOBODY, Networks
from filebucket.model.token import token_digest

DEFAULT_CONFIG = "/etc/file-bucket/config.json"

EXAMPLE_TOKENS = (
    "3547264155b541de5cb6a7eae0431a14",
    "9c7c64cfac3b922aacd4ba68cb631e82",
)
"""The tokens of the config.json that everybody has: known, so worthless."""

Buckets = NewType("Buckets", tuple[Bucket, ...])
Listen = NewType("Listen", tuple[Endpoint, ...])


@frozen
class Config:
    """All that the file says, with every path absolute.

    :param home: the folder that holds the buckets
    :param host: the address to listen on
    :param port: the port to listen on; 0 is any free one, which the log tells
    :param listen: where to listen; what is said here takes the place of ``host`` and
        ``port``, of which it is made otherwise
    :param trusted_proxies: who is believed about who the client is
    :param admin: where to listen for whoever watches; None is nowhere
    :param hooks: the folder that holds ``pre-push.sh``, ``post-push.sh`` and
        ``alert.sh``
    :param max_file_size: the largest file in bytes; None is no limit
    :param min_file_size: the smallest file in bytes; None is 1 where its length is not
        told beforehand, and 0 where it is
    :param min_free_space: what must stay free on the home's filesystem
    :param max_connections: how many there may be at once, and how many pushes
    :param idle_timeout: seconds that a connection may wait for its next request
    :param header_timeout: seconds from a request's first byte to its headers' end
    :param body_timeout: seconds over which a body must not be slower than ``min_rate``
    :param min_rate: bytes per second
    :param hook_timeout: seconds that a hook may run
    :param hook_concurrency: how many hooks may run at once
    :param shutdown_timeout: seconds that pushes under way get at a stop
    :param log_format: one of :data:`filebucket.config.values.LOG_FORMATS`
    """

    home: Path
    buckets: Buckets
    host: Host = Host("0.0.0.0")  # noqa: S104 - clients are other machines
    port: Port = Port(1234)
    listen: Listen = field()
    trusted_proxies: Networks = NOBODY
    admin: Endpoint | None = None
    hooks: Path = Path(".")
    max_file_size: ByteCount | None = None
    min_file_size: ByteCount | None = None
    min_free_space: FreeSpace = FreeSpace(share=Fraction(2, 100))
    max_connections: Count = Count(1024)
    idle_timeout: Seconds = Seconds(60.0)
    header_timeout: Seconds = Seconds(30.0)
    body_timeout: Seconds = Seconds(60.0)
    min_rate: ByteCount = ByteCount(1024)
    hook_timeout: Seconds = Seconds(300.0)
    hook_concurrency: Count = Count(4)
    shutdown_timeout: Seconds = Seconds(30.0)
    log_format: LogFormat = LogFormat("text")

    @listen.default
    def _host_and_port(self) -> Listen:
        return Listen((endpoints.tcp(self.host, self.port),))

    @property
    def places(self) -> dict[str, Endpoint]:
        """Where to listen, by the place where the file says so."""
        return {f"$.listen[{index}]": each for index, each in enumerate(self.listen)}

    def changed(self, other: Config) -> list[str]:
        """The keys, but for ``buckets``, whose value differs in ``other``."""
        made = self._listen_is_made() and other._listen_is_made()
        passed_over = {"buckets", *(["listen"] if made else [])}
        return [
            each.name
            for each in attrs.fields(Config)
            if each.name not in passed_over
            and getattr(self, each.name) != getattr(other, each.name)
        ]

    def _listen_is_made(self) -> bool:
        """Whether ``listen`` is made of ``host`` and ``port``."""
        # No file can have such a text.
        return [each.text for each in self.listen] == [self._host_and_port()[0].text]

    def open_to_others(self) -> list[str]:
        """Where other machines may be able to connect."""
        found = [each.text for each in self.listen if each.reachable]
        return [self.host] if found and self._listen_is_made() else found

    def believes_anybody(self) -> list[str]:
        """Where others can connect and say, unchecked, that they are whoever."""
        if self.trusted_proxies:
            return []
        return [each.text for each in self.listen if each.proxied and each.reachable]

    def exposed_examples(self) -> list[str]:
        """The labels of buckets that anybody can push to, their tokens being
        :data:`EXAMPLE_TOKENS` and :meth:`open_to_others` not being empty.
        """
        if not self.open_to_others():
            return []
        known = {token_digest(token.encode("ascii")) for token in EXAMPLE_TOKENS}
        return [
            bucket.label
            for bucket in self.buckets
            if any(each.sha256 in known for each in bucket.tokens)
        ]
