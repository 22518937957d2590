"""A push over HTTP: what its headers and its URL say, and what is answered.

:class:`Put` is the raw body of a PUT, :class:`Form` a form that is sent by POST. Both
are an :class:`~filebucket.push.interfaces.IIncoming`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from attrs import field, frozen
from twisted.web.http_headers import Headers
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.model import names
from filebucket.model.push import Outcome
from filebucket.push.interfaces import IIncoming, IncomingFile
from filebucket.web import digests, form

METHODS = ("POST", "PUT")


@frozen
class _Request:
    """What a client asks, as far as its headers say.

    :param path: the components after the token, percent-decoded
    :param has_query: whether a query string follows them
    :param length: of the body in bytes as declared; None where it is chunked
    :param client: ``ip:port``
    :param body: batches of the body's chunks; may raise :class:`Refusal`
    :param failed: why the body will not come whole, if it is known not to
    """

    method: str
    path: Sequence[bytes] = field(repr=False)
    has_query: bool
    headers: Headers = field(repr=False)
    length: int | None
    client: str
    body: AsyncIterator[Sequence[bytes]] = field(repr=False)
    failed: Callable[[], Refusal | None] = field(repr=False)

    @property
    def waits(self) -> bool:
        return bool(self.headers.hasHeader("Expect"))

    def check(self) -> None:
        if self.method not in METHODS:
            reason = "only POST and PUT are answered here; nothing can be read"
            raise Refusal(405, reason, {"Allow": ", ".join(METHODS)})
        for value in self._values("Expect"):
            if value.lower() != "100-continue":
                raise Refusal(417, "an Expect other than 100-continue")
        if not (
            self.headers.hasHeader("Content-Length")
            or self.headers.hasHeader("Transfer-Encoding")
        ):
            raise Refusal(411, "neither a Content-Length nor a chunked body")
        for value in self._values("Content-Encoding"):
            if value.lower() != "identity":
                raise Refusal(
                    415,
                    "a Content-Encoding other than identity; files are kept as sent",
                )
        if self.headers.hasHeader("Content-Range"):
            # RFC 9110, 14.5: who does not take parts must not take one for all.
            raise Refusal(400, "a part of a file (Content-Range) cannot be pushed")

    def failure(self) -> Refusal | None:
        return self.failed()

    def _values(self, name: str) -> list[str]:
        """The values of a header; what is not UTF-8 in them matches nothing."""
        values = self.headers.getRawHeaders(name.encode("ascii"), [])
        return [value.decode("utf-8", "replace") for value in values]


@implementer(IIncoming)
class Put(_Request):
    """A file that is the body, under the name in the URL."""

    overhead = 0

    def promised(self) -> dict[str, bytes]:
        return digests.promised(
            self._values("X-Checksum-Sha256"),
            self._values("Content-Digest"),
            self._values("Repr-Digest"),
        )

    def name(self) -> str:
        if not any(self.path):
            raise Refusal(412, "no file name in the URL; use curl -T FILE URL/NAME")
        if len(self.path) > 1:
            raise Refusal(400, "a name may not contain '/'")
        if self.has_query:
            raise Refusal(400, "a name ends at '?'; in a URL, write it as %3F")
        try:
            return names.decode(self.path[0])
        except ValueError as error:
            raise Refusal(400, str(error)) from None

    async def find_file(self) -> IncomingFile:
        size = -1 if self.length is None else self.length
        return IncomingFile(self.name(), size, self.body)


@implementer(IIncoming)
class Form(_Request):
    """A file in a form, which has its name."""

    overhead = form.MOST_OVERHEAD

    def promised(self) -> dict[str, bytes]:
        # Content-Digest and Repr-Digest speak of the form, boundaries and all (RFC
        # 9530, 2).
        return digests.promised(self._values("X-Checksum-Sha256"))

    def name(self) -> None:
        if any(self.path) or len(self.path) > 1:
            raise Refusal(
                400,
                "POST takes no name in the URL; use curl -F file=@NAME, or curl -T",
            )

    async def find_file(self) -> IncomingFile:
        content_type = ", ".join(self._values("Content-Type"))
        found = await form.find_file(self.body, content_type, self.length)
        return IncomingFile(found.name, found.size, found)


def answer(outcome: Outcome) -> tuple[dict[str, str], bytes]:
    """The headers and the body of the answer to a push."""
    if outcome.reason is not None:
        return dict(outcome.headers), f"{outcome.reason}\n".encode()
    headers = {"X-Checksum-Sha256": outcome.sha256 or ""}
    if outcome.post_push is None:
        # As sha256sum prints it, so that sha256sum -c can check it.
        return headers, f"{outcome.sha256}  {outcome.name}\n".encode()
    if outcome.post_push:
        headers["X-Post-Push-Exit"] = str(outcome.post_push)
    return headers, outcome.output
