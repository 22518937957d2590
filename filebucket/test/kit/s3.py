"""An S3 server with object lock and users: SeaweedFS, if it is installed."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from attrs import frozen
from twisted.trial.unittest import SkipTest

from filebucket.test.kit.server import PATIENCE, comes


@frozen
class Credentials:
    """A user's key."""

    key: str
    secret: str


ACCOUNT = Credentials("account", "account-secret")
"""The account's own credentials, which may do everything."""

REGION = "us-east-1"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in probes:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in probes]


class S3:
    """A server in a folder.

    :ivar url: its address
    """

    def __init__(self, folder: Path) -> None:
        """
        :raises SkipTest: SeaweedFS is not installed
        """
        beside = Path(sys.executable).parent / "weed"
        program = shutil.which("weed") or shutil.which(beside)
        if program is None:
            raise SkipTest("SeaweedFS is not installed")
        folder.mkdir()
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        credentials = [{"accessKey": ACCOUNT.key, "secretKey": ACCOUNT.secret}]
        account = {"name": ACCOUNT.key, "credentials": credentials, "actions": actions}
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [account]}))
        parts = ("master", "volume", "filer", "s3")
        places = [
            name for part in parts for name in (f"{part}.port", f"{part}.port.grpc")
        ]
        ports = dict(zip(places, _free_ports(len(places)), strict=True))
        self._ports = ports.values()
        self._host = f"127.0.0.1:{ports['s3.port']}"
        self.url = f"http://{self._host}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(program, "server", f"-dir={folder}", "-ip=127.0.0.1"),
                    *("-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={config}"),
                    *("-s3.iam.readOnly=false", "-s3.port.iceberg=0"),
                    *("-s3.port.lance=0", "-volume.max=20"),
                    *("-master.volumeSizeLimitMB=64", "-volume.port.public=0"),
                    *(f"-{name}={port}" for name, port in ports.items()),
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Wait until it answers."""
        if not comes(self._answers):
            raise AssertionError(self._log.read_text())

    def _answers(self) -> bool:
        try:
            with urlopen(self.url, timeout=PATIENCE):
                return True
        except HTTPError as error:
            error.close()
            return error.code == 403
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it, without waiting for what it writes."""
        self._process.kill()
        self._process.wait(PATIENCE)
        for port in self._ports:
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink()

    def call(
        self,
        who: Credentials,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        **headers: str,
    ) -> tuple[int, bytes]:
        """Call its API, with Signature Version 4.

        :param headers: with underscores in place of hyphens
        :returns: status and content
        """
        path, query_text = quote(path), urlencode(sorted((query or {}).items()))
        now = datetime.now(UTC)
        at, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        digest = hashlib.sha256(body).hexdigest()
        signed = {
            "content-md5": b64encode(_md5(body)).decode(),
            "host": self._host,
            "x-amz-content-sha256": digest,
            "x-amz-date": at,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        names = ";".join(sorted(signed))
        lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
        canonical = f"{method}\n{path}\n{query_text}\n{lines}\n{names}\n{digest}"
        scope = f"{day}/{REGION}/s3/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{who.secret}".encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashed}"):
            key = hmac.digest(key, part.encode(), "sha256")
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={who.key}/{scope},"
            f" SignedHeaders={names}, Signature={key.hex()}"
        )
        request = Request(
            f"{self.url}{path}?{query_text}",
            body or None,
            {**signed, "Authorization": authorization},
            method=method,
        )
        try:
            with urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()


def _md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()
