"""Sealed files are attacked in every way, as the daemon's user and as root.

Each file is compared before and after: its content, its mode, owner, times, names,
attributes and flags, and the folder that it is in. The control does the same to files
that are not sealed: each way must then be noticed.

Only lifting the flag, and mounting something over the home, is left to root.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any, TypeAlias

from attrs import frozen

from filebucket.config.load import load
from filebucket.store.attributes import (
    APPEND_ONLY,
    IMMUTABLE,
    KERNEL,
    KernelAttributes,
    looking_at,
)
from filebucket.store.seal import Fate, sealing
from filebucket.test.kit.children import bounded
from filebucket.test.kit.server import OTHER, PATIENCE, TOKEN, Server
from proofs import pruned
from proofs.filesystems import Loop, Xfs, run
from proofs.outcome import Outcome, found_out
from proofs.pushes import expected, named

USER = 64123
"""The daemon's user."""

SIZE = 9000

_FICLONE = 0x40049409
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_PUNCH_HOLE = 3
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100

_long = ctypes.c_int64
_LIBC = ctypes.CDLL(None, use_errno=True)


@frozen
class Target:
    """The target of an attack.

    :param file: a stored file
    :param other: a file that the daemon's user has made beside it
    :param bucket: their folder
    """

    file: Path
    other: Path
    bucket: Path


def _write(target: Target) -> None:
    with target.file.open("r+b", 0) as file:
        file.write(b"changed")


def _append(target: Target) -> None:
    with target.file.open("ab", 0) as file:
        file.write(b"changed")


def _truncate(target: Target) -> None:
    os.truncate(target.file, 1)


def _open_truncating(target: Target) -> None:
    target.file.open("wb").close()


def _fallocate(target: Target) -> None:
    with target.file.open("r+b", 0) as file:
        os.posix_fallocate(file.fileno(), 0, 2 * SIZE)


def _punch(target: Target) -> None:
    with target.file.open("r+b", 0) as file:
        _call(_LIBC.fallocate, file.fileno(), _PUNCH_HOLE, _long(0), _long(4096))


def _map(target: Target) -> None:
    with target.file.open("r+b", 0) as file, mmap.mmap(file.fileno(), SIZE) as memory:
        memory[:7] = b"changed"


def _reopen(target: Target) -> None:
    with target.file.open("rb", 0) as file:
        Path(f"/proc/self/fd/{file.fileno()}").write_bytes(b"changed")


def _chmod(target: Target) -> None:
    target.file.chmod(0o444)


def _chown(target: Target) -> None:
    os.chown(target.file, 0, 0)


def _touch(target: Target) -> None:
    os.utime(target.file)


def _backdate(target: Target) -> None:
    os.utime(target.file, (1, 1))


def _set_attribute(target: Target) -> None:
    os.setxattr(target.file, "user.changed", b"x")


def _rename(target: Target) -> None:
    target.file.rename(target.bucket / "away")


def _rename_over(target: Target) -> None:
    target.other.rename(target.file)


def _exchange(target: Target) -> None:
    names = (os.fsencode(target.other), os.fsencode(target.file))
    _call(_LIBC.renameat2, _AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)


def _unlink(target: Target) -> None:
    target.file.unlink()


def _link(target: Target) -> None:
    os.link(target.file, target.bucket / "link")


def _link_descriptor(target: Target) -> None:
    with target.file.open("rb") as file, _folder(target.bucket) as fd:
        os.link(f"/proc/self/fd/{file.fileno()}", "link", dst_dir_fd=fd)


def _clone(target: Target) -> None:
    with target.file.open("r+b", 0) as file, target.other.open("rb") as other:
        fcntl.ioctl(file, _FICLONE, other.fileno())


def _copy_range(target: Target) -> None:
    with target.file.open("r+b", 0) as file, target.other.open("rb") as other:
        os.copy_file_range(other.fileno(), file.fileno(), 100)


def _set_flags(target: Target) -> None:
    with target.file.open("rb") as file:
        flags = KERNEL.get(file.fileno())
        KERNEL.set(file.fileno(), flags & ~IMMUTABLE)
    _append(target)


def _set_flags_of_xfs(target: Target) -> None:
    with target.file.open("rb") as file:
        found = fcntl.ioctl(file, _FS_IOC_FSGETXATTR, bytes(28))
        flags = struct.unpack_from("I", found)[0] & ~0x8
        fcntl.ioctl(file, _FS_IOC_FSSETXATTR, struct.pack("I", flags) + found[4:])
    _append(target)


def _in_namespace(target: Target) -> None:
    """As root of a user namespace of our own."""
    with target.file.open("rb") as file:
        flags = KERNEL.get(file.fileno())
        _call(_LIBC.unshare, 0x10000000)
        KERNEL.set(file.fileno(), flags & ~IMMUTABLE)
        _append(target)


