"""Make the pictures of the documents again: ``make pictures``.

A real daemon on loopback serves a made-up home with three weeks of backups. Chromium
takes page.png and drop.png, and terminal.svg is drawn from what the real commands print
in a terminal. Only the folder and the address of the daemon are replaced, by those that
an operator would have. Needs chromium, chromedriver, curl and pngquant.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from html import escape
from pathlib import Path
from random import Random
from typing import Any

from filebucket.catalogue.journal import Journal
from filebucket.config.load import load
from filebucket.model.records import Received, Space
from filebucket.model.series import series_of
from filebucket.test.kit.browser import Browser
from filebucket.test.kit.server import Server

HERE = Path(__file__).parent
HOUR = 3600.0
DAY = 24 * HOUR
MIB = 1 << 20
GIB = 1 << 30

WIDTH, HEIGHT = 1000, 712
"""CSS pixels of the page that are in the picture."""
COLUMNS = 92

BACKUPS: tuple[tuple[str, str, str, float, float], ...] = (
    ("web01", "db-{}.sql.gz", "26h", 1.2 * GIB, 3 * HOUR),
    ("web01", "etc-{}.tar.gz", "26h", 0.4 * MIB, 3 * HOUR),
    ("web02", "db-{}.sql.gz", "26h", 820 * MIB, 2 * HOUR),
    ("shop", "orders-{}.dump", "26h", 2.1 * GIB, 5 * HOUR),
    ("mail", "mail-{}.tar.zst", "26h", 3.4 * GIB, 54 * HOUR),
    ("git", "repos-{}.tar.gz", "8d", 240 * MIB, 20 * HOUR),
)
"""Bucket, name, schedule, usual size, and how long ago the last push was."""

SHRUNK = ("shop", 0.19)
"""The last backup of this bucket has this share of the usual size."""


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="filebucket-"))
    server = new_server(folder)
    try:
        fill(server)
        server.start()
        admin = server.wait_for(r"; admin: 127\.0\.0\.1:(\d+)")[1]
        photograph(f"http://127.0.0.1:{admin}/", HERE / "page.png")
        draw(session(server), HERE / "terminal.svg")
        photograph_drop(server, HERE / "drop.png")
    finally:
        if hasattr(server, "process"):
            server.process.terminate()
            server.process.wait()
        shutil.rmtree(folder)


def new_server(folder: Path) -> Server:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    schedules = {bucket: expect for bucket, _, expect, _, _ in BACKUPS}
    return Server(
        folder,
        port=port,
        admin="tcp:0:interface=127.0.0.1",
        page=True,
        min_free_space=0,
        buckets=[
            {"name": name, "token_sha256": sha256(name), "expect": expect}
            for name, expect in schedules.items()
        ],
    )


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fill(server: Server) -> None:
    """Make the files, which are sparse, and a catalogue that knows them."""
    (server.home / ".filebucket").mkdir(parents=True)
    buckets = load(str(server.config_file)).buckets
    known = {each.key: each for each in buckets}
    journal = Journal.open(str(server.home))
    everything = sorted(pushes(), key=lambda each: each.received_at)
    # The daemon finds one file by itself, and logs that: Server waits for the line.
    found = [each for each in everything if each.name.startswith("etc-")][-1]
    journal.record([each for each in everything if each != found], [], known.get)
    for each in everything:
        path = server.home / each.bucket / each.name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.truncate(path, each.size)
        os.utime(path, (each.received_at, each.received_at))
    disk = os.statvfs(server.home)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    for days in range(30, 0, -1):
        at = time.time() - days * DAY
        journal.note_space(Space(at, free + int(days * 0.4 * GIB), total))
    list(journal.watch(buckets, lambda name: name, time.time()))
    journal.close()


def pushes() -> Iterator[Received]:
    """The same ones at each call."""
    now = time.time() // HOUR * HOUR
    for bucket, name, expect, usual, age in BACKUPS:
        random = Random(name)
        step = 7 * DAY if expect.endswith("d") else DAY
        for count in range(int(20 * DAY / step), -1, -1):
            at = now - age - count * step + random.uniform(0, 600)
            size = usual * (1 - 0.004 * count) * random.uniform(0.97, 1.03)
            if (bucket, count) == (SHRUNK[0], 0):
                size = usual * SHRUNK[1]
            file = name.format(time.strftime("%F", time.localtime(at)))
            yield Received(
                bucket=bucket,
                series=series_of(file, ()),
                name=file,
                size=int(size),
                sha256=sha256(file),
                received_at=at,
                seconds=20.0,
                client="192.0.2.7:54321",
                request="r",
            )


def photograph(url: str, path: Path) -> None:
    with closing(window(WIDTH, HEIGHT)) as browser:
        browser.open(url)
        browser.photograph(path, whole=False)
    quantize(path)


def window(width: int, height: int) -> Browser:
    browser = Browser()
    browser.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1.5,
        mobile=False,
    )
    browser.devtools("Emulation.setScrollbarsHidden", hidden=True)
    return browser


def photograph_drop(server: Server, path: Path) -> None:
    """The drop page while it sends the second of three files."""
    files = {"photos.zip": 2 * MIB, "scans.zip": 24 * MIB, "letter.pdf": 90_000}
    paths = [server.folder / name for name in files]
    for each in paths:
        each.write_bytes(Random(each.name).randbytes(files[each.name]))
    with closing(window(760, 900)) as browser:
        browser.open(f"{server.url}/")
        browser.type("#chooser", "\n".join(map(str, paths)))
        # The token of a bucket is its name here.
        browser.type("#token", "web02")
        browser.devtools(
            "Network.emulateNetworkConditions",
            offline=False,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=3 * MIB,
        )
        browser.click("#send")
        sending = "document.querySelector('.sending:nth-child(2) progress')"
        browser.wait(f"{sending}?.value > 0.5")
        # Tokens have 32 characters elsewhere.
        browser.run("document.getElementById('token').value = 'x'.repeat(32)")
        browser.photograph(path)
    quantize(path)


def quantize(path: Path) -> None:
    quant = ("pngquant", "--force", "--strip", "--ext=.png", "--speed=1", "128")
    subprocess.run([*quant, str(path)], check=True)


def session(server: Server) -> list[str]:
    """What a terminal shows, with its escapes: a bucket, a push, the state."""
    config = str(server.config_file)
    (server.folder / "db.sql.gz").write_bytes(Random(1).randbytes(3 * MIB))
    lines: list[str] = []

    def show(prompt: str, text: str, *command: str) -> str:
        shown = in_terminal(server.folder, *command)
        for real, told in (
            (f" --config {config}", ""),
            (str(server.folder), "/etc/file-bucket"),
            (f"127.0.0.1:{server.port}", "backup:1234"),
        ):
            shown = shown.replace(real, told)
        lines.extend([f"\x1b[32m{prompt}\x1b[0m \x1b[1m{text}\x1b[0m"])
        lines.extend([*shown.rstrip("\n").split("\n"), ""])
        return shown

    def operator(*words: str) -> str:
        main = f"import sys; sys.argv[0] = 'filebucket'; {IMPORT}; main()"
        command = (sys.executable, "-c", main, *words, "--config", config)
        return show("backup#", " ".join(("filebucket", *words)), *command)

    def client(url: str) -> None:
        real = url.replace("backup:1234", f"127.0.0.1:{server.port}")
        show("web03$", f"curl -T db.sql.gz {url}", "curl", "-T", "db.sql.gz", real)

    found = re.search(
        r"-T FILE \\\s+(\S+)", operator("bucket", "add", "web03", "--expect", "26h")
    )
    assert found is not None
    operator("reload")
    client(found[1])
    client(found[1])
    # The catalogue is written behind the push.
    server.wait_for("refused ")
    time.sleep(2)
    operator("status")
    return lines[:-1]


IMPORT = "from filebucket.cli.main import main"


def in_terminal(folder: Path, *command: str) -> str:
    """What a command prints to a terminal that is COLUMNS wide."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(COLUMNS)}
    with subprocess.Popen(
        command, cwd=folder, stdin=its, stdout=its, stderr=its, env=environment
    ):
        os.close(its)
        pieces = []
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:  # EIO: all have closed it
            pass
    os.close(ours)
    return b"".join(pieces).decode().replace("\r\n", "\n")


