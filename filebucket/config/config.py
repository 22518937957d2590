"""The configuration, as :mod:`filebucket.config.load` reads it from the file."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NewType

import attrs
from attrs import field, frozen

from filebucket.base.owner import owner_prefix
from filebucket.config import endpoint as endpoints
from filebucket.config.endpoint import Endpoint
from filebucket.config.values import (
    ByteCount,
    Count,
    Duration,
    DurationOrOff,
    Flag,
    Host,
    LogFormat,
    NodeName,
    Path,
    Port,
    Seconds,
)
from filebucket.model.bucket import Bucket, FreeSpace
from filebucket.model.client import NOBODY, Networks
from filebucket.model.fingerprint import fingerprint
from filebucket.model.names import PRIVATE
from filebucket.model.objects import S3
from filebucket.model.place import Place, PostgreSQL
from filebucket.model.registry import BucketIndex
from filebucket.model.token import token_digest

DEFAULT_CONFIG = "/etc/file-bucket/config.json"


EXAMPLE_TOKENS = (
    "3547264155b541de5cb6a7eae0431a14",
    "9c7c64cfac3b922aacd4ba68cb631e82",
)
"""The tokens in the published config.json: everybody knows them."""

Buckets = NewType("Buckets", tuple[Bucket, ...])
Listen = NewType("Listen", tuple[Endpoint, ...])
Defaults = NewType("Defaults", Mapping[str, Any])


@frozen
class Keys:
    """The values of a configuration's keys, without those of buckets.

    :param values: the fingerprint of each
    :param made: whether ``listen`` is made from ``host`` and ``port``
    """

    values: Mapping[str, str]
    made: bool = False

    def changed(self, other: Keys) -> list[str]:
        """The keys whose values differ in ``other``.

        If ``other`` has ``listen``, that is named and not ``host`` and ``port``, which
        the file does not have.
        """
        # A key that only one version of file-bucket has cannot be compared.
        differ = [
            key
            for key, value in other.values.items()
            if self.values.get(key, value) != value
        ]
        passed_over = {"host", "port"}
        if "listen" in differ and other.made:
            passed_over = {"listen"} if self.made else set()
        return [each for each in differ if each not in passed_over]


def _host_name() -> NodeName:
    return NodeName(socket.gethostname() or "localhost")


@frozen
class Config:
    """The whole configuration, with absolute paths.

    :param home: the folder that holds the buckets
    :param host: the address to listen on
    :param port: the port to listen on; 0 is any free port, which the log shows
    :param listen: where to listen; replaces ``host`` and ``port``, and is made from
        them if it is not given
    :param trusted_proxies: proxies that are trusted to name the client
    :param admin: where to listen for monitoring systems; None is nowhere
    :param page: whether to serve the drop page
    :param hooks: the folder that holds ``pre-push.sh``, ``post-push.sh`` and
        ``alert.sh``
    :param max_file_size: the largest file in bytes; None is no limit
    :param min_file_size: the smallest file in bytes; None is 0 if the client sends the
        length first, and 1 otherwise
    :param min_free_space: space that must stay free on the home's filesystem
    :param max_connections: limit for connections at once, and for pushes at once
    :param idle_timeout: seconds that a connection may wait for its next request
    :param header_timeout: seconds from a request's first byte to its headers' end
    :param body_timeout: window, in seconds, over which the upload rate is measured
    :param min_rate: lowest average upload rate over that window, in bytes per second
    :param hook_timeout: timeout of a hook, in seconds
    :param hook_concurrency: limit for hooks that run at once
    :param shutdown_delay: seconds after a stop begins in which the daemon accepts
        pushes, while ``/healthz`` already reports the stop
    :param shutdown_timeout: seconds that pushes in progress get when the daemon stops
    :param unfinished: seconds after its last byte when a resumable upload expires; 0
        switches resumable uploads off
    :param max_unfinished: limit for unfinished uploads to one bucket
    :param alert_again: seconds after which a problem that lasts is reported again; 0 is
        never
    :param seal: seconds after which ``filebucket seal`` makes a file immutable; None is
        never
    :param store: the object store for files; None is the home
    :param catalogue: the database of the catalogue; None is a file of the home
    :param node: the name of this daemon, which differs from those of all others that
        share its catalogue
    :param defaults: the settings of buckets that do not have their own
    :param log_format: one of :data:`filebucket.config.values.LOG_FORMATS`
    """

    home: Path
    buckets: Buckets
    host: Host = Host("0.0.0.0")  # noqa: S104 - clients are other machines
    port: Port = Port(1234)
    listen: Listen = field()
    trusted_proxies: Networks = NOBODY
    admin: Endpoint | None = None
    page: Flag = Flag(False)
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
    shutdown_delay: DurationOrOff = DurationOrOff(0.0)
    shutdown_timeout: Seconds = Seconds(30.0)
    unfinished: DurationOrOff = DurationOrOff(24 * 3600.0)
    max_unfinished: Count = Count(16)
    alert_again: DurationOrOff = DurationOrOff(24 * 3600.0)
    seal: Duration | None = None
    store: S3 | None = None
    catalogue: PostgreSQL | None = None
    node: NodeName = field(factory=_host_name)
    defaults: Defaults = Defaults(MappingProxyType({}))
    log_format: LogFormat = LogFormat("text")

    @listen.default
    def _host_and_port(self) -> Listen:
        return Listen((endpoints.tcp(self.host, self.port),))

    @property
    def node_name(self) -> str:
        """The name of this daemon among those that share its catalogue; empty if it is
        a file.
        """
        return "" if self.catalogue is None else self.node

    @property
    def catalogue_place(self) -> Place:
        """Where the catalogue is."""
        return self.catalogue or str(self.home)

    @property
    def places(self) -> dict[str, Endpoint]:
        """Where to listen, by the path of the key in the file."""
        return {f"$.listen[{index}]": each for index, each in enumerate(self.listen)}

    @property
    def keys(self) -> Keys:
        """The keys that the daemon uses, but for ``buckets`` and ``defaults``."""
        return Keys(
            {
                each.name: fingerprint(getattr(self, each.name))
                for each in attrs.fields(Config)
                if each.name not in {"buckets", "defaults", "seal"}
            },
            self._listen_is_made(),
        )

    def _listen_is_made(self) -> bool:
        """Whether ``listen`` is made from ``host`` and ``port``."""
        # An endpoint from the file cannot have such a text.
        return [each.text for each in self.listen] == [self._host_and_port()[0].text]

    def open_to_others(self) -> list[str]:
        """The endpoints that other machines may be able to reach."""
        found = [each.text for each in self.listen if each.reachable]
        return [self.host] if found and self._listen_is_made() else found

    def believes_anybody(self) -> list[str]:
        """The endpoints where any client can send any address in a PROXY header."""
        if self.trusted_proxies:
            return []
        return [each.text for each in self.listen if each.proxied and each.reachable]

    def exposed_examples(self, index: BucketIndex) -> list[str]:
        """The labels of buckets that anybody can push to: their tokens are
        :data:`EXAMPLE_TOKENS`, and other machines can connect.

        :param index: the buckets
        """
        if not self.open_to_others():
            return []
        found = (
            index.opened_by(token_digest(each.encode("ascii")))
            for each in EXAMPLE_TOKENS
        )
        return [bucket.label for bucket, _ in filter(None, found)]


_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")


def start_command(path: str, home: str) -> str:
    """A command that starts the daemon: with systemd, if the package is installed. If
    root started it in a home of another user, that user could not start it again.

    :param path: where the configuration is
    """
    installed = any(os.path.exists(f"{each}/file-bucket.service") for each in _UNITS)
    if path == DEFAULT_CONFIG and installed:
        return "systemctl start file-bucket"
    return owner_prefix(home, PRIVATE) + command("serve", path)


def command(name: str, path: str) -> str:
    """A command of filebucket with this configuration.

    :param path: where the configuration is
    """
    given = "" if path == DEFAULT_CONFIG else f" --config {shlex.quote(path)}"
    return f"filebucket {name}{given}"
