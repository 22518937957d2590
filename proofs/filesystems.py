"""Filesystems of our own, whose power can be cut."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType

# Linux, fs/ext4/ioctl.c and fs/xfs/xfs_ioctl.c; since 6.18 FS_IOC_SHUTDOWN for all.
_SHUTDOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = 2

MIB = 1 << 20


def run(*command: str | Path) -> str:
    """What a command prints.

    :raises RuntimeError: it failed, with what it said
    """
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


class Loop:
    """A filesystem in a file, mounted on a folder of its own while in use.

    :ivar root: where it is mounted
    """

    make: tuple[str, ...]
    options = "loop"
    size = 400 * MIB

    def __init__(self, folder: Path) -> None:
        self.root = folder / "mounted"
        self.root.mkdir(parents=True)
        self._image = folder / "image"

    def __enter__(self) -> Loop:
        self.create()
        self.mount()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unmount()

    def create(self) -> None:
        """Make it, empty."""
        with self._image.open("wb") as image:
            image.truncate(self.size)
        run(*self.make, self._image)

    def mount(self) -> None:
        """Let it be seen, after what a journal has to say."""
        run("mount", "-o", self.options, self._image, self.root)

    def unmount(self) -> None:
        """Let it be seen no more."""
        run("umount", self.root)

    def cut(self) -> None:
        """Let nothing come to the disk from here on."""
        shut_down(self.root)

    def restore(self) -> None:
        """Start anew from what is on the disk."""
        self.unmount()
        self.mount()


class Ext4(Loop):
    """ext4 that writes nothing on its own account: the journal waits 5 minutes."""

    make = ("mkfs.ext4", "-q", "-F")
    options = "loop,commit=300"


class Xfs(Loop):
    """XFS."""

    make = ("mkfs.xfs", "-q", "-f")


class Btrfs(Loop):
    """Btrfs, which has no shutdown: its device is a file on an ext4 that has one.

    That is the harder cut: what was not flushed to the device is lost with it, in
    whatever order the kernel had written the rest.
    """

    make = ("mkfs.btrfs", "-q", "-f")
    options = "loop,commit=300"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._beneath = Ext4(folder / "beneath")
        self._beneath.size = self.size + 200 * MIB
        self._image = self._beneath.root / "image"

    def create(self) -> None:
        self._beneath.create()
        self._beneath.mount()
        # Allocated and on the disk: else it is the image's own blocks that are lost.
        with self._image.open("wb") as image:
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
    """Cut a filesystem off from its disk: its journal is not flushed either."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
    finally:
        os.close(fd)
