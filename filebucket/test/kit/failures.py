"""The table of :mod:`filebucket.test.kit.failing`."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.failing import (
    COMMAND,
    FILE,
    NOTHING,
    OTHER_FILE,
    PART,
    RESTARTS,
    UNKNOWN_TO_US,
    WHOLE,
    Expected,
    Given,
    Row,
    Stage,
)
from filebucket.test.kit.liars import Portal, Redirecting, WrongReceipt
from filebucket.test.kit.nginx import nginx
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import UNKNOWN, hurried

_SOON = ("--retry-for", "2")
"""Seconds after which a client gives up that would try for two hours."""


def _with(**config: Any) -> Callable[[Stage], None]:
    return lambda stage: stage.start(**config)


def _taken(stage: Stage) -> None:
    stage.start()
    stage.push_other()


def _stored_before(stage: Stage) -> None:
    stage.start()
    stage.push_other(stage.path.read_bytes())


def _hook_meanwhile(stage: Stage) -> None:
    stage.daemon.hook("pre-push", "exit 1")


def _hook(script: str) -> Callable[[Stage], None]:
    def arrange(stage: Stage) -> None:
        stage.start()
        stage.daemon.hook("pre-push", script)

    return arrange


def _cut(stage: Stage) -> None:
    stage.start()
    stage.cut()


def _answer_lost(stage: Stage) -> None:
    stage.start()
    stage.cut(lose=b"HTTP/1.1 200 ")


def _answer_cut(status: int) -> Callable[[Stage], None]:
    """The status arrives, and some of the headers."""

    def arrange(stage: Stage) -> None:
        stage.start()
        stage.cut(lose=b"HTTP/1.1 %d " % status, keep=40)

    return arrange


def _liar(answers: Any) -> Callable[[Stage], None]:
    return lambda stage: stage.lies(answers)


def _never_up(stage: Stage) -> None:
    # Bound, so that no other program listens there.
    reserved = stage.closing.enter_context(socket.socket())
    reserved.bind(("127.0.0.1", 0))
    stage.url = f"http://127.0.0.1:{reserved.getsockname()[1]}"


def _up_later(stage: Stage) -> None:
    """The daemon starts after the first try to connect."""
    stage.start()
    stage.daemon.stop()
    gate = socket.create_server(("127.0.0.1", stage.daemon.port))

    def come() -> None:
        gate.accept()[0].close()
        gate.close()
        stage.daemon.start()

    stage.in_background(come)


def _behind_nginx(stage: Stage) -> None:
    _proxied(stage, stage.scale.limit)


def _behind_default_nginx(stage: Stage) -> None:
    _proxied(stage, "1m")


def _proxied(stage: Stage, limit: str) -> None:
    stage.start(trusted_proxies=["127.0.0.1"])
    (port,) = free_ports(1)
    proxy = nginx(stage.folder, port, stage.url, limit)
    stage.closing.enter_context(proxy)
    stage.url = f"http://127.0.0.1:{port}"


def _secure(stage: Stage) -> None:
    (stage.folder / "server").mkdir()
    write_pair(stage.folder / "server")
    tls = "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem"
    stage.start(listen=[tls])


def _https_to_http(stage: Stage) -> None:
    stage.start()
    stage.url = stage.url.replace("http:", "https:")


def _wrong_path(stage: Stage) -> None:
    stage.start()
    stage.url += "/backup"


def _wrong_host(stage: Stage) -> None:
    stage.url = "http://host.invalid:1234"


def _unknown_token(stage: Stage) -> None:
    stage.start()
    stage.token = UNKNOWN


def _missing(stage: Stage) -> None:
    stage.start()
    stage.path.unlink()


def _unreadable(stage: Stage) -> None:
    stage.start()
    stage.path.chmod(0)


def _folder(stage: Stage) -> None:
    _missing(stage)
    stage.path.mkdir()


def _fifo(stage: Stage) -> None:
    _missing(stage)
    os.mkfifo(stage.path)


def _changes(stage: Stage) -> None:
    with stage.path.open("ab") as file:
        file.write(b"more")


def _shrinks(stage: Stage) -> None:
    os.truncate(stage.path, stage.scale.half)


def _restarts(stage: Stage) -> None:
    stage.restart()


def _restarts_often(stage: Stage) -> None:
    for _ in range(RESTARTS):
        # While parts are sent.
        stage.more()
        stage.restart()
        stage.wait_for_stop()


def _name_taken(stage: Stage) -> None:
    stage.push_other()


def _quota_reached(stage: Stage) -> None:
    stage.reload(quota=stage.scale.half // 2)


def _revoked(stage: Stage) -> None:
    stage.reload(expires="2020-01-01")


def _no_space(stage: Stage) -> None:
    stage.restart(min_free_space="100 %")


def _expired(stage: Stage) -> None:
    stage.restart(*hurried("push.sessions", SWEEP_EVERY=0.1), unfinished="1s")
    stage.daemon.wait_for("upload of .* ended after")
    stage.restart(unfinished="1d")


def _signaled(number: int) -> Callable[[Stage], None]:
    return lambda stage: stage.tell(number)


def _killed(stage: Stage) -> None:
    stage.tell(signal.SIGKILL)


_NOT_STORED = "; nothing is stored"
_EXITED = f"exited with 1{_NOT_STORED}"
_FAILS = Expected(3, NOTHING, says=_EXITED)
_STORED = Expected(0, WHOLE)

ROWS = (
    # The command.
    Row(
        "the command exits with 1 at once",
        Given("command", prints="nothing", end="1"),
        _FAILS,
        (False, NOTHING),
    ),
    Row(
        "the command exits with 1 in the middle",
        Given("command", prints="half", end="1"),
        _FAILS,
        (True, PART),
    ),
    Row(
        "the command exits with 1 at the end",
        Given("command", end="1"),
        _FAILS,
        (True, WHOLE),
    ),
    Row(
        "a signal ends the command",
        Given("command", prints="half", end="SIGKILL"),
        Expected(3, NOTHING, says=f"was ended by SIGKILL{_NOT_STORED}"),
        (True, PART),
    ),
    Row(
        "the command exits with 0, and prints nothing",
        Given("command", prints="nothing"),
        Expected(1, NOTHING, says=r"the file is empty; .* \(400\)"),
        (False, NOTHING),
    ),
    Row(
        "the command does not exist",
        COMMAND,
        Expected(3, NOTHING, says="command not found"),
        (False, NOTHING),
        command=["no-such-command"],
    ),
    Row(
        "the command exits with 0, and its child keeps the pipe for a while",
        Given("command", keeps=True),
        _STORED,
        (True, WHOLE),
    ),
    Row(
        "the command exits with 1, and its child keeps the pipe",
        Given("command", prints="half", end="1", keeps=True),
        _FAILS,
        (True, PART),
    ),
    # The client.
    *(
        Row(
            f"the client gets {signal.Signals(number).name}",
            COMMAND,
            Expected(-number, NOTHING),
            (False, NOTHING),
            meanwhile=_signaled(number),
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    ),
    Row(
        "the client is killed",
        COMMAND,
        Expected(-signal.SIGKILL, NOTHING, left=1),
        (False, NOTHING),
        meanwhile=_signaled(signal.SIGKILL),
    ),
    Row(
        "the client gets SIGTERM",
        FILE,
        Expected(-signal.SIGTERM, NOTHING, left=1),
        (False, NOTHING),
        arrange=_cut,
        meanwhile=_signaled(signal.SIGTERM),
    ),
    # The server.
    Row(
        "the server is killed, and restarts",
        COMMAND,
        _STORED,
        (False, NOTHING),
        meanwhile=_restarts,
    ),
    Row(
        f"the server is killed, and restarts, {RESTARTS} times",
        Given("command", steps=RESTARTS),
        _STORED,
        (False, NOTHING),
        meanwhile=_restarts_often,
    ),
    Row(
        "the server is killed, and restarts",
        FILE,
        _STORED,
        (False, NOTHING),
        arrange=_cut,
        meanwhile=_restarts,
    ),
    Row(
        "the server is down, and then starts",
        COMMAND,
        _STORED,
        (False, NOTHING),
        arrange=_up_later,
    ),
    Row(
        "the server does not start",
        COMMAND,
        Expected(75, UNKNOWN_TO_US, says="gave up after 2 s .*Connection refused"),
        (False, UNKNOWN_TO_US),
        options=_SOON,
        arrange=_never_up,
        never_starts=True,
    ),
    Row(
        "the answer to the last part is lost",
        COMMAND,
        _STORED,
        (False, WHOLE),
        arrange=_answer_lost,
    ),
    Row(
        "the answer to the last part is lost",
        FILE,
        _STORED,
        (False, WHOLE),
        arrange=_answer_lost,
    ),
    Row(
        "the answer to the only request is lost",
        Given("file", small=True),
        _STORED,
        (False, WHOLE),
        arrange=_answer_lost,
    ),
    Row(
        "the answer to the last part is cut",
        COMMAND,
        _STORED,
        (True, WHOLE),
        arrange=_answer_cut(200),
    ),
    Row(
        "the answer to the creation is cut",
        COMMAND,
        Expected(0, WHOLE, left=1),
        arrange=_answer_cut(201),
    ),
    Row(
        "the answer to the creation is cut",
        FILE,
        # It has no SHA-256 by which the server finds the upload, if the file is large.
        Expected(0, WHOLE, left=None),
        arrange=_answer_cut(201),
    ),
    Row(
        "the upload expires meanwhile",
        COMMAND,
        Expected(75, NOTHING, says=f"a pipe cannot be read again{_NOT_STORED}"),
        meanwhile=_expired,
    ),
    Row(
        "the upload expires meanwhile",
        FILE,
        _STORED,
        arrange=_cut,
        meanwhile=_expired,
    ),
    Row(
        "the server has no resumable uploads",
        FILE,
        _STORED,
        (True, WHOLE),
        arrange=_with(unfinished=0),
    ),
    Row(
        "the server has no resumable uploads",
        COMMAND,
        Expected(1, NOTHING, says="no resumable uploads, .* use --spool DIR"),
        (True, WHOLE),
        arrange=_with(unfinished=0),
        never_starts=True,
    ),
    Row(
        "the server has no resumable uploads",
        COMMAND,
        _STORED,
        options=("--spool", "."),
        arrange=_with(unfinished=0),
    ),
    Row(
        "the server has no resumable uploads, and the command exits with 1",
        Given("command", prints="half", end="1"),
        _FAILS,
        options=("--spool", "."),
        arrange=_with(unfinished=0),
    ),
    # The bucket.
    Row(
        "the name is taken before",
        COMMAND,
        Expected(1, OTHER_FILE, says=r"already exists \(405\); .* another --name"),
        (False, OTHER_FILE),
        arrange=_taken,
        never_starts=True,
    ),
    Row(
        "the name is taken meanwhile",
        COMMAND,
        Expected(1, OTHER_FILE, says=r"already exists \(405\); .* another --name"),
        (False, OTHER_FILE),
        meanwhile=_name_taken,
    ),
    Row(
        "the name is taken before, by the same file",
        FILE,
        _STORED,
        (False, WHOLE),
        arrange=_stored_before,
    ),
    Row(
        "the quota is reached before",
        COMMAND,
        Expected(75, NOTHING, says=r"gave up .* quota .* \(507\)"),
        (False, NOTHING),
        options=_SOON,
        arrange=_with(bucket={"quota": "1 KiB"}),
        never_starts=True,
    ),
    Row(
        "the quota is reached meanwhile",
        COMMAND,
        Expected(75, NOTHING, says=r"gave up .* quota .* \(507\)"),
        # It applies to the next push.
        (True, WHOLE),
        options=_SOON,
        meanwhile=_quota_reached,
    ),
    Row(
        "the token is unknown",
        COMMAND,
        Expected(1, NOTHING, says=r"no such token \(403\); check the token file"),
        (False, NOTHING),
        arrange=_unknown_token,
        never_starts=True,
    ),
    Row(
        "the token is revoked meanwhile",
        COMMAND,
        Expected(1, NOTHING, says=r"no such token \(403\)"),
        (False, NOTHING),
        meanwhile=_revoked,
    ),
    Row(
        "min_free_space is reached meanwhile",
        COMMAND,
        Expected(75, NOTHING, says=r"gave up .*not enough free space.*507"),
        (False, NOTHING),
        options=("--retry-for", "10"),
        meanwhile=_no_space,
    ),
    Row(
        "pre-push refuses the creation",
        COMMAND,
        Expected(1, NOTHING, says=r"rejected by .* pre-push hook \(409\)"),
        (False, NOTHING),
        arrange=_hook("exit 1"),
        never_starts=True,
    ),
    Row(
        "pre-push refuses the end",
        COMMAND,
        Expected(1, NOTHING, says=r"rejected by .* pre-push hook \(409\)"),
        # Its pre-push ran before the body.
        (True, WHOLE),
        meanwhile=_hook_meanwhile,
    ),
    # The way.
    Row(
        "a proxy limits requests",
        COMMAND,
        _STORED,
        (False, NOTHING),
        arrange=_behind_nginx,
        needs="nginx",
    ),
    Row(
        "a proxy limits requests",
        FILE,
        _STORED,
        (False, NOTHING),
        arrange=_behind_nginx,
        needs="nginx",
    ),
    Row(
        "a proxy limits requests to 1 MiB",
        Given("file", small=True),
        _STORED,
        (False, NOTHING),
        arrange=_behind_default_nginx,
        needs="nginx",
    ),
    Row(
        "the certificate is not trusted",
        FILE,
        Expected(1, NOTHING, says="certificate is not trusted: .* --cacert"),
        (False, NOTHING),
        arrange=_secure,
    ),
    Row(
        "the URL has https, and the server has not",
        FILE,
        Expected(1, NOTHING, says="does not speak TLS.* http://"),
        (False, NOTHING),
        arrange=_https_to_http,
    ),
    Row(
        "the URL has a wrong path",
        FILE,
        Expected(1, NOTHING, says=r"a name may not contain '/' \(400\)"),
        (False, NOTHING),
        arrange=_wrong_path,
    ),
    Row(
        "the URL has an unknown host",
        FILE,
        Expected(75, UNKNOWN_TO_US, says="gave up .*(known|resolution)"),
        (False, UNKNOWN_TO_US),
        options=_SOON,
        arrange=_wrong_host,
    ),
    Row(
        "the server redirects",
        FILE,
        Expected(
            1, UNKNOWN_TO_US, says="redirects to 'https://backup.example.org'.* URL"
        ),
        (True, UNKNOWN_TO_US),
        arrange=_liar(Redirecting),
    ),
    Row(
        "a captive portal answers",
        FILE,
        Expected(1, UNKNOWN_TO_US, says=r"answer \(200\) is not file-bucket's"),
        (True, UNKNOWN_TO_US),
        arrange=_liar(Portal),
    ),
    Row(
        "a captive portal answers",
        COMMAND,
        Expected(1, UNKNOWN_TO_US, says=r"answer \(200\) is not file-bucket's"),
        (True, UNKNOWN_TO_US),
        arrange=_liar(Portal),
        never_starts=True,
    ),
    *(
        Row(
            "the receipt is for other bytes",
            given,
            Expected(1, UNKNOWN_TO_US, says="receipt is for other bytes"),
            (True, UNKNOWN_TO_US),
            arrange=_liar(WrongReceipt),
        )
        for given in (COMMAND, FILE, Given("file", small=True))
    ),
    # The file.
    Row(
        "the file does not exist",
        FILE,
        Expected(2, NOTHING, says="No such file"),
        (False, NOTHING),
        arrange=_missing,
    ),
    Row(
        "the file cannot be read",
        FILE,
        Expected(2, NOTHING, says="Permission denied"),
        (False, NOTHING),
        arrange=_unreadable,
        needs="setpriv",
        unprivileged=True,
    ),
    Row(
        "the file is a folder",
        FILE,
        Expected(2, NOTHING, says="not a regular file"),
        (False, NOTHING),
        arrange=_folder,
    ),
    Row(
        "the file is a named pipe",
        FILE,
        Expected(2, NOTHING, says="not a regular file; try --name NAME - <"),
        arrange=_fifo,
    ),
    Row(
        "the file grows while it is pushed",
        FILE,
        Expected(2, NOTHING, says=f"changed while it was pushed{_NOT_STORED}"),
        (False, NOTHING),
        arrange=_cut,
        meanwhile=_changes,
    ),
    Row(
        "the file shrinks while it is pushed",
        FILE,
        Expected(2, NOTHING, says=f"changed while it was pushed{_NOT_STORED}"),
        (False, NOTHING),
        arrange=_cut,
        meanwhile=_shrinks,
    ),
)
