"""Format sizes, times and names for people, in a terminal or in one line.

Clients choose the names of files: here they lose control characters and whatever makes
text look like other text. Programs get bytes, seconds and RFC 3339 instead.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType

CUT = "…"

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""Characters that Python counts as letters or marks and that are invisible (Unicode's
Default_Ignorable_Code_Point, and the blank Braille pattern): they would make different
names look the same."""

UNITS: Mapping[str, int] = MappingProxyType(
    {
        "B": 1,
        **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGTP", 1)},
        **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTP", 1)},
    }
)
"""Bytes of each unit that the configuration accepts."""

_MINUTE = 60.0
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_MONTH = 30.4375 * _DAY
_YEAR = 365.25 * _DAY


def size_text(size: int) -> str:
    """Bytes in two or three digits: ``400 B``, ``1.2 GiB``."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):  # noqa: B007 - the last one
        value /= 1024
        if value < 999.5:
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def exact_size_text(size: int) -> str:
    """Bytes in the largest unit that divides them: ``20 GiB``."""
    fits = {value: unit for unit, value in UNITS.items() if size and not size % value}
    value = max(fits, default=1)
    return f"{size // value} {fits.get(value, 'B')}"


def change_text(size: int, usual: int) -> str:
    """A size compared with the usual one: ``-82 %``, ``+7 %``, ``x40``.

    :param usual: bytes, more than 0
    """
    if size >= 10 * usual:
        return f"x{size / usual:.3g}"
    # Rounded towards 0: only an empty file is -100 %.
    percent = abs(size - usual) * 100 // usual
    sign = "" if not percent else "-" if size < usual else "+"
    return f"{sign}{percent} %"


def change_in_words(size: int | None, usual: int | None) -> str:
    """A size compared with the usual one: ``as usual``, ``12 % smaller``, ``3.0 times
    usual``.

    :param size: bytes; None if nothing was received yet, which gives an empty text
    """
    if size is None:
        return ""
    if not size:
        return "empty"
    if not usual:
        return "not enough history"
    share = size / usual
    if 0.9 <= share <= 1.1:
        return "as usual"
    if share < 1:
        # Never 100 %: the file is not empty.
        return f"{int(100 - 100 * share)} % smaller"
    times = f"{share:,.1f} times usual"
    return times if share >= 2 else f"{100 * share - 100:.0f} % larger"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number and its noun: ``1 file``, ``1,234 files``.

    :param many: the plural, if it is not ``one`` with an s
    """
    return f"{count:,} {plural(count, one, many)}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Only the noun of :func:`counted`."""
    return one if count == 1 else many or f"{one}s"


def joined(words: Sequence[str], last: str = "and") -> str:
    """Words as a list: ``a, b and c``.

    :param last: the word before the last item
    """
    *most, end = words or [""]
    return f"{', '.join(most)} {last} {end}" if most else end


def age_text(seconds: float) -> str:
    """An age in one unit, as the configuration writes it: ``45m``, ``26h``."""
    for unit, length, until in (("s", 1.0, 90), ("m", _MINUTE, 90), ("h", _HOUR, 48)):
        count = max(seconds, 0.0) // length
        if count < until:
            return f"{count:.0f}{unit}"
    return f"{seconds // _DAY:.0f}d"


def about_text(seconds: float) -> str | None:
    """A rough time until something happens: ``4 months``; None from ten years on."""
    if seconds >= 10 * _YEAR:
        return None
    for unit, length, least in (
        ("year", _YEAR, 2),
        ("month", _MONTH, 2),
        ("week", 7 * _DAY, 2),
        ("day", _DAY, 2),
    ):
        if seconds >= least * length:
            return f"{seconds / length:.0f} {unit}s"
    hours = max(round(seconds / _HOUR), 1)
    return "an hour" if hours == 1 else f"{hours} hours"


_SPANS = (
    ("min", _MINUTE, 60),
    ("h", _HOUR, 36),
    ("day", _DAY, 14),
    ("week", 7 * _DAY, 9),
    ("month", _MONTH, 24),
    ("year", _YEAR, math.inf),
)
_ABBREVIATED = frozenset({"min", "h"})


