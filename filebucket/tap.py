"""The twistd plugin: :class:`Options` and :func:`makeService`."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from filebucket.admin.site import CONNECTIONS
from filebucket.base.errors import ConfigError
from filebucket.base.threads import Threads
from filebucket.config import config as configuration
from filebucket.config.load import parse, read_text
from filebucket.config.values import LOG_FORMATS
from filebucket.daemon import logs
from filebucket.daemon.applied import identity
from filebucket.daemon.compose import make_daemon
from filebucket.daemon.process import (
    OWN_DESCRIPTORS,
    find_capacity,
    keep_freed_memory,
)

log = Logger()


class Options(usage.Options):
    """The options of ``twistd filebucket``."""

    synopsis = "[--config FILE] [--log-format FORMAT]"
    longdesc = "Receive backups over HTTP: a write-only backup drop."
    optParameters = (
        ("config", "c", configuration.DEFAULT_CONFIG, "Configuration file (JSON)."),
        ("log-format", None, None, "text or json; overrides the configuration."),
    )

    def postOptions(self) -> None:
        if self["log-format"] not in (None, *LOG_FORMATS):
            raise usage.UsageError("--log-format: must be text or json")


def makeService(options: Mapping[str, Any]) -> IService:
    """Compose the daemon as a twistd service."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing installs it

    # Twisted's timers follow the system clock. If it is set, all timeouts would expire
    # at once, or none for an hour.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    keep_freed_memory()
    path = os.path.abspath(options["config"])
    try:
        text = read_text(path)
        config = parse(text, path)
        own = OWN_DESCRIPTORS + (CONNECTIONS if config.admin else 0)
        capacity = find_capacity(config.max_connections, own)
        if capacity < config.max_connections:
            log.warn(
                "at most {count} connections are possible: the limit for open files"
                " is too low (LimitNOFILE, ulimit -n)",
                event="few-descriptors",
                count=capacity,
            )
        pool = partial(Threads, reactor)  # type: ignore[arg-type]
        daemon = make_daemon(
            reactor,
            pool,
            config,
            path,
            os.environ,
            capacity,
            time.time,
            identity(text),
        )
    except ConfigError as error:
        raise SystemExit(f"file-bucket: {error}") from None
    # All that is there now stays, so there is no garbage to be found among it: with
    # 100,000 buckets each full search would hold up all threads for 40 to 60 ms.
    gc.freeze()
    gc.enable()
    log_format = options.get("log-format") or config.log_format
    elsewhere = logs.is_elsewhere(getattr(options, "parent", None) or {})
    journal = logs.is_journal(sys.stdout, os.environ)
    if elsewhere:
        if log_format == "text":
            return daemon
        raise SystemExit(
            "file-bucket: a JSON log goes to standard output: run twistd with -n,"
            " and without --logfile, --logger and --syslog"
        )
    line_of = logs.json_line
    if log_format == "text":
        line_of = logs.untimed_line if journal else logs.text_line
    service = logs.Logs(sys.stdout, logs.with_priority(line_of) if journal else line_of)
    daemon.setServiceParent(service)
    return service
