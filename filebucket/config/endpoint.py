"""Endpoint strings: where to listen.

They have Twisted's syntax: a type, then arguments between colons, positional or as
``key=value``. A backslash escapes a colon, an equals sign or a backslash. The prefix
``haproxy:`` means that each connection begins with a PROXY header. They are parsed here
and not by Twisted, so that every mistake is reported before anything is opened, and so
that other checks can use the parsed values.

This module opens no file and no socket: a daemon that can no longer read its TLS key
must still be able to reload its buckets.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping

from attrs import evolve, field, frozen

from filebucket.base.errors import shown
from filebucket.base.text import joined

_TOKENS = re.compile(r"(\\.?)|([:=])|([^\\:=]+)", re.DOTALL)

_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port",
        "privateKey",
        "certKey",
        "sslmethod",
        "interface",
        "backlog",
        "extraCertChain",
        "dhParameters",
        "clientCA",
    ),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}
"""The arguments of each type: Twisted's, in its order, then our own."""

_PROXIED = "haproxy"

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "tcp": ("port",),
    "tcp6": ("port",),
    "ssl": ("port", "privateKey"),
    "unix": ("address",),
    "systemd": ("domain",),
}

_REFUSED: Mapping[str, str] = {
    "sslmethod": "is not supported: TLS 1.2 and newer are always enabled",
    "dhParameters": "is not supported: keys are exchanged on elliptic curves",
}

_PATHS = frozenset({"privateKey", "certKey", "extraCertChain", "clientCA", "address"})


@frozen
class Endpoint:
    """An endpoint to listen on.

    :param kind: ``tcp``, ``tcp6``, ``ssl``, ``unix`` or ``systemd``
    :param arguments: the given arguments, by Twisted's names
    :param text: the string as the operator wrote it
    :param proxied: whether each connection begins with a PROXY header
    """

    kind: str
    arguments: Mapping[str, str]
    text: str = field(eq=False)
    proxied: bool = False

    def in_folder(self, folder: str) -> Endpoint:
        """The same endpoint with relative paths resolved from ``folder``."""
        return evolve(
            self,
            arguments={
                key: os.path.normpath(os.path.join(folder, value))
                if key in _PATHS
                else value
                for key, value in self.arguments.items()
            },
        )

    def same_place(self, other: Endpoint) -> bool:
        """Whether both have the same port, on any address, or the same socket."""
        if "port" in self.arguments and "port" in other.arguments:
            return self.arguments["port"] == other.arguments["port"] != "0"
        place = self.kind, self.arguments.get("address"), self.arguments.get("name")
        its = other.kind, other.arguments.get("address"), other.arguments.get("name")
        return place == its and self.arguments.get("index") == other.arguments.get(
            "index"
        )

    @property
    def reachable(self) -> bool:
        """Whether other machines may be able to connect."""
        if self.kind == "unix":
            return False
        if self.kind == "systemd":
            # Only systemd knows the address that it is bound to.
            return self.arguments["domain"] != "UNIX"
        return not is_loopback(self.arguments.get("interface", ""))


