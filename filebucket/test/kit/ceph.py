"""A Ceph cluster with S3 gateways, from Debian's packages in a root of their own.

``make ceph-root`` makes the root. It needs root's rights, to change into that root.
``python -m filebucket.test.kit.ceph COMMAND`` runs a command beside a cluster, and
names it in the environment for :func:`named`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SkipTest

from filebucket.test.kit.programs import TIED, Program, answers, free_ports
from filebucket.test.kit.s3 import ACCOUNT, Credentials, create
from filebucket.test.kit.server import PATIENCE, comes

ROOT = Path(
    os.environ.get("FILEBUCKET_CEPH_ROOT", Path.home() / ".cache/file-bucket/ceph")
)
"""Debian 13 with Ceph."""

NAMED = "FILEBUCKET_TEST_CEPH"
"""Variable of the environment with the address, key and secret of a Ceph gateway that
runs already, with commas between them."""

OTHER = Credentials("other", "other-secret")
"""A user that may do nothing, unless the policy of an S3 bucket allows it."""

_HERE = "/mnt"
"""The cluster's folder, for its programs."""

# The mounts end with the program that needs them.
_WITHIN = """
for each in /proc /sys /dev; do mount --rbind "$each" "$0$each"; done
mount --bind "$1" "$0/mnt"
shift
exec chroot "$0" env CEPH_CONF=/mnt/ceph.conf "$@"
"""

# Memory and intervals are for small clusters that are soon gone.
_CONFIG = f"""[global]
fsid = {{fsid}}
mon host = {{monitor}}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv4 = true
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {_HERE}/keyring
run dir = {_HERE}/run
admin socket = {_HERE}/run/$name.$pid.asok
log file = {_HERE}/$name.log
log to stderr = false
pid file =
crash dir = {_HERE}/run
osd pool default size = 3
osd pool default min size = 2
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 1000
mon data avail warn = 2
mon osd min down reporters = 1
mon osd down out interval = 600
osd heartbeat interval = 2
osd heartbeat grace = 6
[mon]
mon data = {_HERE}/mon
auth allow insecure global id reclaim = false
[mgr]
mgr data = {_HERE}/mgr
mgr initial modules =
[osd]
osd data = {_HERE}/osd-$id
osd objectstore = bluestore
osd memory target = 939524096
bluestore block create = true
bluestore block size = 12884901888
osd class load list = *
osd class default list = *
[client]
rgw thread pool size = 64
rgw enable usage log = false
rgw enable apis = s3, admin
"""


