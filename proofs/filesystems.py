"""Temporary filesystems: some whose power can be cut, some small ones, and one with few
features."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from filebucket.test.kit.server import PATIENCE

# Linux, fs/ext4/ioctl.c and fs/xfs/xfs_ioctl.c; since 6.18 FS_IOC_SHUTDOWN for all.
_SHUTDOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = 2

MIB = 1 << 20

SMALL = 8 * MIB
"""Bytes of a filesystem that will be filled."""


def run(*command: str | Path) -> str:
    """The output of a command.

    :raises RuntimeError: it failed; with its output
    """
    done = subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


class Place:
    """A place for a home.

    :ivar root: the folder
    :ivar frees_within: seconds after which deleted files no longer count
    """

    frees_within = 0.0

    def __init__(self, folder: Path) -> None:
        self.root = folder / "mounted"
        self.root.mkdir(parents=True)

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unmount()

    def mount(self) -> None:
        """Mount it."""

    def unmount(self) -> None:
        """Unmount it."""
        run("umount", self.root)


class Folder(Place):
    """A folder on an existing filesystem."""

    def unmount(self) -> None:
        pass


class Fuse(Place):
    """A folder behind FUSE, which has no unnamed files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._beneath = folder / "beneath"
        self._beneath.mkdir()

    def mount(self) -> None:
        run("bindfs", self._beneath, self.root)


class Tmpfs(Place):
    """A filesystem of 8 MB in memory."""

    def mount(self) -> None:
        run("mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", self.root)


class Loop(Place):
    """A filesystem in a file, mounted on its own folder while in use.

    :ivar image: the file
    """

    make: tuple[str, ...]
    options = "loop"
    size = 400 * MIB

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.image = folder / "image"

    def __enter__(self) -> Self:
        self.create()
        return super().__enter__()

    def create(self) -> None:
        """Create it, empty."""
        with self.image.open("wb") as image:
            image.truncate(self.size)
        run(*self.make, self.image)

    def mount(self) -> None:
        """Mount it, with recovery from its journal."""
        run("mount", "-o", self.options, self.image, self.root)

    def cut(self) -> None:
        """Stop all writes to the disk from now on."""
        shut_down(self.root)

    def restore(self) -> None:
        """Mount it again, with the state on the disk."""
        self.unmount()
        self.mount()


class Ext4(Loop):
    """ext4 that writes nothing by itself: the journal waits 5 minutes."""

    make = ("mkfs.ext4", "-q", "-F")
    options = "loop,commit=300"


class SmallExt4(Loop):
    """An ext4 of 8 MB."""

    make = ("mkfs.ext4", "-q", "-F")
    size = SMALL


class QuotaBtrfs(Loop):
    """A subvolume of a Btrfs with a quota of 8 MB, which limits root, too."""

    # Btrfs counts deleted files until its cleaner has run.
    frees_within = 10.0

    make = ("mkfs.btrfs", "-q", "-f")
    options = "loop,subvol=limited"

    def create(self) -> None:
        super().create()
        run("mount", "-o", "loop", self.image, self.root)
        run("btrfs", "quota", "enable", self.root)
        run("btrfs", "subvolume", "create", self.root / "limited")
        run("btrfs", "qgroup", "limit", str(SMALL), self.root / "limited")
        self.unmount()


class Xfs(Loop):
    """XFS."""

    make = ("mkfs.xfs", "-q", "-f")


class PlainBtrfs(Loop):
    """A Btrfs whose power is not cut."""

    make = ("mkfs.btrfs", "-q", "-f")


class Btrfs(Loop):
    """Btrfs, which has no shutdown: its device is a file on an ext4 that has one.

    This is the harder cut: data that was not flushed to the device is lost, in whatever
    order the kernel had written the rest.
    """

    make = ("mkfs.btrfs", "-q", "-f")
    options = "loop,commit=300"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._beneath = Ext4(folder / "beneath")
        self._beneath.size = self.size + 200 * MIB
        self.image = self._beneath.root / "image"

    def create(self) -> None:
        self._beneath.create()
        self._beneath.mount()
        # Allocated on the disk: else the cut would lose the image's own blocks.
        with self.image.open("wb") as image:
            for _ in range(self.size // MIB):
                image.write(bytes(MIB))
        super().create()
        os.sync()

    def cut(self) -> None:
        self._beneath.cut()

    def restore(self) -> None:
        self.unmount()
        self._beneath.restore()
        self.mount()

    def __exit__(self, *ignored: object) -> None:
        self.unmount()
        self._beneath.unmount()


def shut_down(root: Path) -> None:
    """Cut a filesystem off from its disk, without flushing its journal."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
    finally:
        os.close(fd)
