"""nginx before the daemon."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SkipTest

from filebucket.test.kit.server import PATIENCE, comes, listens
from filebucket.test.kit.tree import TREE


def shipped(name: str, changes: Mapping[str, str]) -> str:
    """A configuration in ``contrib/``, with replacements.

    Of nginx's, what its first lines tell about an older nginx is done.
    """
    path = TREE / "contrib" / name
    if not path.exists():
        raise SkipTest("the documentation is not there")
    text = path.read_text()
    for old, new in changes.items():
        if old not in text:
            raise AssertionError(f"{name} has no {old}")
        text = text.replace(old, new)
    if name == "nginx.conf" and _version() < (1, 25, 1):
        text = text.replace("    http2 on;\n", "").replace(" ssl;", " ssl http2;")
    return text


def _version() -> tuple[int, ...]:
    shown = subprocess.run(
        ["nginx", "-v"], check=True, capture_output=True, text=True, timeout=PATIENCE
    ).stderr
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", shown)
    assert found is not None
    return tuple(map(int, found.groups()))


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
    """Run nginx with the shipped configuration, without TLS, on a port of this machine.

    :param backend: URL of the daemon
    :param limit: its ``client_max_body_size``
    """
    site = shipped(
        "nginx.conf",
        {
            "listen 443 ssl;": f"listen 127.0.0.1:{port};",
            "    listen [::]:443 ssl;\n": "",
            "    ssl_certificate ": "    #",
            "    ssl_certificate_key ": "    #",
            "/var/log/nginx/error.log": f"{folder}/error.log",
            "http://127.0.0.1:1234": backend,
            "client_max_body_size 0": f"client_max_body_size {limit}",
        },
    )
    process = subprocess.Popen(
        nginx_command(folder, site),
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