class Ceph:
    """A monitor, a manager, three OSDs that have all data each, and two gateways.

    A write needs two OSDs.

    :ivar says: its name
    :ivar urls: the addresses of the gateways
    :ivar gateways: the gateways
    :ivar disks: the OSDs
    """

    says = "Ceph"

    def __init__(self, folder: Path) -> None:
        """
        :raises SkipTest: its root is missing, or the user is not root
        """
        if os.geteuid() or not (ROOT / "usr/bin/ceph-osd").exists():
            raise SkipTest("Ceph needs root, and 'make ceph-root'")
        self._folder = folder
        for each in ("mon", "mgr", "run"):
            (folder / each).mkdir(parents=True)
        second, first, *ports = free_ports(4)
        self._address = f"[v2:127.0.0.1:{second},v1:127.0.0.1:{first}]"
        self._fsid = str(uuid.uuid4())
        config = _CONFIG.format(fsid=self._fsid, monitor=self._address)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        for number, port in enumerate(ports):
            config += f"[client.rgw{number}]\n"
            config += f"rgw frontends = beast endpoint=127.0.0.1:{port}\n"
        (folder / "ceph.conf").write_text(config)
        self._monitor = self._program("mon", "ceph-mon", "-i", "a", ready=self._quorum)
        self._manager = self._program("mgr", "ceph-mgr", "-i", "x")
        self.disks = [
            self._program(f"osd-{number}", "ceph-osd", "-i", str(number))
            for number in range(3)
        ]
        self.gateways = [
            self._program(
                f"rgw{number}",
                *("radosgw", "-n", f"client.rgw{number}"),
                ready=partial(answers, url),
            )
            for number, url in enumerate(self.urls)
        ]

    def start(self) -> Ceph:
        """Start all of it."""
        ring = f"{_HERE}/keyring"
        self._run("ceph-authtool", "--create-keyring", ring, *_key("mon.", "mon"))
        admin = _key("client.admin", "mon", "osd", "mgr")
        self._run("ceph-authtool", ring, *admin)
        host = ("--create", "--addv", "a", self._address, "--fsid", self._fsid)
        self._run("monmaptool", *host, f"{_HERE}/monmap")
        monmap = ("--monmap", f"{_HERE}/monmap", "--keyring", ring)
        self._run("ceph-mon", "--mkfs", "-i", "a", *monmap)
        self._monitor.start()
        self._add("mgr.x", "mgr/keyring", "mon=allow profile mgr", "osd=allow *")
        self._manager.start()
        for number, each in enumerate(self.disks):
            identity = str(uuid.uuid4())
            self._ceph("osd", "new", identity, str(number))
            (self._folder / f"osd-{number}").mkdir()
            rights = ("mon=allow profile osd", "mgr=allow profile osd", "osd=allow *")
            self._add(f"osd.{number}", f"osd-{number}/keyring", *rights)
            new = ("--mkfs", "-i", str(number), "--osd-uuid", identity)
            self._run("ceph-osd", *new)
            each.start()
        if not comes(lambda: self._osds_up() == len(self.disks), 3 * PATIENCE):
            raise AssertionError("the OSDs are not up")
        for user in (ACCOUNT, OTHER):
            self._run(
                *("radosgw-admin", "user", "create", f"--uid={user.key}"),
                *(f"--display-name={user.key}", f"--access-key={user.key}"),
                f"--secret-key={user.secret}",
            )
        for number, gateway in enumerate(self.gateways):
            rights = ("mon=allow rw", "osd=allow rwx", "mgr=allow rw")
            self._add(f"client.rgw{number}", None, *rights)
            gateway.start()
        return self

    def stop(self) -> None:
        """Stop it, without waiting for what it writes."""
        for each in (*self.gateways, *self.disks, self._manager, self._monitor):
            each.kill()

    def create(self, bucket: str) -> None:
        """Create a bucket, without versions."""
        create(self.urls[0], bucket)

    def _within(self, *command: str) -> list[str]:
        """A command in the root."""
        folder = str(self._folder)
        unshare = ["unshare", "--mount", "sh", "-ec", _WITHIN, str(ROOT), folder]
        return [*unshare, *command]

    def _program(
        self, name: str, *command: str, ready: Callable[[], bool] = lambda: True
    ) -> Program:
        program, *options = command
        within = self._within(program, "-f", *options)
        return Program(name, self._folder, within, ready)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            self._within(*command),
            check=False,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
        )
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def _ceph(self, *command: str) -> str:
        return self._run("ceph", "--connect-timeout=60", *command)

    def _quorum(self) -> bool:
        try:
            self._run("ceph", "--connect-timeout=5", "mon", "enable-msgr2")
        except AssertionError:
            return False
        return True

    def _osds_up(self) -> int:
        return int(json.loads(self._ceph("osd", "stat", "-f", "json"))["num_up_osds"])

    def _add(self, name: str, file: str | None, *rights: str) -> None:
        """Add a user, for all programs or for one."""
        pairs = [part for each in rights for part in each.split("=")]
        key = self._ceph("auth", "get-or-create", name, *pairs)
        with (self._folder / "keyring").open("a") as ring:
            ring.write(key)
        if file is not None:
            (self._folder / file).write_text(key)


def _key(name: str, *services: str) -> Sequence[str]:
    """The arguments for a new key that may do everything."""
    rights = (("--cap", each, "allow *") for each in services)
    return ("--gen-key", "-n", name, *(part for each in rights for part in each))


def named() -> tuple[str, Credentials]:
    """The gateway that the environment names, and its credentials.

    :raises SkipTest: it names none
    """
    given = os.environ.get(NAMED)
    if not given:
        raise SkipTest(f"{NAMED} is not set")
    url, key, secret = given.split(",")
    return url, Credentials(key, secret)


def main() -> None:
    """Run a command, and exit with its status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="file-bucket-ceph-"))
    try:
        ceph = Ceph(folder / "ceph")
        try:
            ceph.start()
            here = ",".join((ceph.urls[0], ACCOUNT.key, ACCOUNT.secret))
            environ = {**os.environ, NAMED: here}
            command = [*TIED, *sys.argv[1:]]
            status = subprocess.run(
                command, check=False, env=environ, timeout=7200
            ).returncode
        finally:
            ceph.stop()
    finally:
        shutil.rmtree(folder)
    sys.exit(status)


if __name__ == "__main__":
    main()
