"""A PostgreSQL server in a folder, if Debian's package is installed."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SkipTest

from filebucket.test.kit.programs import Program, free_ports
from filebucket.test.kit.server import PATIENCE

_SUPERUSER = "postgres"

_BIN = "/usr/lib/postgresql"


@cache
def shared_postgres() -> Postgres:
    """The server of this process, which ends with it.

    :raises SkipTest: PostgreSQL is not installed
    """
    server = Postgres().start()
    atexit.register(server.stop)
    return server


class Postgres:
    """A server on a free port, which trusts every user of this machine.

    :ivar port: where it listens
    :ivar program: the server, which may be killed and started again
    """

    def __init__(self) -> None:
        """
        :raises SkipTest: PostgreSQL is not installed
        """
        versions = sorted(
            Path(_BIN).glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
        )
        if not versions:
            raise SkipTest("PostgreSQL is not installed")
        self._bin = versions[-1].parent
        # The server does not run as root. Another user cannot reach every folder.
        self._as = (
            ["setpriv", "--clear-groups", "--pdeathsig=KILL"]
            if not os.geteuid()
            else []
        )
        self._folder = Path(tempfile.mkdtemp(prefix="file-bucket-postgres-"))
        if self._as:
            owner = pwd.getpwnam(_SUPERUSER)
            self._as += [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}"]
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        (self.port,) = free_ports(1)
        self.program = Program(
            "postgres",
            self._folder,
            [
                *(*self._as, str(self._bin / "postgres"), "-D", str(self._data)),
                *("-p", str(self.port), "-c", "listen_addresses=127.0.0.1"),
                *("-c", "unix_socket_directories=", "-c", "max_connections=200"),
                # The power stays on.
                *("-c", "fsync=off"),
            ],
            self._accepts,
        )

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> Postgres:
        """Start it for the first time."""
        self._run(
            *("initdb", "-D", str(self._data), "-A", "trust", "-U", _SUPERUSER),
            *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
        )
        self.program.start()
        return self

    def stop(self) -> None:
        """Stop it, and remove its data."""
        # Its fast shutdown: it waits for no client.
        self.program.stop(signal.SIGINT)
        shutil.rmtree(self._folder)

    def create(self, database: str) -> str:
        """Create a database, and return its connection string."""
        self._client("createdb", database)
        return (
            f"host=127.0.0.1 port={self.port} user={_SUPERUSER} dbname={database}"
            " connect_timeout=5"
        )

    def _accepts(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1"]
        command += ["-p", str(self.port)]
        return not subprocess.run(command, check=False, timeout=PATIENCE).returncode

    def _client(self, program: str, *arguments: str) -> None:
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", _SUPERUSER)
        self._run(program, *where, *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as, str(self._bin / program), *arguments],
            cwd=self._folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        if done.returncode:
            raise AssertionError(f"{program}: {done.stderr}")
