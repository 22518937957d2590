"""The table for known figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from bench import process as process_module
from bench.cases import FILE_BUCKET, FLOOR
from bench.measure import Case, ProgramTurn, Row, Sample, Samples, ServerTurn, measure
from bench.picture import draw, large_chart, small_chart
from bench.process import Process, run
from bench.report import table
from bench.servers import Server

SVG = "{http://www.w3.org/2000/svg}"


@define
class Told:
    """A turn with given samples."""

    row: Row
    samples: list[Sample]
    order: list[Row]
    folders: list[Path] = field(factory=list)

    def take(self, folder: Path) -> Samples:
        assert not list(folder.iterdir())
        self.order.append(self.row)
        return {self.row: self.samples.pop(0)}


OURS, THEIRS = Row("PUT", "ours"), Row("PUT", "theirs")


class BenchCase(SynchronousTestCase):
    """Provides a folder, and a case with two contestants."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.order: list[Row] = []

    def case(self, ours: list[Sample], theirs: list[Sample]) -> Case:
        turns = [Told(OURS, ours, self.order), Told(THEIRS, theirs, self.order)]
        return Case(
            "case", "A case", turns, "GiB", lambda row: 2.0, lambda row: [THEIRS]
        )


class MeasureTests(BenchCase):
    def test_interleaved(self) -> None:
        """All take their turns in each round, and the first does not count."""
        ours = [Sample(float(number)) for number in (9, 1, 2)]
        theirs = [Sample(float(number)) for number in (8, 3, 4)]
        found = measure(self.case(ours, theirs), 2, self.folder)
        self.assertEqual([OURS, THEIRS] * 3, self.order)
        self.assertEqual([1.0, 2.0], [sample.wall for sample in found[OURS]])
        self.assertEqual([3.0, 4.0], [sample.wall for sample in found[THEIRS]])
        self.assertEqual([], list(self.folder.iterdir()))

    def test_server_turn(self) -> None:
        """A server is started, warmed up, loaded, measured, and stopped."""
        told: list[str] = []
        script = "import time; print('up', flush=True); time.sleep(600)"

        def start(folder: Path) -> Server:
            process = Process([sys.executable, "-c", script], folder / "server.log")
            process.wait_for_line("up")
            self.process = process
            return Server(process, 0, folder)

        def load(name: str, **more: float) -> dict[str, float]:
            told.append(name)
            return more

        turn = ServerTurn(
            "python",
            start,
            {
                "one": lambda server: load("one", wall=5.0, extra=7.0),
                "two": lambda server: load("two"),
            },
            lambda server: load("warm"),
        )
        found = turn.take(self.folder)
        self.assertEqual(["warm", "one", "two"], told)
        one, two = found[Row("one", "python")], found[Row("two", "python")]
        self.assertEqual((5.0, {"extra": 7.0}), (one.wall, one.more))
        self.assertLess(two.wall, 5.0)
        self.assertGreater(one.memory, 1_000_000)
        self.assertRaises(RuntimeError, self.process.wait_for_line, "never")

    def test_failed_start(self) -> None:
        """A server that fails to start is not left running."""
        process = Process(
            [sys.executable, "-c", "print('no port')"], self.folder / "server.log"
        )
        error = self.assertRaises(RuntimeError, process.wait_for_line, "ready")
        self.assertIn("no port", str(error))
        self.patch(process_module, "PATIENCE", 0.0)
        process = Process(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            self.folder / "server.log",
        )
        self.assertRaises(RuntimeError, process.wait_for_line, "ready")
        self.assertEqual(0.0, process.cpu())

    def test_program_turn(self) -> None:
        """A program prints its own time, or is timed; its processor time counts."""
        work = "for _ in range(3_000_000): pass"
        for line, expected in ((f"{work}\nprint(123.5)", 123.5), (work, None)):
            command = (sys.executable, "-c", line)
            turn = ProgramTurn("python", "work", partial(_command, command))
            (sample,) = turn.take(self.folder).values()
            self.assertGreater(sample.cpu, 0.0)
            if expected is None:
                self.assertLess(sample.wall, 60.0)
            else:
                self.assertEqual(expected, sample.wall)

    def test_failing_program(self) -> None:
        """The error has the output of a failed program."""
        error = self.assertRaises(
            RuntimeError, run, [sys.executable, "-c", "raise SystemExit('no disk')"]
        )
        self.assertTrue(str(error).endswith(": no disk"), error)


