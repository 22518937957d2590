"""The contestants: how each is started, and how a file is pushed to it."""

from __future__ import annotations

import json
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from attrs import evolve, field, frozen

from bench.process import Process, run
from filebucket.test.kit.cluster import store

TOKEN = "c0ffee00c0ffee00c0ffee00c0ffee00"


@frozen
class Server:
    """A running server.

    :ivar path: the URL for a PUT, without the name
    :ivar form: the URL for a form, and the name of its file field
    :ivar kept: the folder in which files are stored
    :ivar curl: options that curl needs for it
    """

    process: Process
    port: int
    kept: Path
    path: str = "/"
    form: tuple[str, str] = ("/", "file")
    scheme: str = "http"
    curl: Sequence[str] = field(default=())

    @property
    def origin(self) -> str:
        """The URL without its path."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


Start: TypeAlias = Callable[[Path], Server]
"""Starts a server in an empty folder, and returns when it is ready."""


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def file_bucket(folder: Path, **config: Any) -> Server:
    """file-bucket, with ``config`` in addition to the required keys."""
    port = free_port()
    return _file_bucket(folder, port, host="127.0.0.1", port=port, **config)


def file_bucket_tls(folder: Path) -> Server:
    """file-bucket with its own TLS."""
    certificate(folder)
    port = free_port()
    listen = f"ssl:{port}:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem"
    plain = _file_bucket(folder, port, listen=[listen])
    return evolve(plain, scheme="https", curl=TLS_1_3)


def file_bucket_s3(urls: Sequence[str], **config: Any) -> Start:
    """file-bucket on an object store, with a bucket of its own each time.

    :param urls: the addresses of the gateways
    """

    def start(folder: Path) -> Server:
        # An object store needs a name, and keeps the files of the other rounds.
        bucket = {"name": f"bench-{secrets.token_hex(4)}", "token": TOKEN}
        given = store(folder, urls)
        return file_bucket(folder, buckets=[bucket], store=given, **config)

    return start


def _file_bucket(folder: Path, at: int, **config: Any) -> Server:
    whole = {"home": "kept", "buckets": [TOKEN], **config}
    (folder / "config.json").write_text(json.dumps(whole))
    process = Process(
        [sys.executable, "-m", "filebucket", "serve", "--config", "config.json"],
        folder / "file-bucket.log",
    )
    process.wait_for_line("ready on")
    path = f"/{TOKEN}/"
    return Server(process, at, folder / "kept" / TOKEN, path, (path, "file"))


def floor(tools: Path) -> Start:
    """The floor in C. It accepts PUTs only."""

    def start(folder: Path) -> Server:
        port = free_port()
        kept = folder / "kept"
        kept.mkdir()
        command = [str(tools / "floor"), str(port), str(kept)]
        process = Process(command, folder / "floor.log")
        process.wait_for_port(port)
        return Server(process, port, kept, "/token/")

    return start


def nginx(folder: Path) -> Server:
    """Debian's nginx with one worker and its DAV module."""
    return _nginx(folder, "", "http")


def nginx_tls(folder: Path) -> Server:
    """The same with TLS 1.3."""
    certificate(folder)
    tls = (
        "ssl_certificate cert.pem; ssl_certificate_key key.pem; ssl_protocols TLSv1.3;"
    )
    return _nginx(folder, tls, "https")


def _nginx(folder: Path, tls: str, scheme: str) -> Server:
    port = free_port()
    kept = folder / "kept"
    kept.mkdir()
    (folder / "nginx.conf").write_text(f"""
        user root;
        worker_processes 1;
        daemon off;
        pid {folder}/nginx.pid;
        error_log {folder}/nginx.log;
        events {{ worker_connections 4096; }}
        http {{
            access_log {folder}/access.log;
            client_max_body_size 0;
            client_body_temp_path {folder}/aside;
            server {{
                listen 127.0.0.1:{port} {"ssl" if tls else ""} backlog=1024;
                {tls}
                root {kept};
                location / {{ dav_methods PUT; }}
            }}
        }}""")
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = Process(command, folder / "nginx.out")
    process.wait_for_port(port)
    curl = TLS_1_3 if tls else ()
    return Server(process, port, kept, "/", ("/", "file"), scheme, curl)


def copyparty(folder: Path) -> Server:
    """copyparty with a write-only volume."""

    def command(port: int, kept: Path) -> Sequence[str]:
        return "copyparty", "-q", "-i127.0.0.1", f"-p{port}", f"-v{kept}::w"

    return _module(folder, command, form=("/", "f"))


def uploadserver(folder: Path) -> Server:
    """uploadserver, which accepts forms only."""

    def command(port: int, kept: Path) -> Sequence[str]:
        return "uploadserver", str(port), "--bind=127.0.0.1", f"--directory={kept}"

    return _module(folder, command, form=("/upload", "files"))


def wsgidav(folder: Path) -> Server:
    """wsgidav on cheroot, which accepts PUTs only."""

    def command(port: int, kept: Path) -> Sequence[str]:
        return (
            *("wsgidav.server.server_cli", "-qq", "--no-config", "--auth=anonymous"),
            *("--server=cheroot", "--host=127.0.0.1", f"--port={port}"),
            f"--root={kept}",
        )

    return _module(folder, command)


def _module(
    folder: Path,
    command: Callable[[int, Path], Sequence[str]],
    form: tuple[str, str] = ("/", "file"),
) -> Server:
    """A server that is a module of this Python."""
    port = free_port()
    kept = folder / "kept"
    kept.mkdir()
    process = Process(
        [sys.executable, "-m", *command(port, kept)],
        folder / "server.log",
        # copyparty keeps its settings in the user's folder.
        {"XDG_CONFIG_HOME": str(folder), "HOME": str(folder)},
    )
    process.wait_for_port(port)
    return Server(process, port, kept, "/", form)


TLS_1_3 = ("--insecure", "--tlsv1.3")


def certificate(folder: Path) -> None:
    """A self-signed certificate and its key of the usual kind: EC, P-256."""
    run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days=2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj=/CN=localhost"),
            *(f"-keyout={folder}/key.pem", f"-out={folder}/cert.pem"),
        ]
    )
