"""Daemons that share an object store and a catalogue, behind HAProxy."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from filebucket.test.kit.ceph import Ceph
from filebucket.test.kit.nginx import shipped
from filebucket.test.kit.postgres import Postgres
from filebucket.test.kit.programs import TIED, Program, found, free_ports, refuses
from filebucket.test.kit.s3 import ACCOUNT, REGION
from filebucket.test.kit.seaweedfs import SeaweedFS
from filebucket.test.kit.server import (
    DAEMON,
    OTHER,
    PATIENCE,
    TOKEN,
    TWISTD,
    Server,
    comes,
)

NAMES = "names"
DATA = "data"
"""The buckets of the object store."""

BUCKETS = [{"name": "pushes", "token": TOKEN}, {"name": "web01", "token": OTHER}]
"""The buckets of the daemons: an object store needs names."""

NODES = ("one", "two", "three")
"""The names of the daemons."""


class Engine(Protocol):
    """An object store on this machine.

    :ivar says: its name
    :ivar urls: the addresses of its gateways
    :ivar gateways: its gateways
    :ivar disks: the programs that hold data
    """

    says: str
    urls: list[str]
    gateways: list[Program]
    disks: list[Program]

    def start(self) -> object:
        """Start it."""

    def stop(self) -> None:
        """Stop it, without waiting for what it writes."""

    def create(self, bucket: str) -> None:
        """Create a bucket, without versions."""


ENGINES: Mapping[str, Callable[[Path], Engine]] = {
    "seaweedfs": SeaweedFS,
    "ceph": Ceph,
}
"""The object stores, by the name of the option of ``make cluster``."""


def store(folder: Path, urls: Sequence[str]) -> dict[str, Any]:
    """The key ``store`` of a configuration.

    :param folder: gets the credentials
    :param urls: the addresses of the gateways
    """
    credentials = folder / "s3"
    credentials.touch(mode=0o600)
    credentials.write_text(
        f"[default]\naws_access_key_id = {ACCOUNT.key}\n"
        f"aws_secret_access_key = {ACCOUNT.secret}\n"
    )
    keys = {
        "endpoints": list(urls),
        "region": REGION,
        "names_bucket": NAMES,
        "data_bucket": DATA,
        "credentials": str(credentials),
        "delete_credentials": str(credentials),
    }
    return {"s3": keys}


class Cluster:
    """Three daemons, and HAProxy in front of them.

    :ivar daemons: the daemons
    :ivar proxy: HAProxy
    :ivar port: where HAProxy listens
    :ivar pages: the addresses of the status pages, by daemon
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine | None,
        database: str | None,
        urls: Sequence[str] | None = None,
        **config: Any,
    ) -> None:
        """
        :param engine: the object store, with its two buckets
        :param database: connection string of the database for the catalogue
        :param urls: the addresses of the object store, if they are not the engine's
        :param config: more keys of the daemons' configurations
        """
        folder.mkdir(parents=True, exist_ok=True)
        keys: dict[str, Any] = {"buckets": BUCKETS, "shutdown_delay": "4s", **config}
        if database is not None:
            keys["catalogue"] = {"postgresql": database}
        self.daemons = []
        self.pages: dict[str, str] = {}
        changes: dict[str, str] = {}
        for number, node in enumerate(NODES):
            if engine is not None:
                keys["node"] = node
                # Each daemon begins with another gateway.
                given = list(urls or engine.urls)
                first = number % len(given)
                keys["store"] = store(folder, given[first:] + given[:first])
            direct, proxied, admin = free_ports(3)
            changes[f"10.0.0.1{number + 1}:1234 track"] = f"127.0.0.1:{proxied} track"
            changes[f"10.0.0.1{number + 1}:1234"] = f"127.0.0.1:{proxied} port {admin}"
            listen = [
                f"tcp:{direct}:interface=127.0.0.1",
                f"haproxy:tcp:{proxied}:interface=127.0.0.1",
            ]
            self.daemons.append(
                Server(
                    folder / node,
                    **keys,
                    listen=listen,
                    trusted_proxies=["127.0.0.1"],
                    admin=f"tcp:{admin}:interface=127.0.0.1",
                )
            )
            self.pages[node] = f"http://127.0.0.1:{admin}"
        (self.port,) = free_ports(1)
        changes[":443 ssl crt /etc/haproxy/backup.pem"] = f"127.0.0.1:{self.port}"
        changes["    bind [::]:443 v6only ssl crt /etc/haproxy/backup.pem\n"] = ""
        changes["check port 1235"] = "check"
        # Only root may change its user, and only Debian's package creates that one.
        changes["    user haproxy\n    group haproxy\n"] = ""
        self._control = str(folder / "haproxy")
        control = f"stats socket {self._control}\n    maxconn 4000"
        changes["maxconn 4000"] = control
        (folder / "haproxy.cfg").write_text(shipped("cluster/haproxy.cfg", changes))
        self.proxy = Program(
            "haproxy",
            folder,
            [found("haproxy", "HAProxy"), "-db", "-f", "haproxy.cfg"],
            self._passes,
        )

    def start(self) -> Cluster:
        """Start the daemons and HAProxy."""
        for each in self.daemons:
            each.start(*TIED, *TWISTD, *DAEMON)
        self.proxy.start()
        return self

    def stop(self) -> None:
        """Stop all of it."""
        self.proxy.stop()
        for each in self.daemons:
            if hasattr(each, "process"):
                each.stop()

    def wait_until_all_pass(self) -> None:
        """Wait until HAProxy sends pushes to all daemons."""
        if not comes(lambda: self._up() == len(self.daemons)):
            raise AssertionError(f"only {self._up()} daemons are up for HAProxy")

    def _up(self) -> int:
        """The number of daemons that are up for HAProxy."""
        with socket.socket(socket.AF_UNIX) as it:
            it.settimeout(PATIENCE)
            it.connect(self._control)
            it.sendall(b"show stat anywhere 4 -1\n")
            table = b"".join(iter(lambda: it.recv(65536), b"")).decode()
        return len(re.findall(r"^anywhere,.*,UP,", table, re.MULTILINE))

    def _passes(self) -> bool:
        """Whether HAProxy knows a daemon that accepts pushes."""
        return refuses(f"http://127.0.0.1:{self.port}/")


def leads(daemon: Server) -> bool:
    """Whether a daemon leads, according to its log."""
    lines = re.findall("this daemon(?: no longer)? leads", daemon.log)
    running = daemon.process.poll() is None
    return running and lines[-1:] == ["this daemon leads"]


@frozen
class Site:
    """All parts of a running cluster."""

    engine: Engine
    postgres: Postgres
    cluster: Cluster


@contextmanager
def running(
    folder: Path, engine: str, start: bool = True, **config: Any
) -> Iterator[Site]:
    """Start a whole cluster, and stop it in the end.

    :param engine: a key of :data:`ENGINES`
    :param start: whether to start the daemons, too
    :param config: more keys of the daemons' configurations
    :raises SkipTest: a part is not installed
    """
    with ExitStack() as stack:
        postgres = Postgres()
        stack.callback(postgres.stop)
        postgres.start()
        store = ENGINES[engine](folder / engine)
        stack.callback(store.stop)
        store.start()
        for bucket in (NAMES, DATA):
            store.create(bucket)
        cluster = Cluster(folder, store, postgres.create("catalogue"), **config)
        stack.callback(cluster.stop)
        if start:
            cluster.start()
        yield Site(store, postgres, cluster)
