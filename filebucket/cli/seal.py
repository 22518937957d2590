"""``filebucket seal``: make stored files immutable.

:mod:`filebucket.store.seal` does the work.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import click
from attrs import define, field

from filebucket.base.errors import OperatorError
from filebucket.base.text import plural, printable
from filebucket.cli.options import (
    bucket_labels,
    chosen_buckets,
    print_json,
    with_config,
    with_json,
)
from filebucket.config.load import load
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.store.seal import Fate, Home, Result, sealing

Results: TypeAlias = Iterator[tuple[str | None, Result]]
"""With the label of the bucket; None is the home."""

HOME = "the storage folder"
MOST_REASONS = 1000
"""Files and buckets whose reason is printed: if sealing does not work, this may be
every file."""
OVERWRITE = "not sealed: the bucket has overwrite"


@click.command()
@click.argument("labels", metavar="[BUCKET]...", nargs=-1, shell_complete=bucket_labels)
@click.option(
    "--lift",
    is_flag=True,
    help="Make files changeable again: all, those of BUCKET, or only the NAMEs after"
    " BUCKET.",
)
@with_config
@with_json
def seal(labels: Sequence[str], path: str, as_json: bool, lift: bool) -> None:
    """Make stored files immutable. Run it as root.

    Seals files that have not changed for the time span 'seal' in the configuration.
    Then no process of the daemon's user can change, rename or delete them. Buckets with
    'overwrite' are left out. Exits with 1 if a file cannot be sealed.

    With --lift [BUCKET [NAME]...], makes files changeable, for a repair or a move. A
    later run of 'filebucket seal' seals them again.
    """
    config = load(path)
    if config.seal is None and not lift:
        if as_json:
            _Tally(lambda name: name).print_json()
        else:
            click.echo("Nothing to seal: 'seal' is not in the configuration.")
        return
    if config.store is not None:
        raise OperatorError(
            "files in an object store cannot be sealed; protect them with its object"
            " lock: see docs/how-to/object-store.rst"
        )
    chosen = chosen_buckets(config, labels[:1] if lift else labels)
    names = [os.fsencode(each) for each in labels[1:]] if lift else []
    tally = _Tally(mask(config.buckets))
    # A process that opens a file while it is looked at must not end this one.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    with sealing(config.home) as home:
        if lift:
            results = _lift(home, chosen, names)
        else:
            assert config.seal is not None
            results = _seal(home, chosen, time.time() - config.seal)
        # Nothing is printed yet: if that fails, the files are sealed all the same.
        try:
            for label, result in results:
                tally.add(label, result)
        finally:
            if not as_json:
                tally.print_reasons()
    if as_json:
        tally.print_json()
    else:
        click.echo(tally.text(lift))
    if tally.failed:
        raise SystemExit(1)


def _seal(home: Home, buckets: Sequence[Bucket], before: float) -> Results:
    yield None, home.protect()
    for bucket in buckets:
        if bucket.overwrite:
            yield bucket.label, Result(None, Fate.LEFT, OVERWRITE)
            continue
        for result in home.seal(bucket.directory, before):
            yield bucket.label, result


def _lift(home: Home, buckets: Sequence[Bucket], names: Sequence[bytes]) -> Results:
    if not names:
        # The folder of a bucket can then be renamed or removed, too.
        yield None, home.unprotect()
    for bucket in buckets:
        for result in home.lift(bucket.directory, names or None):
            yield bucket.label, result


@define
class _Tally:
    """Counts of results.

    :ivar hide: masks tokens in names
    :ivar reasons: why files and buckets are not sealed
    """

    hide: Callable[[str], str]
    counts: dict[Fate, int] = field(factory=lambda: dict.fromkeys(Fate, 0))
    reasons: list[dict[str, str | None]] = field(factory=list)

    @property
    def failed(self) -> int:
        return self.counts[Fate.FAILED]

    def add(self, label: str | None, result: Result) -> None:
        if result.name is not None or result.fate in (Fate.FAILED, Fate.LEFT):
            self.counts[result.fate] += 1
        if not result.reason or len(self.reasons) >= MOST_REASONS:
            return
        name = None
        if result.name is not None:
            name = self.hide(result.name.decode("utf-8", "backslashreplace"))
        self.reasons.append({"bucket": label, "name": name, "reason": result.reason})

    def print_reasons(self) -> None:
        """For people, one in a line."""
        for each in self.reasons:
            place = "  ".join(filter(None, (each["bucket"] or HOME, each["name"])))
            click.echo(printable(f"{place}: {each['reason']}"))

    def text(self, lift: bool) -> str:
        """The summary line."""
        done = self.counts[Fate.LIFTED if lift else Fate.SEALED]
        said = f"{'Lifted' if lift else 'Sealed'} {done} {plural(done, 'file')}"
        others = (
            (self.counts[Fate.ALREADY], "sealed before"),
            (self.counts[Fate.YOUNG], "too new"),
            (self.failed, "failed"),
        )
        rest = ", ".join(f"{count} {word}" for count, word in others if count)
        return f"{said}; {rest}." if rest else f"{said}."

    def print_json(self) -> None:
        print_json(
            **{each.name.lower(): count for each, count in self.counts.items()},
            reasons=self.reasons,
        )
