"""How to push to a bucket with curl, from where the configuration says that it listens.

These lines are for a person to copy: they hold the token.
"""

from __future__ import annotations

import shlex
from ipaddress import ip_address

from attrs import frozen

from filebucket.config.config import Config
from filebucket.config.endpoint import Endpoint


@frozen
class Address:
    """Where curl connects.

    :param url: without a slash at its end
    :param options: what curl needs beside it, for a shell
    """

    url: str
    options: str = ""

    def lines(self, token: str) -> tuple[str, ...]:
        """Push with the token in the URL; keep it in a file; push with that. Nothing
        in a token means anything to a shell.
        """
        curl = f"curl{self.options}"
        return (
            f"{curl} -T FILE {self.url}/{token}/",
            "touch ~/.file-bucket && chmod 600 ~/.file-bucket",
            f"echo Authorization: Bearer {token} >~/.file-bucket",
            f"{curl} -H @$HOME/.file-bucket -T FILE {self.url}/",
        )


def address(config: Config, hostname: str) -> Address:
    """Where clients are most likely to connect: from other machines, by TLS.

    :param hostname: this machine's, where it listens on all its addresses
    """
    best = min(config.listen, key=_worse)
    if best.kind == "unix":
        path = shlex.quote(best.arguments["address"])
        return Address("http://localhost", f" --unix-socket {path}")
    scheme = "https" if best.kind == "ssl" else "http"
    interface = best.arguments.get("interface", "")
    port = best.arguments.get("port", "0")
    return Address(f"{scheme}://{_place(interface, port, hostname)}")


def _worse(endpoint: Endpoint) -> tuple[bool, bool, bool]:
    kind = endpoint.kind
    return not endpoint.reachable, kind != "ssl", kind in {"systemd", "unix"}


def _place(host: str, port: str, hostname: str) -> str:
    # Of port 0, and of a socket of systemd's, only the log tells where it is.
    port = "PORT" if port == "0" else port
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - not to listen on, but to show
        return f"{hostname}:{port}"
    if host != "localhost" and ip_address(host).version == 6:
        return f"[{host}]:{port}"
    return f"{host}:{port}"