class PictureTests(SynchronousTestCase):
    """The picture of the main results."""

    def parsed(self, text: str) -> tuple[list[str], list[int]]:
        """The texts, and the widths of the bars."""
        root = ElementTree.fromstring(text)
        texts = [each.text or "" for each in root.iter(f"{SVG}text")]
        bars = [int(each.attrib["width"]) for each in root.iter(f"{SVG}rect")]
        return texts, bars[1:]

    def test_draw(self) -> None:
        """Each contestant has a bar, as long as its median, and its figure."""
        seconds = {FILE_BUCKET: 0.5, FLOOR: 0.25, "copyparty": 1.0, "nginx": 0.0625}

        def found(load: str) -> dict[Row, list[Sample]]:
            return {
                Row(load, name): [Sample(9.0), Sample(wall), Sample(0.01)]
                for name, wall in seconds.items()
            }

        case = Case("case", "A case", [], "1", lambda row: 0.25, lambda row: [])
        texts, bars = self.parsed(
            draw(
                [
                    small_chart(case, found("PUT, 16 kept")),
                    large_chart(case, found("PUT, 1 at once")),
                ]
            )
        )
        # The fourth is twice the second, and cut: it would be twice as long.
        self.assertEqual([110, 220, 55, 440, 220, 110, 440, 28], bars)
        for text in ("500", "1,000", "4,000", "0.50 s", "1.00 s", "0.06 s"):
            self.assertIn(text, texts)
        self.assertIn("Seconds for a file of 256 MiB (shorter is better)", texts)

    def test_document(self) -> None:
        """The picture in the document is one of these."""
        docs = Path(__file__).parent.parent / "docs"
        place = "pictures/performance.svg"
        text = (docs / "explanation" / "performance.rst").read_text()
        self.assertTrue(f".. image:: ../{place}" in text)
        texts, bars = self.parsed((docs / place).read_text())
        self.assertEqual(8, len(bars))
        for name in (FILE_BUCKET, FLOOR, "copyparty", "nginx"):
            self.assertEqual(2, texts.count(name), name)


class TableTests(BenchCase):
    def test_table(self) -> None:
        """Medians, minima, peak memory, and ratios of medians for a unit."""
        ours = [
            Sample(1.0, 0.5, 1_000_000, {"extra": 1.0}),
            Sample(2.0, 1.0, 3_000_000, {"extra": 2.0}),
            Sample(9.0, 4.0, 2_000_000, {"extra": 30.0}),
        ]
        theirs = [Sample(4.0, 4.0), Sample(4.0, 4.0), Sample(0.01, 4.0)]
        case = self.case([], [])
        text = table(case, {OURS: ours, THEIRS: theirs})
        title, underline, _, rule, head, _, first, second, _ = text.splitlines()
        self.assertEqual(("A case", "------"), (title, underline))
        self.assertEqual(set("= "), set(rule))
        self.assertEqual(
            "load contestant wall s min ratio CPU s/GiB ratio peak MB extra",
            _words(head),
        )
        self.assertEqual("PUT ours 2.00 1.00 0.50 0.50 0.25 3.0 2.00", _words(first))
        self.assertEqual(r"PUT theirs 4.00 0.0100 1.00 2.00 1.00 \- \-", _words(second))

    def test_reference_of_two(self) -> None:
        """A row may be compared with the sum of two."""
        case = Case(
            "case", "A case", [], "GiB", lambda row: 1.0, lambda row: [OURS, THEIRS]
        )
        found = {OURS: [Sample(3.0)], THEIRS: [Sample(1.0)]}
        first, second = table(case, found).splitlines()[6:8]
        self.assertIn(" 0.75 ", first)
        self.assertIn(" 0.25 ", second)


def _command(command: Sequence[str], folder: Path) -> Sequence[str]:
    return command


def _words(line: str) -> str:
    return " ".join(line.split())
