"""HTTP/1.1 to one server, one request after the other.

http.client writes the request and reads the answer; the body is sent here, because the
server may answer before it has the whole body, and must be heard then.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any, Protocol

from filebucket.client.access import Server
from filebucket.client.errors import RefusedError

CONNECT_TIMEOUT = 30.0
SEND_TIMEOUT = 300.0
"""Seconds in which at least some bytes of a body must be taken."""

ANSWER_TIMEOUT = 900.0
"""Seconds until the answer: the server's two hooks may take five minutes each."""

LATE_TIMEOUT = 1.0
"""Seconds until the answer if the body could not be sent."""

IDLE = 20.0
"""Seconds after which an idle connection is not used any more: the server, or a proxy,
may be about to close it."""

MOST_ANSWER = 1024 * 1024
"""Bytes of an answer. The rest is not read."""

PIECE = 1024 * 1024
"""Bytes of a body that are sent at once."""


_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
"""What OpenSSL tells if a server answers without TLS."""

_OTHER_NAME = {62, 64}
"""OpenSSL's codes for a certificate of another host, or of another address
(X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH)."""

_NO_CERTIFICATE = "CERTIFICATE_REQUIRED"
_BAD_CERTIFICATE = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNSUPPORTED_CERTIFICATE",
)
"""How OpenSSL's names of a server's alerts end."""

_CUT = (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError)
"""How a connection ends that the server closes."""


class Body(Protocol):
    """Bytes to send.

    :ivar size: number of bytes
    """

    size: int

    def send(self, sock: socket.socket, start: int, most: int) -> int:
        """Send at most ``most`` bytes from ``start`` on.

        :returns: number of bytes sent
        """


@dataclass(frozen=True)
class Answer:
    """An answer.

    :param body: its content, if it is not too long
    """

    status: int
    headers: Message
    body: bytes

    @property
    def line(self) -> str:
        """The server's reason: the first line of its content."""
        # The pages of proxies begin with <html>.
        is_text = self.headers.get_content_type() == "text/plain"
        text = self.body.decode("utf-8", "replace").strip() if is_text else ""
        line = "".join(filter(str.isprintable, text.partition("\n")[0][:300].strip()))
        return line or http.client.responses.get(self.status, "no reason given")

    @property
    def is_of_file_bucket(self) -> bool:
        """Whether the server gave it, not a proxy before it."""
        return "X-Request-Id" in self.headers


class _Lines:
    """The lines of an answer: http.client would take the end of the connection for the
    end of the headers."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readline(self, most: int) -> bytes:
        line: bytes = self._file.readline(most)
        if not line.endswith(b"\n") and len(line) < most:
            raise http.client.RemoteDisconnected("the answer is incomplete")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Until(io.RawIOBase):
    """The bytes of an answer, which must be whole within the socket's timeout: that of
    the socket starts again at each byte.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._until = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *given: Any, **named: Any) -> None:
        super().__init__(sock, *given, **named)
        self.fp: Any = io.BufferedReader(_Until(self.fp.detach(), sock))

    def begin(self) -> None:
        self.fp = _Lines(self.fp)
        super().begin()


def _without(token: str, headers: Message) -> Message:
    """Headers without the token, which a server may repeat."""
    found = Message()
    for name, value in headers.items():
        found[name] = value.replace(token, "TOKEN")
    return found


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, server: Server, timeout: float) -> None:
        super().__init__(server.host, server.port, timeout=timeout)
        self._path = path
        self._tls = server.tls

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)


