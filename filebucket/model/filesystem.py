"""The state of a filesystem."""

from __future__ import annotations

from attrs import frozen


@frozen
class Filesystem:
    """The home's filesystem. Sizes are in bytes.

    :param total: size of the filesystem
    :param free: free space, including ``reserved``
    :param reserved: space that must stay free
    :param read_only: whether it is mounted read-only, as after a disk error
    :param set_aside: space reserved by pushes in progress, and not written yet
    :param full_of_files: whether there are no free inodes
    :param after_restart: whether the daemon has to be restarted to keep ``reserved``
        free
    """

    total: int
    free: int
    reserved: int
    read_only: bool
    set_aside: int = 0
    full_of_files: bool = False
    after_restart: bool = False

    @property
    def fault(self) -> str | None:
        """Why no file can be stored there; None if one can."""
        if self.read_only:
            return "the filesystem is read-only"
        if self.full_of_files:
            return "no free inodes"
        if self.free <= self.reserved:
            return "free space is below min_free_space"
        return None
