"""Retention: which files of a series are kept, and why.

The rules count as restic's forget does: ``last`` keeps the newest files; ``daily``,
``weekly`` (ISO 8601), ``monthly`` and ``yearly`` keep the newest file of each of the
last N periods that have a file, in a given time zone. If a rule has places left over,
the oldest file is kept, too. A file's time is when it was received, which no client can
choose. Further rules:

* A file younger than ``hold`` is kept, so that there is time to notice a problem. A
  file from the future is kept, too, and uses up no place: a clock that was wrong for an
  hour must not cost earlier files.
* The last good file is kept. A file is *good* unless it is known to be damaged, is
  empty, or was suspiciously small when it was received. If no file is good, the last
  file is kept.
* The rules are applied twice, to all files and to the good files alone, and a file that
  either keeps is kept. So no number of bad files displaces a good file, and a bad file
  that a rule selects is kept, since a dump that shrank may be all there is.

An attacker who has the token can push files of the usual size, which are good. All of
one day's files together take one place of a daily, weekly, monthly and yearly rule, but
one place each of ``last``. So older files are lost one day at a time at most, or, with
``last`` alone, when ``hold`` has passed.

Nothing here reads a disk or the clock. Memory does not grow with the number of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo

import attrs
from attrs import define, field, frozen

from filebucket.model.bucket import Keep
from filebucket.model.empty import holds_nothing
from filebucket.model.records import File
from filebucket.model.state import State

LAST = "last"

_PERIODS = {
    "daily": "%Y-%m-%d",
    "weekly": "%G-W%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}
"""Formats that identify a period."""

YOUNG = "younger than hold"
LAST_GOOD = "last good file"
LAST_OF_ALL = "last file"
OF_THE_GOOD = "among good files"


@frozen
class Choice:
    """Whether a file is kept.

    :param reasons: why it is kept, each in a few words; empty if it is not
    """

    file: File
    reasons: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether the file is kept."""
        return bool(self.reasons)


def is_good(file: File) -> bool:
    """Whether a file is not known to be bad."""
    received = file.received
    return (
        not file.damaged
        and file.judgement is not State.SHRUNK
        # Checked again: the judgement may predate a newer rule.
        and not holds_nothing(received.name, received.size, received.sha256)
    )


def choose(
    files: Iterable[File], keep: Keep, hold: float, now: float, zone: tzinfo
) -> Iterator[Choice]:
    """Choose for each file of a series whether to keep it.

    :param files: all files of the series, newest first
    :param hold: seconds for which each file is kept
    :param now: seconds since the epoch
    :param zone: the time zone for days, weeks, months and years
    :returns: the same files in the same order, except that one or two candidates for
        the oldest file come last
    """
    everything, good = _Rules(keep, zone), _Rules(keep, zone)
    waiting: list[_Draft] = []
    last: _Draft | None = None
    last_good: _Draft | None = None
    for file in files:
        age = now - file.received.received_at
        young = [YOUNG] if age < hold else []
        draft = _Draft(file, is_good(file), others=young)
        if age < 0:
            yield draft.choice
            continue
        draft.add(everything.places_of(file))
        if draft.good:
            draft.add(good.places_of(file), OF_THE_GOOD)
            if last_good is None:
                draft.others.insert(0, LAST_GOOD)
            last_good = draft
        elif last is None:
            draft.others.insert(0, LAST_OF_ALL)
        last = draft
        # A candidate is not the oldest after all.
        for each in waiting:
            if draft.good or not each.good:
                yield each.choice
        waiting = [each for each in waiting if each.good and not draft.good]
        waiting.append(draft)
    if last is not None:
        last.add(everything.left_over())
    if last_good is not None:
        last_good.add(good.left_over(), OF_THE_GOOD)
    for each in waiting:
        yield each.choice


@define
class _Draft:
    """A choice in the making.

    :ivar places: reasons by rule
    :ivar others: further reasons
    """

    file: File
    good: bool
    places: dict[str, str] = field(factory=dict)
    others: list[str] = field(factory=list)

    def add(self, places: dict[str, str], addition: str = "") -> None:
        """Add reasons, except for rules that have one already."""
        for rule, place in places.items():
            self.places.setdefault(rule, f"{place} {addition}".rstrip())

    @property
    def choice(self) -> Choice:
        return Choice(self.file, (*self.places.values(), *self.others))


class _Rules:
    """The rules, applied to files from the newest to the oldest."""

    def __init__(self, keep: Keep, zone: tzinfo) -> None:
        self._zone = zone
        self._places = {
            rule: count for rule, count in attrs.asdict(keep).items() if count
        }
        self._taken: dict[str, set[str]] = {rule: set() for rule in self._places}

    def places_of(self, file: File) -> dict[str, str]:
        """The reasons to keep the next file, by rule."""
        then = datetime.fromtimestamp(file.received.received_at, self._zone)
        found = {}
        for rule, count in self._places.items():
            taken = self._taken[rule]
            if rule == LAST:
                period = f"{len(taken) + 1} of {count}"
            else:
                period = then.strftime(_PERIODS[rule])
            # A set: if clocks are set back over midnight, a day occurs twice.
            if len(taken) < count and period not in taken:
                taken.add(period)
                found[rule] = f"{rule} {period}"
        return found

    def left_over(self) -> dict[str, str]:
        """The reasons to keep the oldest file, after all others."""
        return {
            rule: f"oldest {rule}"
            for rule, count in self._places.items()
            if len(self._taken[rule]) < count
        }
