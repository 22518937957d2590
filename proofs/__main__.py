"""``python -m proofs``: runs experiments, and prints a line of figures for each."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from twisted.trial.unittest import SkipTest

from proofs.cases import CASES
from proofs.outcome import Outcome, Proof

MOST_FAULTS = 5
"""Faults of an experiment that are printed."""

_SEPARATE = "PROOFS_MOUNTS_ARE_SEPARATE"
"""Variable of the environment that is set once they are."""


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--list", "names", is_flag=True, help="Print the names of all cases.")
@click.option("--quick", is_flag=True, help="Run only a few trials of each.")
@click.option("--trials", type=int, help="Number of trials, or seconds, of each.")
@click.option(
    "--directory",
    default=tempfile.gettempdir(),
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with about 20 GB of free space.",
)
def main(
    cases: Sequence[str],
    names: bool,
    quick: bool,
    trials: int | None,
    directory: Path,
) -> None:
    """Try to break the promises in CASES, or all of them."""
    if names:
        click.echo("\n".join(CASES))
        return
    if os.geteuid():
        raise click.ClickException("only root can mount filesystems and cut networks")
    _separate_mounts()
    # What it has started and stored goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # For a thousand clients at once.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    held = True
    for name in cases or CASES:
        proof = CASES[name]
        number = trials or (proof.quick if quick else proof.trials)
        began = time.monotonic()
        try:
            outcome = _run(proof, number, directory)
        except SkipTest as missing:
            click.echo(f"{name:24} skipped         {missing}")
            continue
        seconds = time.monotonic() - began
        verdict = "FAILED" if outcome.faults else "held"
        click.echo(f"{name:24} {verdict:6} {seconds:5.0f} s  {outcome.figures}")
        for fault in outcome.faults[:MOST_FAULTS]:
            click.echo(f"{'':24} {fault}")
        held = held and not outcome.faults
    sys.exit(not held)


def _separate_mounts() -> None:
    """Continue in a mount namespace of our own.

    In a shared one, a program that makes a namespace for itself, such as Chromium,
    keeps a copy of each mount of ours. Such a filesystem cannot recover after a cut: it
    stays mounted.
    """
    if not os.environ.get(_SEPARATE):
        os.environ[_SEPARATE] = "1"
        command = ("unshare", "--mount", sys.executable, "-m", "proofs", *sys.argv[1:])
        os.execvp(command[0], command)


def _run(proof: Proof, trials: int, directory: Path) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="proofs-", dir=directory))
    try:
        return proof.prove(folder, trials)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
