"""An S3 server with object lock and users: SeaweedFS, if it is installed."""

from __future__ import annotations

import atexit
import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen
from xml.etree import ElementTree

from attrs import frozen

from filebucket.test.kit.programs import Program, found, free_ports, refuses
from filebucket.test.kit.server import PATIENCE


@frozen
class Credentials:
    """A user's key."""

    key: str
    secret: str


ACCOUNT = Credentials("account", "account-secret")
"""The account's own credentials, which may do everything."""

OPEN = "open"
"""A bucket into which anybody may put objects, if it is created."""

REGION = "us-east-1"


def remove_sockets(*ports: int) -> None:
    """Remove the socket files that SeaweedFS leaves."""
    for port in ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            path.unlink(missing_ok=True)


def accounts() -> str:
    """SeaweedFS's configuration of :data:`ACCOUNT`, and of :data:`OPEN`."""
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": ACCOUNT.key, "secretKey": ACCOUNT.secret}]
    account = {"name": ACCOUNT.key, "credentials": credentials, "actions": actions}
    anybody = {"name": "anonymous", "actions": [f"Write:{OPEN}"]}
    return json.dumps({"identities": [account, anybody]})


class S3:
    """A server in a folder.

    :ivar url: its address
    """

    def __init__(self, folder: Path, volumes: int = 100) -> None:
        """
        :param volumes: it has at most; an S3 bucket that is written to takes several
        :raises SkipTest: SeaweedFS is not installed
        """
        program = found("weed", "SeaweedFS")
        folder.mkdir()
        config = folder / "s3.json"
        config.write_text(accounts())
        parts = ("master", "volume", "filer", "s3")
        places = [
            name for part in parts for name in (f"{part}.port", f"{part}.port.grpc")
        ]
        ports = dict(zip(places, free_ports(len(places)), strict=True))
        self._ports = ports.values()
        self.url = f"http://127.0.0.1:{ports['s3.port']}"
        self._program = Program(
            "weed",
            folder,
            [
                *(program, "server", f"-dir={folder}", "-ip=127.0.0.1"),
                *("-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={config}"),
                *("-s3.iam.readOnly=false", "-s3.port.iceberg=0"),
                *("-s3.port.lance=0", f"-volume.max={volumes}"),
                *("-master.volumeSizeLimitMB=64", "-volume.port.public=0"),
                *(f"-{name}={port}" for name, port in ports.items()),
            ],
            lambda: refuses(self.url),
        )
        self._program.begin()

    def wait(self) -> None:
        """Wait until it answers."""
        self._program.wait()

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._program.send(number)

    def stop(self) -> None:
        """Stop it, without waiting for what it writes."""
        self._program.kill()
        remove_sockets(*self._ports)

    def call(
        self,
        who: Credentials,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        **headers: str,
    ) -> tuple[int, bytes]:
        """Call its API; see :func:`call`."""
        return call(self.url, who, method, path, query, body, **headers)


@cache
def shared() -> S3:
    """A server that runs until this process ends.

    :raises SkipTest: SeaweedFS is not installed
    """
    folder = Path(mkdtemp(prefix="file-bucket-s3-"))
    atexit.register(rmtree, folder, ignore_errors=True)
    server = S3(folder / "s3")
    atexit.register(server.stop)
    server.wait()
    return server


def call(
    url: str,
    who: Credentials,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    body: bytes = b"",
    **headers: str,
) -> tuple[int, bytes]:
    """Call the API of a server, with Signature Version 4.

    :param url: its address
    :param headers: with underscores in place of hyphens
    :returns: status and content
    """
    path = quote(path)
    query_text = urlencode(sorted((query or {}).items()), quote_via=quote)
    now = datetime.now(UTC)
    at, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    signed = {
        "content-md5": b64encode(_md5(body)).decode(),
        "host": urlsplit(url).netloc,
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
        f"{url}{path}?{query_text}",
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


def create(url: str, bucket: str) -> None:
    """Create a bucket, without versions; everybody may write to :data:`OPEN`."""
    acl = "public-read-write" if bucket == OPEN else "private"
    status, answer = call(url, ACCOUNT, "PUT", f"/{bucket}", x_amz_acl=acl)
    if status != 200:
        raise AssertionError(f"{bucket}: {status} {answer.decode()}")


def keys(url: str, who: Credentials, bucket: str, prefix: str = "") -> Iterator[str]:
    """All keys of a bucket that begin with this."""
    query = {"list-type": "2", "prefix": prefix}
    while True:
        status, page = call(url, who, "GET", f"/{bucket}", query)
        if status != 200:
            raise RuntimeError(f"{status} to a list of {bucket}: {page.decode()}")
        root = ElementTree.fromstring(page)
        for each in root.iterfind(".//{*}Key"):
            yield each.text or ""
        token = root.findtext("{*}NextContinuationToken")
        if token is None:
            return
        query["continuation-token"] = token


def _md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()
