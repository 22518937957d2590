"""The kinds of values in the configuration: a type for each, and a check that converts
the JSON value.

A check raises ValueError with the mistake in a few words; :mod:`filebucket.config.load`
adds the place. The message must not contain the value, which may be a token.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import zoneinfo
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, NewType, TypeAlias
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError

from filebucket.base.text import UNITS, counted, printable
from filebucket.config.endpoint import plain_path
from filebucket.model import client, names
from filebucket.model.bucket import FreeSpace
from filebucket.model.client import IPNetwork
from filebucket.model.objects import LEAST_PART, MOST_PART
from filebucket.model.schedule import Cron, Expectation, Interval, Schedule, Zone
from filebucket.model.token import TOKEN_CHARACTERS, TOKEN_LENGTH

TokenText = NewType("TokenText", str)
Sha256Hex = NewType("Sha256Hex", str)
BucketName = NewType("BucketName", str)
NodeName = NewType("NodeName", str)
Host = NewType("Host", str)
Path = NewType("Path", str)
Port = NewType("Port", int)
ByteCount = NewType("ByteCount", int)
Seconds = NewType("Seconds", float)
Count = NewType("Count", int)
Flag = NewType("Flag", bool)
LogFormat = NewType("LogFormat", str)
Moment = NewType("Moment", float)
"""Seconds since the epoch."""
Duration = NewType("Duration", float)
"""Seconds."""
Period = NewType("Period", float)
"""Seconds, more than 0."""
DurationOrOff = NewType("DurationOrOff", float)
"""Seconds; 0 is off."""
Share = NewType("Share", float)
Factor = NewType("Factor", float)
Pattern = NewType("Pattern", str)
Line = NewType("Line", str)
"""A line for people."""
Url = NewType("Url", str)
Network: TypeAlias = IPNetwork | Literal["unix"]

_SURROGATE = re.compile("[\ud800-\udfff]")

once = lru_cache(maxsize=1024)
"""Parse the same text only once: many buckets have the same sizes, times and networks,
and then share the result, too."""


def text(value: Any, _: Any = None) -> str:
    """A string that can be a path or a part of one."""
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if not value:
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("contains a NUL character")
    if not value.isascii() and _SURROGATE.search(value):
        raise ValueError("contains half of a surrogate pair")
    return value


def path(value: Any, _: Any = None) -> str:
    """A path without shell expansions."""
    found = text(value)
    plain_path(found)
    return found


def token(value: Any, _: Any = None) -> str:
    """A token."""
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if len(value) != TOKEN_LENGTH:
        raise ValueError(
            f"not a valid token: {counted(len(value), 'character')},"
            f" expected {TOKEN_LENGTH}"
        )
    if not TOKEN_CHARACTERS.issuperset(value):
        raise ValueError(
            "not a valid token: it may contain only letters, digits, '-' and '_'"
        )
    return value


def sha256_hex(value: Any, _: Any = None) -> str:
    """A SHA-256 in hex, in lower case."""
    found = text(value).lower()
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise ValueError("must be a SHA-256 of 64 hex digits")
    return found


def bucket_name(value: Any, _: Any = None) -> str:
    """A bucket's name, which is also its folder's name."""
    found = text(value)
    names.check(found)
    return found


def node_name(value: Any, _: Any = None) -> str:
    """The name of a daemon, which is one of several."""
    found = bucket_name(value)
    if printable(found) != found:
        raise ValueError("contains an invisible character")
    return found


def _whole_number(value: Any, least: int, most: int) -> int:
    # In Python bool is an int; in the file it is not.
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a whole number")
    if not least <= value <= most:
        raise ValueError(f"must be from {least} to {most}")
    return value


def port(value: Any, _: Any = None) -> int:
    """A TCP port; 0 is any free port."""
    return _whole_number(value, 0, 65535)


_MOST_BYTES = 2**63 - 1
_SIZE = re.compile(r"(?P<number>[0-9]{1,19}(?:\.[0-9]{1,9})?) ?(?P<unit>[kKMGTP]?i?B)")


def byte_count(value: Any, _: Any = None) -> int:
    """A number of bytes, or a string such as ``20 GiB``."""
    if not isinstance(value, str):
        if isinstance(value, int) and not isinstance(value, bool):
            return _whole_number(value, 0, _MOST_BYTES)
        raise ValueError('must be a number of bytes or a size such as "20 GiB"')
    return _size(value)


@once
def _size(value: str) -> int:
    match = _SIZE.fullmatch(value)
    if match is None or match["unit"] not in UNITS:
        raise ValueError(
            f'must be a size such as "20 GiB"; the units are {", ".join(UNITS)}'
        )
    size = int(Fraction(match["number"]) * UNITS[match["unit"]])
    if size > _MOST_BYTES:
        raise ValueError(f"must be at most {_MOST_BYTES} bytes")
    return size


def part_size(value: Any, _: Any = None) -> int:
    """The size of a part of a multipart upload, in bytes."""
    found = byte_count(value)
    if not LEAST_PART <= found <= MOST_PART:
        raise ValueError('must be from "5 MiB" to "512 MiB"')
    return found


def url(value: Any, _: Any = None) -> str:
    """The URL of a server, without a path."""
    found = text(value)
    try:
        parts = urlsplit(found)
        rest = parts.path, parts.query, parts.fragment, parts.username, parts.password
        parts.port  # noqa: B018 - raises ValueError
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError('must be a URL such as "https://s3.example.org"')
    if any(rest) or not found.isascii() or not found.isprintable():
        raise ValueError("must have no path, query or credentials")
    return found


def s3_bucket(value: Any, _: Any = None) -> str:
    """The name of an S3 bucket."""
    found = text(value)
    if not re.fullmatch("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", found):
        raise ValueError(
            "must be 3 to 63 lower-case letters, digits, dots and hyphens, as the name"
            " of an S3 bucket"
        )
    return found


def s3_prefix(value: Any, _: Any = None) -> str:
    """What the keys of objects begin with; empty, or ends with a slash."""
    if value == "":
        return ""
    found = text(value)
    if not re.fullmatch("([A-Za-z0-9_-]{1,64}/){1,4}", found):
        raise ValueError('must be empty, or as "backups/", and end with a slash')
    return found


def s3_region(value: Any, _: Any = None) -> str:
    """The name of a region."""
    found = text(value)
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", found):
        raise ValueError('must be the name of a region such as "us-east-1"')
    return found


_PERCENT = re.compile(r"(?P<number>[0-9]{1,3}(?:\.[0-9]{1,9})?) ?%")


def free_space(value: Any, _: Any = None) -> FreeSpace:
    """As :func:`byte_count`, or a share such as ``5 %``."""
    if isinstance(value, str) and value.endswith("%"):
        match = _PERCENT.fullmatch(value)
        if match is None or Fraction(match["number"]) > 100:
            raise ValueError('must be a percentage such as "5 %"')
        return FreeSpace(share=Fraction(match["number"]) / 100)
    try:
        return FreeSpace(bytes=byte_count(value))
    except ValueError as error:
        # Not if it is a number out of range.
        hint = ', or a percentage such as "5 %"' if "such as" in str(error) else ""
        raise ValueError(f"{error}{hint}") from None


def count(value: Any, _: Any = None) -> int:
    """A limit for a number of things."""
    return _whole_number(value, 1, 1_000_000)


def seconds(value: Any, _: Any = None) -> float:
    """A number of seconds, up to a week."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("must be a number of seconds")
    if not 0 < value <= 7 * 24 * 3600:
        raise ValueError("must be more than 0 and at most 604800 seconds")
    return float(value)


