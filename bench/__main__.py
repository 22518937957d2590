"""``python -m bench``: runs cases and prints their table."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click

from bench.cases import CASES, ENDS, FULL, QUICK
from bench.measure import measure
from bench.picture import draw, large_chart, small_chart
from bench.process import run
from bench.report import table

HERE = Path(__file__).parent
PROGRAMS = {
    "floor": ["-lcrypto"],
    "push": ["-lssl"],
    "trickle": [],
    "durable": ["-pthread"],
    "spawn": [],
}
NEEDED = ("cc", "curl", "nginx", "openssl")
PACKAGES = ("twisted", "multipart", "copyparty", "uploadserver", "wsgidav", "cheroot")


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--full", is_flag=True, help="Use larger files, more pushes, more time.")
@click.option(
    "--rounds", default=7, show_default=True, help="Number of rounds that count."
)
@click.option(
    "--directory",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder on the disk to measure.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the results of small and large as an SVG picture.",
)
def main(
    cases: Sequence[str],
    full: bool,
    rounds: int,
    directory: Path,
    picture: Path | None,
) -> None:
    """Measure CASES, or all of them."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise click.ClickException(f"not installed: {', '.join(missing)}")
    if picture is not None and cases and not {"small", "large"} <= {*cases}:
        raise click.UsageError("--picture needs the cases small and large")
    # For a thousand clients, with a connection, a file and a directory each.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=directory.absolute()))
    try:
        tools = folder / "tools"
        tools.mkdir()
        for name, libraries in PROGRAMS.items():
            source = str(HERE / f"{name}.c")
            run(["cc", "-O2", "-o", str(tools / name), source, *libraries])
        print(_machine(folder))
        results = {}
        for name in cases or CASES:
            case = CASES[name](FULL if full else QUICK, tools)
            results[name] = case, measure(case, rounds, folder)
            print(f"\n{table(*results[name])}", flush=True)
        if picture is not None:
            charts = small_chart(*results["small"]), large_chart(*results["large"])
            picture.write_text(draw(charts))
    finally:
        ENDS.close()
        shutil.rmtree(folder)


def _machine(folder: Path) -> str:
    """The machine and the versions."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    filesystem = run(["df", "--output=fstype", str(folder)]).split()[-1]
    programs = [
        run(["curl", "--version"]).split()[1],
        run(["sh", "-c", "nginx -v 2>&1"]).strip().rpartition("/")[2],
        run(["openssl", "version"]).split()[1],
    ]
    packages = (f"{name} {version(name)}" for name in PACKAGES)
    return "\n".join(
        (
            f"Machine: {os.cpu_count()} x {cpu}, {memory:.0f} GiB, {filesystem},"
            f" Linux {platform.release()}.",
            f"Versions: Python {platform.python_version()}, {', '.join(packages)},"
            " curl {}, nginx {}, OpenSSL {}.".format(*programs),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
