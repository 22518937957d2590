"""nginx before the daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filebucket.test.kit.server import PATIENCE, comes, listens


def nginx_command(folder: Path, servers: str) -> list[str]:
    """The command that runs nginx with these ``server`` blocks.

    :param folder: holds all its files
    """
    paths = "".join(
        f"{each}_temp_path {folder}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; pid {folder}/nginx.pid; worker_processes 1;"
        f" error_log {folder}/error.log crit;"
        f" events {{}} http {{ access_log off; {paths} {servers} }}"
    )
    return ["nginx", "-p", str(folder), "-c", str(main)]


@contextmanager
def nginx(folder: Path, port: int, backend: str, limit: str) -> Iterator[None]:
    """Run nginx on a port of this machine.

    :param backend: URL of the daemon
    :param limit: its ``client_max_body_size``
    """
    site = (
        f"listen 127.0.0.1:{port}; client_max_body_size {limit};"
        f" location / {{ proxy_pass {backend}; proxy_request_buffering off;"
        " proxy_http_version 1.1; }"
    )
    process = subprocess.Popen(
        nginx_command(folder, f"server {{ {site} }}"),
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