def _remove_folder(target: Target) -> None:
    shutil.rmtree(target.bucket)


def _rename_folder(target: Target) -> None:
    target.bucket.rename(target.bucket.with_name("away"))


def _replace_folder(target: Target) -> None:
    new = target.bucket.with_name("new")
    shutil.copytree(target.bucket, new)
    names = (os.fsencode(new), os.fsencode(target.bucket))
    _call(_LIBC.renameat2, _AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)


Way: TypeAlias = Callable[[Target], None]

WAYS: Sequence[Way] = (
    *(_write, _append, _truncate, _open_truncating, _fallocate, _punch, _map, _reopen),
    *(_chmod, _chown, _touch, _backdate, _set_attribute),
    *(_rename, _rename_over, _exchange, _unlink, _link, _link_descriptor),
    *(_clone, _copy_range, _set_flags, _set_flags_of_xfs, _in_namespace),
    *(_remove_folder, _rename_folder, _replace_folder),
)

LIFTING = (_set_flags, _set_flags_of_xfs)
"""Root may."""

WITHOUT_REFLINKS = {"Ext4": (_clone,)}
"""Ways that a filesystem does not have."""


def attacked(kind: type[Loop], seals: bool = True) -> Callable[[Path, int], Outcome]:
    """Attack files on a filesystem.

    :param seals: whether they are sealed
    """

    def prove(folder: Path, trials: int) -> Outcome:
        folder.chmod(0o755)
        faults: list[str] = []
        tried = 0
        with kind(folder / "place") as disk:
            (folder / "place").chmod(0o755)
            missing = WITHOUT_REFLINKS.get(kind.__name__, ())
            for number in range(trials):
                for uid in (USER, 0):
                    for way in WAYS:
                        if way in missing or (uid == 0 and way in LIFTING):
                            continue
                        tried += 1
                        home = disk.root / f"home-{number}-{uid}-{tried}"
                        with _home(home) as target:
                            if seals:
                                _seal(home)
                            fault = list(_attack(target, way, uid, seals))
                        who = "root" if uid == 0 else "the daemon's user"
                        faults += [f"{way.__name__} as {who}: {each}" for each in fault]
            if seals:
                faults += _from_before(disk.root)
                faults += _with_a_daemon(folder, disk.root)
        return Outcome(
            f"{tried} attacks on {kind.__name__}; {len(faults)} had an effect", faults
        )

    return prove


def tells(folder: Path, trials: int) -> Outcome:
    """The same with files that are not sealed: each way must be noticed."""
    outcome = attacked(Xfs, seals=False)(folder, trials)
    noticed = {each.split()[0] for each in outcome.faults}
    missed = [each.__name__ for each in WAYS if each.__name__ not in noticed]
    return Outcome(
        found_out(outcome).figures, [f"{each}: no effect" for each in missed]
    )


def tells_open(folder: Path, trials: int) -> Outcome:
    """A process that has a file open for writing must be noticed, too: here no process
    is looked for.
    """
    folder.chmod(0o755)
    real = KernelAttributes.is_written
    KernelAttributes.is_written = lambda *_: False  # type: ignore[method-assign]
    try:
        with Xfs(folder / "place") as disk:
            (folder / "place").chmod(0o755)
            faults = [fault for _ in range(trials) for fault in _from_before(disk.root)]
    finally:
        KernelAttributes.is_written = real  # type: ignore[method-assign]
    return found_out(Outcome(f"{trials} trials on Xfs", faults))


@contextmanager
def _home(home: Path) -> Iterator[Target]:
    """A home of the daemon's user with a few files, removed afterwards."""
    bucket = home / "web01"
    bucket.mkdir(parents=True)
    (home / ".filebucket").mkdir()
    for name in ("file", "other"):
        (bucket / name).write_bytes(expected(named(name, SIZE)))
        (bucket / name).chmod(0o600)
    run("chown", "-R", f"{USER}:{USER}", home)
    try:
        yield Target(bucket / "file", bucket / "other", bucket)
    finally:
        run("chattr", "-R", "-f", "-i", "-a", home)
        shutil.rmtree(home, ignore_errors=True)


def _seal(home: Path) -> dict[str, Fate]:
    """Seal its files at once, and return the results.

    The other file is left as it is, as if it was new.
    """
    with sealing(str(home)) as opened:
        opened.protect()
        found = {
            os.fsdecode(each.name or b""): each.fate
            for each in opened.seal("web01", time.time() + 60)
        }
        list(opened.lift("web01", [b"other"]))
        return found


State: TypeAlias = dict[str, Any]


