"""The cases: loads and contestants."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import cache, partial
from itertools import islice
from pathlib import Path

from attrs import asdict, frozen

from bench import servers
from bench.loads import (
    CHUNKED,
    POST,
    PUT,
    SMALL,
    Load,
    content,
    curl,
    curl_told,
    filebucket_push,
    get,
    idle_uploads,
    in_parts,
    keep_idle,
    pushes,
    trickle,
    whole,
)
from bench.measure import Case, ProgramTurn, Row, Sample, Samples, ServerTurn
from bench.process import LONGEST
from bench.servers import TOKEN, Server, Start
from filebucket.admin.page import KEPT
from filebucket.catalogue.journal import Journal
from filebucket.model.names import PRIVATE
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.model.token import token_digest
from filebucket.model.unfinished import Unfinished
from filebucket.store.archive import RECORD
from filebucket.store.archive import UPLOADS as UNFINISHED
from filebucket.test.kit.cluster import DATA, ENGINES, NAMES, Engine
from filebucket.test.kit.s3 import ACCOUNT, OPEN

FILE_BUCKET = "file-bucket"
FLOOR = "floor in C"
BOTO3 = "boto3"
BUCKET = "bench"

ENDS = ExitStack()
"""The engines, which are stopped when all cases are done."""


@frozen
class Scale:
    """The amount of work.

    :ivar large: bytes of a large file
    :ivar small: pushes of small files in one load
    :ivar seconds: duration of the many slow clients
    :ivar hooks: pushes with hooks
    :ivar rows: pushes in the catalogue
    """

    large: int
    small: int
    seconds: int
    hooks: int
    rows: int


QUICK = Scale(large=256 << 20, small=500, seconds=3, hooks=50, rows=100_000)
FULL = Scale(large=1 << 30, small=4000, seconds=10, hooks=400, rows=1_000_000)


def large(scale: Scale, tools: Path) -> Case:
    """A large file, alone and four at once."""
    file = content(tools, scale.large)

    def given(*kinds: str, at_once: Iterable[int] = (1, 4)) -> dict[str, Load]:
        return {
            f"{kind}, {count} at once": partial(curl, kind, file, count)
            for count in at_once
            for kind in kinds
        }

    return Case(
        "large",
        f"Large: {scale.large >> 20} MiB by curl",
        [
            ServerTurn(FILE_BUCKET, servers.file_bucket, given(PUT, POST, CHUNKED)),
            ServerTurn(FLOOR, servers.floor(tools), given(PUT)),
            ServerTurn("nginx", servers.nginx, given(PUT)),
            ServerTurn("copyparty", servers.copyparty, given(PUT, POST, at_once=[1])),
            ServerTurn("wsgidav", servers.wsgidav, given(PUT, at_once=[1])),
            ServerTurn("uploadserver", servers.uploadserver, given(POST, at_once=[1])),
        ],
        unit="GiB",
        amount=lambda row: int(row.load.split()[-3]) * scale.large / (1 << 30),
        reference=lambda row: [Row(f"{PUT}, {row.load.split(', ')[1]}", FLOOR)],
    )


def small(scale: Scale, tools: Path) -> Case:
    """Small files over few and many connections."""
    kinds = {
        "1 kept": (1, True),
        "16 kept": (16, True),
        "64 kept": (64, True),
        "16, each once": (16, False),
    }

    def count(load: str) -> int:
        return scale.small // (4 if load.endswith(", 1 kept") else 1)

    def given(*methods: str, only: Iterable[str] = kinds) -> dict[str, Load]:
        found = {}
        for method in methods:
            for kind in only:
                load = f"{method}, {kind}"
                connections, keep = kinds[kind]
                found[load] = pushes(tools, method, connections, count(load), keep)
        return found

    def loop(folder: Path) -> Sequence[str]:
        numbers = map(str, (SMALL, 16, scale.small))
        return str(tools / "durable"), str(folder), *numbers

    disk = ProgramTurn("16 threads in C", "no network", loop)
    turn = partial(ServerTurn, warm_up=pushes(tools, PUT, 16, 50))
    return Case(
        "small",
        f"Small: {SMALL} bytes each, {scale.small} pushes",
        [
            turn(FILE_BUCKET, servers.file_bucket, given(PUT, POST)),
            disk,
            turn(FLOOR, servers.floor(tools), given(PUT)),
            turn("nginx", servers.nginx, given(PUT)),
            turn("copyparty", servers.copyparty, given(PUT, POST)),
            turn("wsgidav", servers.wsgidav, given(PUT, only=["1 kept", "16 kept"])),
        ],
        unit="1000",
        amount=lambda row: count(row.load) / 1000,
        reference=lambda row: [Row(disk.load, disk.contestant)],
    )


def client(scale: Scale, tools: Path) -> Case:
    """A large file by filebucket-push and by curl, to the same server."""
    file = content(tools, scale.large)
    by_curl = "curl -T"
    start = "filebucket-push --version"
    command = (sys.executable, "-m", "filebucket.client", "--version")
    return Case(
        "client",
        f"Client: {scale.large >> 20} MiB by filebucket-push and by curl",
        [
            ServerTurn(
                FILE_BUCKET,
                servers.file_bucket,
                {
                    by_curl: partial(curl, PUT, file, 1),
                    "filebucket-push FILE": partial(filebucket_push, file, False),
                    "filebucket-push -": partial(filebucket_push, file, True),
                },
            ),
            ProgramTurn("alone", start, lambda _: command),
        ],
        unit="GiB",
        amount=lambda row: 1.0 if row.load == start else scale.large / (1 << 30),
        reference=lambda row: [Row(by_curl, FILE_BUCKET)],
    )


PART = 64 << 20
UPLOADS = 1000


def parts(scale: Scale, tools: Path) -> Case:
    """A large file in one push, and as a resumable upload."""
    file = content(tools, scale.large)
    one = "one PUT"
    return Case(
        "parts",
        f"Parts: {scale.large >> 20} MiB, whole and in parts of {PART >> 20} MiB",
        [
            ServerTurn(
                FILE_BUCKET,
                servers.file_bucket,
                {one: partial(whole, file), "in parts": partial(in_parts, file, PART)},
            )
        ],
        unit="GiB",
        amount=lambda row: scale.large / (1 << 30),
        reference=lambda row: [Row(one, FILE_BUCKET)],
    )


def uploads(scale: Scale, tools: Path) -> Case:
    """Unfinished uploads."""
    load = "create, and leave"
    start = partial(servers.file_bucket, max_unfinished=UPLOADS)
    return Case(
        "uploads",
        f"Uploads: {UPLOADS} that stay unfinished",
        [ServerTurn(FILE_BUCKET, start, {load: partial(idle_uploads, UPLOADS)})],
        unit="1000",
        amount=lambda row: UPLOADS / 1000,
        reference=lambda row: [Row(load, FILE_BUCKET)],
    )


CLIENTS = 1000
FOR_ALL = 2 * CLIENTS
"""Connections with which all clients can push to one bucket, which may have three
quarters of all pushes."""


def idle(scale: Scale, tools: Path) -> Case:
    """Idle connections."""
    given: Mapping[str, Load] = {"PUT, and wait": partial(keep_idle, CLIENTS)}
    return Case(
        "idle",
        f"Idle: {CLIENTS} connections, kept after a push each",
        _beside_c(given, tools),
        unit="1000",
        amount=lambda row: CLIENTS / 1000,
        reference=lambda row: [Row(row.load, FLOOR)],
    )


def many(scale: Scale, tools: Path) -> Case:
    """Many slow clients."""
    rate = 100 * 1024
    load = f"{rate >> 10} KiB/s for {scale.seconds} s"
    given: Mapping[str, Load] = {
        load: partial(trickle, tools, CLIENTS, rate, scale.seconds)
    }
    return Case(
        "many",
        f"Many: {CLIENTS} slow clients at once",
        _beside_c(given, tools),
        unit="GiB",
        amount=lambda row: CLIENTS * rate * scale.seconds / (1 << 30),
        reference=lambda row: [Row(row.load, FLOOR)],
    )


def _beside_c(given: Mapping[str, Load], tools: Path) -> list[ServerTurn]:
    file_bucket = partial(servers.file_bucket, max_connections=FOR_ALL)
    return [
        ServerTurn(FILE_BUCKET, file_bucket, given),
        ServerTurn(FLOOR, servers.floor(tools), given),
        ServerTurn("nginx", servers.nginx, given),
    ]


def tls(scale: Scale, tools: Path) -> Case:
    """A large file over TLS 1.3."""
    file = content(tools, scale.large)
    given: Mapping[str, Load] = {PUT: partial(curl, PUT, file, 1)}
    # sha256sum itself does not use the processor's SHA instructions.
    command = ("openssl", "dgst", "-sha256", str(file))
    summing = ProgramTurn("openssl dgst", "SHA-256", lambda _: command)
    return Case(
        "tls",
        f"TLS 1.3: {scale.large >> 20} MiB by curl; ratios to nginx and openssl dgst",
        [
            ServerTurn(FILE_BUCKET, servers.file_bucket_tls, given),
            ServerTurn("nginx", servers.nginx_tls, given),
            summing,
        ],
        unit="GiB",
        amount=lambda row: scale.large / (1 << 30),
        reference=lambda row: [
            Row(PUT, "nginx"),
            Row(summing.load, summing.contestant),
        ],
    )


def tls_small(scale: Scale, tools: Path) -> Case:
    """Small files over kept connections, with TLS 1.3 and without."""
    kept = (1, 16, 64)

    def count(connections: int) -> int:
        return scale.small // (4 if connections == 1 else 1)

    def given(kind: str) -> dict[str, Load]:
        return {
            f"{kind}, {each} kept": pushes(tools, PUT, each, count(each))
            for each in kept
        }

    turn = partial(ServerTurn, warm_up=pushes(tools, PUT, 16, 50))
    return Case(
        "tls-small",
        f"TLS 1.3: {SMALL} bytes each, {scale.small} pushes",
        [
            turn(FILE_BUCKET, servers.file_bucket, given("plain")),
            turn(FILE_BUCKET, servers.file_bucket_tls, given("TLS")),
            turn("nginx", servers.nginx, given("plain")),
            turn("nginx", servers.nginx_tls, given("TLS")),
        ],
        unit="1000",
        amount=lambda row: count(int(row.load.split()[1])) / 1000,
        reference=lambda row: [Row(row.load.replace("TLS", "plain"), row.contestant)],
    )


def hooks(scale: Scale, tools: Path) -> Case:
    """Small pushes with hooks that do nothing."""

    def scripts(folder: Path) -> dict[str, str]:
        found = {
            event: str(folder / f"{event}.sh") for event in ("pre-push", "post-push")
        }
        for path in map(Path, found.values()):
            path.write_text("#!/bin/sh\nexit 0\n")
            path.chmod(0o755)
        return found

    def start(folder: Path) -> Server:
        scripts(folder)
        return servers.file_bucket(folder)

    def loop(folder: Path) -> Sequence[str]:
        return str(tools / "spawn"), str(scale.hooks), *scripts(folder).values()

    spawning = ProgramTurn("posix_spawn in C", "the scripts alone", loop)
    given = {
        f"PUT, {connections} kept": pushes(tools, PUT, connections, scale.hooks)
        for connections in (1, 16)
    }
    return Case(
        "hooks",
        f"Hooks: {scale.hooks} pushes with a pre-push and a post-push",
        [
            ServerTurn(FILE_BUCKET, start, given, pushes(tools, PUT, 1, 5)),
            spawning,
        ],
        unit="1000",
        amount=lambda row: scale.hooks / 1000,
        reference=lambda row: [Row(spawning.load, spawning.contestant)],
    )


def growth(scale: Scale, tools: Path) -> Case:
    """The cost of a push beside many things that are there already."""
    load, most = "PUT", 4 * scale.small
    warm_up = pushes(tools, PUT, 16, 50)
    empty = "an empty home"
    kinds: Mapping[str, Callable[[Path], object]] = {
        empty: lambda home: None,
        "buckets": lambda home: None,
        "files": fill_with_files,
        "files, and a quota": fill_with_files,
        "series": partial(fill_with_pushes, lambda number: f"{letters(number)}.gz"),
        "pushes of one series": partial(
            fill_with_pushes, lambda number: f"db-{number}.gz"
        ),
        "unfinished uploads": fill_with_uploads,
    }

    @cache
    def running(kind: str) -> Server:
        folder = tools / "growth" / kind
        (folder / "kept" / PRIVATE).mkdir(parents=True)
        kinds[kind](folder / "kept")
        bucket = {"name": BUCKET, "token": TOKEN}
        if "quota" in kind:
            bucket["quota"] = "900 GiB"
        others = [
            secrets.token_hex(16) for _ in range(MANY if kind == "buckets" else 0)
        ]
        server = servers.file_bucket(
            folder, buckets=[*others, bucket], max_unfinished=MANY
        )
        ENDS.callback(server.process.stop)
        # After its start, the daemon compares files and rows.
        wait_until_idle(server)
        warm_up(server)
        return server

    return Case(
        "growth",
        f"Growth: {most:,} pushes beside {MANY:,} of each",
        [
            StandingTurn(
                kind, partial(running, kind), load, pushes(tools, PUT, 16, most)
            )
            for kind in kinds
        ],
        unit="1000",
        amount=lambda row: most / 1000,
        reference=lambda row: [Row(load, empty)],
    )


MANY = 100_000


@frozen
class StandingTurn:
    """Gives a load to a server that runs from the first round to the end.

    :ivar running: starts it, unless it runs
    """

    contestant: str
    running: Callable[[], Server]
    name: str
    load: Load

    def take(self, folder: Path) -> Samples:
        process = self.running().process
        process.forget_peak()
        before = process.cpu()
        more = dict(self.load(self.running()))
        wall, used = more.pop("wall"), process.cpu() - before
        sample = Sample(wall, used, process.peak_memory(), more)
        return {Row(self.name, self.contestant): sample}


def wait_until_idle(server: Server) -> None:
    """Return when a server has taken no processor time for a second."""
    deadline, before = time.monotonic() + LONGEST, -1.0
    while (used := server.process.cpu()) > before + 0.05:
        if time.monotonic() > deadline:
            raise RuntimeError("it is still busy")
        before = used
        time.sleep(1)


def fill_with_files(home: Path) -> None:
    """Let the bucket have many files."""
    (home / BUCKET).mkdir()
    for number in range(MANY):
        path = home / BUCKET / f"before{number}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def fill_with_pushes(name: Callable[[int], str], home: Path) -> None:
    """Let the catalogue know many pushes of the bucket, whose files are there.

    :param name: the name of each
    """
    (home / BUCKET).mkdir()
    for number in range(MANY):
        with (home / BUCKET / name(number)).open("wb") as file:
            file.truncate(SMALL)
    begin = time.time() - 86400
    rows = (
        Received(
            *(BUCKET, series_of(name(number), ()), name(number), SMALL),
            *(f"{number:064x}", begin + number / MANY),
            request="r",
        )
        for number in range(MANY)
    )
    with closing(Journal.open(str(home))) as journal:
        while batch := list(islice(rows, 5000)):
            journal.record(batch, [], lambda key: None)


def letters(number: int) -> str:
    """A number in letters, as the digits of a name do not make it a series."""
    return f"{number:06}".translate(str.maketrans("0123456789", "abcdefghij"))


def fill_with_uploads(home: Path) -> None:
    """Let the bucket have many unfinished uploads without a byte."""
    folder = home / UNFINISHED
    folder.mkdir()
    now, token = time.time(), token_digest(TOKEN.encode()).hex()
    nothing = hashlib.sha256().hexdigest()
    for number in range(MANY):
        name = f"{number:032x}"
        upload = Unfinished(
            *(name, BUCKET, token, f"upload{number}", "r", now, now, nothing)
        )
        (folder / f"{name}{RECORD}").write_text(json.dumps(asdict(upload)))
        (folder / name).touch()


def buckets(scale: Scale, tools: Path) -> Case:
    """The cost of a long configuration."""
    return Case(
        "buckets",
        "Growth: buckets in the configuration",
        [BucketsTurn(count, tools, scale.small) for count in (1, 1000, 100_000)],
        unit="load",
        amount=lambda row: 1.0,
        reference=lambda row: [Row(row.load.split(",")[0] + ", 1", FILE_BUCKET)],
    )


def pages(scale: Scale, tools: Path) -> Case:
    """What monitoring costs: itself, and the pushes beside it."""
    buckets = [
        {"name": f"web{number:03}", "token_sha256": f"{number:064x}", "expect": "26h"}
        for number in range(500)
    ]
    admin = servers.free_port()

    def start(folder: Path) -> Server:
        (folder / "kept" / PRIVATE).mkdir(parents=True)
        now = time.time()
        rows = (
            Received(
                *(f"web{number % 500:03}", "db-#.gz", f"db-{number}.gz", SMALL),
                *(f"{number:064x}", now - 86400 + number / scale.rows),
            )
            for number in range(scale.rows)
        )
        with closing(Journal.open(str(folder / "kept"))) as journal:
            while batch := list(islice(rows, 5000)):
                journal.record(batch, [], lambda key: None)
        listen = f"tcp:{admin}:interface=127.0.0.1"
        return servers.file_bucket(folder, buckets=[*buckets, TOKEN], admin=listen)

    given: dict[str, Load] = {}
    for load, path in (("scrape", "/metrics"), ("page", "/")):
        given[load] = partial(get, admin, path)
        given[f"PUT beside a {load}"] = partial(_push_beside_get, tools, admin, path)
    return Case(
        "pages",
        f"Pages: {len(buckets)} buckets, {scale.rows:,} pushes in the catalogue",
        [ServerTurn(FILE_BUCKET, start, given, pushes(tools, PUT, 1, 50))],
        unit="load",
        amount=lambda row: 1.0,
        reference=lambda row: [Row(row.load, FILE_BUCKET)],
    )


def _push_beside_get(
    tools: Path, port: int, path: str, server: Server
) -> dict[str, float]:
    """One push after another, until the page is there."""
    push = pushes(tools, PUT, 1, 5)
    # Until then the same page is sent again.
    time.sleep(KEPT)
    slowest = 0.0
    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(get, port, path, server)
        while not getting.done():
            slowest = max(slowest, push(server)["slowest ms"])
        return {**getting.result(), "slowest ms": slowest}


def restore(scale: Scale, tools: Path) -> Case:
    """A stored file is given back. No contestant finds it in the page cache."""
    file = content(tools, 2 * scale.large)
    config = stored(tools, file)
    get = (sys.executable, "-m", "filebucket", "get", BUCKET, "--config", config)

    def turn(contestant: str, load: str, *command: str) -> RestoreTurn:
        def given(folder: Path) -> Sequence[str]:
            return [each.replace("COPY", str(folder / "copy")) for each in command]

        return RestoreTurn(file, ProgramTurn(contestant, load, given))

    def shell(line: str, *words: str) -> Sequence[str]:
        return ("sh", "-c", line, "sh", *words)

    copy, output, to_command = "to a file", "to a pipe", "to a command"
    # sha256sum itself does not use the processor's SHA instructions.
    summing = turn("openssl dgst", "SHA-256", "openssl", "dgst", "-sha256", str(file))
    return Case(
        "restore",
        f"Restore: {2 * scale.large >> 20} MiB",
        [
            turn("filebucket get", copy, *get, "-o", "COPY"),
            turn(
                *("cp, sync", copy),
                *shell('cp "$1" "$2" && sync "$2"', str(file), "COPY"),
            ),
            turn("filebucket get", output, *shell('"$@" -o - | cat >/dev/null', *get)),
            turn("cat", output, *shell('cat "$1" | cat >/dev/null', str(file))),
            turn("filebucket get", to_command, *get, "--exec", "cat >/dev/null"),
            turn("sha256sum", "SHA-256", "sha256sum", str(file)),
            summing,
        ],
        unit="GiB",
        amount=lambda row: 2 * scale.large / (1 << 30),
        reference=lambda row: [
            Row(copy, "cp, sync")
            if row.load == copy
            else Row(summing.program.load, summing.program.contestant)
        ],
    )


def stored(tools: Path, file: Path) -> str:
    """Let a bucket have the file.

    :returns: the configuration
    """
    folder = tools / "restore"
    bucket = folder / "home" / BUCKET
    (folder / "home" / ".filebucket").mkdir(parents=True)
    bucket.mkdir()
    os.link(file, bucket / "file")
    config = folder / "config.json"
    keys = {"name": BUCKET, "token": TOKEN}
    config.write_text(json.dumps({"home": "home", "buckets": [keys]}))
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    size = file.stat().st_size
    row = Received(BUCKET, "file", "file", size, sha256, time.time(), request="r")
    with closing(Journal.open(str(folder / "home"))) as journal:
        journal.record([row], [], lambda key: None)
    return str(config)


@frozen
class RestoreTurn:
    """Reads a file from the disk, and removes what was written."""

    file: Path
    program: ProgramTurn

    def take(self, folder: Path) -> Samples:
        with self.file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found = self.program.take(folder)
        for path in folder.iterdir():
            path.unlink()
        return found


@frozen
class BucketsTurn:
    """Starts with ``count`` buckets, pushes to the last one, and reloads.

    :ivar most: pushes in one load
    """

    count: int
    tools: Path
    most: int

    def take(self, folder: Path) -> Samples:
        tokens = [secrets.token_hex(16) for _ in range(self.count - 1)]
        started: list[Sample] = []

        def start(folder: Path) -> Server:
            begin = time.monotonic()
            server = servers.file_bucket(folder, buckets=[*tokens, TOKEN])
            wall, process = time.monotonic() - begin, server.process
            started.append(Sample(wall, process.cpu(), process.peak_memory()))
            return server

        turn = ServerTurn(
            FILE_BUCKET,
            start,
            {
                f"PUT, {self.count:,}": pushes(self.tools, PUT, 16, self.most),
                f"reload, {self.count:,}": self._reload,
                f"PUT beside a reload, {self.count:,}": self._push_beside,
            },
            pushes(self.tools, PUT, 16, 50),
        )
        found = turn.take(folder)
        return {Row(f"start, {self.count:,}", FILE_BUCKET): started[0], **found}

    def _reload(self, server: Server) -> dict[str, float]:
        before = server.process.count_lines("reloaded:")
        server.process.signal(signal.SIGUSR2)
        server.process.wait_for_line("reloaded:", before + 1)
        return {}

    def _push_beside(self, server: Server) -> dict[str, float]:
        """One push after another, until the reload is done."""
        before = server.process.count_lines("reloaded:")
        push = pushes(self.tools, PUT, 1, 20)
        server.process.signal(signal.SIGUSR2)
        slowest = push(server)["slowest ms"]
        while server.process.count_lines("reloaded:") == before:
            slowest = max(slowest, push(server)["slowest ms"])
        return {"slowest ms": slowest}


def s3(scale: Scale, tools: Path) -> Case:
    """A large file into an object store, through file-bucket and by boto3."""
    file, engine = content(tools, scale.large), engine_of(tools)
    program = str(Path(__file__).parent / "upload.py")

    def upload(count: int, folder: Path) -> Sequence[str]:
        where = (engine.urls[0], DATA, ACCOUNT.key, ACCOUNT.secret)
        return sys.executable, program, *where, str(file), str(count)

    loads = {f"{count} at once": count for count in (1, 4)}
    given = {load: partial(curl_told, file, count) for load, count in loads.items()}
    return Case(
        "s3",
        f"Object store, {engine.says}: {scale.large >> 20} MiB",
        [
            ServerTurn(FILE_BUCKET, servers.file_bucket_s3(engine.urls[:1]), given),
            *(
                ProgramTurn(BOTO3, load, partial(upload, count))
                for load, count in loads.items()
            ),
        ],
        unit="GiB",
        amount=lambda row: loads[row.load] * scale.large / (1 << 30),
        reference=lambda row: [Row(row.load, BOTO3)],
    )


def s3_small(scale: Scale, tools: Path) -> Case:
    """Small files into an object store, through file-bucket and straight."""
    engine = engine_of(tools)
    engine.create(OPEN)
    port = engine.urls[0].rpartition(":")[2]
    most = scale.small // 5
    loads = {f"PUT, {connections} kept": connections for connections in (1, 16, 64)}

    def straight(connections: int, folder: Path) -> Sequence[str]:
        numbers = map(str, (SMALL, connections, most, 1))
        where = (port, f"/{OPEN}/", "-", secrets.token_hex(4))
        return str(tools / "push"), *where, *numbers

    given = {
        load: pushes(tools, PUT, connections, most)
        for load, connections in loads.items()
    }
    return Case(
        "s3-small",
        f"Object store, {engine.says}: {most} files of {SMALL} bytes",
        [
            ServerTurn(
                FILE_BUCKET,
                servers.file_bucket_s3(engine.urls[:1]),
                given,
                pushes(tools, PUT, 16, 50),
            ),
            *(
                ProgramTurn(engine.says, load, partial(straight, connections))
                for load, connections in loads.items()
            ),
        ],
        unit="1000",
        amount=lambda row: most / 1000,
        reference=lambda row: [Row(row.load, engine.says)],
    )


def s3_many(scale: Scale, tools: Path) -> Case:
    """Many slow clients of one daemon with an object store."""
    engine = engine_of(tools)
    rate = 100 * 1024
    load = f"{rate >> 10} KiB/s for {scale.seconds} s"
    return Case(
        "s3-many",
        f"Object store, {engine.says}: {CLIENTS} slow clients at once",
        [
            ServerTurn(
                FILE_BUCKET,
                servers.file_bucket_s3(engine.urls[:1], max_connections=FOR_ALL),
                {load: partial(trickle, tools, CLIENTS, rate, scale.seconds)},
            )
        ],
        unit="GiB",
        amount=lambda row: CLIENTS * rate * scale.seconds / (1 << 30),
        reference=lambda row: [Row(load, FILE_BUCKET)],
    )


@frozen
class NodesTurn:
    """Starts daemons with one object store, and gives each a share of the load.

    :ivar load: of one daemon, for the number of daemons
    """

    contestant: str
    count: int
    start: Start
    loads: Mapping[str, Callable[[int], Load]]

    def take(self, folder: Path) -> Samples:
        nodes: list[Server] = []
        found: dict[Row, Sample] = {}
        try:
            for number in range(self.count):
                (folder / str(number)).mkdir()
                nodes.append(self.start(folder / str(number)))
            for name, load in self.loads.items():
                begin, before = time.monotonic(), [each.process.cpu() for each in nodes]
                with ThreadPoolExecutor(self.count) as pool:
                    list(pool.map(load(self.count), nodes))
                wall = time.monotonic() - begin
                cpu = sum(each.process.cpu() for each in nodes) - sum(before)
                memory = max(each.process.peak_memory() for each in nodes)
                found[Row(name, self.contestant)] = Sample(wall, cpu, memory)
        finally:
            for each in nodes:
                each.process.stop()
        return found


def s3_nodes(scale: Scale, tools: Path) -> Case:
    """Three daemons with one object store beside one of them."""
    file, engine = content(tools, scale.large), engine_of(tools)
    start = servers.file_bucket_s3(engine.urls)
    small = scale.small // 5 * 3
    large = f"6 x {scale.large >> 20} MiB"
    little = f"{small} x {SMALL} bytes"
    loads: Mapping[str, Callable[[int], Load]] = {
        large: lambda count: partial(curl_told, file, 6 // count),
        little: lambda count: pushes(tools, PUT, 48 // count, small // count),
    }
    one = "one daemon"
    return Case(
        "s3-nodes",
        f"Object store, {engine.says}: daemons that share it",
        [NodesTurn(one, 1, start, loads), NodesTurn("three daemons", 3, start, loads)],
        unit="load",
        amount=lambda row: 1.0,
        reference=lambda row: [Row(row.load, one)],
    )


@cache
def engine_of(tools: Path) -> Engine:
    """The object store, which stays until the end: ``BENCH_ENGINE``, or SeaweedFS."""
    engine = ENGINES[os.environ.get("BENCH_ENGINE", "seaweedfs")](tools / "engine")
    ENDS.callback(engine.stop)
    engine.start()
    for bucket in (NAMES, DATA):
        engine.create(bucket)
    return engine


CASES: Mapping[str, Callable[[Scale, Path], Case]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        *(large, client, parts, small, many, idle, uploads),
        *(tls, tls_small, hooks, growth, buckets, pages, restore),
        *(s3, s3_small, s3_many, s3_nodes),
    )
}
