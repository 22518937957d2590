"""Which files of a series are kept, and why.

As restic's forget counts: the newest ones; of the latest days, weeks (as ISO 8601 has
them), months and years that have any file the newest one each, in a given time zone;
and where places are left over then, the oldest file. The time is always that of
receipt, which no client can choose. Beside the rules:

* A file younger than ``hold`` stays, so that whatever goes wrong there is time to see
  it. One from the future is younger than that, and takes nobody's place: a clock that
  was wrong for an hour is not to cost what came before.
* The last good file stays. *Good* is what is not known to be bad: not damaged, not
  empty, and not suspiciously small when it came. Where none is good, the last one
  stays.
* The rules are applied twice, to all files and to the good ones alone, and what either
  keeps stays. So a bad file takes no good one's place, however many there are; and it
  stays itself where a rule has it, since a dump that shrank may be all there is.

What a holder of the token pushes is good, if it is as large as what came before: it
may well take places. As many files as they like take one place of a day, a week, a
month and a year each; but all of ``last``. So what was there before goes day by day
at the earliest, or where there is only ``last``, when ``hold`` is over.

Nothing here looks at a disk or asks the time. Memory does not grow with the files.
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
"""What tells a day from all others, and so on."""

YOUNG = "younger than hold"
LAST_GOOD = "last good file"
LAST_OF_ALL = "last file"
OF_THE_GOOD = "among good files"


@frozen
class Choice:
    """A file, and what keeps it.

    :param reasons: each in a few words; none keeps it where there are none
    """

    file: File
    reasons: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def is_good(file: File) -> bool:
    """Whether nothing bad is known of a file."""
    received = file.received
    return (
        not file.damaged
        and file.judgement is not State.SHRUNK
        # Whatever was thought of it when it came.
        and not holds_nothing(received.name, received.size, received.sha256)
    )


def choose(
    files: Iterable[File], keep: Keep, hold: float, now: float, zone: tzinfo
) -> Iterator[Choice]:
    """Say of each file of a series whether it stays.

    :param files: all that are there, the newest first
    :param hold: seconds that each stays
    :param now: seconds since the epoch
    :param zone: whose days they are
    :returns: the same files, but for one or two in the same order: what may yet be
        the oldest is answered last
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
        # There is an older one now, and an older good one.
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
    """A choice that is not made yet.

    :ivar places: what each rule says
    :ivar others: what beside the rules keeps it
    """

    file: File
    good: bool
    places: dict[str, str] = field(factory=dict)
    others: list[str] = field(factory=list)

    def add(self, places: dict[str, str], addition: str = "") -> None:
        """Places that it has; where one of that rule is known, it is no news."""
        for rule, place in places.items():
            self.places.setdefault(rule, f"{place} {addition}".rstrip())

    @property
    def choice(self) -> Choice:
        return Choice(self.file, (*self.places.values(), *self.others))


class _Rules:
    """The rules, on their way from the newest file to the oldest."""

    def __init__(self, keep: Keep, zone: tzinfo) -> None:
        self._zone = zone
        self._places = {
            rule: count for rule, count in attrs.asdict(keep).items() if count
        }
        self._taken: dict[str, set[str]] = {rule: set() for rule in self._places}

    def places_of(self, file: File) -> dict[str, str]:
        """What the rules have for the next file."""
        then = datetime.fromtimestamp(file.received.received_at, self._zone)
        found = {}
        for rule, count in self._places.items():
            taken = self._taken[rule]
            if rule == LAST:
                period = f"{len(taken) + 1} of {count}"
            else:
                period = then.strftime(_PERIODS[rule])
            # A set, since where clocks are set back over midnight a day comes twice.
            if len(taken) < count and period not in taken:
                taken.add(period)
                found[rule] = f"{rule} {period}"
        return found

    def left_over(self) -> dict[str, str]:
        """What they have for the oldest file, when all are through."""
        return {
            rule: f"oldest {rule}"
            for rule, count in self._places.items()
            if len(self._taken[rule]) < count
        }
