"""A private network whose cable can be pulled."""

from __future__ import annotations

import os
import subprocess
from types import TracebackType

from proofs.filesystems import run


class Cable:
    """A network namespace for a daemon, and the cable between it and this machine.

    :ivar host: the daemon's address
    """

    def __init__(self) -> None:
        number = os.getpid()
        self._space = f"proofs-{number}"
        self._near = f"proof{number}"
        # From the addresses for such tests (RFC 2544), four for each process.
        first = number % (1 << 14) * 4
        self._near_host, self.host = (
            f"198.18.{(first + each) >> 8}.{(first + each) & 255}" for each in (1, 2)
        )

    def __enter__(self) -> Cable:
        run("ip", "netns", "add", self._space)
        far = ("type", "veth", "peer", "name", "eth0", "netns", self._space)
        run("ip", "link", "add", self._near, *far)
        run("ip", "address", "add", f"{self._near_host}/30", "dev", self._near)
        run(*self.inside("ip", "address", "add", f"{self.host}/30", "dev", "eth0"))
        run(*self.inside("ip", "link", "set", "eth0", "up"))
        run("ip", "link", "set", self._near, "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run("ip", "netns", "delete", self._space)

    def inside(self, *command: str) -> tuple[str, ...]:
        """A command that runs in the daemon's namespace."""
        return ("ip", "netns", "exec", self._space, *command)

    @property
    def space(self) -> str:
        """The name of the namespace."""
        return self._space

    def pull_far(self) -> None:
        """The same as :meth:`pull`, but this machine goes on sending into the cable."""
        address = self._far_address()
        neighbor = (self.host, "lladdr", address, "nud", "permanent")
        run("ip", "neighbor", "replace", *neighbor, "dev", self._near)
        run(*self.inside("ip", "link", "set", "eth0", "down"))

    def plug_far(self) -> None:
        """Plug it in again, after :meth:`pull_far`."""
        run(*self.inside("ip", "link", "set", "eth0", "up"))

    def _far_address(self) -> str:
        command = self.inside("cat", "/sys/class/net/eth0/address")
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout.strip()

    def pull(self) -> None:
        """From now on nothing is transmitted, and no side is told."""
        run("ip", "link", "set", self._near, "down")

    def plug(self) -> None:
        """Plug it in again."""
        run("ip", "link", "set", self._near, "up")
