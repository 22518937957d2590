"""nginx before the daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filebucket.test.kit.server import PATIENCE, comes, listens


@contextmanager
def nginx(folder: Path, port: int, backend: str, limit: str) -> Iterator[None]:
    """Run nginx on a port of this machine.

    :param backend: URL of the daemon
    :param limit: its ``client_max_body_size``
    """
    paths = "".join(
        f"{each}_temp_path {folder}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    site = (
        f"listen 127.0.0.1:{port}; client_max_body_size {limit};"
        f" location / {{ proxy_pass {backend}; proxy_request_buffering off;"
        " proxy_http_version 1.1; }"
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; pid {folder}/nginx.pid; worker_processes 1;"
        f" error_log {folder}/error.log crit; events {{}}"
        f" http {{ access_log off; {paths} server {{ {site} }} }}"
    )
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(main)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if not comes(lambda: listens(port)):
            raise AssertionError("nginx does not start")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
