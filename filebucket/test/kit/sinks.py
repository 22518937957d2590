"""Servers that receive what hooks send, in a thread, on this machine only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, StreamRequestHandler, ThreadingTCPServer
from typing import Any

TIMEOUT = 30.0
"""Seconds that a client may be silent."""


class Sink(ThreadingTCPServer):
    """A server that keeps what it receives.

    :ivar received: what has arrived
    """

    def __init__(self, answers: type[BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), answers)
        self.received: list[Any] = []
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop it, and wait until its connections are closed."""
        self.shutdown()
        self.server_close()


class _Smtp(StreamRequestHandler):
    """As much of SMTP (RFC 5321) as a mailer needs."""

    timeout = TIMEOUT

    def handle(self) -> None:
        to: list[str] = []
        self._say("220 sink")
        for line in self.rfile:
            word, _, rest = line.decode().strip().partition(" ")
            if word.upper() == "RCPT":
                to.append(rest.partition("<")[2].rstrip(">"))
            elif word.upper() == "DATA":
                self._say("354 go on")
                self._take(to)
            elif word.upper() == "QUIT":
                self._say("221 bye")
                return
            self._say("250 ok")

    def _take(self, to: list[str]) -> None:
        lines = iter(self.rfile.readline, b".\r\n")
        text = b"".join(each.removeprefix(b".") for each in lines)
        mail = message_from_bytes(text, policy=policy.default)
        assert isinstance(self.server, Sink)
        self.server.received.append((to, mail))

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


class _Json(BaseHTTPRequestHandler):
    """An HTTP server for JSON."""

    timeout = TIMEOUT

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Sink)
        self.server.received.append(json.loads(content))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class MailSink(Sink):
    """An SMTP server.

    :ivar received: for each mail its recipients, and the mail
    """

    received: list[tuple[list[str], EmailMessage]]

    def __init__(self, clean_up: Callable[[Callable[[], object]], object]) -> None:
        """
        :param clean_up: has the server stopped later
        """
        super().__init__(_Smtp)
        clean_up(self.close)


class JsonSink(Sink):
    """An HTTP server.

    :ivar received: the bodies of requests
    """

    def __init__(self, clean_up: Callable[[Callable[[], object]], object]) -> None:
        """
        :param clean_up: has the server stopped later
        """
        super().__init__(_Json)
        clean_up(self.close)
