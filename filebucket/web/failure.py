"""A client's report over HTTP that a backup failed.

| POST /<token>/<name>, Content-Type: text/plain   about the series of that name
| POST /<token>                                    about the whole bucket

No push looks like this: a file comes by PUT, or in a form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from zope.interface import implementer

from filebucket.http.framing import members
from filebucket.push.interfaces import IIncoming, IncomingFile
from filebucket.web.put import Put

TYPE = "text/plain"


@implementer(IIncoming)
class FailureReport(Put):
    """A report, which is the body; UTF-8, whatever its charset."""

    methods: ClassVar[Sequence[str]] = ("POST",)

    def name(self) -> str | None:  # type: ignore[override]
        return self.name_in_url() if any(self.path) or len(self.path) > 1 else None

    async def find_file(self) -> IncomingFile:
        return IncomingFile(self.name() or "", self.length or 0, self.whole)

    def spent(self) -> bool:
        # A retry that sends less of a pipe does no harm.
        return False


def is_report(content_types: Sequence[str]) -> bool:
    """Whether a POST with these values of ``Content-Type`` is a report."""
    kinds = {each.partition(";")[0].strip() for each in members(content_types)}
    return kinds == {TYPE}
