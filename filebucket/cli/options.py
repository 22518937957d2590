"""Arguments and options that commands share: types that are checked like values of the
configuration, completion, and access to the configuration and the catalogue.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta, tzinfo
from typing import Any, TypeVar

import click
from attrs import fields
from click.shell_completion import CompletionItem

from filebucket.base.errors import ConfigError, shown, suggestion
from filebucket.base.owner import become_owner_of, refused_hint
from filebucket.base.text import joined
from filebucket.catalogue.database import CatalogueError, Database
from filebucket.config import config as configuration
from filebucket.config import values
from filebucket.config.config import Config
from filebucket.config.load import load
from filebucket.model.bucket import Bucket, Keep
from filebucket.model.names import PRIVATE
from filebucket.store.choose import load_modules

D = TypeVar("D", bound=Database)


class _Value(click.ParamType):  # type: ignore[type-arg] # generic in newer ones
    """A value of the configuration, checked as there and passed on unchanged."""

    def __init__(self, name: str, check: Callable[[Any], object]) -> None:
        self.name = name
        self._check = check

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        try:
            self._check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


class _Size(_Value):
    """A size; a plain number is in bytes."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        number = int(value) if re.fullmatch("[0-9]{1,19}", value) else value
        return super().convert(number, param, ctx)


class _Duration(_Value):
    """A time span such as ``7d``, converted to seconds."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        return values.duration(super().convert(value, param, ctx))


class _Rate(_Size):
    """A rate such as ``50MiB`` or ``50MiB/s``, converted to bytes per second."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if isinstance(value, int):
            return value
        size = super().convert(value.removesuffix("/s"), param, ctx)
        return values.byte_count(size) or self.fail("must be more than 0", param, ctx)


class _Number(_Value):
    """A number, whole if it can be."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        try:
            number = float(value)
        except ValueError:
            self.fail("must be a number", param, ctx)
        found = super().convert(number, param, ctx)
        return int(found) if found.is_integer() else found


class _Rule(click.ParamType):  # type: ignore[type-arg] # generic in newer ones
    """A retention rule such as ``daily=14``, as a pair."""

    name = "rule"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        rule, _, count = value.partition("=")
        rules = [each.name for each in fields(Keep)]
        if rule not in rules or not re.fullmatch("[0-9]{1,9}", count):
            known = joined(rules, "or")
            self.fail(f"must be {known}, and a number, such as daily=14", param, ctx)
        try:
            return rule, values.count(int(count))
        except ValueError as error:
            self.fail(f"the number {error}", param, ctx)


NAME = _Value("name", values.bucket_name)
SIZE = _Size("size", values.byte_count)
RATE = _Rate("rate", values.byte_count)
DATE = _Value("date", values.moment)
LINE = _Value("text", values.line)
NETWORK = _Value("network", values.network_or_unix)
DURATION = _Duration("duration", values.duration)
SPAN = _Value("duration", values.duration)
PERIOD = _Value("duration", values.period)
SHARE = _Number("share", values.share)
FACTOR = _Number("factor", values.factor)
PATTERN = _Value("pattern", values.pattern)
ZONE = _Value("zone", values.zone)
KEEP = _Rule()
EXPECT = _Value("when", values.expectation)


def earliest(text: str, now: float, zone: tzinfo) -> float:
    """The time that ``--since`` gives, in seconds since the epoch: that of a date, of a
    timestamp, or of a duration ago.

    :param now: seconds since the epoch
    :param zone: time zone of a time without one
    :raises ValueError: it is none of these
    """
    with suppress(ValueError):
        return now - values.duration(text)
    try:
        if not re.match("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        at = datetime.fromisoformat(text)
        return (at.replace(tzinfo=zone) if at.tzinfo is None else at).timestamp()
    except ValueError:
        raise ValueError(
            'must be a time span such as "90m" or "7d", a date such as "2026-12-31" or'
            ' a time such as "2026-12-31 18:00"'
        ) from None


def end_of(text: str, now: float, zone: tzinfo) -> float:
    """The end of the day, second or duration that ``--at`` gives, in seconds since the
    epoch.

    :param now: seconds since the epoch
    :param zone: time zone of a time without one
    :raises ValueError: it is none of these
    """
    start = earliest(text, now, zone)
    if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        # Times are printed without fractions.
        return start + 1
    day = datetime.fromtimestamp(start, zone).replace(tzinfo=None)
    # Not 24 hours later: the clocks may change.
    return (day + timedelta(days=1)).replace(tzinfo=zone).timestamp()


def bucket_labels(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the label of a bucket."""
    with suppress(ConfigError):
        found = load(ctx.params.get("path") or configuration.DEFAULT_CONFIG)
        labels = [each.label for each in found.buckets]
        return [CompletionItem(each) for each in labels if each.startswith(incomplete)]
    return []


with_config = click.option(
    "--config",
    "-c",
    "path",
    default=configuration.DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    type=click.Path(),
    is_eager=True,
    help="Configuration file (JSON).",
)
with_buckets = click.argument(
    "buckets",
    metavar="BUCKET...",
    nargs=-1,
    required=True,
    shell_complete=bucket_labels,
)
with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(**values: Any) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(values, indent=2))


class UnknownBucketError(click.ClickException):
    """No bucket has this label. Unlike other wrong command lines, it is reported in one
    line, without the usage.
    """

    exit_code = 2


def chosen_buckets(config: Config, labels: Sequence[str]) -> list[Bucket]:
    """The buckets with these labels; all buckets if there are no labels.

    :raises UnknownBucketError: a label is unknown
    """
    known = {each.label: each for each in config.buckets}
    for label in labels:
        if label not in known:
            hint = suggestion(label, known)
            raise UnknownBucketError(f"there is no bucket {shown(label)}{hint}")
    return [each for each in config.buckets if not labels or each.label in labels]


@contextmanager
def open_catalogue(
    config: Config, kind: type[D], create: bool = False, keep: int | None = None
) -> Iterator[D]:
    """Open the catalogue. From here on, the process has the rights of the
    home's owner.

    :param kind: the interface to the catalogue
    :param create: whether to create a missing catalogue
    :param keep: a capability of root to keep
    :raises CatalogueError: the catalogue cannot be used
    """
    load_modules(config.store)
    hint = refused_hint(config.home)
    become_owner_of(config.home, PRIVATE, keep)
    try:
        if create:
            _check_home(config.home)
        with closing(kind.open(config.catalogue_place, create)) as catalogue:
            yield catalogue
    except CatalogueError as error:
        text = str(error)
        # A command may open it several times.
        if not text.startswith("the catalogue: "):
            if text == os.strerror(errno.EACCES):
                text += f"; {hint}"
            text = f"the catalogue: {text}"
        raise CatalogueError(text, error.damaged) from None


def _check_home(home: str) -> None:
    """Refuse to create a catalogue in a folder that is no home, such as the mount point
    of a disk that is not mounted.
    """
    try:
        os.stat(os.path.join(home, PRIVATE))
    except FileNotFoundError:
        reason = "no home, or no daemon has used it yet"
        raise CatalogueError(reason) from None
    except OSError as error:
        raise CatalogueError(error.strerror or "disk error") from None
