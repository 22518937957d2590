"""A bit is flipped on the disk, while the page cache still has the right one.

The filesystem is in a file, in which a bit of a pushed file is changed. A normal read
gets the cached content; verify must see the disk's.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filebucket.catalogue.inventory import Inventory
from filebucket.model.bucket import Bucket
from filebucket.model.token import Token
from filebucket.store.archive import DirectoryArchive
from filebucket.upkeep.reindex import reindex
from filebucket.upkeep.survey import Found
from filebucket.upkeep.verify import due, verify
from proofs.filesystems import Ext4, run
from proofs.outcome import Outcome, found_out

SIZES = (1, 4096, 100_000, 3_000_000)
"""Bytes of the files: a part of a block, and more than the read-ahead."""


def seen(folder: Path, trials: int) -> Outcome:
    """Flip a bit of one of the files, verify, flip it back, and verify."""
    chance = random.Random(1)
    bucket = Bucket((Token(bytes(32)),), "bucket", name="bucket")
    faults: list[str] = []
    cached = 0
    with Ext4(folder / "place") as disk:
        files = _make_files(disk.root / "bucket", chance)
        (disk.root / ".filebucket").mkdir()
        archive = DirectoryArchive(str(disk.root))
        with closing(Inventory.open(str(disk.root))) as inventory:
            # After that, no file is too new to be judged.
            reindex(inventory, archive, [bucket], lambda: time.time() + 1)

            def look() -> Found:
                wanted = due(inventory, [bucket], time.time() + 1)
                return verify(inventory, archive, [bucket], [bucket], wanted, time.time)

            for number in range(trials):
                file = chance.choice(files)
                content = file.read_bytes()
                flip = bit(disk.image, file, chance)
                flip()
                cached += file.read_bytes() == content
                found = look()
                if (found.damaged, found.read) != (1, len(files)):
                    faults.append(
                        f"{number}: {found.text or 'in order'}, for a flipped bit"
                    )
                flip()
                found = look()
                if found.text:
                    faults.append(f"{number}: {found.text}, though nothing was changed")
    return Outcome(
        f"{trials} bits of {len(files)} files on Ext4, {cached} of them hidden by the"
        f" cache; {len(faults)} not seen, or seen where there was nothing",
        faults,
    )


def tells(folder: Path, trials: int) -> Outcome:
    """The same if the cache is read."""
    with _trusting_the_cache():
        return found_out(seen(folder, trials))


@contextmanager
def _trusting_the_cache() -> Iterator[None]:
    before = os.posix_fadvise
    os.posix_fadvise = lambda *given: None
    try:
        yield
    finally:
        os.posix_fadvise = before


def _make_files(folder: Path, chance: random.Random) -> list[Path]:
    folder.mkdir()
    files = []
    for size in SIZES:
        file = folder / f"of-{size}"
        file.write_bytes(chance.randbytes(size))
        files.append(file)
    os.sync()
    return files


def bit(image: Path, file: Path, chance: random.Random) -> Callable[[], None]:
    """Returns a function that flips a bit of a file, below its filesystem."""
    said = run("filefrag", "-v", file)
    unit = re.search(r"blocks? of (\d+) bytes", said)
    extents = re.findall(r"(?m)^ +\d+: +(\d+)\.\. +\d+: +(\d+)\.\.", said)
    assert unit is not None
    assert extents
    block = int(unit[1])
    place = chance.randrange(file.stat().st_size)
    logical, physical = max(
        (int(logical), int(physical))
        for logical, physical in extents
        if int(logical) <= place // block
    )
    offset = place + (physical - logical) * block
    bit = 1 << chance.randrange(8)

    def flip() -> None:
        with image.open("r+b") as disk:
            disk.seek(offset)
            (byte,) = disk.read(1)
            disk.seek(offset)
            disk.write(bytes([byte ^ bit]))

    return flip
