"""The ways in which a push with filebucket-push fails, with large files, and the same
with curl."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import evolve

from filebucket.test.kit.failing import (
    COMMAND,
    LARGE,
    MIB,
    NOTHING,
    RESTARTS,
    SMALL,
    WHOLE,
    Expected,
    Played,
    Row,
    Scale,
    Stage,
)
from filebucket.test.kit.failures import ROWS
from proofs.filesystems import Ext4
from proofs.outcome import Outcome, some

OVERHEAD = 64 * MIB
"""Bytes of memory that the client may need beside two parts."""

WIDTHS = (20, 14, 4, 9, 22, 9)
"""Columns of the table."""


def _fill(stage: Stage) -> None:
    """Another program takes all space of the disk."""
    assert stage.home is not None
    disk = os.statvfs(stage.home)
    with (stage.home.parent / "other").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize)


def _fill_for_a_while(stage: Stage) -> None:
    _fill(stage)

    def free() -> None:
        assert stage.home is not None
        stage.daemon.wait_for("refused .* status=507")
        (stage.home.parent / "other").unlink()

    stage.in_background(free)


DISK_ROWS = (
    Row(
        "the disk is full meanwhile",
        COMMAND,
        Expected(75, NOTHING, says=r"gave up .*not enough free space.*507"),
        (False, NOTHING),
        options=("--retry-for", "5"),
        meanwhile=_fill,
    ),
    Row(
        "the disk is full meanwhile, and then has space again",
        COMMAND,
        Expected(0, WHOLE),
        (False, NOTHING),
        meanwhile=_fill_for_a_while,
    ),
)
"""On a filesystem of their own."""


def table(folder: Path, trials: int) -> Outcome:
    """Play some of the rows, or all of them."""
    rows = (*ROWS, *DISK_ROWS)
    scale = LARGE if trials >= len(rows) else SMALL
    faults: list[str] = []
    lines = [("situation", "command line", "exit", "file", "message", "curl")]
    chosen = some(rows, trials)
    for number, row in enumerate(chosen):
        played, with_curl = (
            _play(row, folder / f"{number}-{is_curl}", scale, is_curl)
            for is_curl in (False, True)
        )
        assert played is not None
        faults += [
            f"{row.situation} ({row.line}): {each}" for each in played.faults(row)
        ]
        beside = "none"
        if with_curl is not None:
            found = with_curl.found
            beside = f"{found.status}, {found.stored}"
            if (found.status == 0, found.stored) != row.curl:
                faults.append(f"{row.situation}, curl: {beside}, not {row.curl}")
        status, stored = played.found.status, played.found.stored
        said = _shortened(played.says, folder / f"{number}-False")
        lines.append((row.situation, row.line, str(status), stored, said, beside))
    lost = sum(1 for row in chosen if row.curl and row.curl[0] and _differs(row))
    return Outcome(
        f"{len(chosen)} rows of {scale.size >> 20} MiB; {len(faults)} differ;"
        f" curl exits with 0 in {lost} in which filebucket-push reports an error"
        f"\n\n{_text(lines)}",
        faults,
    )


def _shortened(said: str, folder: Path) -> str:
    """A message without what is different in each run."""
    said = said.replace(f"{folder}/", "").replace(sys.executable, "COMMAND")
    said = re.sub(r"127\.0\.0\.1:\d+", "HOST", said)
    return re.sub(r"\b([0-9a-f]{6})[0-9a-f]{58}\b", r"\1...", said)


def _differs(row: Row) -> bool:
    return row.expected.status != 0


def _play(row: Row, folder: Path, scale: Scale, is_curl: bool) -> Played | None:
    if is_curl and row.curl is None:
        return None
    folder.mkdir()
    if row not in DISK_ROWS:
        return row.play(folder, scale, is_curl=is_curl)
    with Ext4(folder / "disk") as disk:
        home = disk.root / "home"
        home.mkdir()
        return row.play(folder, scale, is_curl=is_curl, home=home)


def _text(lines: Sequence[Sequence[str]]) -> str:
    """A table in reStructuredText."""
    rule = "  ".join("=" * width for width in WIDTHS)
    head, *rest = (_wrapped(line) for line in lines)
    body = "\n".join("\n".join(each) for each in rest)
    return "\n".join([rule, *head, rule, body, rule])


def _wrapped(cells: Sequence[str]) -> Iterator[str]:
    columns = [
        textwrap.wrap(cell, width, break_on_hyphens=False) or [""]
        for cell, width in zip(cells, WIDTHS, strict=True)
    ]
    for number in range(max(map(len, columns))):
        row = (
            (column[number] if number < len(column) else "").ljust(width)
            for column, width in zip(columns, WIDTHS, strict=True)
        )
        yield "  ".join(row).rstrip()


def restarts(folder: Path, trials: int) -> Outcome:
    """Restart the daemon while a command's output is pushed.

    :param trials: MiB of it
    """
    scale = evolve(LARGE, half=trials * MIB // 8, long=trials * MIB)
    if trials < 1024:
        scale = evolve(scale, part=4)
    (row,) = (row for row in ROWS if row.given.steps)
    played = row.play(folder, scale)
    faults = played.faults(row)
    if played.memory > 2 * scale.part * MIB + OVERHEAD:
        faults.append(f"{played.memory >> 20} MiB of memory")
    return Outcome(
        f"{trials} MiB from a command, the daemon killed and started again {RESTARTS}"
        f" times: exit status {played.found.status}, {played.found.stored};"
        f" parts of at most {scale.part} MiB, {played.memory >> 20} MiB of memory",
        faults,
    )