def _state(target: Target) -> State:
    found = target.file.lstat()
    names = ("st_mode", "st_uid", "st_gid", "st_ino", "st_nlink", "st_size")
    state: State = {name: getattr(found, name) for name in names}
    state |= {"mtime": found.st_mtime_ns, "changed": found.st_ctime_ns}
    state["content"] = target.file.read_bytes()
    state["attributes"] = os.listxattr(target.file)
    state["folder"] = target.bucket.stat().st_ino
    state["flags"] = _flags(target.file)
    return state


def _flags(path: Path) -> int:
    with _folder(path.parent) as fd, looking_at(path.name, fd) as opened:
        return KERNEL.get(opened) & (IMMUTABLE | APPEND_ONLY)


def _attack(target: Target, way: Way, uid: int, seals: bool) -> Iterator[str]:
    before = _state(target)
    if seals and not before["flags"] & IMMUTABLE:
        yield "it was not sealed"
    _as_user(uid, lambda: way(target))
    try:
        after = _state(target)
    except OSError as error:
        yield f"the file is gone: {error.strerror}"
        return
    changed = [key for key, value in before.items() if after[key] != value]
    if changed:
        yield f"changed {', '.join(changed)}"


def _as_user(uid: int, act: Callable[[], None]) -> None:
    """Act in another process, which may fail or be killed."""
    child = os.fork()
    if not child:
        try:
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)


def _from_before(root: Path) -> Iterator[str]:
    """A process that had a file open, or mapped, before it was sealed."""
    for mapped in (False, True):
        with _home(root / "before") as target:
            fd = os.open(target.file, os.O_RDWR)
            memory = mmap.mmap(fd, SIZE)
            if mapped:
                # The mapping alone.
                os.close(fd)
            before = target.file.read_bytes()
            fate = _seal(root / "before")["file"]
            sealed = bool(_flags(target.file) & IMMUTABLE)
            if mapped:
                memory[:7] = b"changed"
            else:
                os.write(fd, b"changed")
                os.close(fd)
            memory.close()
            way = "mapped before" if mapped else "open before"
            if sealed and target.file.read_bytes() != before:
                yield f"{way}: changed after it was sealed ({fate.value})"
            if sealed != (fate is Fate.SEALED):
                yield f"{way}: {fate.value}, and sealed is {sealed}"
            if _seal(root / "before")["file"] not in (Fate.SEALED, Fate.ALREADY):
                yield f"{way}: not sealed when it was closed"


def _with_a_daemon(folder: Path, root: Path) -> Iterator[str]:
    """A daemon on a sealed home: it takes pushes, and makes folders of new buckets, but
    cannot replace a sealed file.
    """
    server = Server(folder / "daemon", home=str(root / "pushed"), seal="1s")
    server.hook("pre-push", "exit 2")
    server.start()
    try:
        name = named("pushed", SIZE)
        first, second = (f"{server.url}/{token}/" for token in (OTHER, TOKEN))
        if (status := _push(first + name, expected(name))) != "200":
            yield f"the first push: {status}"
        time.sleep(1.1)
        yield from _filebucket("seal", server)
        if not _flags(server.home / "web01" / name) & IMMUTABLE:
            yield "it was not sealed"
        if (status := _push(first + name, b"another")) != "405":
            yield f"a push over a sealed file: {status}"
        if (server.home / "web01" / name).read_bytes() != expected(name):
            yield "a push replaced a sealed file"
        for url in (first, second):
            if (status := _push(f"{url}new", expected(name))) != "200":
                yield f"a push to a sealed home: {status}"
        for command in ("check", "reindex", "verify", "seal"):
            yield from _filebucket(command, server)
        server.stop()
        server.start()
    finally:
        server.stop()
        run("chattr", "-R", "-f", "-i", "-a", root / "pushed")