_SECONDS_OF = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def duration_or_off(value: Any, _: Any = None) -> float:
    """A duration in seconds, or 0."""
    return 0.0 if type(value) is int and value == 0 else duration(value)


def duration(value: Any, _: Any = None) -> float:
    """A duration such as ``26h``, in seconds."""
    match = re.fullmatch("([0-9]{1,6}) ?([smhdw])", text(value))
    if match is None:
        raise ValueError(
            'must be a time span such as "90s", "30m", "26h", "7d" or "2w"'
        )
    return float(int(match[1]) * _SECONDS_OF[match[2]])


def period(value: Any, _: Any = None) -> float:
    """A duration of more than 0, in seconds."""
    found = duration(value)
    if not found:
        raise ValueError("must be longer than 0")
    return found


def _number(value: Any, example: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"must be a number such as {example}")
    return float(value)


def share(value: Any, _: Any = None) -> float:
    """A share, from 0 to 1."""
    found = _number(value, "0.5")
    if not 0 <= found <= 1:
        raise ValueError("must be from 0 to 1")
    return found


def factor(value: Any, _: Any = None) -> float:
    """A factor of more than 1."""
    found = _number(value, "4")
    if not 1 < found <= 1_000_000:
        raise ValueError("must be more than 1 and at most 1000000")
    return found


