"""Start three daemons that store files in the same buckets, on this machine.

An object store, PostgreSQL, and HAProxy in front of the daemons, all on loopback.
Ctrl-C ends all of it, and removes what was stored.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from twisted.trial.unittest import SkipTest

from filebucket.test.kit.cluster import ENGINES, NODES, Site, running
from filebucket.test.kit.server import TOKEN

LOOK_EVERY = 0.5
"""Seconds between looks at the daemons' logs."""


def main() -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES, nargs="?", default="seaweedfs")
    engine = parser.parse_args().engine
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="file-bucket-cluster-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.enter_context(suppress(KeyboardInterrupt))
        print("This takes up to a minute.")
        try:
            site = stack.enter_context(running(folder, engine))
        except SkipTest as error:
            sys.exit(f"{parser.prog}: {error}")
        stack.callback(print, "\nStopping, which takes some seconds.", flush=True)
        _welcome(site, folder)
        _follow(site)


def _welcome(site: Site, folder: Path) -> None:
    cluster = site.cluster
    lines = [
        "Push a file:      curl --fail-with-body -T README.rst \\",
        f"    http://127.0.0.1:{cluster.port}/{TOKEN}/",
        "The daemons' pages:",
        *(f"    {node:13} {url}" for node, url in cluster.pages.items()),
        f"{site.engine.says + ':':17} {' '.join(site.engine.urls)}",
        f"PostgreSQL:       127.0.0.1:{site.postgres.port}",
        "See the backups:  .venv/bin/filebucket status --config \\",
        f"    {folder / NODES[0]}/config.json",
        "Stop:             Ctrl-C",
    ]
    print("\n".join(lines), flush=True)


def _follow(site: Site) -> None:
    """Print the logs of the daemons."""
    seen = dict.fromkeys(NODES, 0)
    while True:
        for node, daemon in zip(NODES, site.cluster.daemons, strict=True):
            lines = daemon.log.splitlines()
            for line in lines[seen[node] :]:
                print(f"{node}: {line}", flush=True)
            seen[node] = len(lines)
        time.sleep(LOOK_EVERY)


if __name__ == "__main__":
    main()