def _push(url: str, body: bytes) -> str:
    """The status of a push."""
    done = subprocess.run(
        ["curl", "-so", "/dev/null", "-w", "%{http_code}", "-T-", url],
        input=body,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.stdout.decode()


def _filebucket(command: str, server: Server) -> Iterator[str]:
    """Its output, if it fails."""
    config = str(server.config_file)
    done = subprocess.run(
        [sys.executable, "-m", "filebucket", command, "--config", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        yield f"{command}: {done.stdout}{done.stderr}"


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _call(function: Any, *args: object) -> None:
    if function(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_KILLED = """
import os, signal, sys
left, user, keep = int(sys.argv.pop(1)), int(sys.argv.pop(1)), int(sys.argv.pop(1))
def counted(call):
    def counting(*args, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **named)
    return counting
os.unlink = counted(os.unlink)
from contextlib import nullcontext
from filebucket.base.capability import LINUX_IMMUTABLE, keeping
from filebucket.cli import prune
from filebucket.cli.main import main
from filebucket.store.attributes import KernelAttributes
KernelAttributes.set = counted(KernelAttributes.set)
if user:
    os.setgroups([])
    os.setresgid(user, user, user)
    with keeping(LINUX_IMMUTABLE) if keep else nullcontext():
        os.setresuid(user, user, user)
main()
"""

CALLS = 3
"""Calls for each file: it cannot be unlinked, the flag is lifted, it is unlinked."""


def killed(kind: type[Loop]) -> Callable[[Path, int], Outcome]:
    """``filebucket prune`` is killed between two calls, by turns as root and as the
    daemon's user with the capability.
    """

    def prove(folder: Path, trials: int) -> Outcome:
        chance = random.Random("sealed")
        faults: list[str] = []
        unsealed = 0
        folder.chmod(0o755)
        for number in range(trials):
            with kind(folder / f"disk-{number}") as disk:
                (folder / f"disk-{number}").chmod(0o755)
                killing = _Killing(folder / f"daemon-{number}", disk.root / "home")
                try:
                    found = [*killing.prove(USER if number % 2 else 0, chance)]
                finally:
                    run("chattr", "-R", "-f", "-i", "-a", killing.home)
                unsealed += killing.unsealed
                faults += [f"kill {number}: {fault}" for fault in found]
        return Outcome(
            f"{trials} kills on {kind.__name__}, {unsealed} of them with a file whose"
            f" flag was lifted; {len(faults)} lost, unsealed unseen or left",
            faults,
        )

    return prove


class _Killing:
    """One trial: a home with sealed files, most of which must be pruned.

    :ivar unsealed: whether a file was left unsealed
    :ivar output: the output of the last prune
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.home = home
        self.unsealed = 0
        self.output = ""
        self._server = Server(folder, home=str(home), seal="1s")
        self._server.config["buckets"][1]["keep"] = {"last": 2}
        self._server.write_config()
        folder.chmod(0o755)
        self._server.config_file.chmod(0o644)
        bucket = load(str(self._server.config_file)).buckets[1]
        self._going = pruned.fill(home, bucket)
        self._all = self._there()
        run("chown", "-R", f"{USER}:{USER}", home)
        self._seal()

    def prove(self, user: int, chance: random.Random) -> Iterator[str]:
        yield from self._without_the_right()
        kill_at = chance.randrange(1, CALLS * len(self._going))
        status = self._prune(kill_at, user)
        if status != -signal.SIGKILL:
            yield f"prune ended with {status}"
        there, open_ = self._there(), self._open()
        yield from (f"{name}: lost" for name in self._kept() - there)
        yield from (
            f"{name}: unsealed, though it is kept" for name in open_ - self._going
        )
        self.unsealed = len(open_)
        if len(open_) > 1:
            yield f"{len(open_)} files are unsealed"
        said = self._said("verify", "--json", "--older-than", "1d")
        told = {each["name"] for each in said["findings"] if each["kind"] == "unsealed"}
        if told != open_:
            yield f"verify reports {sorted(told)}, but {sorted(open_)} are unsealed"
        if chance.random() < 0.5:
            self._seal()
            yield from (f"{name}: not sealed again" for name in self._open())
        status = self._prune(0, user)
        if status or self._there() != self._kept():
            left = f"{len(self._there())} files are left"
            yield f"the second prune: {status}, {left}: {self.output[-300:]}"
        yield from (f"{name}: unsealed at the end" for name in self._open())

    def _without_the_right(self) -> Iterator[str]:
        """As the daemon's user without the capability, nothing is deleted."""
        before = self._there()
        status = self._prune(0, USER, keep=False)
        if status != 1 or self._there() != before or self._open():
            yield f"without the capability: {status}, {len(self._there())} files left"

    def _prune(self, kill_at: int, user: int, keep: bool = True) -> int:
        given = [str(kill_at), str(user), str(int(keep))]
        config = str(self._server.config_file)
        command = [sys.executable, "-c", _KILLED, *given, "prune", "-c", config]
        with bounded(
            Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        ) as pruning:
            self.output, _ = pruning.communicate()
        return pruning.returncode

    def _said(self, *arguments: str) -> Any:
        config = str(self._server.config_file)
        done = subprocess.run(
            [sys.executable, "-m", "filebucket", *arguments, "-c", config],
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        return json.loads(done.stdout)

    def _seal(self) -> None:
        """Seal at once what the timer would seal later."""
        with sealing(str(self.home)) as home:
            home.protect()
            list(home.seal("web01", time.time() + 60))

    def _there(self) -> set[str]:
        return set(os.listdir(self.home / "web01"))

    def _open(self) -> set[str]:
        """The files that are not sealed."""
        folder = self.home / "web01"
        return {name for name in self._there() if not _flags(folder / name)}

    def _kept(self) -> set[str]:
        return self._all - self._going