class Connection:
    """A connection that is made when it is needed, and made again after an error."""

    def __init__(
        self,
        server: Server,
        agent: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param agent: the name of the client
        """
        self._server = server
        self._agent = agent
        self._monotonic = monotonic
        self._http: http.client.HTTPConnection | None = None
        self._used = 0.0
        self._answered = False

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        sent: Callable[[int], object] = lambda _: None,
        patience: float = ANSWER_TIMEOUT,
    ) -> Answer:
        """Send a request, and return the answer.

        :param path: below the server's URL, percent-encoded, without a slash before it
        :param sent: called with the number of bytes of the body that were sent so far
        :param patience: seconds until the answer is there
        :raises OSError: no answer came, and the request may or may not have arrived
        :raises RefusedError: one side does not accept the certificate of the other
        """
        try:
            return self._request(method, path, headers, body, sent, patience)
        except ssl.SSLCertVerificationError as error:
            self.close()
            if error.verify_code in _OTHER_NAME:
                raise RefusedError(
                    f"{self._server.text}: the server's certificate is not valid for"
                    f" {self._server.host!r}: use a name of the certificate in the URL"
                ) from None
            raise RefusedError(
                f"{self._server.text}: the server's certificate is not trusted:"
                f" {error.verify_message}; if it is your own, pass it as --cacert"
            ) from None
        except http.client.HTTPException as error:
            self.close()
            reason = f"no valid answer: {type(error).__name__}"
            if isinstance(error, http.client.RemoteDisconnected):
                reason = f"the server closed the connection{self._hint}"
            raise OSError(reason) from error
        except _CUT as error:
            self.close()
            if not self._hint:
                raise
            reason = error.strerror or str(error)
            raise type(error)(error.errno, f"{reason}{self._hint}") from None
        except ssl.SSLError as error:
            self.close()
            if error.reason in _NO_TLS:
                raise RefusedError(
                    f"{self._server.text}: the server does not speak TLS on this port:"
                    " write http:// in place of https://, or name another port"
                ) from None
            reason = error.reason or ""
            if reason.endswith(_NO_CERTIFICATE):
                raise RefusedError(
                    f"{self._server.text}: the server requires a certificate of the"
                    " client: use --cert and --key"
                ) from None
            if reason.endswith(_BAD_CERTIFICATE):
                alert = reason.partition("ALERT_")[2].lower().replace("_", " ")
                raise RefusedError(
                    f"{self._server.text}: the server does not accept the certificate"
                    f" of --cert: {alert}"
                ) from None
            raise
        except BaseException:
            self.close()
            raise

    @property
    def _hint(self) -> str:
        """What else may be the reason if the server closes the connection."""
        if self._answered:
            return ""
        if self._server.tls is None:
            return ": if it uses TLS, write https:// in place of http://"
        # The TLS alert that tells it may be lost.
        return ": the server may not accept --cert" if self._server.certified else ""

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body | None,
        sent: Callable[[int], object],
        patience: float,
    ) -> Answer:
        if self._http is not None and (
            self._monotonic() - self._used > IDLE or _is_readable(self._http.sock)
        ):
            self.close()
        if self._http is None:
            self._http = self._connect(min(CONNECT_TIMEOUT, patience))
        connection = self._http
        connection.putrequest(
            method, f"{self._server.prefix}/{path}", skip_accept_encoding=True
        )
        connection.putheader("User-Agent", self._agent)
        connection.putheader("Authorization", f"Bearer {self._server.token}")
        if body is not None:
            connection.putheader("Content-Length", str(body.size))
        for name, value in headers.items():
            connection.putheader(name, value)
        sock = connection.sock
        sock.settimeout(min(SEND_TIMEOUT, patience))
        failed = _send(connection, body, sent)
        sock.settimeout(LATE_TIMEOUT if failed else patience)
        try:
            response = connection.getresponse()
            content = response.read(MOST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            try:
                if failed is not None and not _is_alert(error):
                    raise failed from None
            finally:
                # The error has this frame, and so the body, in a circle.
                failed = None
            raise
        if failed is not None or response.will_close or not response.isclosed():
            self.close()
        self._used = self._monotonic()
        self._answered = True
        # Reasons are printed, and a server may repeat the token in them.
        token = self._server.token
        content = content.replace(token.encode(), b"TOKEN")
        return Answer(response.status, _without(token, response.headers), content)

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        server = self._server
        made: http.client.HTTPConnection
        if server.unix_socket is not None:
            made = _UnixConnection(server.unix_socket, server, timeout)
        elif server.tls is not None:
            made = http.client.HTTPSConnection(
                server.host, server.port, timeout=timeout, context=server.tls
            )
        else:
            made = http.client.HTTPConnection(server.host, server.port, timeout=timeout)
        made.response_class = _Response
        try:
            made.connect()
            _keep_alive(made.sock)
        except ssl.SSLError:
            made.close()
            raise
        except OSError as error:
            made.close()
            reason = error.strerror or error
            hint = self._hint if isinstance(error, _CUT) else ""
            raise OSError(f"cannot connect to {server.text}: {reason}{hint}") from error
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Close the connection, if there is one."""
        made, self._http = self._http, None
        if made is not None:
            made.close()


def _send(
    connection: http.client.HTTPConnection,
    body: Body | None,
    sent: Callable[[int], object],
) -> OSError | None:
    """Send the headers, and a body until its end, or until the server answers.

    :returns: the error that ended it: the server may have answered before
    """
    start = 0
    sock = connection.sock
    # TLS has messages of its own, so there a readable socket says nothing.
    hears = not isinstance(sock, ssl.SSLSocket)
    try:
        connection.endheaders()
        while body is not None and start < body.size:
            if hears and _is_readable(sock):
                return ConnectionResetError("the server closed the connection")
            start += body.send(sock, start, PIECE)
            sent(start)
    except OSError as error:
        return error
    return None


def _is_alert(error: Exception) -> bool:
    """Whether it is a TLS alert, which tells why the server ends the connection."""
    return isinstance(error, ssl.SSLError) and "ALERT_" in (error.reason or "")


def _is_readable(sock: socket.socket) -> bool:
    """Whether the server has sent something, or has closed the connection."""
    return bool(select.select([sock], [], [], 0)[0])


def _keep_alive(sock: socket.socket) -> None:
    """Notice within two minutes that the other machine is gone."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", 60),
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 6),
        ):
            if hasattr(socket, name) and sock.family != getattr(socket, "AF_UNIX", 0):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
