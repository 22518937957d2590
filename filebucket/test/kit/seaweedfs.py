"""A SeaweedFS cluster. Each part is a process, so that it can be killed alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from filebucket.test.kit.postgres import Postgres
from filebucket.test.kit.programs import Program, answers, found, free_ports, refuses
from filebucket.test.kit.s3 import accounts, create, remove_sockets
from filebucket.test.kit.server import PATIENCE, comes

_IP = "127.0.0.1"

_FILER = """[postgres2]
enabled = true
createTable = \"\"\"CREATE TABLE IF NOT EXISTS "%s" (
  dirhash BIGINT, name VARCHAR(65535), directory VARCHAR(65535), meta bytea,
  PRIMARY KEY (dirhash, name));\"\"\"
hostname = "{host}"
port = {port}
username = "{user}"
password = ""
database = "{dbname}"
schema = ""
sslmode = "disable"
connection_max_idle = 10
connection_max_open = 40
enableUpsert = true
upsertQuery = \"\"\"INSERT INTO "%[1]s" (dirhash, name, directory, meta)
  VALUES ($1, $2, $3, $4) ON CONFLICT (dirhash, name)
  DO UPDATE SET directory = EXCLUDED.directory, meta = EXCLUDED.meta\"\"\"
"""


class SeaweedFS:
    """A master, three volume servers, and two S3 gateways.

    Two volume servers have each byte, and have written it to their disks before they
    answer. The gateways have a filer each, which share the names in PostgreSQL.

    :ivar says: its name
    :ivar urls: the addresses of the gateways
    :ivar gateways: the gateways
    :ivar disks: the volume servers
    """

    says = "SeaweedFS"

    def __init__(self, folder: Path) -> None:
        """
        :raises SkipTest: SeaweedFS or PostgreSQL is not installed
        """
        self._weed = found("weed", "SeaweedFS")
        folder.mkdir(parents=True)
        self._folder = folder
        accounts_file = folder / "s3.json"
        accounts_file.write_text(accounts())
        self._names = Postgres()
        self._ports: list[int] = []
        of_master = self._address()
        self._master = f"-master={of_master}"
        master = self._part("master", of_master, "-mdir=.", "-defaultReplication=001")
        self.disks = []
        for number in range(3):
            (folder / f"volume-{number}").mkdir()
            self.disks.append(
                self._part(
                    f"volume-{number}",
                    self._address(),
                    *(self._master, f"-dir=volume-{number}", "-max=30"),
                    *("-dataCenter=d1", "-rack=r1", "-port.public=0"),
                )
            )
        self._filers = [self._address() for _ in range(2)]
        filers = [
            self._part(
                f"filer-{number}",
                each,
                *(self._master, f"-defaultStoreDir=filer-{number}"),
            )
            for number, each in enumerate(self._filers)
        ]
        addresses = [self._address() for _ in range(2)]
        self.gateways = [
            self._part(
                f"s3-{number}",
                each,
                *(f"-filer={self._filers[number]}",),
                *(f"-config={accounts_file}", "-port.iceberg=0", "-port.lance=0"),
            )
            for number, each in enumerate(addresses)
        ]
        # The first filer creates the tables.
        each_filer = ([each] for each in filers)
        self._stages = ([master], self.disks, *each_filer, self.gateways)
        self.urls = [_url(each) for each in addresses]

    def start(self) -> SeaweedFS:
        """Start all of it."""
        database = self._names.start().create("names")
        values = dict(each.split("=") for each in database.split())
        (self._folder / "filer.toml").write_text(_FILER.format(**values))
        for stage in self._stages:
            for each in stage:
                each.begin()
            for each in stage:
                each.wait()
            if stage is self._stages[-2]:
                self._sync()
        if not comes(lambda: all(map(refuses, self.urls))):
            raise AssertionError("the gateways do not read their configuration")
        return self

    def stop(self) -> None:
        """Stop it, without waiting for what it writes."""
        for stage in reversed(self._stages):
            for each in stage:
                each.kill()
        self._names.stop()
        remove_sockets(*self._ports)

    def create(self, bucket: str) -> None:
        """Create a bucket, without versions."""
        create(self.urls[0], bucket)

    def _address(self) -> str:
        """An address: the host, a port for HTTP, and one for gRPC."""
        ports = free_ports(2)
        self._ports += ports
        return f"{_IP}:{ports[0]}.{ports[1]}"

    def _part(self, name: str, address: str, *options: str) -> Program:
        http, grpc = address.partition(":")[2].split(".")
        command = (self._weed, name.partition("-")[0], f"-ip.bind={_IP}", *options)
        ports = (f"-port={http}", f"-port.grpc={grpc}")
        ip = () if name.startswith("s3") else (f"-ip={_IP}",)
        url = _url(address)
        return Program(
            name, self._folder, [*command, *ip, *ports], lambda: answers(url)
        )

    def _sync(self) -> None:
        """Let volume servers call fsync. By default, they only write."""
        command = [self._weed, "shell", self._master, f"-filer={self._filers[0]}"]
        rule = "fs.configure -locationPrefix=/buckets/ -fsync=true -apply\n"
        said = subprocess.run(
            command,
            cwd=self._folder,
            input=rule,
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        ).stdout
        if not re.search(r'"fsync":\s*true', said):
            raise AssertionError(said)


def _url(address: str) -> str:
    return f"http://{address.rpartition('.')[0]}"