# A character set of a pattern.
_BRACKETS = re.compile(r"\[!?\]?[^\]]*\]")


def pattern(value: Any, _: Any = None) -> str:
    """A shell pattern for names."""
    found = text(value)
    if not found.isprintable():
        raise ValueError("contains a control character")
    if "/" in _BRACKETS.sub("", found):
        raise ValueError("contains a '/', which no file name contains")
    return found


LONGEST_LINE = 200
"""Characters of a comment or a reason."""


def line(value: Any, _: Any = None) -> str:
    """A line of text for people."""
    found = text(value)
    if printable(found) != found:
        raise ValueError("contains a line break or an invisible character")
    if len(found) > LONGEST_LINE:
        raise ValueError(f"must be at most {LONGEST_LINE} characters")
    return found


def flag(value: Any, _: Any = None) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def moment(value: Any, _: Any = None) -> float:
    """The end of a day in UTC, or an RFC 3339 time."""
    found = text(value)
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", found):
            day = datetime.date.fromisoformat(found) + datetime.timedelta(days=1)
            start = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
            return start.timestamp()
        # fromisoformat accepts more than that, such as 20261231.
        if re.fullmatch(r"[0-9-]{10}[T ][0-9:.]{8,15}(Z|[+-][0-9:]{5})", found):
            moment = datetime.datetime.fromisoformat(found)
            return moment.astimezone(datetime.UTC).timestamp()
    except OverflowError:
        raise ValueError("out of range; the last date is 9999-12-30") from None
    except ValueError:
        pass
    raise ValueError(
        'must be a date such as "2026-12-31" or a time such as "2026-12-31T18:00:00Z"'
    )


@once
def expectation(text: str) -> Expectation:
    """Parse a duration such as ``26h``, or the five fields of a cron schedule.

    :raises ValueError: it is neither
    """
    if len(text.split()) > 2:
        return Schedule(cron(text))
    try:
        duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or the five fields of a cron schedule") from None
    return Interval(period(text), text)


def cron(text: str) -> Cron:
    """Check the five fields of a cron schedule.

    :raises ValueError: the schedule is not valid, or never matches
    """
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"a cron schedule has 5 fields, not {len(fields)}")
    try:
        # Any start will do: CronSim looks 50 years ahead.
        next(
            CronSim(
                " ".join(fields), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
            )
        )
    except CronSimError as error:
        raise ValueError(f"not a valid cron schedule: {str(error).lower()}") from None
    except StopIteration:
        raise ValueError("this cron schedule never matches") from None
    return Cron(" ".join(fields))


def zone(name: str) -> Zone:
    """The name of a time zone.

    :raises ValueError: there is no such time zone
    """
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError('must be a time zone such as "Europe/Berlin"') from None
    return Zone(name)


LOG_FORMATS = ("text", "json")


def log_format(value: Any, _: Any = None) -> str:
    """The format of log lines."""
    if value not in LOG_FORMATS:
        raise ValueError(f"must be one of {', '.join(LOG_FORMATS)}")
    return str(value)


def host(value: Any, _: Any = None) -> str:
    """An IP address to listen on."""
    found = text(value)
    try:
        ipaddress.ip_address(found)
    except ValueError:
        if found != "localhost":
            raise ValueError("must be an IP address or localhost") from None
    return found


def network_or_unix(value: Any, _: Any = None) -> Network:
    """A network, or ``unix``."""
    found = text(value)
    return "unix" if found == "unix" else _network(found)


_network = once(client.network)


CHECKS: Mapping[Any, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        TokenText: token,
        Sha256Hex: sha256_hex,
        BucketName: bucket_name,
        NodeName: node_name,
        Host: host,
        Path: path,
        Port: port,
        ByteCount: byte_count,
        FreeSpace: free_space,
        Seconds: seconds,
        Count: count,
        LogFormat: log_format,
        Flag: flag,
        Moment: moment,
        Duration: duration,
        Period: period,
        DurationOrOff: duration_or_off,
        Share: share,
        Factor: factor,
        Pattern: pattern,
        Line: line,
        Network: network_or_unix,
        Url: url,
    }
)
"""The check of each type."""