COLORS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "1": "#ffffff"}
STEP, LINE, EDGE = 8.4, 20, 20
"""Of the picture, in pixels: a character, a line, the space around them."""


def draw(lines: list[str], path: Path) -> None:
    """Draw the lines of a terminal as SVG."""
    width = EDGE * 2 + round(COLUMNS * STEP)
    height = EDGE * 2 + LINE * len(lines)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-size="14" font-family='
        '"ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
    ]
    for row, line in enumerate(lines):
        y = EDGE + LINE * row + 14
        column = 0
        for color, text in colored(line):
            x = EDGE + column * STEP
            column += len(text)
            if not text.strip():
                continue
            # Whatever the font, a character takes one column.
            body.append(
                f'<text x="{x:.1f}" y="{y}" fill="{color}" xml:space="preserve"'
                f' textLength="{len(text) * STEP:.1f}">{escape(text)}</text>'
            )
    path.write_text("\n".join([*body, "</svg>", ""]), encoding="utf-8")


def colored(line: str) -> Iterator[tuple[str, str]]:
    """The pieces of a line, each with its color."""
    color = plain = "#c9d1d9"
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        code: Any = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
        if code:
            color = COLORS.get(code[1], plain)
        elif piece:
            yield color, piece


if __name__ == "__main__":
    main()