def span(seconds: float) -> str:
    """A duration in one unit: ``3 h``, ``2 days``."""
    unit, length = next(
        (unit, length) for unit, length, until in _SPANS if seconds < until * length
    )
    count = int(seconds // length)
    return f"{count} {unit}" if unit in _ABBREVIATED else counted(count, unit)


def ago(seconds: float) -> str:
    """An age in words: ``just now``, ``3 h ago``."""
    return "just now" if seconds < _MINUTE else f"{span(seconds)} ago"


def recent_text(at: float, now: float, zone: tzinfo) -> str:
    """A time in at most ten characters: the time if it is today, the day of the week in
    the last week, the date before that.
    """
    then, today = local(at, zone), local(now, zone)
    if then is None or today is None:
        return "-"
    days = (today.date() - then.date()).days
    if days == 0:
        return f"{then:%H:%M}"
    return f"{then:%a %H:%M}" if 0 < days < 7 else f"{then:%Y-%m-%d}"


def time_text(at: float, zone: tzinfo) -> str:
    """A time, to the second."""
    then = local(at, zone)
    return "-" if then is None else f"{then:%Y-%m-%d %H:%M:%S}"


def local(at: float, zone: tzinfo) -> datetime | None:
    """A time in a time zone; None if it is out of range.

    :param at: seconds since the epoch
    """
    try:
        return datetime.fromtimestamp(at, zone)
    except (ValueError, OverflowError, OSError):
        return None


def rfc3339(at: float | None, precision: str = "milliseconds") -> str | None:
    """A time for programs, in UTC.

    :param at: seconds since the epoch; None, infinity and times out of range give None
    :param precision: as in ``datetime.isoformat``
    """
    if at is None or math.isinf(at):
        return None
    then = local(at, UTC)
    if then is None:
        return None
    return f"{then.replace(tzinfo=None).isoformat(timespec=precision)}Z"


def moment_text(moment: float) -> str:
    """A time as the configuration writes it, in UTC: a date if the day ends then, or
    else a timestamp to the second.
    """
    at = datetime.fromtimestamp(moment, UTC)
    if at == at.replace(hour=0, minute=0, second=0, microsecond=0):
        return datetime.fromtimestamp(moment - 1, UTC).date().isoformat()
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(text: str, besides: str = "") -> str:
    """``text`` with escapes for characters that must not be printed: control
    characters, direction marks, invisible ones, and those that UTF-8 cannot encode.

    :param besides: further characters to escape
    """
    if not besides and text.isprintable() and not _UNSEEN.search(text):
        return text  # the common case
    return "".join(
        each
        if each.isprintable() and each not in besides and not _UNSEEN.match(each)
        else _escape(each)
        for each in text
    )


def printable_lines(text: str) -> str:
    """Like :func:`printable`, but keeps line feeds."""
    return "\n".join(map(printable, text.split("\n")))


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def columns_of(text: str) -> int:
    """The columns that printable text takes in a terminal."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """Printable text, shortened in the middle if it takes more columns."""
    if columns_of(text) <= columns:
        return text
    left = (columns - 1) // 2
    head = _fitting(text, columns - 1 - left)
    tail = _fitting(reversed(text), left)[::-1]
    while tail and not _columns(tail[0]):
        tail = tail[1:]  # it would combine with the wrong character
    return f"{head}{CUT}{tail}"


def wrapped(text: str, columns: int) -> list[str]:
    """The lines of printable text, broken at spaces if they are longer.

    :param columns: at least 2, which the widest character takes
    """
    lines = []
    while columns_of(text) > columns:
        most = _fitting(text, columns)
        line = text[: len(most) + 1].rpartition(" ")[0].rstrip() or most
        lines.append(line)
        text = text[len(line) :].lstrip()
    return [*lines, text] if text or not lines else lines


def sentence(text: str) -> str:
    """``text`` with a capital letter, unless it begins with the name of a file, or with
    a name and a colon.
    """
    first = text.partition(" ")[0]
    return text if "." in first or first.endswith(":") else text[:1].upper() + text[1:]


def first_line(text: str, columns: int, besides: str = "") -> str:
    """The first line of a text that is not blank, printable and shortened.

    :param besides: further characters to escape
    """
    return cut(printable(next(_lines(text), ""), besides), columns)


def first_and_last_line(text: str, columns: int) -> str:
    """The first and the last line of a text, as :func:`first_line`: what happened, and
    probably why. ``columns`` is for each of them.
    """
    first, *rest = [*_lines(text), ""]
    shown = [first, *rest[-2:-1]]
    return "; ".join(cut(printable(each), columns) for each in shown)


def _lines(text: str) -> Iterator[str]:
    return filter(None, map(str.strip, text.splitlines()))


def _fitting(text: Iterable[str], columns: int) -> str:
    found = ""
    for each in text:
        columns -= _columns(each)
        if columns < 0:
            break
        found += each
    return found
