"""The settings of a bucket as options, for ``bucket add`` and ``bucket set``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from attrs import frozen

from filebucket.cli.options import (
    DATE,
    EXPECT,
    FACTOR,
    KEEP,
    LINE,
    NETWORK,
    PATTERN,
    PERIOD,
    SHARE,
    SIZE,
    SPAN,
    ZONE,
)
from filebucket.config import values

F = TypeVar("F", bound=Callable[..., Any])


@frozen
class Setting:
    """A setting, as an option.

    :param key: its key in the configuration; the option has dashes
    :param kind: type of the value; None is a flag
    :param metavar: the value in the help
    :param many: whether the option can be repeated
    :param of: the key of the object that contains it, if it is not the bucket
    """

    key: str
    kind: click.ParamType | None  # type: ignore[type-arg] # generic in newer ones
    metavar: str
    help: str
    many: bool = False
    of: str = ""

    @property
    def option(self) -> str:
        return f"--{self.key.replace('_', '-')}"


SETTINGS = (
    Setting("expires", DATE, "DATE", "Expiry date of the token."),
    Setting("quota", SIZE, "SIZE", "Limit for the whole bucket, such as 1TB."),
    Setting("max_file_size", SIZE, "SIZE", "Limit for a single file, such as 20GiB."),
    Setting("min_file_size", SIZE, "SIZE", "Refuse smaller files, such as 1KiB."),
    Setting(
        "allow_from",
        NETWORK,
        "NET",
        "Network that may push, such as 192.0.2.0/24, or unix.",
        many=True,
    ),
    Setting("overwrite", None, "", "Allow a push to replace a file."),
    Setting(
        "expect", EXPECT, "WHEN", 'When pushes are due, such as 26h or "30 2 * * *".'
    ),
    Setting(
        "grace",
        SPAN,
        "TIME",
        "How late a push may be after a cron time, such as 2h.",
        of="expect",
    ),
    Setting(
        "timezone",
        ZONE,
        "ZONE",
        "Time zone of a cron schedule, such as Europe/Berlin.",
        of="expect",
    ),
    Setting(
        "series",
        PATTERN,
        "PATTERN",
        "Pattern that groups file names into a series.",
        many=True,
    ),
    Setting(
        "shrink_alert",
        SHARE,
        "SHARE",
        "A push below this share of the usual size is shrunk.",
    ),
    Setting("grow_alert", FACTOR, "N", "A push above N times the usual size is grown."),
    Setting("keep", KEEP, "RULE=N", "Retention rule, such as daily=14.", many=True),
    Setting("hold", SPAN, "TIME", "Do not prune files younger than TIME, such as 30d."),
    Setting(
        "drill",
        PERIOD,
        "TIME",
        "Time within which a restore test must pass, such as 30d.",
    ),
    Setting("comment", LINE, "TEXT", "One line, which alerts and the status show."),
)
"""All settings, in the order of the help."""


class _Key(click.Choice):  # type: ignore[type-arg] # generic in newer ones
    """The key of a setting, with underscores or with dashes, as its option."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        return super().convert(value.replace("-", "_"), param, ctx)


KEY = _Key([each.key for each in SETTINGS if not each.of])


def with_settings(command: F) -> F:
    """Add the options of all settings."""
    for each in reversed(SETTINGS):
        more: dict[str, Any] = {"type": each.kind, "metavar": each.metavar}
        option = each.option
        text = each.help
        if each.kind is None:
            option = f"{option}/--no-{option[2:]}"
            more = {"default": None}
        elif each.many:
            more["multiple"] = True
            text = f"{text[:-1]}; can be repeated."
        command = click.option(option, each.key, help=text, **more)(command)
    return command


def given_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the command line has, as in the file.

    :param options: values by key; None or empty if the option is not given
    :raises click.UsageError: options do not fit together, or a date is over
    """
    expires = options["expires"]
    if expires is not None and values.moment(expires) <= time.time():
        raise click.BadParameter("is in the past", param_hint="--expires")
    found: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for each in SETTINGS:
        value = options[each.key]
        if value in (None, ()):
            continue
        if each.of:
            inner.setdefault(each.of, {})[each.key] = value
        else:
            found[each.key] = list(value) if each.many else value
    if "keep" in found:
        found["keep"] = dict(found["keep"])
    if "expect" in inner:
        if len(str(found.get("expect", "")).split()) != 5:
            option = f"--{next(iter(inner['expect']))}"
            raise click.UsageError(f"{option} needs a cron schedule in --expect.")
        found["expect"] = {"cron": found["expect"], **inner["expect"]}
    return found
