"""Blocks of the documents that are recognized: configurations, units, crontabs
and servers of nginx.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs

from filebucket.config import load
from filebucket.config.config import Config

_DIGEST = "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"
_BUCKET = {"name": "web01", "token_sha256": _DIGEST}

_KEYS = {each.name for each in attrs.fields(Config)}
_BUCKET_KEYS = {each.name for each in attrs.fields(load._BucketObject)}

JOB = re.compile(
    r"^(?P<times>(?:[\d*/,-]+ +){5})(?:root +)?(?P<command>\S.*)", re.MULTILINE
)
"""A line of a crontab, which may have a user."""


def recognized(text: str) -> bool:
    """Whether a test checks all blocks of this kind."""
    kinds = (is_unit, is_crontab, is_nginx)
    return bool(configurations(shortened(text))) or any(is_(text) for is_ in kinds)


def objects(text: str) -> dict[str, Any]:
    """The object that this JSON is, or is a part of.

    :raises ValueError: it is no JSON
    """
    found: dict[str, Any] = json.loads(text if text[:1] == "{" else f"{{{text}}}")
    return found


def configurations(text: str) -> list[dict[str, Any]]:
    """The whole configurations that a block can be part of: keys of the configuration,
    a bucket, or keys of one. None if it is something else.
    """
    try:
        given = objects(text)
    except ValueError:
        return []
    keys = set(given)
    found = []
    if keys and keys <= _KEYS:
        found.append({"home": "/srv/backups", "buckets": [_BUCKET], **given})
    if keys and keys <= _BUCKET_KEYS:
        bucket = (
            given
            if {"token_sha256", "tokens", "token"} & keys
            else {**_BUCKET, **given}
        )
        found.append({"home": "/srv/backups", "buckets": [bucket]})
    return found


def shortened(text: str) -> str:
    """With SHA-256 sums instead of shortened ones, all different."""
    numbers = iter(range(100))
    return re.sub(
        r'("token_sha256": *)"[0-9a-f]*(?:…|\.\.\.)"',
        lambda match: f'{match[1]}"{next(numbers):064x}"',
        text,
    )


def is_unit(text: str) -> bool:
    """Whether it is a unit of systemd, or a drop-in of one."""
    return re.match(r"\[(Unit|Service|Timer|Socket)\]\n", text) is not None


def is_nginx(text: str) -> bool:
    """Whether it is a server or a location of nginx."""
    return re.match(r"(?:server|location [^\n]*) \{\n", text) is not None


def nginx_server(text: str, folder: Path, port: int) -> str:
    """A server with this text that can start on this machine.

    :param folder: has key.pem and cert.pem
    """
    if text.startswith("location"):
        text = f"server {{ listen 80; {text} }}"
    text = re.sub(r"listen [^ ;]+", f"listen 127.0.0.1:{port}", text)
    text = re.sub(r"(ssl_certificate +)[^;]+", rf"\1{folder}/cert.pem", text)
    text = re.sub(r"(ssl_certificate_key +)[^;]+", rf"\1{folder}/key.pem", text)
    return re.sub(r"(auth_basic_user_file +)[^;]+", rf"\1{folder}/htpasswd", text)


def files_of_unit(name: str, text: str) -> dict[str, str]:
    """Files for ``systemd-analyze verify``. A part of a unit belongs to file-bucket's.

    :param name: of the unit
    """
    if text.startswith("[Socket]"):
        return {f"file-bucket.socket.d/{name}.conf": text}
    if "[Timer]" in text:
        service = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
        return {f"{name}.timer": text, f"{name}.service": service}
    if "ExecStart=" in text:
        # Of a template, which has %i.
        at = "@x" if "%i" in text else ""
        return {f"{name}{at}.service": installed(text)}
    return {f"file-bucket.service.d/{name}.conf": text}


def installed(unit: str) -> str:
    """A unit whose program exists on this machine."""
    return re.sub(r"/(?:usr|opt/file-bucket)/bin/filebucket[\w-]*", "/bin/true", unit)


def is_crontab(text: str) -> bool:
    """Whether each line is a setting, or a command at its times."""
    lines = text.splitlines()
    jobs = [each for each in lines if JOB.match(each)]
    others = [each for each in lines if each not in jobs]
    return bool(jobs) and all(re.match("[A-Z_]+=", each) for each in others)


def shape(text: str) -> str:
    """An output without what differs from run to run: times, sizes, tokens, widths."""
    for pattern, word in (
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d{4})?", "TIME"),
        (r"\d{4}-\d\d-\d\d", "DATE"),
        (r"\b\d{4}-\d\d\b", "MONTH"),
        (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "TIME"),
        (r"\b[\d.]+ (?:[KMGT]i)?B\b", "SIZE"),
        (r"\b\d+ ?\w+ ago\b|\bjust now\b", "AGO"),
        (r"(?<![\w-])[\w-]{32}(?![\w-])", "TOKEN"),
        (r"\b[0-9a-f]{16}\b", "REQUEST"),
        (r"\b\d+\.\d+\.\d+\.\d+:\d+\b", "ADDRESS"),
        (r"\b[0-9a-f]{4}(?:[0-9a-f]{56}|…)[0-9a-f]{4}\b", "DIGEST"),
        (r"\btoken [0-9a-f]{6}\b", "token N"),
        (r"\b\d+\.\d{3}\b", "SECONDS"),
        (r"\s+", " "),
    ):
        text = re.sub(pattern, word, text)
    return text.strip()