def tcp(host: str, port: int) -> Endpoint:
    """The endpoint for the configuration's ``host`` and ``port``."""
    kind = "tcp6" if ":" in host else "tcp"
    return Endpoint(
        kind, {"port": str(port), "interface": host}, f"{host}, port {port}"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``; empty is every address."""
    return host == "localhost" or (
        bool(host) and ipaddress.ip_address(host).is_loopback
    )


def parse_endpoint(text: str) -> Endpoint:
    """Read an endpoint string.

    :raises ValueError: all mistakes in it
    """
    first, _, rest = text.partition(":")
    proxied = first == _PROXIED
    (kind, *by_key), *pieces = _pieces(rest if proxied else text)
    if by_key or kind not in _ARGUMENTS:
        known = [*_ARGUMENTS, *([] if proxied else [_PROXIED])]
        given = shown("=".join((kind, *by_key)))
        raise ValueError(f"unknown type {given}; the known types are {joined(known)}")
    arguments, mistakes = _named(kind, pieces)
    for key, value in arguments.items():
        try:
            _CHECKS[key](value)
        except ValueError as error:
            mistakes.append(f"{key}: {error}")
    mistakes += [f"{key} is missing" for key in _NEEDED[kind] if key not in arguments]
    if kind == "tcp6" and ":" not in arguments.get("interface", ":"):
        mistakes.append("interface: must be an IPv6 address")
    if kind == "systemd" and ("index" in arguments) == ("name" in arguments):
        mistakes.append("must have exactly one of index and name")
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return Endpoint(kind, arguments, text, proxied)


def _pieces(text: str) -> list[list[str]]:
    """The parts between the colons: ``[value]``, or ``[key, value]``."""
    pieces = [[""]]
    for escaped, operator, plain in _TOKENS.findall(text):
        if escaped == "\\":
            raise ValueError("ends with a backslash")
        if operator == ":":
            pieces.append([""])
        elif operator == "=" and len(pieces[-1]) == 1:
            pieces[-1].append("")
        else:
            pieces[-1][-1] += escaped[1:] or operator or plain
    return pieces


def _named(kind: str, pieces: list[list[str]]) -> tuple[dict[str, str], list[str]]:
    """The arguments by name, and the mistakes in their names."""
    names = _ARGUMENTS[kind]
    known = [name for name in names if name not in _REFUSED]
    by_place = iter(names)
    arguments: dict[str, str] = {}
    mistakes: list[str] = []
    by_key = False
    for *key, value in pieces:
        if key:
            by_key = True
        elif by_key:
            mistakes.append(
                r"a value without a key after key=value; write a ':' in a value as '\:'"
            )
            break
        name = key[0] if key else next(by_place, None)
        if name is None:
            mistakes.append(f"has more than {len(names)} arguments")
            break
        if name in _REFUSED:
            mistakes.append(f"{name} {_REFUSED[name]}")
        elif name not in names:
            mistakes.append(
                f"unknown argument {shown(name)};"
                f" the known arguments are {joined(known)}"
            )
        elif name in arguments:
            mistakes.append(f"{name} is given twice")
        else:
            arguments[name] = value
    return arguments, mistakes


# Checks of values: each raises ValueError with the mistake in a few words.


def _number(least: int, most: int) -> Callable[[str], None]:
    def check(value: str) -> None:
        if not re.fullmatch("[0-9]{1,9}", value):
            raise ValueError("must be a whole number")
        if not least <= int(value) <= most:
            raise ValueError(f"must be from {least} to {most}")

    return check


def _one_of(*words: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in words:
            raise ValueError(f"must be {joined(words, 'or')}")

    return check


def _mode(value: str) -> None:
    if not re.fullmatch("0*[0-7]{1,3}", value):
        raise ValueError("must be an octal mode such as 660")


def _interface(value: str) -> None:
    if value in {"", "localhost"}:
        return
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address or localhost") from None


def plain_path(value: str) -> None:
    """Refuse a path that a shell would expand."""
    _filled(value)
    if value[0] in "~$":
        raise ValueError(
            f"begins with {value[0]!r}, which is not expanded here; write the"
            " whole path"
        )


def _filled(value: str) -> None:
    if not value:
        raise ValueError("must not be empty")


_CHECKS: Mapping[str, Callable[[str], None]] = {
    "port": _number(0, 65535),
    "interface": _interface,
    "backlog": _number(1, 65535),
    "privateKey": plain_path,
    "certKey": plain_path,
    "extraCertChain": plain_path,
    "clientCA": plain_path,
    "address": plain_path,
    "mode": _mode,
    "lockfile": _one_of("0", "1"),
    "domain": _one_of("INET", "INET6", "UNIX"),
    "index": _number(0, 65535),
    "name": _filled,
}
