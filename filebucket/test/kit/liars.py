"""Servers that are not file-bucket, or that lie."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOT_OURS = "0" * 64
"""The SHA-256 of another file."""


class _Server(ThreadingHTTPServer):
    # Then server_close() waits for the requests.
    daemon_threads = False


class Liar:
    """A server on this machine that reads each request to its end.

    :ivar port: where it listens
    """

    def __init__(self, answers: type[BaseHTTPRequestHandler]) -> None:
        self._server = _Server(("127.0.0.1", 0), answers)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections, and wait until the others are closed."""
        self._server.shutdown()
        self._server.server_close()


class _Reader(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def read_body(self) -> int:
        """Read it, and return its size."""
        size, length = 0, self.headers["Content-Length"]
        if length is not None:
            while size < int(length):
                size += len(self.rfile.read(min(int(length) - size, 1 << 20)))
        elif self.headers["Transfer-Encoding"]:
            while count := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(count))
                self.rfile.readline()
            self.rfile.readline()
        return size

    def answer(self, status: int, text: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())


class Portal(_Reader):
    """The captive portal of a hotel: each request gets its page."""

    def do_PUT(self) -> None:
        self.read_body()
        self.answer(200, "<!DOCTYPE html><title>Welcome</title>")

    do_PATCH = do_HEAD = do_DELETE = do_PUT


class Redirecting(_Reader):
    """A server that has moved."""

    def do_PUT(self) -> None:
        self.read_body()
        self.answer(308, "moved\n", Location=f"https://backup.example.org{self.path}")

    do_PATCH = do_HEAD = do_DELETE = do_PUT


class WrongReceipt(_Reader):
    """A server that stores other bytes than it was sent."""

    def do_PUT(self) -> None:
        self.read_body()
        if self.headers["Upload-Complete"] != "?0":
            self._receipt()
            return
        self.answer(
            201, "", X_Request_Id="lie", Location="uploads/lie", Upload_Offset="0"
        )

    def do_PATCH(self) -> None:
        size = self.read_body()
        if self.headers["Upload-Complete"] == "?1":
            self._receipt()
            return
        offset = int(self.headers["Upload-Offset"]) + size
        self.answer(204, "", X_Request_Id="lie", Upload_Offset=str(offset))

    def do_DELETE(self) -> None:
        self.answer(204, "", X_Request_Id="lie")

    def _receipt(self) -> None:
        self.answer(
            200, f"{NOT_OURS}  x\n", X_Request_Id="lie", X_Checksum_Sha256=NOT_OURS
        )
